//! The bidirectional transformer: every event attends to every other event, as in BERT (Devlin et al. 2019).
//!
//! The strongest backbone for short histories, since later events inform the states of earlier ones. Time and memory grow
//! with the square of a history's length.

use tch::{Tensor, nn};

use super::attention::{AttentionBlocks, AttentionMask};
use super::backbone::{Backbone, PaddedEvents, StateSummary};
use crate::failure::Result;
use crate::model::shape::IntentShape;

#[derive(Debug)]
pub(crate) struct Transformer(AttentionBlocks);

impl Transformer {
    pub(crate) fn new(path: &nn::Path, shape: &IntentShape) -> Self {
        Self(AttentionBlocks::new(path, shape))
    }
}

impl Backbone for Transformer {
    fn states(&self, events: &PaddedEvents, train: bool) -> Result<Tensor> {
        if let Some(kernel) = self.0.short(&events.x, &events.lengths)? {
            return self.0.states(&events.x, AttentionMask::Short(kernel), train);
        }
        if !events.has_padding {
            // The kernel is faster without a mask, and users are sorted by length: most batches need none.
            return self.0.states(&events.x, AttentionMask::All, train);
        }
        // A softmax over no event is NaN, so users without events attend to their padding. Those states are never used.
        let without_events = events.lengths.eq(0).unsqueeze(1);
        let visible = events.present.logical_or(&without_events).unsqueeze(1).unsqueeze(1);
        self.0.states(&events.x, AttentionMask::Visible(&visible), train)
    }

    fn summary(&self) -> StateSummary {
        StateSummary::LastAndMean
    }
}
