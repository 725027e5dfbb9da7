//! Finds the rows of erased persons in the files of a lake.

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Int64Type};
use chrono::{NaiveDate, Utc};
use datafusion::prelude::SessionContext;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::erased_users::ErasedUsers;
use super::lake_source::{LakeSource, sibling};
use super::{functions, views};
use crate::failure::{Failure, Result};
use crate::ids::RunDate;

/// Rows of erased persons in the files that a lake has now.
#[derive(Debug, Default)]
pub(crate) struct LakeRows {
    /// Number of rows by raw table and by the file's name, as listings have it.
    pub(crate) tables: BTreeMap<String, BTreeMap<String, u64>>,
    /// Number of events by file and by local day, counted from 1970-01-01.
    pub(crate) days: BTreeMap<String, BTreeMap<i32, u64>>,
}

impl LakeRows {
    /// Returns the number of files, and that of rows.
    pub(crate) fn count(&self) -> (u64, u64) {
        let files = self.tables.values().flatten();
        (files.clone().count() as u64, files.map(|(_, rows)| rows).sum())
    }
}

/// Views of a lake with a column of users' ids.
const VIEWS_OF_USERS: [(&str, &[&str]); 3] =
    [("events", &["user_id"]), ("lake_users", &["user_id", "canonical_user_id"]), ("lake_erasures", &["user_id"])];

/// Finds the rows of these users. Refuses (exit 2) a lake whose views would still have them, or lose others, without the rows that its
/// declared columns find.
pub(crate) async fn find(base: &SessionContext, source: LakeSource<'_>, users: &Arc<ErasedUsers>) -> Result<LakeRows> {
    let ctx = open(base, source, users).await?;
    let mut found = LakeRows::default();
    refuse_like(&ctx).await?;
    let mut of_persons: Vec<(String, String)> = Vec::new();
    for table in source.lake.tables() {
        let columns = source.lake.columns_of_users(table)?;
        if columns.is_empty() || source.lake.files(table).is_empty() {
            continue;
        }
        let is_of_person = columns.iter().map(|column| {
            let id = format!("CAST(\"{}\" AS VARCHAR)", column.replace('"', "\"\""));
            format!("is_erased({id}) OR is_erased(regexp_replace({id}, '[.]0$', ''))")
        });
        let is_of_person = is_of_person.collect::<Vec<_>>().join(" OR ");
        let sql = format!("SELECT _file, count(*) FROM \"raw_{table}\" WHERE {is_of_person} GROUP BY _file");
        let mut files = BTreeMap::new();
        for batch in ctx.sql(&sql).await?.collect().await? {
            let names = cast(batch.column(0), &DataType::Utf8)?;
            let rows = batch.column(1).as_primitive::<Int64Type>();
            let names = names.as_string::<i32>();
            files.extend((0..names.len()).map(|row| (names.value(row).into(), rows.value(row).unsigned_abs())));
        }
        if !files.is_empty() {
            found.tables.insert(table.into(), files);
        }
        of_persons.push((format!("raw_{table}"), is_of_person));
    }
    if !found.tables.is_empty() {
        // Also of files without such a column, whose owners come from another table.
        found.days = days(&ctx, source).await?;
    }
    for (table, is_of_person) in of_persons {
        let sql = format!("SELECT * FROM \"{table}\" WHERE NOT coalesce({is_of_person}, false)");
        let others = ctx.sql(&sql).await?;
        ctx.deregister_table(table.as_str())?;
        ctx.register_table(table.as_str(), others.into_view())?;
    }
    source.lake.register_views_again(&ctx).await?;
    for (view, columns) in VIEWS_OF_USERS {
        refuse_hidden(&ctx, source, view, columns).await?;
    }
    Ok(found)
}

async fn open(base: &SessionContext, source: LakeSource<'_>, users: &Arc<ErasedUsers>) -> Result<SessionContext> {
    let ctx = sibling(base);
    users.register(&ctx);
    functions::register(&ctx, source.config, RunDate(Utc::now().date_naive()))?;
    // Files of days to come, too.
    let end = NaiveDate::from_ymd_opt(9999, 1, 1).unwrap_or(NaiveDate::MAX);
    source.lake.register(&ctx, RunDate(end)).await?;
    Ok(ctx)
}

async fn days(ctx: &SessionContext, source: LakeSource<'_>) -> Result<BTreeMap<String, BTreeMap<i32, u64>>> {
    views::register_one(ctx, source.sql, "rollups/dated_events").await?;
    let sql = "SELECT _file, event_day, count(*) FROM dated_events \
               WHERE is_erased(user_id) AND event_day IS NOT NULL GROUP BY _file, event_day";
    let mut days: BTreeMap<String, BTreeMap<i32, u64>> = BTreeMap::new();
    for batch in ctx.sql(sql).await?.collect().await? {
        let names = cast(batch.column(0), &DataType::Utf8)?;
        let (event_days, rows) =
            (batch.column(1).as_primitive::<Date32Type>(), batch.column(2).as_primitive::<Int64Type>());
        for (row, name) in names.as_string::<i32>().iter().enumerate() {
            let of_file = days.entry(name.unwrap_or_default().into()).or_default();
            *of_file.entry(event_days.value(row)).or_default() += rows.value(row).unsigned_abs();
        }
    }
    Ok(days)
}

/// Refuses (exit 2) ids of others that differ from these by an ending: the columns of files may have it without meaning it.
async fn refuse_like(ctx: &SessionContext) -> Result<()> {
    for (view, columns) in VIEWS_OF_USERS {
        for column in columns {
            let sql = format!(
                "SELECT 1 FROM {view} WHERE {column} LIKE '%.0' AND NOT is_erased({column}) \
                 AND is_erased(regexp_replace({column}, '[.]0$', '')) LIMIT 1"
            );
            let rows = ctx.sql(&sql).await?.collect().await?;
            if rows.iter().any(|batch| batch.num_rows() > 0) {
                return Err(Failure::usage(format!(
                    "{view}: expected no id that is an erased one followed by `.0`, found one of someone else"
                ))
                .hint("the files' columns cannot tell the two apart; take the rows out of the lake yourself"));
            }
        }
    }
    Ok(())
}

async fn refuse_hidden(ctx: &SessionContext, source: LakeSource<'_>, view: &str, columns: &[&str]) -> Result<()> {
    let is_of_person = columns.iter().map(|column| format!("is_erased({column})")).collect::<Vec<_>>().join(" OR ");
    let left = ctx.sql(&format!("SELECT 1 FROM {view} WHERE {is_of_person} LIMIT 1")).await?.collect().await?;
    if left.iter().all(|batch| batch.num_rows() == 0) {
        return Ok(());
    }
    let table = view.trim_start_matches("lake_");
    Err(Failure::usage(format!(
        "{}: no column that is declared to hold users' ids has those that the view {view} has",
        source.lake.raw_place(table)?
    ))
    .hint(
        "write REFERENCES users after each column of a raw file that holds users' ids; docs/howto/erase.md shows how",
    ))
}
