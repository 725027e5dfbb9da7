//! Requests that wait for an owner of the network, and their answers.

use tokio::sync::oneshot;

use super::explanation::Explanation;
use super::item_index::ItemIndex;
use crate::failure::Result;
use crate::model::blend::MemberOutputs;
use crate::model::bundle::IndexedItem;
use crate::model::contents::Contents;
use crate::model::demand::{ItemForecast, ItemHistory};
use crate::model::inputs::UserInputs;

/// Scores of users in row order.
#[derive(Debug)]
pub struct IntentScores {
    /// Row-major [users, targets].
    pub scores: Vec<f32>,
    /// Taste vectors, row-major [users, width].
    pub tastes: Vec<f32>,
    pub(crate) members: MemberOutputs,
}

/// Rows to work on, and where the answer goes.
pub(super) enum Request {
    Users(UserInputs, Answer<IntentScores>),
    /// Users whose contents are in a collection of their own.
    OwnContents(UserInputs, Box<Contents>, Answer<IntentScores>),
    /// One user and a binary target.
    Explain(UserInputs, usize, Answer<Explanation>),
    Items(Vec<ItemHistory>, Answer<Vec<ItemForecast>>),
    Catalogue(Vec<IndexedItem>, Answer<ItemIndex>),
}

pub(super) type Answer<T> = oneshot::Sender<Result<T>>;

impl Request {
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Users(inputs, _) | Self::OwnContents(inputs, ..) | Self::Explain(inputs, ..) => inputs.len(),
            Self::Items(items, _) => items.len(),
            Self::Catalogue(items, _) => items.len(),
        }
    }
}
