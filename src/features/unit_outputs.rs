//! Computes the outputs of one rollup unit from its registered lake views.
//!
//! In: a session with `dated_events`, `daily_rates` and `known_event_ids`. Out: files of `unit_event`, `unit_quarantine`,
//! `unit_user_day` and `unit_item_day`, by the SQL files of these names.
//!
//! A unit's event files are read once: the judged rows stay in memory, at most a quarter of the engine's, and all outputs are
//! computed from them side by side, while the files of the next unit are read. Rows that take more, and those of a cluster's executors, are read again for each query.

use datafusion::common::runtime::SpawnedTask;
use datafusion::prelude::{DataFrame, SessionContext};
use std::sync::Arc;

use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::lake::parquet_files;
use crate::lake::stores::Location;
use crate::sql_files::SqlFiles;
use crate::tables::write_files::StagedFile;
use crate::tables::{materialise, rows_in_memory};

use super::views;

/// The outputs of a unit, by the SQL file that makes each.
pub(super) const OUTPUTS: [&str; 4] = ["unit_event", "unit_quarantine", "unit_user_day", "unit_item_day"];

/// The files of one output.
pub(super) struct UnitOutput {
    pub(super) name: &'static str,
    pub(super) files: Vec<StagedFile>,
}

impl UnitOutput {
    /// Returns true for the outputs that divide the unit's event rows among them.
    pub(super) fn has_event_rows(&self) -> bool {
        self.name == "unit_event" || self.name == "unit_quarantine"
    }
}

/// Registers `judged_events`, the rows of the unit's event files with what each row alone shows. Returns whether they are in
/// memory.
pub(super) async fn judge(ctx: &SessionContext, config: &Config, sql: &SqlFiles) -> Result<bool> {
    let judged = plan(ctx, sql, "judged_events").await?;
    let is_held = hold(ctx, "judged_events", judged.clone(), config).await?;
    if !is_held {
        ctx.register_table("judged_events", judged.into_view())?;
    }
    Ok(is_held)
}

/// Checks the judged rows and writes the outputs below `folder`.
pub(super) async fn write(
    ctx: &SessionContext,
    config: &Config,
    sql: &SqlFiles,
    folder: &Location,
    judged_in_memory: bool,
) -> Result<Vec<UnitOutput>> {
    let repeated = plan(ctx, sql, "repeated_ids").await?;
    if !hold(ctx, "repeated_ids", repeated.clone(), config).await? {
        // Executors of a cluster find these few rows in the store.
        materialise::materialise(ctx, "repeated_ids", repeated, folder).await.map_err(|e| at("repeated_ids", e))?;
    }
    views::register_one(ctx, sql, "rollups/checked_events").await?;
    if !judged_in_memory {
        return write_in_turn(ctx, sql, folder).await;
    }
    views::register_one(ctx, sql, "rollups/unit_event").await?;
    let mut tasks = Vec::new();
    for name in OUTPUTS {
        let query = plan(ctx, sql, name).await?;
        let (ctx, folder) = (ctx.clone(), folder.clone());
        tasks.push(SpawnedTask::spawn(async move { write_output(&ctx, name, query, &folder).await }));
    }
    let mut outputs = Vec::new();
    for task in tasks {
        outputs.push(task.await.map_err(Failure::bug)??);
    }
    Ok(outputs)
}

/// Writes one output after the other; days are counted from the files of `unit_event`.
async fn write_in_turn(ctx: &SessionContext, sql: &SqlFiles, folder: &Location) -> Result<Vec<UnitOutput>> {
    let mut outputs = Vec::new();
    for name in OUTPUTS {
        let query = plan(ctx, sql, name).await?;
        let schema = parquet_files::plain(query.schema().as_arrow());
        let output = write_output(ctx, name, query, folder).await?;
        if name == "unit_event" {
            let files = output.files.iter();
            let listed = files.map(|f| parquet_files::listed(folder, folder.path(&f.path), f.bytes as u64, None));
            materialise::register_rows(ctx, name, folder, schema, listed.collect())?;
        }
        outputs.push(output);
    }
    Ok(outputs)
}

async fn write_output(
    ctx: &SessionContext,
    name: &'static str,
    query: DataFrame,
    folder: &Location,
) -> Result<UnitOutput> {
    let (_, files) = materialise::write(ctx, name, query, folder).await.map_err(|e| at(name, e))?;
    Ok(UnitOutput { name, files })
}

/// Registers the rows of a query in memory; returns false, without a table, where they do not fit or a cluster reads them.
async fn hold(ctx: &SessionContext, name: &str, query: DataFrame, config: &Config) -> Result<bool> {
    // Rows of two units are in memory at a time.
    let bytes_max = config.engine.memory_bytes_max / 4;
    match rows_in_memory::hold(ctx, query, bytes_max).await.map_err(|e| at(name, e))? {
        Some(rows) => ctx.register_table(name, Arc::new(rows))?,
        None => return Ok(false),
    };
    Ok(true)
}

async fn plan(ctx: &SessionContext, sql: &SqlFiles, name: &str) -> Result<DataFrame> {
    ctx.sql(sql.get(&format!("rollups/{name}"))?).await.map_err(|e| at(name, e.into()))
}

fn at(name: &str, failure: Failure) -> Failure {
    failure.at(format!("sql/rollups/{name}.sql"))
}
