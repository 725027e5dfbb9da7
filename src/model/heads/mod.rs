//! Heads of the six intents, one file each: raw scores become probabilities, one label vector, and a likelihood.
//!
//! Churn, units and spend stand beside, each on its own (`intent.rs`). To add a head: a file here with a type that
//! implements [`IntentHead`], a name in `config::networks::HeadName`, an arm in [`build`].

mod crf;
mod sigmoid;

use std::fmt;
use tch::{Tensor, nn};

use crate::config::networks::HeadName;

/// The intents, in the order of the chain and of the published columns.
pub const INTENTS: [&str; 6] = ["view", "search", "favorite", "cart", "purchase", "review"];

pub trait IntentHead: fmt::Debug + Send {
    /// Raw scores, float [users, 6] → the probability of each intent, the same shape.
    fn probabilities(&self, raw: &Tensor) -> Tensor;

    /// The most probable label vector as zeros and ones, float [users, 6].
    fn decode(&self, raw: &Tensor) -> Tensor;

    /// Negative log-likelihood of label vectors, float [users]. Labels between 0 and 1 (smoothed) are read as
    /// independent probabilities, and the expectation is returned.
    fn surprise(&self, raw: &Tensor, labels: &Tensor) -> Tensor;
}

/// The head that a shape names, with fresh weights below `path`.
pub fn build(path: &nn::Path, name: HeadName) -> Box<dyn IntentHead> {
    build_for(path, name, INTENTS.len())
}

/// The same for any number of ordered labels in place of the six intents.
pub fn build_for(path: &nn::Path, name: HeadName, labels: usize) -> Box<dyn IntentHead> {
    match name {
        HeadName::Sigmoid => Box::new(sigmoid::Sigmoid),
        HeadName::Crf => Box::new(crf::Crf::new(path, labels as i64)),
    }
}
