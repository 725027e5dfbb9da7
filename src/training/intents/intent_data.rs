//! The data that the intent network is trained and evaluated on.

use std::sync::Arc;

use crate::model::bundle::IndexedItem;
use crate::model::contents::Contents;
use crate::training::datasets::{UserBlocks, UserStatistics};

/// The users to train on, the catalogue, and the users to evaluate on.
#[derive(Debug, Clone, Copy)]
pub struct IntentData<'a> {
    pub train: &'a Arc<UserBlocks>,
    pub statistics: &'a UserStatistics,
    /// Users of the validation and test splits.
    pub held_out: &'a UserBlocks,
    pub items: &'a [IndexedItem],
    pub contents: &'a Arc<Contents>,
}
