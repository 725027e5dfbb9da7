//! The bidirectional transformer: every event sees every other one, as in BERT (Devlin et al. 2019).
//!
//! The strongest reader of short histories, since an early event is read in the light of a later one. Time and memory
//! grow with the square of a history's length.

use tch::{Tensor, nn};

use super::super::intent::IntentShape;
use super::attention::{Blocks, Sight};
use super::{Backbone, Padded, Summary};
use crate::failure::Result;

#[derive(Debug)]
pub struct Transformer(Blocks);

impl Transformer {
    pub fn new(path: &nn::Path, shape: &IntentShape) -> Self {
        Self(Blocks::new(path, shape))
    }
}

impl Backbone for Transformer {
    fn read(&self, events: &Padded, train: bool) -> Result<Tensor> {
        // Users without events would give softmax over nothing: they look at their padding, and nobody reads that.
        let nobody = events.lengths.eq(0).unsqueeze(1);
        let visible = events.present.logical_or(&nobody).unsqueeze(1).unsqueeze(1);
        self.0.states(&events.x, Sight::Where(&visible), train)
    }

    fn summary(&self) -> Summary {
        Summary::LastAndMean
    }
}
