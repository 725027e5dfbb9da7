//! Fits weights: the one training loop, its batches, checkpoints and curves.
//!
//! In comes a [`TrainingTask`] (batches, loss, validation) with the weights to train; [`fit`] leaves those of the best
//! epoch. A [`TrainingRun`] opens the [`Journal`], which stores checkpoints to resume from and learning curves. Batches
//! come from blocks on disk ([`batches_of_blocks`]) or from groups of rows in memory ([`batches_of_groups`]). Every room
//! that trains with gradients calls.

mod adamw;
mod batch_channel;
mod batch_loader;
mod checkpoint;
mod epoch_record;
mod fingerprint;
mod fit_settings;
mod group_batches;
mod task;
mod tensorboard;
mod throughput;
mod training_journal;
mod training_loop;
mod training_run;

pub(in crate::training) use batch_loader::{BatchBuilder, EpochSize, TOKENS_MAX, batches_of_blocks};
pub(in crate::training) use fingerprint::TrainingFingerprint;
pub(in crate::training) use fit_settings::{FitSettings, Schedule, StepOptions};
pub(in crate::training) use group_batches::{GroupBatch, batches_of_groups};
pub(in crate::training) use task::{BatchLoss, Batches, Epoch, StepSeeds, TrainingTask, Validation};
pub use training_journal::{Journal, JournalLocation};
pub(in crate::training) use training_loop::{FitSummary, fit};
pub(in crate::training) use training_run::TrainingRun;
