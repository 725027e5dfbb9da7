//! Trains models: everything behind `intentcast train`, one room per task.
//!
//! | room | job |
//! |---|---|
//! | [`bundle`] | trains the models of the night and writes them as one bundle; calls [`intents`] and [`demand`] |
//! | [`intents`], [`pretraining`] | the intent network and its trees: labels and next items; self-supervised pretraining before that |
//! | [`demand`] | the demand network and its calibration |
//! | [`table`], [`text`], [`image`] | `train --task`: models of a labelled table, of texts and of pictures |
//! | [`flat_table`] | flat tables of CSV or Parquet, and their labels, for the tasks `table`, `text` and `image` |
//! | [`labelled`] | what the tasks `text` and `image` share |
//! | [`datasets`] | users and items as of past dates, in blocks on disk |
//! | [`trees`] | gradient-boosted trees, by LightGBM's library |
//! | [`fitting`] | the one training loop, its batches, checkpoints and curves; every task uses it |
//!
//! In: a workspace's sessions, or a flat table. Out: a bundle, or a model of one task, below `models/`.
//!
//! Imports go one way: `datasets` → `fitting`, `trees` → `pretraining` → `intents`, `demand` → `bundle`, and `fitting` → `flat_table` →
//! `table`, `labelled` → `text`, `image`. The command line calls [`bundle`], [`table`], [`text`] and [`image`].

pub mod bundle;
pub mod datasets;
pub mod demand;
pub mod fitting;
pub mod flat_table;
pub(crate) mod image;
mod intents;
pub(crate) mod labelled;
mod pretraining;
pub mod table;
pub(crate) mod text;
pub mod trees;

use crate::config::Config;

/// Limits libtorch to `train.threads` in this process. Threads that start later take the same number.
pub(crate) fn limit_threads(config: &Config) {
    tch::set_num_threads(config.train.libtorch_threads() as i32);
}
