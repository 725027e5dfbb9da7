//! One implementation of each metric, for training, evaluation and the nightly look-back.
//!
//! In: scores, labels, forecasts and actual values. Out: metrics, and intervals that say how far chance moves them. Every room
//! to the right may call this one; it imports no other room.

pub mod binary;
mod bootstrap;
mod classification;
pub mod clustered;
pub mod coverage;
pub mod drift;
mod forecasts;
pub mod moments;

pub use bootstrap::{bootstrap_interval, bootstrap_interval_over_indices};
pub use classification::{accuracy, auc, average_precision, f1, log_loss};
pub use forecasts::{mean_absolute_error, pinball, root_mean_squared_error};
