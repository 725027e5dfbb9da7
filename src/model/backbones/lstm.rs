//! Long short-term memory (Hochreiter and Schmidhuber 1997; forget gate by Gers et al. 2000).
//!
//! Time grows with the length of a history, not its square: for long histories on few cores. Four gates make it the
//! largest of the recurrent ones and the one that remembers longest.

use tch::{Tensor, nn};

use super::super::intent::IntentShape;
use super::super::recurrent::{Cell, Recurrent, Sizes};
use super::{Backbone, Padded, Summary};
use crate::failure::Result;

#[derive(Debug)]
pub struct Lstm(Recurrent);

impl Lstm {
    pub fn new(path: &nn::Path, shape: &IntentShape) -> Self {
        let sizes = Sizes { inputs: shape.width, width: shape.width, layers: shape.layers, dropout: shape.dropout };
        Self(Recurrent::new(path, Cell::Lstm, sizes))
    }
}

impl Backbone for Lstm {
    fn read(&self, events: &Padded, train: bool) -> Result<Tensor> {
        self.0.states(&events.x, train)
    }

    fn summary(&self) -> Summary {
        Summary::Last
    }
}
