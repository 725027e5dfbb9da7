//! The causal transformer: an event sees itself and the ones before it, as in GPT (Radford et al. 2018) and SASRec
//! (Kang and McAuley 2018). The newest event's state has seen everything, so it alone sums the user up.
//!
//! Padding stands behind, where no real event looks: the causal mask is the only one that is needed.

use tch::{Tensor, nn};

use super::super::intent::IntentShape;
use super::attention::{Blocks, Sight};
use super::{Backbone, Padded, Summary};
use crate::failure::Result;

#[derive(Debug)]
pub struct Causal(Blocks);

impl Causal {
    pub fn new(path: &nn::Path, shape: &IntentShape) -> Self {
        Self(Blocks::new(path, shape))
    }
}

impl Backbone for Causal {
    fn read(&self, events: &Padded, train: bool) -> Result<Tensor> {
        self.0.states(&events.x, Sight::Backwards, train)
    }

    fn summary(&self) -> Summary {
        Summary::Last
    }
}
