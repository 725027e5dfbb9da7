//! Behaviour backbones, one file each: what turns a user's embedded events into one state an event.
//!
//! A backbone sees events only, never the run date, so that its output can be kept between nights. To add one: a file
//! here with a type that implements [`Backbone`], a name in `config::networks::BackboneName`, an arm in [`build`].

mod attention;
mod causal;
mod gru;
mod lstm;
mod rnn;
mod transformer;

use std::fmt;
use tch::{Tensor, nn};

use super::intent::IntentShape;
use crate::config::networks::BackboneName;
use crate::failure::Result;

/// Embedded events of some users, padded behind to the longest.
#[derive(Debug)]
pub struct Padded {
    /// float32 [users, events, width], oldest event first.
    pub x: Tensor,
    /// int64 [users]; 0 for a user without events.
    pub lengths: Tensor,
    /// bool [users, events]; false for padding.
    pub present: Tensor,
}

/// Which states sum a user up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Summary {
    /// The newest event's state has seen all others.
    Last,
    /// The newest event's state, and the mean of all.
    LastAndMean,
}

pub trait Backbone: fmt::Debug + Send {
    /// One state an event, float32 [users, events, width]. The states of real events must not depend on padding; those
    /// of padding may be anything finite.
    fn read(&self, events: &Padded, train: bool) -> Result<Tensor>;

    fn summary(&self) -> Summary;
}

/// The backbone that the shape names, with fresh weights below `path`.
pub fn build(path: &nn::Path, shape: &IntentShape) -> Box<dyn Backbone> {
    match shape.backbone {
        BackboneName::Transformer => Box::new(transformer::Transformer::new(path, shape)),
        BackboneName::Causal => Box::new(causal::Causal::new(path, shape)),
        BackboneName::Lstm => Box::new(lstm::Lstm::new(path, shape)),
        BackboneName::Gru => Box::new(gru::Gru::new(path, shape)),
        BackboneName::Rnn => Box::new(rnn::Rnn::new(path, shape)),
    }
}
