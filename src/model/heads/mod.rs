//! Heads of the intents: they turn raw scores into probabilities, one label vector and a likelihood.
//!
//! Churn, units and spend have plain outputs next to them (`intent.rs`). To add a head: a file here with a type that
//! implements [`IntentHead`], a name in `config::networks::HeadName`, an arm in [`build_for`].

mod crf;
mod intent_head;
mod sigmoid;

use tch::nn;

use super::targets::INTENTS;
use crate::config::networks::HeadName;

pub(crate) use intent_head::IntentHead;

/// Creates the head of the intents, with initial weights below `path`.
pub(crate) fn build(path: &nn::Path, name: HeadName) -> Box<dyn IntentHead> {
    build_for(path, name, INTENTS.len())
}

/// Creates the head for any number of ordered labels.
pub(crate) fn build_for(path: &nn::Path, name: HeadName, labels: usize) -> Box<dyn IntentHead> {
    match name {
        HeadName::Sigmoid => Box::new(sigmoid::Sigmoid),
        HeadName::Crf => Box::new(crf::Crf::new(path, labels as i64)),
    }
}
