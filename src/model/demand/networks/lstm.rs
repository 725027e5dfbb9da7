//! Long short-term memory over the days of a history, as DeepAR uses it (Salinas et al. 2020).

use tch::{Tensor, nn};

use super::super::DemandShape;
use super::HistoryNetwork;
use crate::failure::Result;
use crate::model::recurrent::{Cell, Recurrent, Sizes};

#[derive(Debug)]
pub struct Lstm(Recurrent);

impl Lstm {
    pub fn new(path: &nn::Path, shape: &DemandShape, inputs: i64) -> Self {
        let sizes = Sizes { inputs, width: shape.width, layers: shape.layers, dropout: 0.0 };
        Self(Recurrent::new(path, Cell::Lstm, sizes))
    }
}

impl HistoryNetwork for Lstm {
    fn read(&self, days: &Tensor, train: bool) -> Result<Tensor> {
        Ok(self.0.states(days, train)?.select(1, -1))
    }
}
