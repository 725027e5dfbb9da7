//! The plain recurrent network (Elman 1990) with tanh: the smallest and fastest, and what the gated ones have to beat.
//!
//! Its gradient fades within some tens of events; choose it where only the last few matter, or as a baseline.

use tch::{Tensor, nn};

use super::super::intent::IntentShape;
use super::super::recurrent::{Cell, Recurrent, Sizes};
use super::{Backbone, Padded, Summary};
use crate::failure::Result;

#[derive(Debug)]
pub struct Rnn(Recurrent);

impl Rnn {
    pub fn new(path: &nn::Path, shape: &IntentShape) -> Self {
        let sizes = Sizes { inputs: shape.width, width: shape.width, layers: shape.layers, dropout: shape.dropout };
        Self(Recurrent::new(path, Cell::Rnn, sizes))
    }
}

impl Backbone for Rnn {
    fn read(&self, events: &Padded, train: bool) -> Result<Tensor> {
        self.0.states(&events.x, train)
    }

    fn summary(&self) -> Summary {
        Summary::Last
    }
}
