//! The interface of every network over a daily history.

use std::fmt;
use tch::Tensor;

use crate::failure::Result;

/// A network that turns an item's daily history into one state.
pub(crate) trait HistoryNetwork: fmt::Debug + Send {
    /// float32 [items, days, inputs], oldest day first → float32 [items, width].
    fn state(&self, days: &Tensor, train: bool) -> Result<Tensor>;
}
