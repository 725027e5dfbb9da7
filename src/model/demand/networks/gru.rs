//! The gated recurrent unit over the days of a history: the default; as good as an LSTM here and a quarter smaller.

use tch::{Tensor, nn};

use super::super::DemandShape;
use super::HistoryNetwork;
use crate::failure::Result;
use crate::model::recurrent::{Cell, Recurrent, Sizes};

#[derive(Debug)]
pub struct Gru(Recurrent);

impl Gru {
    pub fn new(path: &nn::Path, shape: &DemandShape, inputs: i64) -> Self {
        let sizes = Sizes { inputs, width: shape.width, layers: shape.layers, dropout: 0.0 };
        Self(Recurrent::new(path, Cell::Gru, sizes))
    }
}

impl HistoryNetwork for Gru {
    fn read(&self, days: &Tensor, train: bool) -> Result<Tensor> {
        Ok(self.0.states(days, train)?.select(1, -1))
    }
}
