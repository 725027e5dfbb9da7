//! Runs `sql/checks/` over a night's staged tables before anything is committed.
//!
//! A check selects (`subject`, `expected`, `got`), one row per fault; it passes if it returns no rows. It can read the staged
//! tables by their names, `feature_users` (the users whom this night must score), `previous_intent` (the visible night
//! before, or no rows) and `check_settings` (one row).

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider,
};
use datafusion::datasource::empty::EmptyTable;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::{DataFrame, ParquetReadOptions, SessionContext};
use std::sync::Arc;

use crate::config::ChecksConfig;
use crate::failure::{Failure, Result};
use crate::ids::RunDate;
use crate::lake::stores::Location;
use crate::publish::night::StagedTables;
use crate::publish::readers;
use crate::publish::runs::VisibleNight;
use crate::sql_files::SqlFiles;
use crate::tables::schemas::{self, NIGHT_TABLES};
use crate::tables::write_files::{StagedFile, table_location};

/// Largest number of rows of one check in the failure message.
const ROWS_SHOWN_MAX: usize = 10;

/// One fault that a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    pub(crate) check: String,
    pub(crate) subject: String,
    pub(crate) expected: String,
    pub(crate) got: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}: expected {}, got {}", self.check, self.subject, self.expected, self.got)
    }
}

/// The night that is checked.
pub struct StagedNight<'a> {
    pub output: &'a Location,
    pub run_date: RunDate,
    /// Returns the root below which a table's files are staged.
    pub folder_of: &'a (dyn Fn(&str) -> &'a Location + Sync),
    pub staged: &'a StagedTables,
    /// One row per user who must be scored, with the column `user_id`.
    pub feature_users: DataFrame,
    /// The latest visible night before this one.
    pub previous: Option<&'a VisibleNight>,
}

/// Fails with [`Failure::check`] naming every finding, before anything is published.
pub async fn check_night(
    ctx: &SessionContext,
    sql: &SqlFiles,
    subject: StagedNight<'_>,
    settings: &ChecksConfig,
) -> Result<()> {
    let checker = session_for(ctx, &subject, settings).await?;
    let findings = run_checks(&checker, sql).await?;
    if findings.is_empty() {
        return Ok(());
    }
    let mut lines = Vec::new();
    for check in sql.folder("checks").map(|(name, _)| name) {
        let of_check: Vec<&Finding> = findings.iter().filter(|f| f.check == check).collect();
        lines.extend(of_check.iter().take(ROWS_SHOWN_MAX).map(|f| f.to_string()));
        if of_check.len() > ROWS_SHOWN_MAX {
            lines.push(format!("{check}: and {} more", of_check.len() - ROWS_SHOWN_MAX));
        }
    }
    let message = format!("night {}: checks failed, nothing is published\n{}", subject.run_date, lines.join("\n"));
    Err(Failure::check(message).hint("sql/checks/*.sql holds the rules, [checks] their bounds"))
}

/// Runs every check; returns the findings in the order of the checks' names.
async fn run_checks(ctx: &SessionContext, sql: &SqlFiles) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (name, text) in sql.folder("checks") {
        let in_check = |e: datafusion::error::DataFusionError| Failure::from(e).at(format!("sql/checks/{name}.sql"));
        let batches = ctx.sql(text).await.map_err(in_check)?.collect().await.map_err(in_check)?;
        for batch in &batches {
            let column = |wanted: &str| -> Result<_> {
                let found = batch.column_by_name(wanted).ok_or_else(|| {
                    Failure::usage(format!("sql/checks/{name}.sql: expected the columns subject, expected, got"))
                })?;
                Ok(arrow::compute::cast(found, &DataType::Utf8)?)
            };
            let (subject, expected, got) = (column("subject")?, column("expected")?, column("got")?);
            let text = |array: &dyn Array, row: usize| match array.is_null(row) {
                true => "null".to_string(),
                false => array.as_string::<i32>().value(row).to_string(),
            };
            findings.extend((0..batch.num_rows()).map(|row| Finding {
                check: name.into(),
                subject: text(&subject, row),
                expected: text(&expected, row),
                got: text(&got, row),
            }));
        }
    }
    Ok(findings)
}

/// Creates a session with the caller's functions and stores but none of its tables, so that `intent` is the staged one.
async fn session_for(
    ctx: &SessionContext,
    subject: &StagedNight<'_>,
    settings: &ChecksConfig,
) -> Result<SessionContext> {
    let names = ctx.state().config_options().catalog.clone();
    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema(&names.default_schema, Arc::new(MemorySchemaProvider::new()))?;
    let catalogs = MemoryCatalogProviderList::new();
    catalogs.register_catalog(names.default_catalog, Arc::new(catalog));
    let state = SessionStateBuilder::new_from_existing(ctx.state()).with_catalog_list(Arc::new(catalogs)).build();
    let checker = SessionContext::new_with_state(state);
    checker.register_object_store(&subject.output.store_url()?, Arc::clone(&subject.output.store));
    for table in NIGHT_TABLES {
        let files = subject.staged.get(table).map(Vec::as_slice).unwrap_or_default();
        register_staged(&checker, (subject.folder_of)(table), table, files).await?;
    }
    register_bounds(&checker, subject.output, subject.previous, subject.feature_users.clone(), settings).await?;
    Ok(checker)
}

/// Registers the tables that checks compare with: `feature_users`, `previous_intent` and `check_settings`.
pub(crate) async fn register_bounds(
    ctx: &SessionContext,
    output: &Location,
    previous: Option<&VisibleNight>,
    feature_users: DataFrame,
    settings: &ChecksConfig,
) -> Result<()> {
    ctx.register_table("feature_users", feature_users.into_view())?;
    let previous: Vec<VisibleNight> = previous.cloned().into_iter().collect();
    readers::register_nights(ctx, output, "intent", "previous_intent", &previous).await?;
    let settings = ctx
        .sql(&format!(
            "SELECT CAST({:?} AS DOUBLE) AS change_share_max, CAST({:?} AS DOUBLE) AS scored_share_min",
            settings.change_share_max, settings.scored_share_min
        ))
        .await?;
    ctx.register_table("check_settings", settings.into_view())?;
    Ok(())
}

/// Registers staged files as a table, which has no rows if there are no files.
pub(crate) async fn register_staged(
    ctx: &SessionContext,
    output: &Location,
    table: &str,
    files: &[StagedFile],
) -> Result<()> {
    let schema = schemas::file_schema(table)?;
    ctx.deregister_table(table)?;
    if files.is_empty() {
        ctx.register_table(table, Arc::new(EmptyTable::new(schema)))?;
        return Ok(());
    }
    let folder = table_location(output, table);
    let urls: Vec<String> = files.iter().map(|file| folder.full_url(&folder.path(&file.path))).collect();
    let rows = ctx.read_parquet(urls, ParquetReadOptions::default().schema(&schema)).await?;
    ctx.register_table(table, rows.into_view())?;
    Ok(())
}
