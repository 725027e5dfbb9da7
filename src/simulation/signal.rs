//! In what the taste of a user who is about to buy shows: in everything, or in one modality alone.
//!
//! Every item has an appeal or not. In lakes of one content, genuine and decoy episodes look the same but for the appeal of
//! what is looked at, and appeal shows in that content alone; items come and go within weeks, so that ids say nothing of it.

use rand::Rng;
use rand_distr::StandardNormal;

use super::catalogue::{Item, QUALITIES, VECTOR_WIDTH};
use super::intent::State;

/// Days that an item is sold where ids are to say nothing.
const LIFE_DAYS: u32 = 21;
/// How far appeal moves a picture's vector; its noise is 1.
const PULL: f32 = 1.5;

/// What tells a genuine episode from a decoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Signal {
    /// Order, dwell, categories and brands, as shops have it.
    #[default]
    Mixed,
    /// Order and dwell alone.
    Sequence,
    /// The words of the titles alone.
    Text,
    /// The vectors of the pictures alone.
    Image,
}

impl Signal {
    pub(super) fn is_of_content(self) -> bool {
        matches!(self, Self::Text | Self::Image)
    }

    /// Whether a visit's items have appeal; `None` where that says nothing.
    pub(super) fn appeal(self, state: State) -> Option<bool> {
        self.is_of_content().then(|| !state.is_decoy())
    }

    /// The state that a visit looks like.
    pub(super) fn looks_like(self, state: State) -> State {
        match state {
            State::DecoyFocus if self.is_of_content() => State::Focus,
            State::DecoyNarrow if self.is_of_content() => State::Narrow,
            other => other,
        }
    }

    /// Gives an item its appeal and makes all but this signal say nothing of it.
    pub(super) fn dress(self, item: &mut Item, days: u32, rng: &mut impl Rng) {
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
        if self.is_of_content() && !item.always_sold {
            let first = rng.random_range(0..days + LIFE_DAYS);
            (item.first_day, item.last_day) = (first.saturating_sub(LIFE_DAYS), first);
        }
    }
}
