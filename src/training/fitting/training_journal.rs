//! The journal of a training: checkpoints below `<output>/state/training/<fingerprint>/`, learning curves below
//! `<output>/training/<run>/` as TensorBoard event files and as `metrics.jsonl`.
//!
//! Losing the journal never fails a training: where it cannot be written (a full disk), the training warns, counts the
//! failure and continues. Every write is a whole object, so that S3 works like a disk.

use object_store::path::Path;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tch::Tensor;
use tokio::runtime::Handle;

use super::checkpoint::{self, Checkpoint, TrainingProgress};
use super::epoch_record::EpochRecord;
use super::tensorboard;
use crate::config::TrainConfig;
use crate::failure::Result;
use crate::lake::stores::Location;

/// Checkpoints that stay for each task: the newest, and the one before in case the newest is damaged.
const CHECKPOINTS_MAX: usize = 2;
const EXTENSION: &str = "checkpoint";
const CHECKPOINTS_FOLDER: &str = "state/training";

/// Writes the checkpoints and curves of one training.
#[derive(Debug)]
pub struct Journal {
    location: Option<JournalLocation>,
    /// A checkpoint is due after this many steps; 0 for never.
    every_steps: u64,
    /// A checkpoint is due after this long; zero for never.
    every: Duration,
    last_checkpoint: LastCheckpoint,
    settings: serde_json::Value,
    records: Vec<EpochRecord>,
    failed_writes: u64,
}

#[derive(Debug)]
struct LastCheckpoint {
    steps: u64,
    at: Instant,
}

impl LastCheckpoint {
    fn now(steps: u64) -> Self {
        Self { steps, at: Instant::now() }
    }
}

/// Location of a journal. The training runs on a thread that may block; `runtime` does the work of the store.
#[derive(Debug, Clone)]
pub struct JournalLocation {
    runtime: Handle,
    checkpoints: Location,
    curves: Location,
}

impl JournalLocation {
    /// `fingerprint` is that of the training; `run` names the folder of the curves.
    pub fn new(output: &Location, fingerprint: &str, run: &str, runtime: Handle) -> Self {
        Self {
            runtime,
            checkpoints: output.folder(CHECKPOINTS_FOLDER).folder(fingerprint),
            curves: output.folder("training").folder(run),
        }
    }

    fn write_curve(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        self.runtime.block_on(self.curves.write(name, bytes))
    }

    fn write_checkpoint(&self, task: &str, progress: &TrainingProgress, bytes: Vec<u8>) -> Result<()> {
        let name = format!("{task}-{:010}.{EXTENSION}", checkpoint_number(progress));
        self.runtime.block_on(self.checkpoints.write(&name, bytes))?;
        let mut old = self.checkpoints_of(task)?;
        old.truncate(old.len().saturating_sub(CHECKPOINTS_MAX));
        self.runtime.block_on(self.checkpoints.delete(old.into_iter().map(|(_, path)| path).collect()))
    }

    fn read_checkpoint(&self, name: &str) -> Result<Checkpoint> {
        let bytes = self.runtime.block_on(self.checkpoints.read(name))?;
        Checkpoint::from_bytes(&bytes)
    }

    /// Number and path of each checkpoint of a task, oldest first.
    fn checkpoints_of(&self, task: &str) -> Result<Vec<(u64, Path)>> {
        let listed = self.runtime.block_on(self.checkpoints.list())?;
        let number = |path: &Path| -> Option<u64> {
            let name = path.filename()?.strip_suffix(EXTENSION)?.strip_suffix('.')?;
            name.strip_prefix(task)?.strip_prefix('-')?.parse().ok()
        };
        let mut found: Vec<_> = listed.into_iter().filter_map(|m| Some((number(&m.location)?, m.location))).collect();
        found.sort();
        Ok(found)
    }
}

/// The checkpoint of a finished task sorts after that of its last step.
fn checkpoint_number(progress: &TrainingProgress) -> u64 {
    progress.steps + u64::from(progress.finished)
}

/// Logs, before a training, the checkpoints of other settings, data or code, which it ignores.
pub(crate) async fn log_other_checkpoints(output: &Location, fingerprint: &str) -> Result<()> {
    let folder = output.folder(CHECKPOINTS_FOLDER);
    for other in folder.children().await?.0.iter().filter(|name| *name != fingerprint) {
        let place = folder.folder(other);
        tracing::info!("{}: ignored: checkpoints of other settings, data or code", place.url);
    }
    Ok(())
}

/// Removes, after a training, its checkpoints, and those of other trainings that are older than `age_hours`.
pub(crate) async fn remove_checkpoints(output: &Location, fingerprint: &str, age_hours: u32) -> Result<()> {
    let own = output.folder(CHECKPOINTS_FOLDER).folder(fingerprint).prefix;
    let oldest = chrono::Utc::now() - chrono::TimeDelta::hours(age_hours.into());
    let all = output.folder(CHECKPOINTS_FOLDER).list().await?.into_iter();
    let expired = all.filter(|m| m.location.prefix_matches(&own) || m.last_modified < oldest);
    output.delete(expired.map(|m| m.location).collect()).await
}

impl Journal {
    /// `settings` become the first line of `metrics.jsonl`. Without a location, nothing is written.
    pub fn new(location: Option<JournalLocation>, train: &TrainConfig, settings: serde_json::Value) -> Self {
        Self {
            location,
            every_steps: train.checkpoint_steps.into(),
            every: Duration::from_secs(train.checkpoint_seconds.into()),
            last_checkpoint: LastCheckpoint::now(0),
            settings,
            records: Vec::new(),
            failed_writes: 0,
        }
    }

    /// A journal that writes nothing.
    pub fn disabled() -> Self {
        Self::new(None, &TrainConfig::default(), serde_json::Value::Null)
    }

    fn writes_checkpoints(&self) -> bool {
        self.location.is_some() && (self.every_steps > 0 || !self.every.is_zero())
    }

    /// Loads the newest whole checkpoint of a task. Damaged ones are logged and ignored.
    pub(crate) fn load_checkpoint(&mut self, task: &str) -> Result<Option<Checkpoint>> {
        let (true, Some(location)) = (self.writes_checkpoints(), &self.location) else { return Ok(None) };
        for (_, path) in location.checkpoints_of(task)?.into_iter().rev() {
            let name = path.filename().unwrap_or_default().to_string();
            match location.read_checkpoint(&name) {
                Ok(found) => {
                    let progress = &found.progress;
                    let epoch = progress.epochs + 1;
                    let batch = progress.batches;
                    tracing::info!("{task}: resuming from {name}, epoch {epoch} batch {batch}");
                    self.last_checkpoint = LastCheckpoint::now(progress.steps);
                    // The start of this process removed the event files.
                    for record in &progress.records {
                        self.record_epoch(record.clone());
                    }
                    return Ok(Some(found));
                }
                Err(failure) => tracing::warn!("{}: ignored: {failure}", location.checkpoints.display(&path)),
            }
        }
        self.last_checkpoint = LastCheckpoint::now(0);
        Ok(None)
    }

    pub(crate) fn checkpoint_is_due(&self, steps: u64) -> bool {
        let by_steps = self.every_steps > 0 && steps >= self.last_checkpoint.steps + self.every_steps;
        let by_time = !self.every.is_zero() && self.last_checkpoint.at.elapsed() >= self.every;
        self.writes_checkpoints() && (by_steps || by_time)
    }

    /// Writes a checkpoint and removes those that it replaces.
    pub(crate) fn write_checkpoint(&mut self, task: &str, progress: &TrainingProgress, tensors: Vec<(String, Tensor)>) {
        let Some(location) = self.location.as_ref().filter(|_| self.writes_checkpoints()) else { return };
        let written =
            checkpoint::to_bytes(progress, tensors).and_then(|bytes| location.write_checkpoint(task, progress, bytes));
        self.last_checkpoint = LastCheckpoint::now(progress.steps);
        self.count_failure(written, "no checkpoint written: a killed training would resume from the one before");
    }

    /// Writes the values of an epoch: one event file (TensorBoard follows growing folders, not replaced files), and
    /// `metrics.jsonl` again with all lines.
    pub(crate) fn record_epoch(&mut self, record: EpochRecord) {
        let scalars = record.scalars();
        self.records.push(record);
        let Some(location) = &self.location else { return };
        let number = self.records.len();
        let events = tensorboard::event_file(&[scalars]);
        let written = location
            .write_curve(&format!("events.out.tfevents.{number:010}.intentcast"), events)
            .and_then(|()| location.write_curve("metrics.jsonl", self.lines(None)));
        self.count_failure(written, "the curves lack an epoch");
    }

    /// Writes the figures as the last line of `metrics.jsonl`.
    pub(crate) async fn write_figures(mut self, version: Option<&str>, figures: &BTreeMap<String, f64>) {
        let Some(location) = &self.location else { return };
        let last = serde_json::json!({ "version": version, "figures": figures });
        let written = location.curves.write("metrics.jsonl", self.lines(Some(last))).await;
        self.count_failure(written, "metrics.jsonl lacks the figures");
    }

    /// Removes the curves of an earlier training of the same run.
    pub(crate) fn clear_curves(&mut self) {
        let Some(location) = &self.location else { return };
        let cleared = location.runtime.block_on(async {
            let old = location.curves.list().await?;
            location.curves.delete(old.into_iter().map(|m| m.location).collect()).await
        });
        self.count_failure(cleared, "curves of an earlier training remain");
    }

    /// Warns of writes that failed, and adds their number to the figures.
    pub(crate) fn report_failures(&self, figures: &mut BTreeMap<String, f64>) {
        if self.failed_writes > 0 {
            tracing::warn!("{} writes of checkpoints and curves failed", self.failed_writes);
            figures.insert("journal_writes_failed".into(), self.failed_writes as f64);
        }
    }

    fn lines(&self, last: Option<serde_json::Value>) -> Vec<u8> {
        let first = serde_json::json!({ "settings": self.settings });
        let lines = std::iter::once(first).chain(self.records.iter().map(EpochRecord::to_json)).chain(last);
        lines.flat_map(|line| format!("{line}\n").into_bytes()).collect()
    }

    fn count_failure(&mut self, written: Result<()>, consequence: &str) {
        if let Err(failure) = written {
            self.failed_writes += 1;
            tracing::warn!("{consequence}: {failure}");
        }
    }
}
