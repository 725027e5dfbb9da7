//! The data that the intent network is trained and evaluated on.

use std::sync::Arc;

use crate::features::contract::FeatureContract;
use crate::model::bundle::IndexedItem;
use crate::model::contents::Contents;
use crate::training::datasets::{UserBlocks, UserStatistics};

/// The users to train on, the catalogue, and the users to evaluate on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IntentData<'a> {
    pub(crate) train: &'a Arc<UserBlocks>,
    pub(crate) statistics: &'a UserStatistics,
    /// Users of the validation and test splits.
    pub(crate) held_out: &'a UserBlocks,
    /// Users of the training split at the dates that hold their labels out.
    pub(crate) newest: &'a UserBlocks,
    pub(crate) items: &'a [IndexedItem],
    pub(crate) contents: &'a Arc<Contents>,
    /// The tabular features, in order.
    pub(crate) contract: &'a FeatureContract,
}
