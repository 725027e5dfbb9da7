//! The interface of every behaviour backbone.

use std::fmt;
use tch::Tensor;

use crate::failure::Result;

/// Embedded events of several users, padded at the end to the longest history.
#[derive(Debug)]
pub(crate) struct PaddedEvents {
    /// float32 [users, events, width], oldest event first.
    pub(crate) x: Tensor,
    /// int64 [users]; 0 for a user without events.
    pub(crate) lengths: Tensor,
    /// bool [users, events]; false for padding.
    pub(crate) present: Tensor,
    /// False where all histories are equally long, so that no event is padding.
    pub(crate) has_padding: bool,
}

/// States that summarise a user's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StateSummary {
    /// The newest event's state, which has seen all other events.
    Last,
    /// The newest event's state and the mean of all states.
    LastAndMean,
}

/// A network that turns a user's embedded events into one state per event.
pub(crate) trait Backbone: fmt::Debug + Send {
    /// Returns one state per event, float32 [users, events, width]. The states of real events must not depend on padding;
    /// the states of padding may be any finite numbers.
    fn states(&self, events: &PaddedEvents, train: bool) -> Result<Tensor>;

    fn summary(&self) -> StateSummary;
}
