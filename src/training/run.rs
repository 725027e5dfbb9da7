//! One training, from what its weights follow from to its last line: a [`Fingerprint`] names it, and a [`Run`] has its journal
//! while it goes on and takes its checkpoints away once its model is written.

use arrow::array::RecordBatch;
use arrow::ipc::writer::StreamWriter;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use tokio::runtime::Handle;

use super::journal::{self, Journal, Places};
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;

/// A hash of everything that weights follow from: a checkpoint of another one is not this training's.
pub struct Fingerprint(blake3::Hasher);

impl Fingerprint {
    /// Of the settings that every training follows, of more of them, of the device, and of the code.
    pub fn of(config: &Config, more: &impl Serialize) -> Result<Self> {
        let mut train = config.train.clone();
        // How often something is kept moves no weight.
        (train.checkpoint_steps, train.checkpoint_seconds) = (0, 0);
        let score = (&config.score.device, config.score.precision);
        let code = (env!("CARGO_PKG_VERSION"), env!("TRAINING_SOURCE_HASH"));
        let text = serde_json::to_vec(&(&config.model, &train, score, code, more)).map_err(Failure::bug)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&text);
        Ok(Self(hasher))
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Of rows in their order, with their columns' names and types.
    pub fn rows(&mut self, rows: &RecordBatch) -> Result<()> {
        let mut writer = StreamWriter::try_new(&mut self.0, &rows.schema())?;
        writer.write(rows)?;
        Ok(writer.finish()?)
    }

    /// Of what prints all of itself.
    pub fn printed(&mut self, of: &impl std::fmt::Debug) -> Result<()> {
        write!(self.0, "{of:?}").map_err(Failure::bug)
    }

    pub fn finish(self) -> String {
        self.0.finalize().to_hex()[..32].to_string()
    }
}

pub struct Run<'a> {
    config: &'a Config,
    output: Location,
    fingerprint: String,
    journal: Journal,
}

impl<'a> Run<'a> {
    /// The folder of the curves is called by `kind`, such as a date, and the fingerprint. `settings` are for whoever reads them.
    pub async fn begin(
        config: &'a Config,
        kind: &str,
        fingerprint: Fingerprint,
        settings: serde_json::Value,
    ) -> Result<Self> {
        let (output, fingerprint) = (Location::open(&config.output.uri, &config.s3)?, fingerprint.finish());
        journal::name_others(&output, &fingerprint).await?;
        let name = format!("{kind}-{}", &fingerprint[..8]);
        let places = Places::new(&output, &fingerprint, &name, Handle::current());
        let journal = Journal::new(Some(places), &config.train, settings);
        Ok(Self { config, output, fingerprint, journal })
    }

    /// Trains, on a thread that may wait: for libtorch, and for the store that checkpoints go to. Needs a runtime of several.
    pub fn train<T>(&mut self, work: impl FnOnce(&mut Journal) -> Result<T>) -> Result<T> {
        tokio::task::block_in_place(|| {
            self.journal.clear_curves();
            work(&mut self.journal)
        })
    }

    /// Says what came of it, and takes its checkpoints away. `version`: of the model that was written, if one was.
    pub async fn end(self, version: Option<&str>, figures: &BTreeMap<String, f64>) -> Result<()> {
        self.journal.finish(version, figures).await;
        journal::remove_checkpoints(&self.output, &self.fingerprint, self.config.gc.orphan_age_hours).await
    }
}
