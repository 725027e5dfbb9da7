//! Retention: nights past `gc.nights_kept`, files that no kept night names, lock objects of old generations.
//!
//! First plan, then act, so that `--dry-run` prints what would go. Files are removed by set difference: what lies in a
//! table's folder, less what kept rows of `runs` name at their versions, less what the newest version holds, less what
//! is young (a night may be writing it). Delta's own vacuum knows nothing of `runs`, so it is not used.

use chrono::{DateTime, TimeDelta, Utc};
use object_store::{ObjectMeta, path::Path};
use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::config::{GcConfig, LockConfig};
use crate::failure::{FailureKind, Result};
use crate::ids::RunDate;
use crate::lake::stores::Location;
use crate::publish::lock::{self, generation_of, store_now};
use crate::publish::runs::{self, RunKind, RunRecord};
use crate::tables::schemas::{NIGHT_TABLES, PARTITION, RUNS};
use crate::tables::{delta, delta_log, write_files};

/// What would go; nothing has been touched yet.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GcPlan {
    /// Visible nights past their retention: hidden by a row in `runs`, then dropped from the tables.
    pub expired_nights: Vec<RunDate>,
    /// Data files that nobody can reach, with their bytes.
    pub orphan_files: Vec<(Path, u64)>,
    /// Objects of lock generations that a newer one has replaced.
    pub lock_objects: Vec<Path>,
}

impl GcPlan {
    pub fn orphan_bytes(&self) -> u64 {
        self.orphan_files.iter().map(|(_, bytes)| bytes).sum()
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
    for table in NIGHT_TABLES.into_iter().chain([RUNS]) {
        plan.orphan_files.extend(orphans(output, table, &shown, young_after).await?);
    }
    plan.lock_objects = old_locks(output).await?;
    Ok(plan)
}

/// Carries the plan out. A night that somebody holds just now is left for the next time.
pub async fn execute(output: &Location, plan: &GcPlan, locks: &LockConfig) -> Result<()> {
    for run_date in &plan.expired_nights {
        let held = match lock::acquire(output, *run_date, locks).await {
            Ok(held) => held,
            Err(failure) if failure.kind == FailureKind::Fenced => {
                tracing::info!(%run_date, "night is held, it expires another time");
                continue;
            }
            Err(failure) => return Err(failure),
        };
        let expired = expire(output, &held).await;
        held.release().await?;
        expired?;
    }
    output.delete(plan.orphan_files.iter().map(|(path, _)| path.clone()).collect()).await?;
    output.delete(plan.lock_objects.clone()).await
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
    // By version, not by night: a version's log is replayed once for all the nights that it serves.
    let mut by_version: BTreeMap<u64, BTreeSet<RunDate>> = BTreeMap::new();
    for run in shown.values().flatten() {
        if let Some(version) = run.table_versions.get(table) {
            by_version.entry(*version).or_default().insert(run.run_date);
        }
    }
    for (version, dates) in by_version {
        if let Some(then) = delta_log::open(output, table, Some(version)).await? {
            named.extend(delta::file_paths(&then, table, Some(&dates))?);
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

/// Everything but the newest generation of each night: its number must never be handed out again.
async fn old_locks(output: &Location) -> Result<Vec<Path>> {
    let mut old = Vec::new();
    let (dates, _) = output.folder("state/lock").children().await?;
    for date in dates {
        let objects = output.folder(&format!("state/lock/{date}")).list().await?;
        let number = |o: &ObjectMeta| ["json", "heartbeat", "done"].iter().find_map(|suffix| generation_of(o, suffix));
        let newest = objects.iter().filter_map(|o| generation_of(o, "json")).max().unwrap_or(0);
        old.extend(objects.iter().filter(|o| number(o).is_some_and(|n| n < newest)).map(|o| o.location.clone()));
    }
    Ok(old)
}
