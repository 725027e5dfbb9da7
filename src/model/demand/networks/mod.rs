//! Networks over a daily history: they turn an item's history into one state.
//!
//! All histories of a bundle have the same length (zeros come before shorter ones), so no padding depends on the batch. To add
//! a network: a file here with a type that implements [`HistoryNetwork`], a name in `config::networks::DemandNetworkName`, an
//! arm in [`build`].

mod history_network;
mod recurrent;
mod tcn;

use tch::nn;

use super::shape::DemandShape;
use crate::config::networks::DemandNetworkName;
use crate::model::recurrent::RecurrentCell;
use recurrent::RecurrentHistory;

pub(crate) use history_network::HistoryNetwork;

/// Creates the network that the shape names, with initial weights below `path`.
pub(crate) fn build(path: &nn::Path, shape: &DemandShape, inputs: i64) -> Box<dyn HistoryNetwork> {
    match shape.network {
        DemandNetworkName::Lstm => Box::new(RecurrentHistory::new(path, RecurrentCell::Lstm, shape, inputs)),
        DemandNetworkName::Gru => Box::new(RecurrentHistory::new(path, RecurrentCell::Gru, shape, inputs)),
        DemandNetworkName::Rnn => Box::new(RecurrentHistory::new(path, RecurrentCell::Rnn, shape, inputs)),
        DemandNetworkName::Tcn => Box::new(tcn::Tcn::new(path, shape, inputs)),
    }
}
