//! Where the signal that predicts a purchase is: in everything, or in one modality alone.
//!
//! Every item has appeal or not. In a lake with a content signal, genuine and decoy episodes differ only in the appeal of the
//! items looked at, and appeal shows in that content alone; items come and go within weeks, so that ids do not predict it.

use rand::Rng;
use rand_distr::StandardNormal;

use super::catalogue::{Item, QUALITIES, VECTOR_WIDTH};
use super::intent::State;

/// Days for which an item is sold if ids must not predict appeal.
const LIFE_DAYS: u32 = 21;
/// Distance by which appeal moves a picture's vector; the noise has standard deviation 1.
const PULL: f32 = 1.5;

/// The difference between a genuine episode and a decoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Signal {
    /// Order, dwell time, categories and brands, as in real shops.
    #[default]
    Mixed,
    /// Order and dwell time alone.
    Sequence,
    /// The words of the titles alone.
    Text,
    /// The vectors of the pictures alone.
    Image,
}

impl Signal {
    pub(super) fn is_in_content(self) -> bool {
        matches!(self, Self::Text | Self::Image)
    }

    /// Returns whether a visit's items must have appeal; `None` if appeal is not the signal.
    pub(super) fn appeal(self, state: State) -> Option<bool> {
        self.is_in_content().then(|| !state.is_decoy())
    }

    /// Returns the state whose kind of visit is played.
    pub(super) fn looks_like(self, state: State) -> State {
        match state {
            State::DecoyFocus if self.is_in_content() => State::Focus,
            State::DecoyNarrow if self.is_in_content() => State::Narrow,
            other => other,
        }
    }

    /// Gives an item its appeal, and removes every trace of it except this signal.
    pub(super) fn give_appeal(self, item: &mut Item, days: u32, rng: &mut impl Rng) {
        item.appeal = rng.random_bool(0.5);
        if self == Self::Mixed {
            return;
        }
        let side = match (self, item.appeal) {
            (Self::Image, true) => PULL,
            (Self::Image, false) => -PULL,
            _ => 0.0,
        };
        let raw: [f32; VECTOR_WIDTH] =
            std::array::from_fn(|k| side * if k % 2 == 0 { 0.5 } else { -0.5 } + rng.sample::<f32, _>(StandardNormal));
        let length = raw.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-6);
        item.vector = raw.map(|x| x / length);
        let (appealing, plain) = QUALITIES.split_at(QUALITIES.len() / 2);
        let words = match (self, item.appeal) {
            (Self::Text, true) => appealing,
            (Self::Text, false) => plain,
            _ => &QUALITIES[..],
        };
        item.set_quality_word(words[rng.random_range(0..words.len())]);
        if self.is_in_content() && !item.always_sold {
            let first = rng.random_range(0..days + LIFE_DAYS);
            (item.first_day, item.last_day) = (first.saturating_sub(LIFE_DAYS), first);
        }
    }
}
