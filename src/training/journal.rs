//! What a training leaves behind while it goes on: checkpoints below `<output>/state/training/<fingerprint>/`, curves
//! below `<output>/training/<run>/` as TensorBoard event files and as `metrics.jsonl`.
//!
//! Nothing of it decides over the training: where it cannot be written (a full disk), the training warns, counts and
//! goes on. All writes are whole objects, so that it is the same on S3.

use object_store::path::Path;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tch::Tensor;
use tokio::runtime::Handle;

use super::checkpoint::{self, Checkpoint, Position};
use super::tensorboard::{self, Scalars};
use crate::config::TrainConfig;
use crate::failure::Result;
use crate::lake::stores::Location;

/// Checkpoints of a lesson that are kept: the newest, and the one before it, should the newest be damaged.
const KEPT: usize = 2;
const EXTENSION: &str = "checkpoint";

/// What is said of an epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    pub lesson: String,
    pub epoch: u32,
    pub step: u64,
    /// Unix seconds.
    pub wall_time: f64,
    /// By name: `loss_train`, `loss_valid`, `learning_rate`, `samples_per_second`, `waiting_share`, and the lesson's own.
    pub values: BTreeMap<String, f64>,
}

impl EpochRecord {
    fn scalars(&self) -> Scalars {
        let values = self.values.iter().map(|(name, v)| (format!("{}/{name}", self.lesson), *v)).collect();
        Scalars { wall_time: self.wall_time, step: self.step, values }
    }

    /// One flat object, as trackers import it.
    fn line(&self) -> serde_json::Value {
        let mut line = serde_json::Map::new();
        line.insert("epoch".into(), self.epoch.into());
        line.insert("step".into(), self.step.into());
        line.insert("wall_time".into(), self.wall_time.into());
        line.extend(self.scalars().values.into_iter().map(|(tag, value)| (tag, value.into())));
        line.into()
    }
}

/// Unix seconds.
pub fn now() -> f64 {
    chrono::Utc::now().timestamp_millis() as f64 / 1000.0
}

/// The journal of one training.
#[derive(Debug)]
pub struct Journal {
    places: Option<Places>,
    /// A checkpoint is due after so many steps, or after so long; 0 for never.
    every_steps: u64,
    every: Duration,
    last: (u64, Instant),
    settings: serde_json::Value,
    records: Vec<EpochRecord>,
    /// Writes that failed.
    failed: u64,
}

/// Where it is written. The training runs on a thread that may wait; the store's own work is done by `runtime`.
#[derive(Debug, Clone)]
pub struct Places {
    runtime: Handle,
    checkpoints: Location,
    curves: Location,
}

impl Places {
    /// `fingerprint`: of everything that the weights follow from. `run` names the folder of the curves.
    pub fn new(output: &Location, fingerprint: &str, run: &str, runtime: Handle) -> Self {
        Self {
            runtime,
            checkpoints: output.folder(STATE).folder(fingerprint),
            curves: output.folder("training").folder(run),
        }
    }
}

const STATE: &str = "state/training";

/// Before a training: says which checkpoints of other settings, data or code lie around and are not taken up.
pub async fn name_others(output: &Location, fingerprint: &str) -> Result<()> {
    for other in output.folder(STATE).children().await?.0.iter().filter(|f| *f != fingerprint) {
        let place = output.folder(STATE).folder(other);
        tracing::info!("{}: checkpoints of other settings, data or code; not taken up", place.url);
    }
    Ok(())
}

/// After a training: its checkpoints go, and so do those of others that are older than `age_hours`.
pub async fn remove_checkpoints(output: &Location, fingerprint: &str, age_hours: u32) -> Result<()> {
    let own = output.folder(STATE).folder(fingerprint).prefix;
    let old = chrono::Utc::now() - chrono::TimeDelta::hours(age_hours.into());
    let all = output.folder(STATE).list().await?.into_iter();
    let gone = all.filter(|m| m.location.prefix_matches(&own) || m.last_modified < old);
    output.delete(gone.map(|m| m.location).collect()).await
}

impl Journal {
    /// `settings` stand in the first line of `metrics.jsonl`. Without places, nothing is written.
    pub fn new(places: Option<Places>, train: &TrainConfig, settings: serde_json::Value) -> Self {
        Self {
            places,
            every_steps: train.checkpoint_steps.into(),
            every: Duration::from_secs(train.checkpoint_seconds.into()),
            last: (0, Instant::now()),
            settings,
            records: Vec::new(),
            failed: 0,
        }
    }

    /// Of a training that leaves nothing behind.
    pub fn nowhere() -> Self {
        Self::new(None, &TrainConfig::default(), serde_json::Value::Null)
    }

    fn keeps(&self) -> bool {
        self.places.is_some() && (self.every_steps > 0 || !self.every.is_zero())
    }

    /// The newest whole checkpoint of a lesson. Damaged ones are named and passed over.
    pub fn resume(&mut self, lesson: &str) -> Result<Option<Checkpoint>> {
        let (true, Some(places)) = (self.keeps(), &self.places) else { return Ok(None) };
        for (_, path) in places.checkpoints_of(lesson)?.into_iter().rev() {
            let name = path.filename().unwrap_or_default().to_string();
            let read = places.runtime.block_on(places.checkpoints.read(&name)).and_then(|b| Checkpoint::from_bytes(&b));
            match read {
                Ok(found) => {
                    let at = &found.position;
                    tracing::info!("{lesson}: goes on from {name}, epoch {} batch {}", at.epochs + 1, at.batches);
                    self.last = (at.steps, Instant::now());
                    // Their event files went when this process began.
                    at.records.iter().cloned().for_each(|record| self.epoch(record));
                    return Ok(Some(found));
                }
                Err(failure) => tracing::warn!("{}: ignored: {failure}", places.checkpoints.display(&path)),
            }
        }
        self.last = (0, Instant::now());
        Ok(None)
    }

    pub fn is_due(&self, steps: u64) -> bool {
        let (last, clock) = self.last;
        let by_steps = self.every_steps > 0 && steps >= last + self.every_steps;
        self.keeps() && (by_steps || !self.every.is_zero() && clock.elapsed() >= self.every)
    }

    /// Writes a checkpoint and removes those that it replaces.
    pub fn keep(&mut self, lesson: &str, position: &Position, tensors: Vec<(String, Tensor)>) {
        let Some(places) = self.places.as_ref().filter(|_| self.keeps()) else { return };
        let kept = checkpoint::to_bytes(position, tensors).and_then(|bytes| places.keep(lesson, position, bytes));
        self.last = (position.steps, Instant::now());
        self.count(kept, "no checkpoint was written; a training that is killed starts from the one before");
    }

    /// Writes an epoch's values: an event file of its own (readers follow growing folders, not replaced files), and all
    /// lines anew.
    pub fn epoch(&mut self, record: EpochRecord) {
        self.records.push(record);
        let Some(places) = &self.places else { return };
        let number = self.records.len();
        let written = self.records.last().map_or(Ok(()), |record| {
            let events = tensorboard::event_file(&[record.scalars()]);
            places.write(&format!("events.out.tfevents.{number:010}.intentcast"), events)
        });
        let written = written.and_then(|()| places.write("metrics.jsonl", self.lines(None)));
        self.count(written, "the curves lack an epoch");
    }

    /// The last line: what came of it.
    pub async fn finish(mut self, version: Option<&str>, figures: &BTreeMap<String, f64>) {
        let Some(places) = &self.places else { return };
        let last = serde_json::json!({ "version": version, "figures": figures });
        let written = places.curves.write("metrics.jsonl", self.lines(Some(last))).await;
        self.count(written, "metrics.jsonl lacks the figures");
    }

    /// Removes the curves of an earlier training of the same run, where none is gone on with.
    pub fn clear_curves(&mut self) {
        let Some(places) = &self.places else { return };
        let cleared = places.runtime.block_on(async {
            let old = places.curves.list().await?;
            places.curves.delete(old.into_iter().map(|m| m.location).collect()).await
        });
        self.count(cleared, "curves of an earlier training stay");
    }

    /// Warns of writes that failed, and counts them among the figures.
    pub fn confess(&self, figures: &mut BTreeMap<String, f64>) {
        if self.failed > 0 {
            tracing::warn!("{} writes of checkpoints and curves failed", self.failed);
            figures.insert("journal_writes_failed".into(), self.failed as f64);
        }
    }

    fn lines(&self, last: Option<serde_json::Value>) -> Vec<u8> {
        let first = serde_json::json!({ "settings": self.settings });
        let lines = std::iter::once(first).chain(self.records.iter().map(EpochRecord::line)).chain(last);
        lines.flat_map(|line| format!("{line}\n").into_bytes()).collect()
    }

    fn count(&mut self, written: Result<()>, what: &str) {
        if let Err(failure) = written {
            self.failed += 1;
            tracing::warn!("{what}: {failure}");
        }
    }
}

impl Places {
    fn write(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        self.runtime.block_on(self.curves.write(name, bytes))
    }

    fn keep(&self, lesson: &str, position: &Position, bytes: Vec<u8>) -> Result<()> {
        let name = format!("{lesson}-{:010}.{EXTENSION}", order(position));
        self.runtime.block_on(self.checkpoints.write(&name, bytes))?;
        let mut old = self.checkpoints_of(lesson)?;
        old.truncate(old.len().saturating_sub(KEPT));
        self.runtime.block_on(self.checkpoints.delete(old.into_iter().map(|(_, path)| path).collect()))
    }

    /// Number and path of each checkpoint of a lesson, oldest first.
    fn checkpoints_of(&self, lesson: &str) -> Result<Vec<(u64, Path)>> {
        let listed = self.runtime.block_on(self.checkpoints.list())?;
        let number = |path: &Path| -> Option<u64> {
            let name = path.filename()?.strip_suffix(EXTENSION)?.strip_suffix('.')?;
            name.strip_prefix(lesson)?.strip_prefix('-')?.parse().ok()
        };
        let mut found: Vec<_> = listed.into_iter().filter_map(|m| Some((number(&m.location)?, m.location))).collect();
        found.sort();
        Ok(found)
    }
}

/// The finished lesson comes after its last step.
fn order(position: &Position) -> u64 {
    position.steps + u64::from(position.finished)
}
