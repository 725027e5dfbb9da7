//! Retention: nights beyond `gc.nights_kept`, files that no kept night names, state that no night can use, old locks.
//!
//! Planning and execution are separate, so that `--dry-run` prints what would be removed. Data files are found by set
//! difference: the files in a table's folder, minus those that rows of `runs` name at their versions, minus those of the newest
//! version, minus young ones (a night may be writing them). Delta's own vacuum does not know `runs`, so it is not used.
//!
//! State that kept nights were scored from stays, so that an auditor can see the model's inputs. Young state stays too: a
//! running night writes it, and an interrupted night resumes from it. Rollup units are not removed: only a night can decide
//! which of them a lake still needs.

use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, path::Path};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::config::{GcConfig, LockConfig};
use crate::failure::{FailureKind, Result};
use crate::features::night_units;
use crate::ids::{Generation, RunDate};
use crate::lake::stores::Location;
use crate::model::bundle::Registry;
use crate::publish::gc_contents::{self, StaleFile};
use crate::publish::lock::{self, NightLock, generation_of, store_now};
use crate::publish::runs::{self, RunKind, RunRecord};
use crate::publish::suppressed;
use crate::score::contents::catalogue;
use crate::tables::schemas::{NIGHT_TABLES, PARTITION, RUNS};
use crate::tables::{delta, delta_log, write_files};

/// Files and nights to remove. Making the plan changes nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GcPlan {
    /// Visible nights past their retention: hidden by a row in `runs`, then dropped from the tables.
    pub expired_nights: Vec<RunDate>,
    /// Data files that no reader can reach, with their bytes.
    pub orphan_files: Vec<(Path, u64)>,
    /// Files below `state/features/` of nights that cannot be shown or resumed, with their bytes, by date and manifest.
    pub(crate) old_features: BTreeMap<(RunDate, String), Vec<(Path, u64)>>,
    /// Encoder states that no later night looks up, with their bytes.
    pub old_encoder_states: Vec<(Path, u64)>,
    /// Catalogues of old plans, with their bytes.
    pub old_catalogues: Vec<(Path, u64)>,
    /// Records of the rollups of nights that cannot be shown, with their bytes.
    pub(crate) old_night_units: Vec<(Path, u64)>,
    /// Content vectors that no night needs.
    pub(crate) stale_contents: Vec<StaleFile>,
    /// Objects of lock generations that a newer one has replaced, with their bytes.
    pub lock_objects: Vec<(Path, u64)>,
}

/// One line of what `gc` removes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GcRow {
    pub kind: &'static str,
    /// The file, or the run date of a night.
    pub(crate) path: String,
    pub bytes: u64,
    pub reason: String,
}

impl GcPlan {
    /// Lists everything that is to be removed, for people.
    pub fn rows(&self, output: &Location) -> Vec<GcRow> {
        let mut rows: Vec<GcRow> = Vec::new();
        for night in &self.expired_nights {
            rows.push(GcRow {
                kind: "night",
                path: night.to_string(),
                bytes: 0,
                reason: "older than gc.nights_kept; its files go in the next round".into(),
            });
        }
        let mut add_files = |kind: &'static str, files: &[(Path, u64)], reason: &str| {
            for (path, bytes) in files {
                rows.push(GcRow { kind, path: output.display(path), bytes: *bytes, reason: reason.into() });
            }
        };
        add_files("data file", &self.orphan_files, "no visible or restorable night names it");
        for ((run_date, _), files) in &self.old_features {
            add_files("features", files, &format!("no visible or restorable run of {run_date} was scored from them"));
        }
        add_files(
            "encoder states",
            &self.old_encoder_states,
            "a newer file of the model exists, or no night uses the model",
        );
        add_files("catalogue", &self.old_catalogues, "the query that was planned with it is over");
        add_files("units of a night", &self.old_night_units, "the run is neither visible nor restorable");
        for stale in &self.stale_contents {
            let reason = match stale.kept_keys {
                Some(_) => "rewritten without the vectors that no lake file refers to",
                None => "no lake file or no model refers to its vectors",
            };
            add_files("content vectors", &[(stale.file.clone(), stale.bytes)], reason);
        }
        add_files("lock", &self.lock_objects, "a newer generation of the night exists");
        rows
    }

    pub fn orphan_bytes(&self) -> u64 {
        self.orphan_files.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Returns the number of files of old state and their bytes.
    pub fn old_state(&self) -> (usize, u64) {
        let state = self.old_features.values().flatten().chain(&self.old_encoder_states);
        let state = state.chain(&self.old_catalogues).chain(&self.old_night_units);
        let sizes = state.map(|(_, bytes)| *bytes).chain(self.stale_contents.iter().map(|file| file.bytes));
        sizes.fold((0, 0), |(files, total), bytes| (files + 1, total + bytes))
    }
}

/// The runs that can be shown, by date, the newest last.
type ShowableRuns<'a> = BTreeMap<RunDate, Vec<&'a RunRecord>>;

/// Decides what to remove. The files of nights that expire now are removed in the next round, when no row shows them.
pub async fn plan(output: &Location, settings: &GcConfig) -> Result<GcPlan> {
    let now = store_now(output).await?;
    let history = runs::history(output).await?;
    let shown = runs::showable(&history);
    let expired = shown.len().saturating_sub(settings.nights_kept.max(1) as usize);
    let young_after = now - TimeDelta::hours(settings.orphan_age_hours.into());
    let tables = NIGHT_TABLES.into_iter().chain([RUNS]).map(|table| orphans(output, table, &shown, young_after));
    Ok(GcPlan {
        expired_nights: shown.keys().take(expired).copied().collect(),
        orphan_files: futures::stream::iter(tables).buffered(NIGHT_TABLES.len() + 1).try_concat().await?,
        old_features: old_features(output, &shown, young_after).await?,
        old_encoder_states: old_encoder_states(output, &shown, young_after).await?,
        old_catalogues: old_catalogues(output, young_after).await?,
        old_night_units: old_night_units(output, &shown, young_after).await?,
        stale_contents: gc_contents::plan(output, young_after).await?,
        lock_objects: old_locks(output).await?,
    })
}

/// Executes the plan. A night that another process holds is skipped.
pub async fn execute(output: &Location, plan: &GcPlan, locks: &LockConfig) -> Result<()> {
    for run_date in &plan.expired_nights {
        if let Some(held) = try_lock(output, *run_date, locks).await? {
            let expired = expire(output, &held).await;
            held.release().await?;
            expired?;
        }
    }
    for ((run_date, manifest), files) in &plan.old_features {
        if let Some(held) = try_lock(output, *run_date, locks).await? {
            let deleted = delete_features(output, *run_date, manifest, files).await;
            held.release().await?;
            deleted?;
        }
    }
    output.delete(paths(&plan.orphan_files)).await?;
    output.delete(paths(&plan.old_encoder_states)).await?;
    output.delete(paths(&plan.old_catalogues)).await?;
    output.delete(paths(&plan.old_night_units)).await?;
    gc_contents::execute(output, &plan.stale_contents).await?;
    output.delete(paths(&plan.lock_objects)).await
}

/// Deletes features under the night's lock, unless a run published from them after the plan was made.
async fn delete_features(output: &Location, run_date: RunDate, manifest: &str, files: &[(Path, u64)]) -> Result<()> {
    let history = runs::history(output).await?;
    if is_shown(&runs::showable(&history), run_date, manifest) {
        return Ok(());
    }
    output.delete(paths(files)).await
}

fn is_shown(shown: &ShowableRuns<'_>, run_date: RunDate, manifest: &str) -> bool {
    shown.get(&run_date).is_some_and(|runs| runs.iter().any(|run| run.manifest_hash == manifest))
}

/// Locks the night; `None` if another process holds it.
async fn try_lock(output: &Location, run_date: RunDate, locks: &LockConfig) -> Result<Option<NightLock>> {
    match lock::acquire(output, run_date, locks).await {
        Ok(held) => Ok(Some(held)),
        Err(failure) if failure.kind == FailureKind::Fenced => {
            tracing::info!(%run_date, "night is locked; skipped");
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

fn paths(files: &[(Path, u64)]) -> Vec<Path> {
    files.iter().map(|(path, _)| path.clone()).collect()
}

/// Appends the `runs` row first: readers stop showing the night before its tables change.
async fn expire(output: &Location, held: &NightLock) -> Result<()> {
    let mut row = RunRecord::new(held, format!("expiry by generation {}", held.generation));
    row.kind = RunKind::Expire;
    row.status = "expired".into();
    held.check().await?;
    runs::append(output, &row).await?;
    for table in NIGHT_TABLES {
        held.check().await?;
        let (run_date, generation) = (held.run_date, held.generation);
        let commit = delta::TableCommit { table, run_date, generation, files: &[], manifest_hash: &row.manifest_hash };
        delta::replace_partition(output, &commit).await?;
    }
    Ok(())
}

/// Returns old Parquet files in the table's partitions that neither the newest version nor a showable run names.
async fn orphans(
    output: &Location,
    table: &str,
    shown: &ShowableRuns<'_>,
    young_after: DateTime<Utc>,
) -> Result<Vec<(Path, u64)>> {
    let Some(newest) = delta_log::open(output, table, None).await? else { return Ok(Vec::new()) };
    let mut named = delta::file_paths(&newest, table, None)?;
    let runs = shown.values().flatten();
    let nights: Vec<(u64, RunDate)> =
        runs.filter_map(|run| Some((*run.table_versions.get(table)?, run.run_date))).collect();
    // Most nights are published once: the newest version holds their files, and older versions need not be read for them.
    let published_again = match nights.iter().map(|(version, _)| *version).min() {
        Some(oldest) => delta_log::published_since(&newest, oldest).await?,
        None => BTreeMap::new(),
    };
    let mut replaced: BTreeMap<u64, BTreeSet<RunDate>> = BTreeMap::new();
    for (version, date) in nights {
        if published_again.get(&date).is_some_and(|last| *last > version) {
            replaced.entry(version).or_default().insert(date);
        }
    }
    for (version, dates) in &replaced {
        if let Some(opened) = delta_log::open(output, table, Some(*version)).await? {
            named.extend(delta::file_paths(&opened, table, Some(dates))?);
        }
    }
    let folder = write_files::table_location(output, table);
    let named: HashSet<Path> = named.iter().map(|path| folder.path(path)).collect();
    let is_data = |object: &ObjectMeta| {
        let mut parts = object.location.prefix_match(&folder.prefix).into_iter().flatten();
        parts.next().is_some_and(|part| part.as_ref().starts_with(&format!("{PARTITION}=")))
            && object.location.extension() == Some("parquet")
    };
    let mut orphans = Vec::new();
    for object in folder.list().await? {
        if is_data(&object) && object.last_modified <= young_after && !named.contains(&object.location) {
            orphans.push((object.location, object.size));
        }
    }
    Ok(orphans)
}

/// Returns old files below `state/features/<run_date>/<manifest>/` whose manifest no showable run has.
async fn old_features(
    output: &Location,
    shown: &ShowableRuns<'_>,
    young_after: DateTime<Utc>,
) -> Result<BTreeMap<(RunDate, String), Vec<(Path, u64)>>> {
    let folder = output.folder("state/features");
    let mut manifests: BTreeMap<(RunDate, String), Vec<ObjectMeta>> = BTreeMap::new();
    for object in folder.list().await? {
        let parts: Vec<String> =
            object.location.prefix_match(&folder.prefix).into_iter().flatten().map(|p| p.as_ref().into()).collect();
        if let [date, manifest, ..] = parts.as_slice()
            && let Ok(date) = date.parse()
        {
            manifests.entry((date, manifest.clone())).or_default().push(object);
        }
    }
    let mut old = BTreeMap::new();
    for ((date, manifest), objects) in manifests {
        // All or none: a run may still be writing the rest of a manifest's files.
        if !is_shown(shown, date, &manifest) && objects.iter().all(|object| object.last_modified <= young_after) {
            old.insert((date, manifest), objects.into_iter().map(|object| (object.location, object.size)).collect());
        }
    }
    Ok(old)
}

/// Returns old files below `state/encoded/<weights>/`. A night looks up the newest file on or before its date, so the newest
/// file stays, however old, if its model is the champion or scored a showable night.
async fn old_encoder_states(
    output: &Location,
    shown: &ShowableRuns<'_>,
    young_after: DateTime<Utc>,
) -> Result<Vec<(Path, u64)>> {
    let registry = Registry(output.folder("models"));
    let runs = shown.values().flatten();
    let mut versions: BTreeSet<String> =
        runs.filter_map(|run| run.model_version.as_ref()).map(ToString::to_string).collect();
    versions.extend(registry.champion().await?);
    let cards = registry.versions().await?.into_iter();
    let weights: HashSet<String> =
        cards.filter(|card| versions.contains(&card.version)).map(|card| card.weights_hash).collect();
    let mut old = Vec::new();
    for (hash, mut files) in output.folder("state/encoded").list_by_folder().await? {
        if weights.contains(&hash) {
            // Files are named by date and listed in path order.
            files.pop();
        }
        let stale = files.into_iter().filter(|file| file.last_modified <= young_after);
        old.extend(stale.map(|file| (file.location, file.size)));
    }
    Ok(old)
}

/// Returns old catalogues: a query that is planned again writes its catalogue again.
async fn old_catalogues(output: &Location, young_after: DateTime<Utc>) -> Result<Vec<(Path, u64)>> {
    let listed = catalogue::folder(output).list().await?.into_iter();
    Ok(listed.filter(|file| file.last_modified <= young_after).map(|file| (file.location, file.size)).collect())
}

/// Returns old records of the rollups of runs that are not showable, and what these runs did not publish.
async fn old_night_units(
    output: &Location,
    shown: &ShowableRuns<'_>,
    young_after: DateTime<Utc>,
) -> Result<Vec<(Path, u64)>> {
    let is_needed = |(date, generation): (RunDate, Generation)| {
        shown.get(&date).is_some_and(|runs| runs.iter().any(|run| run.generation == generation))
    };
    let notes = output.folder(night_units::FOLDER).list().await?.into_iter();
    let notes = notes.filter_map(|file| Some((night_units::night_of(&file)?, file)));
    let files = notes.chain(suppressed::files(output).await?);
    let old = files.filter(|(night, file)| file.last_modified <= young_after && !is_needed(*night));
    Ok(old.map(|(_, file)| (file.location, file.size)).collect())
}

/// Returns the lock objects of all but the newest generation of each night; the newest stays, so that its number is never
/// assigned again.
async fn old_locks(output: &Location) -> Result<Vec<(Path, u64)>> {
    let number = |o: &ObjectMeta| ["json", "heartbeat", "done"].iter().find_map(|suffix| generation_of(o, suffix));
    let mut old = Vec::new();
    for objects in output.folder("state/lock").list_by_folder().await?.into_values() {
        let newest = objects.iter().filter_map(|o| generation_of(o, "json")).max().unwrap_or(0);
        let replaced = objects.iter().filter(|o| number(o).is_some_and(|n| n < newest));
        old.extend(replaced.map(|object| (object.location.clone(), object.size)));
    }
    Ok(old)
}
