//! The interface of every head for binary labels.

use std::fmt;
use tch::Tensor;

/// A joint distribution of ordered binary labels, parametrised by one raw score per label.
pub(crate) trait IntentHead: fmt::Debug + Send {
    /// Raw scores, float [rows, labels] → the probability of each label, the same shape.
    fn probabilities(&self, raw: &Tensor) -> Tensor;

    /// Raw scores, float [rows, labels] → the most probable label vector as zeros and ones, the same shape.
    fn decode(&self, raw: &Tensor) -> Tensor;

    /// Returns the negative log-likelihood of label vectors, float [rows]. Labels between 0 and 1 (smoothed) are read as
    /// independent probabilities, and the result is the expectation under them.
    fn negative_log_likelihood(&self, raw: &Tensor, labels: &Tensor) -> Tensor;
}
