//! Retention: nights past `gc.nights_kept`, files that no kept night names, state that no night can use, old locks.
//!
//! First plan, then act, so that `--dry-run` prints what would go. Files are removed by set difference: what lies in a
//! table's folder, less what kept rows of `runs` name at their versions, less what the newest version holds, less what
//! is young (a night may be writing it). Delta's own vacuum knows nothing of `runs`, so it is not used.
//!
//! Of the state, what kept nights were scored from stays (an auditor can see what the model saw), and so does whatever
//! is young: a running night writes it, and one that died is resumed from it. Rollup units are not touched: which of
//! them a lake still needs only a night can tell.

use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, path::Path};
use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::config::{GcConfig, LockConfig};
use crate::failure::{FailureKind, Result};
use crate::ids::RunDate;
use crate::lake::stores::Location;
use crate::model::bundle::Registry;
use crate::publish::gc_contents::{self, StaleFile};
use crate::publish::lock::{self, generation_of, store_now};
use crate::publish::runs::{self, RunKind, RunRecord};
use crate::score::contents::catalogue;
use crate::tables::schemas::{NIGHT_TABLES, PARTITION, RUNS};
use crate::tables::{delta, delta_log, write_files};

/// What would go; nothing has been touched yet.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GcPlan {
    /// Visible nights past their retention: hidden by a row in `runs`, then dropped from the tables.
    pub expired_nights: Vec<RunDate>,
    /// Data files that nobody can reach, with their bytes.
    pub orphan_files: Vec<(Path, u64)>,
    /// What nights that nobody can show or resume left below `state/features/`, with bytes, by date and manifest.
    pub old_features: BTreeMap<(RunDate, String), Vec<(Path, u64)>>,
    /// Encoder outputs that no coming night will look up, and catalogues that no running plan names, with bytes.
    pub old_states: Vec<(Path, u64)>,
    /// Vectors of what no lake shows any more.
    pub stale_contents: Vec<StaleFile>,
    /// Objects of lock generations that a newer one has replaced.
    pub lock_objects: Vec<Path>,
}

impl GcPlan {
    pub fn orphan_bytes(&self) -> u64 {
        self.orphan_files.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Files and bytes of old features and encoder outputs.
    pub fn old_state(&self) -> (usize, u64) {
        let files = self.old_features.values().flatten().chain(&self.old_states).map(|(_, size)| *size);
        let files = files.chain(self.stale_contents.iter().map(|file| file.bytes));
        files.fold((0, 0), |(files, bytes), size| (files + 1, bytes + size))
    }
}

/// Decides what may go. Files of the nights that expire go in the next round, once no row shows them.
pub async fn plan(output: &Location, settings: &GcConfig) -> Result<GcPlan> {
    let now = store_now(output).await?;
    let history = runs::history(output).await?;
    let shown = runs::showable(&history);
    let expired = shown.len().saturating_sub(settings.nights_kept.max(1) as usize);
    let expired_nights: Vec<RunDate> = shown.keys().take(expired).copied().collect();
    let young_after = now - TimeDelta::hours(settings.orphan_age_hours.into());
    let mut plan = GcPlan { expired_nights, ..Default::default() };
    let tables = NIGHT_TABLES.into_iter().chain([RUNS]).map(|table| orphans(output, table, &shown, young_after));
    plan.orphan_files = futures::stream::iter(tables).buffered(NIGHT_TABLES.len() + 1).try_concat().await?;
    plan.old_features = old_features(output, &shown, young_after).await?;
    plan.old_states = old_states(output, &shown, young_after).await?;
    plan.old_states.extend(old_catalogues(output, young_after).await?);
    plan.stale_contents = gc_contents::plan(output, young_after).await?;
    plan.lock_objects = old_locks(output).await?;
    Ok(plan)
}

/// Carries the plan out. A night that somebody holds just now is left for the next time.
pub async fn execute(output: &Location, plan: &GcPlan, locks: &LockConfig) -> Result<()> {
    for run_date in &plan.expired_nights {
        if let Some(held) = take(output, *run_date, locks).await? {
            let expired = expire(output, &held).await;
            held.release().await?;
            expired?;
        }
    }
    for ((run_date, manifest), files) in &plan.old_features {
        if let Some(held) = take(output, *run_date, locks).await? {
            let deleted = drop_features(output, *run_date, manifest, files).await;
            held.release().await?;
            deleted?;
        }
    }
    output.delete(paths(&plan.orphan_files)).await?;
    output.delete(paths(&plan.old_states)).await?;
    gc_contents::execute(output, &plan.stale_contents).await?;
    output.delete(plan.lock_objects.clone()).await
}

/// Under the night's lock, and only if no run published from these features since the plan was made.
async fn drop_features(output: &Location, run_date: RunDate, manifest: &str, files: &[(Path, u64)]) -> Result<()> {
    let history = runs::history(output).await?;
    if shows(&runs::showable(&history), run_date, manifest) {
        return Ok(());
    }
    output.delete(paths(files)).await
}

fn shows(shown: &BTreeMap<RunDate, Vec<&RunRecord>>, run_date: RunDate, manifest: &str) -> bool {
    shown.get(&run_date).is_some_and(|runs| runs.iter().any(|run| run.manifest_hash == manifest))
}

/// The night's lock, or `None` where somebody holds it.
async fn take(output: &Location, run_date: RunDate, locks: &LockConfig) -> Result<Option<lock::Held>> {
    match lock::acquire(output, run_date, locks).await {
        Ok(held) => Ok(Some(held)),
        Err(failure) if failure.kind == FailureKind::Fenced => {
            tracing::info!(%run_date, "night is held, it is cleaned up another time");
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

fn paths(files: &[(Path, u64)]) -> Vec<Path> {
    files.iter().map(|(path, _)| path.clone()).collect()
}

/// The row first: readers stop looking before the tables change.
async fn expire(output: &Location, held: &lock::Held) -> Result<()> {
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

/// Old Parquet files below the table's partitions that neither the newest version nor a row that can be shown names.
async fn orphans(
    output: &Location,
    table: &str,
    shown: &BTreeMap<RunDate, Vec<&RunRecord>>,
    young_after: DateTime<Utc>,
) -> Result<Vec<(Path, u64)>> {
    let Some(newest) = delta_log::open(output, table, None).await? else { return Ok(Vec::new()) };
    let mut named = delta::file_paths(&newest, table, None)?;
    let held: Vec<(u64, RunDate)> =
        shown.values().flatten().filter_map(|run| Some((*run.table_versions.get(table)?, run.run_date))).collect();
    // Most nights were never published again: the newest version still holds their files, and theirs need no reading.
    let again = match held.iter().map(|(version, _)| *version).min() {
        Some(oldest) => delta_log::published_since(&newest, oldest).await?,
        None => BTreeMap::new(),
    };
    let mut by_version: BTreeMap<u64, BTreeSet<RunDate>> = BTreeMap::new();
    for (version, date) in held {
        if again.get(&date).is_some_and(|at| *at > version) {
            by_version.entry(version).or_default().insert(date);
        }
    }
    for (version, dates) in &by_version {
        if let Some(then) = delta_log::open(output, table, Some(*version)).await? {
            named.extend(delta::file_paths(&then, table, Some(dates))?);
        }
    }
    let place = write_files::table_location(output, table);
    let named: HashSet<Path> = named.iter().map(|path| place.path(path)).collect();
    let is_data = |object: &ObjectMeta| {
        let mut parts = object.location.prefix_match(&place.prefix).into_iter().flatten();
        parts.next().is_some_and(|folder| folder.as_ref().starts_with(&format!("{PARTITION}=")))
            && object.location.extension() == Some("parquet")
    };
    let listed = place.list().await?.into_iter();
    let gone = listed.filter(|o| is_data(o) && o.last_modified <= young_after && !named.contains(&o.location));
    Ok(gone.map(|object| (object.location, object.size)).collect())
}

/// Old files below `state/features/<run_date>/<manifest>/` of manifests that no row can show.
async fn old_features(
    output: &Location,
    shown: &BTreeMap<RunDate, Vec<&RunRecord>>,
    young_after: DateTime<Utc>,
) -> Result<BTreeMap<(RunDate, String), Vec<(Path, u64)>>> {
    let place = output.folder("state/features");
    let mut manifests: BTreeMap<(RunDate, String), Vec<ObjectMeta>> = BTreeMap::new();
    for object in place.list().await? {
        let parts: Vec<String> =
            object.location.prefix_match(&place.prefix).into_iter().flatten().map(|p| p.as_ref().into()).collect();
        if let [date, manifest, ..] = parts.as_slice()
            && let Ok(date) = date.parse()
        {
            manifests.entry((date, manifest.clone())).or_default().push(object);
        }
    }
    let mut old = BTreeMap::new();
    for ((date, manifest), objects) in manifests {
        // All of them or none: an attempt that is still being written is not torn apart.
        if !shows(shown, date, &manifest) && objects.iter().all(|object| object.last_modified <= young_after) {
            old.insert((date, manifest), objects.into_iter().map(|object| (object.location, object.size)).collect());
        }
    }
    Ok(old)
}

/// Old files below `state/encoded/<weights>/`. A night looks up the latest file on or before its date, so the newest of
/// a model that is champion or stands behind a night that can be shown stays, however old it is.
async fn old_states(
    output: &Location,
    shown: &BTreeMap<RunDate, Vec<&RunRecord>>,
    young_after: DateTime<Utc>,
) -> Result<Vec<(Path, u64)>> {
    let registry = Registry(output.folder("models"));
    let mut used: BTreeSet<String> = shown.values().flatten().filter_map(|run| run.model_version.clone()).collect();
    used.extend(registry.champion().await?);
    let cards = registry.versions().await?.into_iter();
    let weights: HashSet<String> = cards.filter(|c| used.contains(&c.version)).map(|c| c.weights_hash).collect();
    let place = output.folder("state/encoded");
    let mut old = Vec::new();
    for (hash, mut nights) in place.list_by_folder().await? {
        if weights.contains(&hash) {
            // Listed in path order, and the files are named by date.
            nights.pop();
        }
        let gone = nights.into_iter().filter(|night| night.last_modified <= young_after);
        old.extend(gone.map(|night| (night.location, night.size)));
    }
    Ok(old)
}

/// Catalogues that were planned with long ago: whoever plans anew writes them anew.
async fn old_catalogues(output: &Location, young_after: DateTime<Utc>) -> Result<Vec<(Path, u64)>> {
    let listed = catalogue::folder(output).list().await?.into_iter();
    Ok(listed.filter(|file| file.last_modified <= young_after).map(|file| (file.location, file.size)).collect())
}

/// Everything but the newest generation of each night: its number must never be handed out again.
async fn old_locks(output: &Location) -> Result<Vec<Path>> {
    let number = |o: &ObjectMeta| ["json", "heartbeat", "done"].iter().find_map(|suffix| generation_of(o, suffix));
    let mut old = Vec::new();
    for objects in output.folder("state/lock").list_by_folder().await?.into_values() {
        let newest = objects.iter().filter_map(|o| generation_of(o, "json")).max().unwrap_or(0);
        old.extend(objects.iter().filter(|o| number(o).is_some_and(|n| n < newest)).map(|o| o.location.clone()));
    }
    Ok(old)
}
