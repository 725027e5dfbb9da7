//! Resolves tables through `runs`, so that a query sees whole nights only.
//!
//! `<table>` is the visible night of the latest date, `<table>_history` all visible nights. A night's partition is read
//! at the version that its row names; since later commits seldom touch it, one scan of the newest named version usually
//! serves all nights.

use datafusion::datasource::empty::EmptyTable;
use datafusion::logical_expr::{col, lit};
use datafusion::prelude::{DataFrame, SessionContext};
use std::sync::Arc;

use crate::failure::Result;
use crate::ids::RunDate;
use crate::lake::{files_table::ListedFile, parquet_files, stores::Location};
use crate::publish::runs::{self, VisibleNight};
use crate::tables::schemas::{self, NIGHT_TABLES, PARTITION};
use crate::tables::write_files::table_location;
use crate::tables::{delta, delta_log};

/// Registers every published table over the visible `nights`, and `runs`; a table that has no night yet is empty.
pub async fn register_visible(ctx: &SessionContext, output: &Location, nights: &[VisibleNight]) -> Result<()> {
    for table in NIGHT_TABLES {
        let latest = nights.last().map(std::slice::from_ref).unwrap_or_default();
        register_nights(ctx, output, table, table, latest).await?;
        register_nights(ctx, output, table, &format!("{table}_history"), nights).await?;
    }
    runs::register(ctx, output).await
}

/// Registers the given nights of `table` under `name`, replacing what was there.
pub async fn register_nights(
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

/// The data files of the given nights, each with its run date as `dt`: for plans that run on other machines, where a
/// Delta scan does not go.
pub async fn night_files(output: &Location, table: &str, nights: &[VisibleNight]) -> Result<Vec<ListedFile>> {
    let held: Vec<(RunDate, u64)> = nights.iter().filter_map(|n| Some((n.run_date(), n.version(table)?))).collect();
    let (Some(oldest), Some(newest)) = (held.iter().map(|h| h.1).min(), held.iter().map(|h| h.1).max()) else {
        return Ok(Vec::new());
    };
    let Some(opened) = delta_log::open(output, table, Some(newest)).await? else { return Ok(Vec::new()) };
    let changed = match oldest == newest {
        true => Default::default(),
        false => delta_log::published_since(&opened, oldest).await?,
    };
    let place = table_location(output, table);
    let mut listed = Vec::new();
    for (date, version) in held {
        let files = match changed.get(&date).is_some_and(|at| *at > version) {
            false => delta::night_files(&opened, table, date)?,
            true => match delta_log::open(output, table, Some(version)).await? {
                Some(then) => delta::night_files(&then, table, date)?,
                None => Vec::new(),
            },
        };
        let files = files.into_iter();
        listed.extend(files.map(|(path, bytes)| parquet_files::listed(&place, place.path(&path), bytes, Some(date.0))));
    }
    Ok(listed)
}

/// The rows of the given nights, with `run_date`; `None` when no night holds that table.
pub async fn read_nights(
    ctx: &SessionContext,
    output: &Location,
    table: &str,
    nights: &[VisibleNight],
) -> Result<Option<DataFrame>> {
    let held: Vec<(RunDate, u64)> = nights.iter().filter_map(|n| Some((n.run_date(), n.version(table)?))).collect();
    let (Some(oldest), Some(newest)) = (held.iter().map(|h| h.1).min(), held.iter().map(|h| h.1).max()) else {
        return Ok(None);
    };
    let Some(opened) = delta_log::open(output, table, Some(newest)).await? else { return Ok(None) };
    let changed = match oldest == newest {
        true => Default::default(),
        false => delta_log::published_since(&opened, oldest).await?,
    };
    let moved = |(date, version): &&(RunDate, u64)| changed.get(date).is_some_and(|at| at > version);
    let same: Vec<_> = held.iter().filter(|h| !moved(h)).map(|(date, _)| lit(delta::date_scalar(*date))).collect();
    let mut rows =
        delta::scan_at(ctx, output, table, Some(newest), None).await?.filter(col(PARTITION).in_list(same, false))?;
    for (date, version) in held.iter().filter(moved) {
        rows = rows.union(delta::scan_at(ctx, output, table, Some(*version), Some(*date)).await?)?;
    }
    Ok(Some(rows))
}
