//! The gated recurrent unit (Cho et al. 2014), as GRU4Rec reads sessions (Hidasi et al. 2016).
//!
//! Three quarters of an LSTM in weights and time, and seldom worse on histories of a hundred events.

use tch::{Tensor, nn};

use super::super::intent::IntentShape;
use super::super::recurrent::{Cell, Recurrent, Sizes};
use super::{Backbone, Padded, Summary};
use crate::failure::Result;

#[derive(Debug)]
pub struct Gru(Recurrent);

impl Gru {
    pub fn new(path: &nn::Path, shape: &IntentShape) -> Self {
        let sizes = Sizes { inputs: shape.width, width: shape.width, layers: shape.layers, dropout: shape.dropout };
        Self(Recurrent::new(path, Cell::Gru, sizes))
    }
}

impl Backbone for Gru {
    fn read(&self, events: &Padded, train: bool) -> Result<Tensor> {
        self.0.states(&events.x, train)
    }

    fn summary(&self) -> Summary {
        Summary::Last
    }
}
