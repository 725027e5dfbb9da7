//! Forgets persons: takes them out of everything below the output, and proves that they are gone.
//!
//! In: the ids of the persons, and the lake if its own files shall be rewritten. Out: a record by which their rows in later files are dropped ([`erased_users`]), rollup units, night
//! states and published tables without them, and rows of the table `erasure`. The record comes first: from then on sessions leave
//! the persons out, and an erasure that was interrupted is finished by the same command.

mod gone;
mod lake_files;
mod proof;
mod published;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use chrono::{DateTime, TimeDelta, Utc};
use datafusion::prelude::SessionContext;
use futures::FutureExt;
use object_store::ObjectMeta;
use object_store::path::Path;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use crate::config::LockConfig;
use crate::failure::{Failure, Result};
use crate::features::erased_units;
use crate::features::erased_users::ErasureRecord;
use crate::ids::{Generation, RunDate};
use crate::lake::stores::Location;
use crate::model::bundle::Registry;
use crate::publish::lock::{self, NightLock};
use crate::score::contents::vector_files::{VECTORS_FOLDER, retain_keys, vector_keys};
use crate::tables::delta::{self, TableCommit};
use crate::tables::delta_log;
use crate::tables::left_out_rows;
use crate::tables::schemas::{self, ERASURE};
use crate::tables::write_files;

use gone::Gone;
pub(crate) use lake_files::LakeToRewrite;
pub(crate) use proof::{Proof, search};

/// State that follows from events without naming whose they are: outputs of the encoder, checkpoints of trainings. Nights and
/// trainings make it again.
const DERIVED_FOLDERS: [&str; 2] = ["state/encoded", "state/training"];

/// Tables of a night in the middle of being made, or as it was scored.
const NIGHT_STATE_FOLDER: &str = "state/features";

/// Files and rows that an erasure takes away, or would take away, by place.
#[derive(Debug, Default, Clone)]
pub(crate) struct Erasure {
    pub(crate) tables: Gone,
    pub(crate) units: Gone,
    pub(crate) night_states: Gone,
    /// None where the lake stays as it is.
    pub(crate) lake: Option<Gone>,
    /// Versions of the models that were trained on days from the persons' first event on.
    pub(crate) models: Vec<String>,
}

impl Erasure {
    pub(crate) fn rows(&self) -> u64 {
        self.parts().map(|part| part.rows).sum()
    }

    pub(crate) fn files(&self) -> u64 {
        self.parts().map(|part| part.files).sum()
    }

    fn parts(&self) -> impl Iterator<Item = Gone> {
        [self.tables, self.units, self.night_states].into_iter().chain(self.lake)
    }
}

/// Outcome of an erasure.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) erasure: Erasure,
    /// Result of a search for all erased persons afterwards: only if it found nothing, they are noted as gone.
    pub(crate) proof: Proof,
    /// Versions of the lake's files that its bucket still keeps: paths and versions.
    pub(crate) kept_versions: Vec<(String, String)>,
    /// Ids whose files wait for the end of the grace, and when the first of them may go.
    pub(crate) waiting: Option<(usize, DateTime<Utc>)>,
}

/// Persons to erase, and how.
pub(crate) struct Wanted<'a> {
    /// Ids, each with the time of its request.
    pub(crate) requests: &'a BTreeMap<String, DateTime<Utc>>,
    /// Time for which files stay after a person is hidden.
    pub(crate) grace: TimeDelta,
    pub(crate) lake: Option<LakeToRewrite<'a>>,
}

/// Counts what [`erase`] would take away, and changes nothing.
pub(crate) async fn survey(output: &Location, wanted: &Wanted<'_>) -> Result<Erasure> {
    // Of the lake, what was erased before goes too: it may not have been rewritten then.
    let mut record = ErasureRecord::read(output).await?.unwrap_or_else(ErasureRecord::new);
    record.note(wanted.requests, Utc::now())?;
    let users = Arc::new(record.users()?);
    let is_erased = |id: &str| wanted.requests.contains_key(id);
    let mut night_states = Gone::default();
    for file in parquet_files(output, NIGHT_STATE_FOLDER).await? {
        night_states.add(left_out_rows::count(output, &file, &is_erased).await?);
    }
    let units = erased_units::survey(output, &is_erased).await?;
    let units = Gone { files: units.files, rows: units.rows };
    let lake = match wanted.lake {
        Some(lake) => Some(lake_files::survey(lake, &users).await?),
        None => None,
    };
    let tables = published::survey(output, &is_erased).await?;
    Ok(Erasure { tables, units, night_states, lake, models: Vec::new() })
}

/// Erases the persons of these ids, and those of an earlier erasure that was interrupted.
pub(crate) async fn erase(output: &Location, locks: &LockConfig, wanted: &Wanted<'_>) -> Result<Done> {
    let held = lock::acquire_erasure(output, locks).await?;
    let done = erase_locked(output, locks, wanted, &held).await;
    let released = held.release().await;
    let done = done?;
    released?;
    Ok(done)
}

async fn erase_locked(output: &Location, locks: &LockConfig, wanted: &Wanted<'_>, held: &NightLock) -> Result<Done> {
    let mut record = ErasureRecord::read(output).await?.unwrap_or_else(ErasureRecord::new);
    let now = Utc::now();
    record.note(wanted.requests, now)?;
    record.write(output).await?;
    let due = now - wanted.grace;
    let waiting = record.people.values().filter(|erased| erased.gone_at.is_none() && erased.noted_at > due);
    let waiting: Vec<DateTime<Utc>> = waiting.map(|erased| erased.noted_at + wanted.grace).collect();
    let waiting = waiting.iter().min().map(|first| (waiting.len(), *first));
    let users = Arc::new(record.users_until(due)?);
    if users.is_empty() && waiting.is_some() {
        return Ok(Done { waiting, ..Done::default() });
    }
    let is_erased = |id: &str| users.contains(id);

    let still_locked = || held.check().boxed();
    let units = erased_units::erase(output, &is_erased, &mut record, &still_locked).await?;
    let mut erasure = Erasure { units: Gone { files: units.files, rows: units.rows }, ..Erasure::default() };
    erase_texts(output, &record.text_keys).await?;
    for file in parquet_files(output, NIGHT_STATE_FOLDER).await? {
        if let Some(rewritten) = left_out_rows::without(output, &file, &is_erased, &mut |_| Ok(())).await? {
            erasure.night_states.add(rewritten.rows_left_out);
            output.store.put_opts(&file, rewritten.bytes.into(), Default::default()).await?;
        }
    }
    held.check().await?;
    for folder in DERIVED_FOLDERS {
        let files = output.folder(folder).list().await?;
        output.delete(files.into_iter().map(|file| file.location).collect()).await?;
    }
    erasure.tables = published::erase(output, held, locks, &is_erased).await?;
    erasure.models = models_trained_since(output, record.first_day).await?;
    record.models.extend(erasure.models.iter().cloned());
    record.write(output).await?;
    if let Some(lake) = wanted.lake {
        erasure.lake = Some(lake_files::rewrite(output, lake, &users, &mut record, held).await?);
        lake_files::forget_gone_versions(&lake.source.lake.location, &mut record).await?;
        record.write(output).await?;
    }
    let named = wanted.requests.keys().map(String::as_str).filter(|id| users.contains(id));
    let proof = search(output, &is_erased, named).await?;
    if proof.found.is_empty() && record.kept_versions.is_empty() {
        finish(output, &mut record, &erasure, (due, held.generation)).await?;
    }
    Ok(Done { erasure, proof, kept_versions: record.kept_versions.into_iter().collect(), waiting })
}

/// Removes the vectors of texts.
async fn erase_texts(output: &Location, keys: &BTreeSet<i64>) -> Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    for file in output.folder(VECTORS_FOLDER).list().await? {
        // A damaged or foreign file is ignored by its readers too.
        let Ok(there) = vector_keys(output, &file.location).await else { continue };
        let kept: HashSet<i64> = there.iter().copied().filter(|key| !keys.contains(key)).collect();
        if kept.len() == there.len() {
            continue;
        }
        if !kept.is_empty() {
            retain_keys(output, &file.location, &kept).await?;
        }
        output.delete(vec![file.location]).await?;
    }
    Ok(())
}

/// Returns the models that were trained on labels of a day or later ones.
async fn models_trained_since(output: &Location, first_day: Option<i32>) -> Result<Vec<String>> {
    let Some(first) = first_day.and_then(|day| chrono::NaiveDate::from_num_days_from_ce_opt(day + 719_163)) else {
        return Ok(Vec::new());
    };
    let cards = Registry(output.folder("models")).versions().await?.into_iter();
    let after = cards.filter(|card| card.labels_end.parse::<chrono::NaiveDate>().is_ok_and(|end| end > first));
    Ok(after.map(|card| card.version).collect())
}

/// Notes when the persons who were hidden up to a time were gone: in the record, then in the table `erasure`, as far as it does not
/// have them.
async fn finish(
    output: &Location,
    record: &mut ErasureRecord,
    erasure: &Erasure,
    (due, generation): (DateTime<Utc>, Generation),
) -> Result<()> {
    let now = Utc::now();
    for erased in record.people.values_mut().filter(|erased| erased.gone_at.is_none() && erased.noted_at <= due) {
        erased.gone_at = Some(now);
    }
    record.text_keys.clear();
    record.first_day = None;
    record.write(output).await?;
    let known = noted(output).await?;
    let rows = record.people.iter().filter(|(hash, erased)| erased.gone_at.is_some() && !known.contains(*hash));
    let rows: Vec<serde_json::Value> = rows
        .map(|(hash, erased)| {
            serde_json::json!({
                "user_hash": hash, "requested_at": erased.requested_at, "gone_at": erased.gone_at,
                "files_rewritten": erasure.files(),
            })
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let mut decoder =
        arrow::json::ReaderBuilder::new(schemas::file_schema(ERASURE)?).with_batch_size(rows.len()).build_decoder()?;
    decoder.serialize(&rows)?;
    let batch = decoder.flush()?.ok_or_else(|| Failure::bug("no row of an erasure was made"))?;
    let ctx = SessionContext::new();
    let today = RunDate(now.date_naive());
    let files = write_files::stage(&ctx, ctx.read_batch(batch)?, output, ERASURE, (today, generation)).await?;
    let content = format!("erasure {generation}");
    let commit = TableCommit { table: ERASURE, run_date: today, generation, files: &files, manifest_hash: &content };
    delta::append(output, &commit).await?;
    Ok(())
}

/// Returns the hashes that the table `erasure` has.
async fn noted(output: &Location) -> Result<BTreeSet<String>> {
    let mut hashes = BTreeSet::new();
    if delta_log::open(output, ERASURE, None).await?.is_none() {
        return Ok(hashes);
    }
    let rows = delta::scan_at(&SessionContext::new(), output, ERASURE, None, None).await?;
    for batch in rows.select_columns(&["user_hash"])?.collect().await? {
        let column = cast(batch.column(0), &DataType::Utf8)?;
        hashes.extend(column.as_string::<i32>().iter().flatten().map(String::from));
    }
    Ok(hashes)
}

async fn parquet_files(output: &Location, folder: &str) -> Result<Vec<Path>> {
    let is_parquet = |file: &ObjectMeta| file.location.extension() == Some("parquet");
    let listed = output.folder(folder).list().await?.into_iter();
    Ok(listed.filter(is_parquet).map(|file| file.location).collect())
}
