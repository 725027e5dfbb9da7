//! One implementation of each metric, for training, evaluation and the nightly look-back.
//!
//! In: scores, labels, forecasts and actual values. Out: metrics, and intervals that say how far chance moves them. Every room
//! to the right may call this one; it imports no other room.

pub(crate) mod binary;
mod bootstrap;
mod classification;
pub(crate) mod clustered;
pub(crate) mod coverage;
pub(crate) mod drift;
mod forecasts;
pub(crate) mod moments;

pub(crate) use bootstrap::{bootstrap_interval, bootstrap_interval_over_indices};
pub use classification::auc;
pub(crate) use classification::{
    accuracy, average_precision, best_f1_threshold, brier_score, expected_calibration_error, f1, log_loss, share_at_top,
};
pub use forecasts::pinball;
pub(crate) use forecasts::{mean_absolute_change, mean_absolute_error, mean_squared_change, root_mean_squared_error};
