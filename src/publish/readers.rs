//! Resolves tables through `runs`, so that a query sees whole nights only.
//!
//! `<table>` is the visible night of the latest date, `<table>_history` all visible nights. A night's partition is read at the
//! version that its row names. Later commits rarely change that partition, so one scan of the newest named version usually
//! serves all nights.

use datafusion::datasource::empty::EmptyTable;
use datafusion::logical_expr::{col, lit};
use datafusion::prelude::{DataFrame, SessionContext};
use deltalake::DeltaTable;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::failure::Result;
use crate::features::erased_users::without_erased;
use crate::ids::RunDate;
use crate::lake::{files_table::ListedFile, parquet_files, stores::Location};
use crate::publish::runs::VisibleNight;
use crate::tables::schemas::{self, ERASURE, NIGHT_TABLES, PARTITION, RUNS};
use crate::tables::write_files::table_location;
use crate::tables::{delta, delta_log};

/// Registers every published table over the visible `nights`, and `runs`. A table without a night is empty.
pub async fn register_visible(ctx: &SessionContext, output: &Location, nights: &[VisibleNight]) -> Result<()> {
    for table in NIGHT_TABLES {
        let latest = nights.last().map(std::slice::from_ref).unwrap_or_default();
        register_nights(ctx, output, table, table, latest).await?;
        register_nights(ctx, output, table, &format!("{table}_history"), nights).await?;
    }
    register_appended(ctx, output, ERASURE).await?;
    register_appended(ctx, output, RUNS).await
}

/// Registers a table to which rows are only appended; empty if there is no such table yet.
async fn register_appended(ctx: &SessionContext, output: &Location, table: &str) -> Result<()> {
    if delta_log::open(output, table, None).await?.is_some() {
        let rows = delta::scan_at(ctx, output, table, None, None).await?;
        ctx.register_table(table, rows.into_view())?;
    } else {
        ctx.register_table(table, Arc::new(EmptyTable::new(schemas::table_schema(table)?)))?;
    }
    Ok(())
}

/// Registers the given nights of `table` under `name`, replacing an earlier registration.
pub(crate) async fn register_nights(
    ctx: &SessionContext,
    output: &Location,
    table: &str,
    name: &str,
    nights: &[VisibleNight],
) -> Result<()> {
    ctx.deregister_table(name)?;
    match read_nights(ctx, output, table, nights).await? {
        Some(rows) => ctx.register_table(name, rows.into_view())?,
        None => ctx.register_table(name, Arc::new(EmptyTable::new(schemas::table_schema(table)?)))?,
    };
    Ok(())
}

/// Lists the data files of the given nights, each with its run date as `dt`. For plans that run on other machines, to which a
/// Delta scan cannot be sent.
pub(crate) async fn night_files(output: &Location, table: &str, nights: &[VisibleNight]) -> Result<Vec<ListedFile>> {
    let Some(versions) = NightVersions::read(output, table, nights).await? else { return Ok(Vec::new()) };
    let folder = table_location(output, table);
    let mut listed = Vec::new();
    for (date, version) in &versions.nights {
        let files = match versions.newest_holds(*date, *version) {
            true => delta::night_files(&versions.newest, table, *date)?,
            false => match delta_log::open(output, table, Some(*version)).await? {
                Some(opened) => delta::night_files(&opened, table, *date)?,
                None => Vec::new(),
            },
        };
        for (path, bytes) in files {
            listed.push(parquet_files::listed(&folder, folder.path(&path), bytes, Some(date.0)));
        }
    }
    Ok(listed)
}

/// Reads the given nights, with `run_date`; `None` if no night has that table.
async fn read_nights(
    ctx: &SessionContext,
    output: &Location,
    table: &str,
    nights: &[VisibleNight],
) -> Result<Option<DataFrame>> {
    let Some(versions) = NightVersions::read(output, table, nights).await? else { return Ok(None) };
    let (current, replaced): (Vec<_>, Vec<_>) =
        versions.nights.iter().copied().partition(|(date, version)| versions.newest_holds(*date, *version));
    let current = current.into_iter().map(|(date, _)| lit(delta::date_scalar(date))).collect();
    let newest = versions.newest.version();
    let mut rows =
        delta::scan_at(ctx, output, table, newest, None).await?.filter(col(PARTITION).in_list(current, false))?;
    for (date, version) in replaced {
        rows = rows.union(delta::scan_at(ctx, output, table, Some(version), Some(date)).await?)?;
    }
    // From the moment on in which an erasure begins.
    Ok(Some(without_erased(ctx, rows)?))
}

/// The versions at which nights of a table are read.
struct NightVersions {
    nights: Vec<(RunDate, u64)>,
    /// The table at the newest of these versions.
    newest: DeltaTable,
    /// Version of the last commit to each partition that was published again after the oldest of these versions.
    published_again: BTreeMap<RunDate, u64>,
}

impl NightVersions {
    /// Opens the table; `None` if it does not exist or no night has it.
    async fn read(output: &Location, table: &str, nights: &[VisibleNight]) -> Result<Option<Self>> {
        let nights: Vec<(RunDate, u64)> =
            nights.iter().filter_map(|night| Some((night.run_date(), night.version(table)?))).collect();
        let versions = nights.iter().map(|(_, version)| *version);
        let (Some(oldest), Some(newest)) = (versions.clone().min(), versions.max()) else { return Ok(None) };
        let Some(opened) = delta_log::open(output, table, Some(newest)).await? else { return Ok(None) };
        let published_again = match oldest == newest {
            true => BTreeMap::new(),
            false => delta_log::published_since(&opened, oldest).await?,
        };
        Ok(Some(Self { nights, newest: opened, published_again }))
    }

    /// Returns true if the newest version still holds the night's partition as it was at `version`.
    fn newest_holds(&self, date: RunDate, version: u64) -> bool {
        self.published_again.get(&date).is_none_or(|last| *last <= version)
    }
}
