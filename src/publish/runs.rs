//! The `runs` table: what ran, with which inputs, and which nights are visible.
//!
//! A night is visible if a row of kind `night` (or `erase`) names it and no later row hides it: a `rollback` row hides one
//! generation, an `expire` row all earlier ones of its date. If several generations of a date are visible, the newest is
//! shown. Order is by generation, which the lock assigns; no clock is involved.

use chrono::{DateTime, Utc};
use datafusion::prelude::SessionContext;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

use crate::config::LockConfig;
use crate::failure::{Failure, Result};
use crate::ids::{ContentHash, Generation, ModelVersion, RunDate};
use crate::lake::stores::Location;
use crate::publish::lock::{self, NightLock};
use crate::tables::delta::{self, TableCommit};
use crate::tables::schemas::{self, RUNS};
use crate::tables::{delta_log, write_files};

/// Folders of the SQL that makes a night, whose hash is its `sql_fingerprint`.
pub(crate) const NIGHT_SQL: [&str; 8] =
    ["lakes", "master", "rollups", "state", "features", "score", "tables", "suppressed"];

/// Kind of event that a row records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RunKind {
    /// The tables of a night were published.
    #[default]
    Night,
    /// The generation `hides_generation` of the night is no longer shown.
    Rollback,
    /// The night was published again without erased users; earlier generations cannot be shown again.
    Erase,
    /// The night is past its retention; none of its generations is shown.
    Expire,
}

/// One row of `runs`. Structured columns are JSON text in the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    pub(crate) run_date: RunDate,
    pub generation: Generation,
    pub(crate) kind: RunKind,
    pub(crate) status: String,
    pub(crate) made_visible_at: DateTime<Utc>,
    #[serde(default)]
    pub(crate) model_version: Option<ModelVersion>,
    #[serde(default)]
    pub(crate) sql_fingerprint: Option<String>,
    #[serde(default)]
    pub(crate) input_fingerprint: Option<String>,
    #[serde(default)]
    pub(crate) rows_read: Option<i64>,
    #[serde(default)]
    pub(crate) rows_quarantined: Option<i64>,
    #[serde(default, with = "json_text")]
    pub(crate) quarantined_by_reason: BTreeMap<String, i64>,
    /// By view and finding.
    #[serde(default, with = "json_text")]
    pub(crate) master_findings: BTreeMap<String, BTreeMap<String, i64>>,
    #[serde(default)]
    pub(crate) arrival_mode: Option<String>,
    pub manifest_hash: String,
    /// Delta version of each table whose partition `run_date` holds this run.
    #[serde(default, with = "json_text")]
    pub table_versions: BTreeMap<String, u64>,
    #[serde(default, with = "json_text")]
    pub(crate) stages: Value,
    #[serde(default, with = "json_text")]
    pub(crate) drift: Value,
    #[serde(default, with = "json_text")]
    pub(crate) accuracy: Value,
    #[serde(default)]
    pub(crate) hides_generation: Option<u64>,
    #[serde(default)]
    pub(crate) note: Option<String>,
}

impl RunRecord {
    /// Starts the row of a night; the caller fills in the rest.
    pub fn new(held: &NightLock, manifest_hash: impl Into<String>) -> Self {
        Self {
            run_date: held.run_date,
            generation: held.generation,
            kind: RunKind::Night,
            status: "published".into(),
            made_visible_at: Utc::now(),
            model_version: None,
            sql_fingerprint: None,
            input_fingerprint: None,
            rows_read: None,
            rows_quarantined: None,
            quarantined_by_reason: BTreeMap::new(),
            master_findings: BTreeMap::new(),
            arrival_mode: None,
            manifest_hash: manifest_hash.into(),
            table_versions: BTreeMap::new(),
            stages: Value::Null,
            drift: Value::Null,
            accuracy: Value::Null,
            hides_generation: None,
            note: None,
        }
    }
}

impl RunRecord {
    /// Returns the seconds of all stages; `None` except for nights.
    pub(crate) fn stage_seconds(&self) -> Option<f64> {
        let stages = self.stages.as_object()?;
        Some(stages.values().filter_map(|stage| stage["seconds"].as_f64()).sum())
    }
}

/// (De)serialises a value as JSON inside a text column.
mod json_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};

    pub(crate) fn serialize<T: Serialize, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&serde_json::to_string(value).map_err(serde::ser::Error::custom)?)
    }

    pub(crate) fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        serde_json::from_str(&String::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

/// A night that readers see.
#[derive(Debug, Clone, PartialEq)]
pub struct VisibleNight {
    pub run: RunRecord,
}

impl VisibleNight {
    pub fn run_date(&self) -> RunDate {
        self.run.run_date
    }

    /// Returns the Delta version of `table` whose partition holds this night; `None` if the run did not write that table.
    pub(crate) fn version(&self, table: &str) -> Option<u64> {
        self.run.table_versions.get(table).copied()
    }
}

/// Reads every row, ordered by date and generation; empty if nothing was ever published.
pub async fn history(output: &Location) -> Result<Vec<RunRecord>> {
    if delta_log::open(output, RUNS, None).await?.is_none() {
        return Ok(Vec::new());
    }
    let ctx = SessionContext::new();
    let rows = delta::scan_at(&ctx, output, RUNS, None, None).await?;
    let wanted = schemas::table_schema(RUNS)?;
    let columns = wanted.fields().iter().map(|field| {
        let value = datafusion::prelude::ident(field.name());
        datafusion::logical_expr::cast(value, field.data_type().clone()).alias(field.name())
    });
    let batches = rows.select(columns.collect::<Vec<_>>())?.collect().await?;
    let mut json = arrow::json::LineDelimitedWriter::new(Vec::new());
    json.write_batches(&batches.iter().collect::<Vec<_>>())?;
    json.finish()?;
    let text = json.into_inner();
    let mut records = serde_json::Deserializer::from_slice(&text)
        .into_iter::<RunRecord>()
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| Failure::bug(format!("table runs: {e}")))?;
    records.sort_by_key(|r| (r.run_date, r.generation));
    Ok(records)
}

/// Returns the generations that can be shown, by date, the newest last.
pub(crate) fn showable(history: &[RunRecord]) -> BTreeMap<RunDate, Vec<&RunRecord>> {
    let mut shown: BTreeMap<RunDate, Vec<&RunRecord>> = BTreeMap::new();
    for row in history {
        let nights = shown.entry(row.run_date).or_default();
        match row.kind {
            RunKind::Night => nights.push(row),
            RunKind::Erase => *nights = vec![row],
            RunKind::Rollback => nights.retain(|night| Some(night.generation.0) != row.hides_generation),
            RunKind::Expire => nights.clear(),
        }
    }
    shown.retain(|_, nights| !nights.is_empty());
    shown
}

/// Reads every visible night, ordered by date.
pub async fn visible_nights(output: &Location) -> Result<Vec<VisibleNight>> {
    let history = history(output).await?;
    let newest = showable(&history).into_values().filter_map(|nights| nights.last().map(|run| (*run).clone()));
    Ok(newest.map(|run| VisibleNight { run }).collect())
}

/// Reads the visible night of the latest date.
pub async fn visible(output: &Location) -> Result<Option<VisibleNight>> {
    Ok(visible_nights(output).await?.pop())
}

/// Reads the visible night of one date.
pub async fn visible_on(output: &Location, run_date: RunDate) -> Result<Option<VisibleNight>> {
    Ok(visible_nights(output).await?.into_iter().find(|night| night.run_date() == run_date))
}

/// Appends one row, which takes effect for readers at once.
pub(crate) async fn append(output: &Location, record: &RunRecord) -> Result<()> {
    let mut decoder = arrow::json::ReaderBuilder::new(schemas::file_schema(RUNS)?).build_decoder()?;
    decoder.serialize(std::slice::from_ref(record))?;
    let row = decoder.flush()?.ok_or_else(|| Failure::bug("no run row was made"))?;
    let ctx = SessionContext::new();
    let (run_date, generation) = (record.run_date, record.generation);
    let files = write_files::stage(&ctx, ctx.read_batch(row)?, output, RUNS, (run_date, generation)).await?;
    let commit = TableCommit { table: RUNS, run_date, generation, files: &files, manifest_hash: &record.manifest_hash };
    delta::append(output, &commit).await?;
    Ok(())
}

/// Hides the visible generation of `run_date`. What was visible before it is shown again: an earlier generation of that date,
/// or else the night before. Returns the night that is visible now.
pub async fn rollback(output: &Location, run_date: RunDate, lock: &LockConfig) -> Result<Option<VisibleNight>> {
    let held = lock::acquire(output, run_date, lock).await?;
    let done = hide(output, &held).await;
    held.release().await?;
    done?;
    visible(output).await
}

async fn hide(output: &Location, held: &NightLock) -> Result<()> {
    let history = history(output).await?;
    let mut shown = showable(&history);
    let Some(hidden) = shown.get_mut(&held.run_date).and_then(Vec::pop) else {
        let dates: Vec<String> = shown.keys().map(|date| date.to_string()).collect();
        return Err(Failure::usage(format!("night {}: nothing to roll back, it is not visible", held.run_date))
            .hint(format!("visible nights: {}", if dates.is_empty() { "none".into() } else { dates.join(", ") })));
    };
    let next = shown.values().rev().find_map(|nights| nights.last());
    let mut row = RunRecord::new(held, format!("rollback of generation {}", hidden.generation));
    row.kind = RunKind::Rollback;
    row.status = "rolled back".into();
    row.hides_generation = Some(hidden.generation.0);
    row.table_versions = next.map(|night| night.table_versions.clone()).unwrap_or_default();
    row.model_version = next.and_then(|night| night.model_version.clone());
    row.note = Some(match next {
        Some(night) => format!("shows night {}, generation {}", night.run_date, night.generation),
        None => "shows no night".into(),
    });
    held.check().await?;
    append(output, &row).await
}

/// Hashes the parts that make two runs of a night the same: inputs, SQL, model, settings.
pub(crate) fn manifest_hash<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    ContentHash::from_hasher(&hasher).long()
}
