//! One run of a training: opens its journal, and removes its checkpoints once the model is written.

use std::collections::BTreeMap;
use tokio::runtime::Handle;

use super::fingerprint::TrainingFingerprint;
use super::training_journal::{self, Journal, JournalLocation};
use crate::config::Config;
use crate::failure::Result;
use crate::lake::stores::Location;

pub(crate) struct TrainingRun<'a> {
    config: &'a Config,
    output: Location,
    fingerprint: String,
    journal: Journal,
}

impl<'a> TrainingRun<'a> {
    /// Opens the journal. The folder of the curves is named after `kind`, such as a date, and the fingerprint; `settings`
    /// are written for its readers.
    pub(crate) async fn start(
        config: &'a Config,
        kind: &str,
        fingerprint: TrainingFingerprint,
        settings: serde_json::Value,
    ) -> Result<Self> {
        let output = Location::open(&config.output.uri, &config.s3)?;
        let fingerprint = fingerprint.finish();
        training_journal::log_other_checkpoints(&output, &fingerprint).await?;
        let name = format!("{kind}-{}", &fingerprint[..8]);
        let location = JournalLocation::new(&output, &fingerprint, &name, Handle::current());
        let journal = Journal::new(Some(location), &config.train, settings);
        Ok(Self { config, output, fingerprint, journal })
    }

    /// Trains on a thread that may block: on libtorch, and on the store of the checkpoints. Needs a multi-threaded runtime.
    pub(crate) fn train<T>(&mut self, work: impl FnOnce(&mut Journal) -> Result<T>) -> Result<T> {
        tokio::task::block_in_place(|| {
            self.journal.clear_curves();
            work(&mut self.journal)
        })
    }

    /// Writes the figures to the journal and removes the checkpoints. `version`: the model version, if one was written.
    pub(crate) async fn finish(self, version: Option<&str>, figures: &BTreeMap<String, f64>) -> Result<()> {
        self.journal.write_figures(version, figures).await;
        training_journal::remove_checkpoints(&self.output, &self.fingerprint, self.config.gc.orphan_age_hours).await
    }
}
