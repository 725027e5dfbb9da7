//! Demand networks, one file each: what turns an item's daily history into one state.
//!
//! All histories of a bundle have the same length (shorter ones are filled with zeros in front), so no padding depends
//! on the batch. To add one: a file here with a type that implements [`HistoryNetwork`], a name in
//! `config::networks::DemandNetworkName`, an arm in [`build`].

mod gru;
mod lstm;
mod rnn;
mod tcn;

use std::fmt;
use tch::{Tensor, nn};

use super::DemandShape;
use crate::config::networks::DemandNetworkName;
use crate::failure::Result;

pub trait HistoryNetwork: fmt::Debug + Send {
    /// float32 [items, days, inputs], oldest day first → float32 [items, width].
    fn read(&self, days: &Tensor, train: bool) -> Result<Tensor>;
}

/// The network that the shape names, with fresh weights below `path`.
pub fn build(path: &nn::Path, shape: &DemandShape, inputs: i64) -> Box<dyn HistoryNetwork> {
    match shape.network {
        DemandNetworkName::Lstm => Box::new(lstm::Lstm::new(path, shape, inputs)),
        DemandNetworkName::Gru => Box::new(gru::Gru::new(path, shape, inputs)),
        DemandNetworkName::Rnn => Box::new(rnn::Rnn::new(path, shape, inputs)),
        DemandNetworkName::Tcn => Box::new(tcn::Tcn::new(path, shape, inputs)),
    }
}
