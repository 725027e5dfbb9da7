//! The causal transformer: an event attends to itself and to earlier events, as in GPT (Radford et al. 2018) and SASRec
//! (Kang and McAuley 2018). The newest event's state has seen every event, so it alone summarises the user.
//!
//! Padding comes after the real events, so the causal mask already hides it from them.

use tch::{Tensor, nn};

use super::attention::{AttentionBlocks, AttentionMask};
use super::backbone::{Backbone, PaddedEvents, StateSummary};
use crate::failure::Result;
use crate::model::shape::IntentShape;

#[derive(Debug)]
pub(crate) struct Causal(AttentionBlocks);

impl Causal {
    pub(crate) fn new(path: &nn::Path, shape: &IntentShape) -> Self {
        Self(AttentionBlocks::new(path, shape))
    }
}

impl Backbone for Causal {
    fn states(&self, events: &PaddedEvents, train: bool) -> Result<Tensor> {
        self.0.states(&events.x, AttentionMask::Causal, train)
    }

    fn summary(&self) -> StateSummary {
        StateSummary::Last
    }
}
