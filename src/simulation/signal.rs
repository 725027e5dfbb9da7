//! Signal that predicts a purchase: all that a shop knows, or one modality alone.
//!
//! Every item has appeal or not. In a lake with a content signal, genuine and decoy episodes differ only in the appeal of the
//! items looked at, and appeal shows in that content alone; items come and go within weeks, so that ids do not predict it.

use super::intent::State;

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
}
