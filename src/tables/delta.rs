//! Metadata-only Delta commits by the driver, and reads of a table at a given version.
//!
//! A commit replaces one night's partition: it removes the partition's files and adds the staged ones, together with the
//! transaction `intentcast/<run_date>` at version = generation. A commit is decided on the newest state of the table and
//! succeeds only if that is still the newest; otherwise it is decided again. So a partition always holds the files of exactly
//! one run, however that run was interrupted and whichever runs commit at the same time, and a fenced-out run never replaces
//! a newer one.

use datafusion::logical_expr::{col, lit};
use datafusion::prelude::{DataFrame, SessionContext};
use deltalake::DeltaTable;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake::kernel::{Action, Add, Transaction};
use deltalake::protocol::{DeltaOperation, SaveMode};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::failure::{Failure, Result};
use crate::ids::{Generation, RunDate, date32};
use crate::lake::retry::{RetryPolicy, SystemClock};
use crate::lake::stores::Location;
use crate::tables::constant_filters::ConstantFilters;
use crate::tables::delta_log::{self, COMMIT_MANIFEST, COMMIT_RUN_DATE, failure};
use crate::tables::schemas::{self, PARTITION, RUNS};
use crate::tables::write_files::StagedFile;

/// Retries of a commit when other runs commit to the same table at the same time.
const COMMIT_RETRIES: RetryPolicy = RetryPolicy {
    attempts_max: 30,
    delay_first: Duration::from_millis(20),
    delay_max: Duration::from_millis(1280),
    budget: Duration::from_secs(120),
};

/// The content that a run gives to a night's partition of a table.
#[derive(Debug, Clone)]
pub struct TableCommit<'a> {
    pub table: &'a str,
    pub run_date: RunDate,
    pub generation: Generation,
    pub files: &'a [StagedFile],
    /// Identifies the content: two commits with the same hash are the same night.
    pub manifest_hash: &'a str,
}

/// Decides what happens to the partition's existing files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Replace,
    Append,
}

/// Replaces the content of the night's partition by the staged files. Returns the version of the table that holds them.
/// A partition that already holds the same manifest is left alone. A newer generation there is [`Failure::fenced`].
pub async fn replace_partition(output: &Location, commit: &TableCommit<'_>) -> Result<u64> {
    commit_until_settled(output, commit, Mode::Replace).await
}

/// Adds the staged files to the night's partition, once per generation, with the same fencing.
pub(crate) async fn append(output: &Location, commit: &TableCommit<'_>) -> Result<u64> {
    commit_until_settled(output, commit, Mode::Append).await
}

/// A commit may have landed although its answer was lost: the next attempt finds its transaction and stops.
async fn commit_until_settled(output: &Location, commit: &TableCommit<'_>, mode: Mode) -> Result<u64> {
    let what = format!("commit to table {}", commit.table);
    COMMIT_RETRIES.run(&SystemClock, what, || commit_once(output, commit, mode)).await
}

async fn commit_once(output: &Location, commit: &TableCommit<'_>, mode: Mode) -> Result<u64> {
    let table = delta_log::open_or_create(output, commit.table).await?;
    let fault = failure(commit.table);
    let state = table.snapshot().map_err(&fault)?;
    let app_id = app_id(commit.table, commit.run_date);
    let there = state.transaction_version(table.log_store().as_ref(), &app_id).await.map_err(&fault)?;
    let ours = i64::try_from(commit.generation.0).map_err(Failure::bug)?;
    if let Some(there) = there {
        let same = delta_log::newest_manifest(&table, commit.run_date).await?.as_deref() == Some(commit.manifest_hash);
        if same && (mode == Mode::Replace || there == ours) {
            return Ok(state.version());
        }
        if there > ours {
            return Err(Failure::fenced(format!(
                "table {}, night {}: expected to publish generation {ours}, found the newer generation {there}",
                commit.table, commit.run_date
            ))
            .hint("another run took this night over; its result is valid"));
        }
    }
    let mut actions = match mode {
        Mode::Replace => removals(&table, commit)?,
        Mode::Append => Vec::new(),
    };
    let now_ms = chrono::Utc::now().timestamp_millis();
    // A file that is there already stays: a commit may not both remove and add it.
    let there: HashSet<String> = night_files(&table, commit.table, commit.run_date)?.into_iter().map(|f| f.0).collect();
    let stays = |path: &str| there.contains(path) && commit.files.iter().any(|file| file.path == path);
    actions.retain(|action| !matches!(action, Action::Remove(removed) if stays(&removed.path)));
    let added = commit.files.iter().filter(|file| !stays(&file.path));
    actions.extend(added.map(|file| Action::Add(addition(file, commit.run_date, now_ms))));
    let properties = CommitProperties::default()
        .with_max_retries(0) // delta-rs would rebase on a newer state; COMMIT_RETRIES decides again instead, transaction included
        .with_cleanup_expired_logs(Some(false))
        .with_application_transaction(Transaction::new_with_last_update(app_id, ours, Some(now_ms)))
        .with_metadata([
            (COMMIT_RUN_DATE.to_string(), commit.run_date.to_string().into()),
            (COMMIT_MANIFEST.to_string(), commit.manifest_hash.into()),
            ("intentcast.generation".to_string(), ours.into()),
        ]);
    let operation = DeltaOperation::Write {
        mode: if mode == Mode::Replace { SaveMode::Overwrite } else { SaveMode::Append },
        partition_by: Some(vec![PARTITION.to_string()]),
        predicate: (mode == Mode::Replace).then(|| format!("{PARTITION} = '{}'", commit.run_date)),
    };
    let done = CommitBuilder::from(properties)
        .with_actions(actions)
        .build(Some(state), table.log_store(), operation)
        .await
        .map_err(&fault)?;
    Ok(done.version())
}

/// Returns the transaction's application id: one per night, and a separate one for `runs`, to which nights append.
fn app_id(table: &str, run_date: RunDate) -> String {
    match table {
        RUNS => format!("intentcast/runs/{run_date}"),
        _ => format!("intentcast/{run_date}"),
    }
}

fn removals(table: &DeltaTable, commit: &TableCommit<'_>) -> Result<Vec<Action>> {
    let files = table.snapshot().map_err(failure(commit.table))?.log_data();
    let in_partition = files.iter().filter(|file| night_of(&file.partition_values_map()) == Some(commit.run_date));
    Ok(in_partition.map(|file| Action::Remove(file.remove_action(true))).collect())
}

fn addition(file: &StagedFile, run_date: RunDate, now_ms: i64) -> Add {
    Add {
        path: file.path.clone(),
        partition_values: HashMap::from([(PARTITION.to_string(), Some(run_date.to_string()))]),
        size: file.bytes,
        modification_time: now_ms,
        data_change: true,
        stats: Some(file.stats.clone()),
        ..Default::default()
    }
}

/// Reads a table at `version` (the newest if `None`), only the given night if there is one. Declared columns that it lacks are
/// null.
pub(crate) async fn scan_at(
    ctx: &SessionContext,
    output: &Location,
    table: &str,
    version: Option<u64>,
    run_date: Option<RunDate>,
) -> Result<DataFrame> {
    let opened = delta_log::open(output, table, version).await?.ok_or_else(|| {
        Failure::usage(format!("{}tables/{table}: no such table", output.url)).hint("publish a night first")
    })?;
    ctx.register_object_store(&output.store_url()?, Arc::clone(&output.store));
    let provider = opened.table_provider().with_session(Arc::new(ctx.state())).await?;
    let rows = schemas::in_declared_order(ctx.read_table(Arc::new(ConstantFilters(provider)))?, table)?;
    match run_date {
        Some(date) => Ok(rows.filter(col(PARTITION).eq(lit(date_scalar(date))))?),
        None => Ok(rows),
    }
}

/// Returns the paths, relative to the table, of the data files of the given nights, or of all, at the loaded version.
pub(crate) fn file_paths(opened: &DeltaTable, table: &str, nights: Option<&BTreeSet<RunDate>>) -> Result<Vec<String>> {
    let files = opened.snapshot().map_err(failure(table))?.log_data();
    let wanted = files.iter().filter(|file| match nights {
        Some(nights) => night_of(&file.partition_values_map()).is_some_and(|night| nights.contains(&night)),
        None => true,
    });
    Ok(wanted.map(|file| file.path().into_owned()).collect())
}

/// Returns the data files of one night at the loaded version, as they were staged.
pub(crate) fn staged_files(opened: &DeltaTable, table: &str, night: RunDate) -> Result<Vec<StagedFile>> {
    let files = opened.snapshot().map_err(failure(table))?.log_data();
    let in_partition = files.iter().filter(|file| night_of(&file.partition_values_map()) == Some(night));
    let staged = in_partition.map(|file| {
        let stats = file.stats().unwrap_or_default();
        let rows =
            serde_json::from_str::<serde_json::Value>(&stats).ok().and_then(|stats| stats["numRecords"].as_i64());
        StagedFile {
            path: file.path().into_owned(),
            rows: rows.unwrap_or_default(),
            bytes: file.size(),
            stats,
            attempt: String::new(),
        }
    });
    Ok(staged.collect())
}

/// Returns the nights of the data files at the loaded version.
pub(crate) fn nights(opened: &DeltaTable, table: &str) -> Result<BTreeSet<RunDate>> {
    let files = opened.snapshot().map_err(failure(table))?.log_data();
    Ok(files.iter().filter_map(|file| night_of(&file.partition_values_map())).collect())
}

/// Returns path, relative to the table, and bytes of the data files of one night at the loaded version.
pub(crate) fn night_files(opened: &DeltaTable, table: &str, night: RunDate) -> Result<Vec<(String, u64)>> {
    let files = opened.snapshot().map_err(failure(table))?.log_data();
    let in_partition = files.iter().filter(|file| night_of(&file.partition_values_map()) == Some(night));
    Ok(in_partition.map(|file| (file.path().into_owned(), file.size() as u64)).collect())
}

/// Returns the night whose partition a data file belongs to.
fn night_of(partition: &HashMap<String, Option<String>>) -> Option<RunDate> {
    partition.get(PARTITION)?.as_deref()?.parse().ok()
}

/// Returns a run date as a literal of the engine.
pub(crate) fn date_scalar(date: RunDate) -> datafusion::common::ScalarValue {
    datafusion::common::ScalarValue::Date32(Some(date32(date.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Config;
    use crate::failure::FailureKind;
    use crate::tables::write_files::{stage, table_location};

    const NIGHT: &str = "2026-03-01";

    fn night() -> RunDate {
        NIGHT.parse().unwrap()
    }

    async fn staged(ctx: &SessionContext, output: &Location, generation: u64, sql: &str) -> Vec<StagedFile> {
        let rows = ctx.sql(sql).await.unwrap();
        stage(ctx, rows, output, "segment", (night(), Generation(generation))).await.unwrap()
    }

    async fn publish(output: &Location, generation: u64, files: &[StagedFile], hash: &str) -> Result<u64> {
        let generation = Generation(generation);
        let commit = TableCommit { table: "segment", run_date: night(), generation, files, manifest_hash: hash };
        replace_partition(output, &commit).await
    }

    async fn segments(ctx: &SessionContext, output: &Location, version: Option<u64>) -> Vec<String> {
        let rows = scan_at(ctx, output, "segment", version, Some(night())).await.unwrap();
        let batches = rows.select_columns(&["segment"]).unwrap().collect().await.unwrap();
        let mut names: Vec<String> = batches
            .iter()
            .flat_map(|b| {
                let text = arrow::compute::cast(b.column(0), &arrow::datatypes::DataType::Utf8).unwrap();
                let text = text.as_any().downcast_ref::<arrow::array::StringArray>().unwrap().clone();
                (0..text.len()).map(move |i| text.value(i).to_string()).collect::<Vec<_>>()
            })
            .collect();
        names.sort();
        names
    }
    use arrow::array::Array;

    #[tokio::test]
    async fn a_partition_is_replaced_kept_or_fenced() {
        let folder = tempfile::tempdir().unwrap();
        for uri in ["memory://replace/out".to_string(), folder.path().display().to_string()] {
            let output = Location::open(&uri, &S3Config::default()).unwrap();
            let ctx = SessionContext::new();
            let first =
                staged(&ctx, &output, 1, "SELECT * FROM (VALUES ('a', 1), ('b', 2)) AS t(segment, users)").await;
            let one = publish(&output, 1, &first, "one").await.unwrap();
            assert_eq!(segments(&ctx, &output, None).await, ["a", "b"], "{uri}");

            let second = staged(&ctx, &output, 2, "SELECT 'c' AS segment").await;
            let two = publish(&output, 2, &second, "two").await.unwrap();
            assert!(two > one);
            assert_eq!(segments(&ctx, &output, None).await, ["c"], "{uri}");
            assert_eq!(segments(&ctx, &output, Some(one)).await, ["a", "b"], "an older version reads as it was");

            let again = staged(&ctx, &output, 3, "SELECT 'c' AS segment").await;
            assert_eq!(publish(&output, 3, &again, "two").await.unwrap(), two, "the same manifest is already there");

            let late = publish(&output, 1, &first, "one").await.unwrap_err();
            assert_eq!(late.kind, FailureKind::Fenced, "{late}");
            assert_eq!(segments(&ctx, &output, None).await, ["c"]);
        }
    }

    #[tokio::test]
    async fn rival_commits_settle_on_the_newest_generation() {
        let output = Location::open("memory://rivals/out", &S3Config::default()).unwrap();
        let ctx = SessionContext::new();
        let mut tries = Vec::new();
        for generation in 1..=8 {
            let files = staged(&ctx, &output, generation, &format!("SELECT 'g{generation}' AS segment")).await;
            let output = output.clone();
            tries.push(tokio::spawn(async move {
                publish(&output, generation, &files, &format!("hash {generation}")).await
            }));
        }
        for (result, generation) in futures::future::join_all(tries).await.into_iter().zip(1..) {
            match result.unwrap() {
                Ok(_) => {}
                Err(failure) => assert_eq!(failure.kind, FailureKind::Fenced, "generation {generation}: {failure}"),
            }
        }
        assert_eq!(segments(&ctx, &output, None).await, ["g8"]);
    }

    #[tokio::test]
    async fn files_are_cut_by_rows_and_carry_statistics() {
        let output = Location::open("memory://files/out", &S3Config::default()).unwrap();
        let ctx = SessionContext::new();
        ctx.register_object_store(&output.store_url().unwrap(), Arc::clone(&output.store));
        let rows =
            ctx.sql("SELECT CAST(value AS VARCHAR) AS segment, value AS users FROM range(0, 50000)").await.unwrap();
        let rows = crate::tables::schemas::conform(rows, "segment").unwrap();
        let mut target =
            crate::tables::write_files::WriteTarget::new(&output, "segment", night(), Generation(1)).unwrap();
        target.file_rows_max = 20_000;
        let plan = rows.create_physical_plan().await.unwrap();
        let exec = crate::tables::write_files::WriteFilesExec::new(plan, target);
        let batches = datafusion::physical_plan::collect(Arc::new(exec), ctx.task_ctx()).await.unwrap();
        let files = crate::tables::write_files::from_batches(&batches).unwrap();
        assert_eq!(files.iter().map(|f| f.rows).sum::<i64>(), 50_000);
        assert!(files.len() >= 2);
        let stats: serde_json::Value = serde_json::from_str(&files[0].stats).unwrap();
        assert_eq!(stats["numRecords"], files[0].rows);
        assert!(stats["minValues"]["users"].is_i64() && stats["nullCount"]["p_churn_mean"] == files[0].rows);
        let stored = table_location(&output, "segment").list().await.unwrap();
        assert_eq!(stored.len(), files.len());
        assert_eq!(stored.iter().map(|m| m.size as i64).sum::<i64>(), files.iter().map(|f| f.bytes).sum::<i64>());
    }
}
