//! Computes the outputs of one rollup unit from its registered lake views.
//!
//! In: a session with `dated_events`, `daily_rates` and `known_event_ids`. Out: files of `unit_event`, `unit_quarantine`,
//! `unit_user_day` and `unit_item_day`, by the SQL files of these names.
//!
//! A unit's event files are read once: the judged rows and then the good ones stay in memory, each at most a quarter of the
//! engine's, and all outputs are computed from them side by side, while the files of the next unit are read. Rows that take more,
//! and those of a cluster's executors, are read again for each query.

use arrow::datatypes::SchemaRef;
use datafusion::common::runtime::SpawnedTask;
use datafusion::prelude::{DataFrame, SessionContext, ident};
use std::sync::Arc;

use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::sql_files::SqlFiles;
use crate::tables::write_files::StagedFile;
use crate::tables::{
    materialise,
    rows_in_memory::{self, HeldRows},
};

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

/// Column by which the files of `unit_event` are sorted, so that a part of the users is a part of each file.
const SORTED_BY: &str = "user_bucket";

/// Registers `judged_events`, the rows of the unit's event files with what each row alone shows. Returns whether they are in
/// memory.
pub(super) async fn judge(ctx: &SessionContext, config: &Config, sql: &SqlFiles) -> Result<bool> {
    let judged = plan(ctx, sql, "judged_events").await?;
    match hold(ctx, "judged_events", judged.clone(), config).await? {
        Some(rows) => {
            let rows = for_side_by_side(ctx, rows);
            ctx.register_table("judged_events", Arc::new(rows))?;
            Ok(true)
        }
        None => {
            ctx.register_table("judged_events", judged.into_view())?;
            Ok(false)
        }
    }
}

/// Gives each query of the session as many partitions as the outputs that are computed side by side leave it: on few cores one,
/// where rows are grouped in one step instead of two.
fn for_side_by_side(ctx: &SessionContext, rows: HeldRows) -> HeldRows {
    let partitions = (ctx.copied_config().target_partitions() / OUTPUTS.len()).max(1);
    ctx.state_ref().write().config_mut().options_mut().execution.target_partitions = partitions;
    match partitions {
        1 => rows.in_one_partition(),
        _ => rows,
    }
}

/// Checks the judged rows, writes the outputs below `folder` and registers `unit_event` and `unit_quarantine`.
pub(super) async fn write(
    ctx: &SessionContext,
    config: &Config,
    sql: &SqlFiles,
    folder: &Location,
    judged_in_memory: bool,
) -> Result<Vec<UnitOutput>> {
    let repeated = plan(ctx, sql, "repeated_ids").await?;
    match hold(ctx, "repeated_ids", repeated.clone(), config).await? {
        Some(rows) => drop(ctx.register_table("repeated_ids", Arc::new(rows))?),
        None => {
            // Executors of a cluster find these few rows in the store.
            materialise::materialise(ctx, "repeated_ids", repeated, folder).await.map_err(|e| at("repeated_ids", e))?;
        }
    }
    views::register_one(ctx, sql, "rollups/checked_events").await?;
    if judged_in_memory {
        let events = hold(ctx, "unit_event", plan(ctx, sql, "unit_event").await?, config).await?;
        let bad = hold(ctx, "unit_quarantine", plan(ctx, sql, "unit_quarantine").await?, config).await?;
        if let (Some(events), Some(bad)) = (events, bad) {
            // Frees the judged rows, which nothing reads any more.
            for table in ["checked_events", "judged_events", "repeated_ids"] {
                ctx.deregister_table(table)?;
            }
            ctx.register_table("unit_quarantine", Arc::new(bad))?;
            return write_side_by_side(ctx, sql, folder, events).await;
        }
    }
    write_in_turn(ctx, sql, folder).await
}

async fn write_side_by_side(
    ctx: &SessionContext,
    sql: &SqlFiles,
    folder: &Location,
    events: HeldRows,
) -> Result<Vec<UnitOutput>> {
    let (events, sorted) = events.sorted_by(SORTED_BY, ctx.copied_config().batch_size())?;
    ctx.register_table("unit_event", Arc::new(events))?;
    let mut tasks = Vec::new();
    for name in OUTPUTS {
        let query = match name {
            "unit_event" => ctx.read_table(Arc::clone(&sorted))?,
            "unit_quarantine" => ctx.table(name).await?,
            _ => plan(ctx, sql, name).await?,
        };
        let (ctx, folder) = (ctx.clone(), folder.clone());
        tasks.push(SpawnedTask::spawn(async move { write_output(&ctx, name, query, &folder).await }));
    }
    let mut outputs = Vec::new();
    for task in tasks {
        let (output, _) = task.await.map_err(Failure::bug)??;
        outputs.push(output);
    }
    Ok(outputs)
}

/// Writes one output after the other; days are counted from the files of `unit_event`.
async fn write_in_turn(ctx: &SessionContext, sql: &SqlFiles, folder: &Location) -> Result<Vec<UnitOutput>> {
    let mut outputs = Vec::new();
    for name in OUTPUTS {
        let mut query = plan(ctx, sql, name).await?;
        if name == "unit_event" {
            query = query.sort(vec![ident(SORTED_BY).sort(true, false)])?;
        }
        let (output, schema) = write_output(ctx, name, query, folder).await?;
        if output.has_event_rows() {
            materialise::register_written(ctx, name, folder, schema, &output.files)?;
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
) -> Result<(UnitOutput, SchemaRef)> {
    let (schema, files) = materialise::write(ctx, name, query, folder).await.map_err(|e| at(name, e))?;
    Ok((UnitOutput { name, files }, schema))
}

/// Holds the rows of a query in memory; none where they do not fit or a cluster reads them.
async fn hold(ctx: &SessionContext, name: &str, query: DataFrame, config: &Config) -> Result<Option<HeldRows>> {
    // Judged and good rows of a unit and judged rows of the next one are in memory at a time, and the few bad ones.
    let bytes_max = config.engine.memory_bytes_max / 4;
    rows_in_memory::hold(ctx, query, bytes_max).await.map_err(|e| at(name, e))
}

async fn plan(ctx: &SessionContext, sql: &SqlFiles, name: &str) -> Result<DataFrame> {
    ctx.sql(sql.get(&format!("rollups/{name}"))?).await.map_err(|e| at(name, e.into()))
}

fn at(name: &str, failure: Failure) -> Failure {
    failure.at(format!("sql/rollups/{name}.sql"))
}
