//! Opens and creates the Delta tables, and reads the nights that earlier commits published.
//!
//! delta-rs uses the same object store as everything else, so a commit on S3 is a conditional put (`If-None-Match: *`) with the
//! configured endpoint and credentials, and no lock table is needed.

use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::transaction::TransactionError;
use deltalake::kernel::{StructField, StructType};
use deltalake::logstore::LogStoreRef;
use deltalake::operations::create::CreateBuilder;
use deltalake::protocol::{SaveMode, checkpoints};
use deltalake::{DeltaTable, DeltaTableError};
use futures::StreamExt;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::failure::{Cause, Failure, Result, store_refusal};
use crate::ids::RunDate;
use crate::lake::delta_table;
use crate::lake::stores::Location;
use crate::tables::schemas::{self, PARTITION};
use crate::tables::write_files::table_location;

/// Keys that nightly commits add to `commitInfo`.
pub(crate) const COMMIT_RUN_DATE: &str = "intentcast.runDate";
pub(crate) const COMMIT_MANIFEST: &str = "intentcast.manifest";

/// Log files are kept: they are small, and `runs` refers to versions of many years. Only `gc` decides which data files to remove.
const PROPERTIES: [(&str, &str); 4] = [
    ("delta.enableExpiredLogCleanup", "false"),
    ("delta.logRetentionDuration", "interval 3650 days"),
    ("delta.deletedFileRetentionDuration", "interval 3650 days"),
    ("delta.checkpointInterval", "20"),
];

fn log_store(output: &Location, table: &str) -> Result<LogStoreRef> {
    delta_table::log_store(&table_location(output, table)).map_err(failure(table))
}

/// Opens the table at `version`, or at its newest; `None` if it does not exist.
pub(crate) async fn open(output: &Location, table: &str, version: Option<u64>) -> Result<Option<DeltaTable>> {
    let log = log_store(output, table)?;
    if !log.is_delta_table_location().await.map_err(failure(table))? {
        return Ok(None);
    }
    let mut opened = DeltaTable::new(log);
    match version {
        Some(version) => opened.load_version(version).await,
        None => opened.load().await,
    }
    .map_err(failure(table))?;
    Ok(Some(opened))
}

/// Opens the newest state of the table; creates an empty table if there is none.
pub(crate) async fn open_or_create(output: &Location, table: &str) -> Result<DeltaTable> {
    if let Some(opened) = open(output, table, None).await? {
        return add_missing_columns(opened, table).await;
    }
    let created = CreateBuilder::new()
        .with_log_store(log_store(output, table)?)
        .with_table_name(table)
        .with_columns(columns_of(table)?)
        .with_partition_columns([PARTITION])
        .with_configuration(PROPERTIES.map(|(key, value)| (key.to_string(), Some(value.to_string()))))
        .with_save_mode(SaveMode::Ignore)
        .await;
    match created {
        Ok(table) => Ok(table),
        // Another process may have created it in the meantime.
        Err(error) => match open(output, table, None).await? {
            Some(opened) => Ok(opened),
            None => Err(failure(table)(error)),
        },
    }
}

/// Adds the columns that an earlier version did not write; its nights have null there. Nothing else of the table changes.
async fn add_missing_columns(opened: DeltaTable, table: &str) -> Result<DeltaTable> {
    let found = opened.snapshot().map_err(failure(table))?.schema();
    let missing: Vec<StructField> =
        columns_of(table)?.into_iter().filter(|column| found.field(column.name()).is_none()).collect();
    if missing.is_empty() {
        return Ok(opened);
    }
    let names: Vec<&str> = missing.iter().map(|column| column.name().as_str()).collect();
    tracing::info!("table {table}: adding the columns {}, which an earlier version did not have", names.join(", "));
    opened.add_columns().with_fields(missing.clone()).await.map_err(failure(table))
}

/// Writes the newest state of a table as a checkpoint, and removes the log files before it: earlier versions cannot be read any more,
/// nor what they said of files that are gone.
pub(crate) async fn forget_history(output: &Location, table: &str) -> Result<()> {
    let Some(opened) = open(output, table, None).await? else { return Ok(()) };
    let newest = opened.version().unwrap_or_default();
    let folder = table_location(output, table).folder("_delta_log");
    let version_of = |name: &str| name.get(..20)?.parse::<u64>().ok();
    let older: Vec<_> = folder
        .list()
        .await?
        .into_iter()
        .filter(|file| file.location.filename().and_then(version_of).is_some_and(|version| version < newest))
        .map(|file| file.location)
        .collect();
    if older.is_empty() {
        return Ok(());
    }
    checkpoints::create_checkpoint(&opened, None).await.map_err(failure(table))?;
    output.delete(older).await
}

fn columns_of(table: &str) -> Result<Vec<StructField>> {
    let schema: StructType = schemas::table_schema(table)?.as_ref().try_into_kernel().map_err(Failure::bug)?;
    Ok(schema.fields().cloned().collect())
}

/// Returns the manifest hash of the newest commit that published `run_date`, searching from the newest version backwards.
pub(crate) async fn newest_manifest(table: &DeltaTable, run_date: RunDate) -> Result<Option<String>> {
    let date = run_date.to_string();
    let log = table.log_store();
    let newest = table.version().unwrap_or_default();
    for version in (0..=newest).rev() {
        let Some(bytes) = log.read_commit_entry(version).await.map_err(failure(log.root_url()))? else {
            return Ok(None);
        };
        let Some(info) = commit_info(&bytes) else { continue };
        if info.get(COMMIT_RUN_DATE).and_then(|v| v.as_str()) == Some(date.as_str()) {
            return Ok(info.get(COMMIT_MANIFEST).and_then(|v| v.as_str()).map(String::from));
        }
    }
    Ok(None)
}

/// Returns the nights that commits after version `after` published, each with its last version, up to the loaded version.
pub(crate) async fn published_since(table: &DeltaTable, after: u64) -> Result<BTreeMap<RunDate, u64>> {
    let log = table.log_store();
    let newest = table.version().unwrap_or_default();
    let mut commits = futures::stream::iter(after + 1..=newest)
        .map(|version| {
            let log = Arc::clone(&log);
            async move { log.read_commit_entry(version).await.map(|bytes| (version, bytes)) }
        })
        .buffered(16);
    let mut published = BTreeMap::new();
    while let Some(commit) = commits.next().await {
        let (version, bytes) = commit.map_err(failure(log.root_url()))?;
        let info = bytes.as_deref().and_then(commit_info);
        let date = info.as_ref().and_then(|info| info.get(COMMIT_RUN_DATE)?.as_str()?.parse().ok());
        if let Some(date) = date {
            published.insert(date, version);
        }
    }
    Ok(published)
}

/// Finds the `commitInfo` action in a commit file, which has one JSON object per line.
fn commit_info(bytes: &[u8]) -> Option<serde_json::Value> {
    let text = std::str::from_utf8(bytes).ok()?;
    let line = text.lines().find(|line| line.starts_with("{\"commitInfo\""))?;
    serde_json::from_str::<serde_json::Value>(line).ok()?.get("commitInfo").cloned()
}

/// Converts an error of delta-rs: names the table and separates passing faults of the store from broken invariants.
pub(crate) fn failure(table: impl std::fmt::Display) -> impl Fn(DeltaTableError) -> Failure {
    move |error| {
        let failure = match error {
            error if let Some(refused) = store_refusal(&error) => refused.caused_by(error),
            DeltaTableError::ObjectStore { source } => Failure::from(source),
            DeltaTableError::InvalidVersion(version) => {
                Failure::usage(format!("no version {version}")).hint("gc may have removed it; choose a later run")
            }
            DeltaTableError::Transaction { source } => {
                let conflict =
                    matches!(source, TransactionError::CommitConflict(_) | TransactionError::MaxCommitAttempts(_));
                let cause = conflict.then_some(Cause::Conflict);
                Failure { cause, ..Failure::transient(source.to_string()) }.caused_by(source)
            }
            DeltaTableError::KernelError(source) => Failure::transient(source.to_string()).caused_by(source),
            other => Failure::bug(&other).caused_by(other),
        };
        failure.at(format!("table {table}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Config;
    use crate::tables::{delta, schemas};
    use datafusion::prelude::{DataFrame, SessionContext};

    #[tokio::test]
    async fn a_table_of_an_older_version_gets_its_missing_columns() {
        let folder = tempfile::tempdir().unwrap();
        let output = Location::open(&folder.path().display().to_string(), &S3Config::default()).unwrap();
        let mut older = columns_of("quarantine").unwrap();
        older.retain(|column| !["view", "column_name"].contains(&column.name().as_str()));
        let created = CreateBuilder::new()
            .with_log_store(log_store(&output, "quarantine").unwrap())
            .with_table_name("quarantine")
            .with_columns(older)
            .with_partition_columns([PARTITION])
            .await;
        assert_eq!(created.unwrap().version(), Some(0));
        let rows = delta::scan_at(&SessionContext::new(), &output, "quarantine", None, None).await.unwrap();
        let names =
            |rows: &DataFrame| rows.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        let declared = schemas::table_schema("quarantine").unwrap();
        assert_eq!(names(&rows), declared.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>());
        assert_eq!(rows.collect().await.unwrap().iter().map(|batch| batch.num_rows()).sum::<usize>(), 0);
        for _ in 0..2 {
            let opened = open_or_create(&output, "quarantine").await.unwrap();
            let found = opened.snapshot().unwrap().schema();
            assert!(columns_of("quarantine").unwrap().iter().all(|column| found.field(column.name()).is_some()));
            assert_eq!(opened.version(), Some(1), "the columns are added once");
            // Delta appends them, and nights of both versions are put together by position.
            let rows = delta::scan_at(&SessionContext::new(), &output, "quarantine", None, None).await.unwrap();
            assert_eq!(names(&rows), declared.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>());
        }
    }
}
