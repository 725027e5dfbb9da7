//! The recurrent networks over the days of a history, as DeepAR uses them (Salinas et al. 2020): `lstm`, `gru` (the default:
//! as accurate as an LSTM here and a quarter smaller) and `rnn`, which remembers a few weeks and serves as a baseline.

use tch::{Tensor, nn};

use super::history_network::HistoryNetwork;
use crate::failure::Result;
use crate::model::demand::shape::DemandShape;
use crate::model::recurrent::{RecurrentCell, RecurrentStack, StackSizes};

#[derive(Debug)]
pub(crate) struct RecurrentHistory(RecurrentStack);

impl RecurrentHistory {
    pub(crate) fn new(path: &nn::Path, cell: RecurrentCell, shape: &DemandShape, inputs: i64) -> Self {
        let sizes = StackSizes { inputs, width: shape.width, layers: shape.layers, dropout: 0.0 };
        Self(RecurrentStack::new(path, cell, sizes))
    }
}

impl HistoryNetwork for RecurrentHistory {
    fn state(&self, days: &Tensor, train: bool) -> Result<Tensor> {
        Ok(self.0.states(days, train)?.select(1, -1))
    }
}
