//! Publishes a checked night as a whole: one commit per table, then the `runs` row that makes all of them visible.
//!
//! A run that is killed at any point and repeated ends in the same state: a table that already holds the manifest is left
//! alone, and a night whose row exists is done. Readers resolve tables through `runs`, so they never see half a night.

use std::collections::BTreeMap;

use crate::failure::Result;
use crate::lake::stores::Location;
use crate::publish::lock::NightLock;
use crate::publish::runs::{self, RunRecord, VisibleNight};
use crate::tables::delta::{self, TableCommit};
use crate::tables::schemas::NIGHT_TABLES;
use crate::tables::write_files::StagedFile;

/// The staged files of a night by table. A table without files has no rows that night.
pub type StagedTables = BTreeMap<String, Vec<StagedFile>>;

/// Point at which a test kills the process; `None` in every real run.
#[derive(Debug, Clone, Default)]
pub struct FaultPoint(pub Option<String>);

impl FaultPoint {
    /// Aborts as `kill -9` does if `name` is the chosen point: no destructor runs, nothing is flushed.
    pub(crate) fn reached(&self, name: &str) {
        if self.0.as_deref() == Some(name) {
            std::process::abort();
        }
    }

    /// Returns every point that [`commit_night`] passes, in order.
    pub fn names() -> Vec<String> {
        let tables = NIGHT_TABLES.iter().flat_map(|table| [format!("before-{table}"), format!("after-{table}")]);
        std::iter::once("staged".to_string()).chain(tables).chain(["before-runs".into(), "after-runs".into()]).collect()
    }
}

/// The content of a night's commit and the lock that protects it.
#[derive(Debug, Clone, Copy)]
pub struct NightCommit<'a> {
    pub output: &'a Location,
    pub held: &'a NightLock,
    pub staged: &'a StagedTables,
    /// The night that readers of this date saw when the lock was acquired; only the lock's holder can change that.
    pub visible: Option<&'a VisibleNight>,
    pub fault: &'a FaultPoint,
}

/// Commits all tables and the row. Two runs of a night with the same `record.manifest_hash` ([`runs::manifest_hash`]) are the
/// same; `record.table_versions` is filled in here.
pub async fn commit_night(commit: NightCommit<'_>, mut record: RunRecord) -> Result<VisibleNight> {
    let NightCommit { output, held, staged, visible, fault } = commit;
    fault.reached("staged");
    if let Some(night) = visible.filter(|night| night.run.manifest_hash == record.manifest_hash) {
        tracing::info!(run_date = %held.run_date, "night already published with the same inputs");
        return Ok(night.clone());
    }
    for table in NIGHT_TABLES {
        held.check().await?;
        fault.reached(&format!("before-{table}"));
        let commit = TableCommit {
            table,
            run_date: held.run_date,
            generation: held.generation,
            files: staged.get(table).map(Vec::as_slice).unwrap_or_default(),
            manifest_hash: &record.manifest_hash,
        };
        let version = delta::replace_partition(output, &commit).await?;
        record.table_versions.insert(table.into(), version);
        fault.reached(&format!("after-{table}"));
    }
    held.check().await?;
    fault.reached("before-runs");
    record.made_visible_at = chrono::Utc::now();
    runs::append(output, &record).await?;
    fault.reached("after-runs");
    Ok(VisibleNight { run: record })
}
