//! Behaviour backbones: networks that turn a user's embedded events into one state per event.
//!
//! A backbone sees events only, never the run date, so that its output can be cached between nights. To add one: a file
//! here with a type that implements [`Backbone`], a name in `config::networks::BackboneName`, an arm in [`build`].

mod attention;
mod backbone;
mod causal;
mod recurrent;
mod short_attention;
mod transformer;

use tch::nn;

use super::recurrent::RecurrentCell;
use super::shape::IntentShape;
use crate::config::networks::BackboneName;
use recurrent::RecurrentBackbone;

pub(crate) use backbone::{Backbone, PaddedEvents, StateSummary};

/// Creates the backbone that the shape names, with initial weights below `path`.
pub(crate) fn build(path: &nn::Path, shape: &IntentShape) -> Box<dyn Backbone> {
    match shape.backbone {
        BackboneName::Transformer => Box::new(transformer::Transformer::new(path, shape)),
        BackboneName::Causal => Box::new(causal::Causal::new(path, shape)),
        BackboneName::Lstm => Box::new(RecurrentBackbone::new(path, RecurrentCell::Lstm, shape)),
        BackboneName::Gru => Box::new(RecurrentBackbone::new(path, RecurrentCell::Gru, shape)),
        BackboneName::Rnn => Box::new(RecurrentBackbone::new(path, RecurrentCell::Rnn, shape)),
    }
}
