//! The recurrent backbones `lstm`, `gru` and `rnn`, which read a history as GRU4Rec does (Hidasi et al. 2016).
//!
//! Time grows with the length of a history, not with its square: choose one for long histories on few cores.
//! [`RecurrentCell`] says how the cells differ.

use tch::{Tensor, nn};

use super::backbone::{Backbone, PaddedEvents, StateSummary};
use crate::failure::Result;
use crate::model::recurrent::{RecurrentCell, RecurrentStack, StackSizes};
use crate::model::shape::IntentShape;

#[derive(Debug)]
pub(crate) struct RecurrentBackbone(RecurrentStack);

impl RecurrentBackbone {
    pub(crate) fn new(path: &nn::Path, cell: RecurrentCell, shape: &IntentShape) -> Self {
        let sizes =
            StackSizes { inputs: shape.width, width: shape.width, layers: shape.layers, dropout: shape.dropout };
        Self(RecurrentStack::new(path, cell, sizes))
    }
}

impl Backbone for RecurrentBackbone {
    fn states(&self, events: &PaddedEvents, train: bool) -> Result<Tensor> {
        self.0.states(&events.x, train)
    }

    fn summary(&self) -> StateSummary {
        StateSummary::Last
    }
}
