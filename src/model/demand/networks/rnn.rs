//! The plain recurrent network over the days of a history: remembers a few weeks; a baseline for the gated ones.

use tch::{Tensor, nn};

use super::super::DemandShape;
use super::HistoryNetwork;
use crate::failure::Result;
use crate::model::recurrent::{Cell, Recurrent, Sizes};

#[derive(Debug)]
pub struct Rnn(Recurrent);

impl Rnn {
    pub fn new(path: &nn::Path, shape: &DemandShape, inputs: i64) -> Self {
        let sizes = Sizes { inputs, width: shape.width, layers: shape.layers, dropout: 0.0 };
        Self(Recurrent::new(path, Cell::Rnn, sizes))
    }
}

impl HistoryNetwork for Rnn {
    fn read(&self, days: &Tensor, train: bool) -> Result<Tensor> {
        Ok(self.0.states(days, train)?.select(1, -1))
    }
}
