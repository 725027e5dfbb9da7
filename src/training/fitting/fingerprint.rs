//! The fingerprint of a training: a hash of everything that its weights follow from.

use arrow::array::RecordBatch;
use arrow::ipc::writer::StreamWriter;
use serde::Serialize;
use std::io::Write;

use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::ids::ContentHash;

/// Hash of settings, data and code. A training resumes only from checkpoints of the same fingerprint.
pub(crate) struct TrainingFingerprint(blake3::Hasher);

impl TrainingFingerprint {
    /// Hashes the settings of every training, the device, the code, and `more` settings of the task.
    pub(crate) fn new(config: &Config, more: &impl Serialize) -> Result<Self> {
        let mut train = config.train.clone();
        // How often checkpoints are written changes no weight.
        train.checkpoint_steps = 0;
        train.checkpoint_seconds = 0;
        // Only nights read it.
        train.due_days = 0;
        let score = (&config.score.device, config.score.precision);
        let code = (env!("CARGO_PKG_VERSION"), env!("TRAINING_SOURCE_HASH"));
        let text = serde_json::to_vec(&(&config.model, &train, score, code, more)).map_err(Failure::bug)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&text);
        Ok(Self(hasher))
    }

    pub(crate) fn add_bytes(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Adds rows in their order, with the names and types of their columns.
    pub(crate) fn add_rows(&mut self, rows: &RecordBatch) -> Result<()> {
        let mut writer = StreamWriter::try_new(&mut self.0, &rows.schema())?;
        writer.write(rows)?;
        Ok(writer.finish()?)
    }

    /// Adds a value by its `Debug` text, which must show all of it.
    pub(crate) fn add_debug(&mut self, value: &impl std::fmt::Debug) -> Result<()> {
        write!(self.0, "{value:?}").map_err(Failure::bug)
    }

    /// The first 32 hex digits of the hash.
    pub(crate) fn finish(self) -> String {
        ContentHash::from_hasher(&self.0).long()
    }
}
