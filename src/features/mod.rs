//! Turns lake views into rollup units, merged state and feature views, all by the files under sql/.
//!
//! In: a [`LakeSource`] (listed lake, SQL files, settings). Out: [`rollups::Rollups`] on storage, and sessions in which every
//! state, feature and label view is registered as of a date. The workspace is the only caller of [`register`] and of
//! [`rollups::RollupPlan`]; everyone else asks it for a session.

pub(crate) mod added_features;
pub(crate) mod connected_groups;
pub(crate) mod content_key;
pub mod contract;
pub(crate) mod count_days;
pub(crate) mod erased_lake_rows;
pub(crate) mod erased_units;
pub(crate) mod erased_users;
pub(crate) mod feature_groups;
pub mod functions;
pub(crate) mod lake_days;
pub(crate) mod lake_source;
pub mod last_events;
pub(crate) mod mask_text;
pub(crate) mod master;
pub(crate) mod most_named;
pub(crate) mod night_units;
pub(crate) mod objections;
mod one_group;
pub(crate) mod ordered_list;
pub mod parts;
pub(crate) mod quarantine;
pub(crate) mod rates;
pub(crate) mod read_report;
pub(crate) mod repeated_items;
mod repeated_stock;
pub mod rollups;
mod unit_outputs;
mod units;
pub(crate) mod user_functions;
pub(crate) mod value_of_key;
pub(crate) mod views;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Schema, UInt64Type};
use datafusion::common::ScalarValue;
use datafusion::datasource::empty::EmptyTable;
use datafusion::prelude::SessionContext;
use std::sync::Arc;

use crate::config::Config;
use crate::failure::Result;
use crate::ids::{RunDate, date32};
use crate::lake::Lake;
use crate::sql_files::SqlFiles;
use crate::tables::schemas;
use parts::Part;
use rollups::Rollups;

pub(crate) use lake_source::{LakeSource, sibling};

/// Table of the demand that earlier nights published, with their run date as `_dt`. A caller that reads published nights
/// registers it before [`register`], which otherwise registers it without rows.
pub(crate) const EARLIER_DEMAND: &str = "earlier_demand";

/// The dates, users and items that a session covers.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    pub run_date: RunDate,
    /// Labels read nothing on or after this date.
    pub labels_end: RunDate,
    /// Users covered by the state and feature views.
    pub users: Part,
    /// Items whose days and histories the views cover.
    pub items: Part,
}

impl Scope {
    /// Covers every user and item as the night of `run_date` sees them, without labels.
    pub fn night(run_date: RunDate) -> Self {
        Self { run_date, labels_end: run_date, users: Part::ALL, items: Part::ALL }
    }
}

/// Registers the functions of a night and the lake, state, feature and label views in `ctx`.
pub(crate) async fn register(
    ctx: &SessionContext,
    source: LakeSource<'_>,
    rollups: &Rollups,
    scope: Scope,
) -> Result<()> {
    register_state(ctx, source, rollups, scope).await?;
    register_features(ctx, source).await
}

/// Registers the feature and label views over the registered state.
pub(crate) async fn register_features(ctx: &SessionContext, source: LakeSource<'_>) -> Result<()> {
    views::register(ctx, source.sql, &["features", "labels"]).await
}

/// Registers the functions of a night and the lake and state views.
pub(crate) async fn register_state(
    ctx: &SessionContext,
    source: LakeSource<'_>,
    rollups: &Rollups,
    scope: Scope,
) -> Result<()> {
    register_inputs(ctx, source, rollups, scope).await?;
    views::register(ctx, source.sql, &["master", "state"]).await
}

/// Registers what the state views read: the functions of a night, the lake's views and the rollups.
pub(crate) async fn register_inputs(
    ctx: &SessionContext,
    source: LakeSource<'_>,
    rollups: &Rollups,
    scope: Scope,
) -> Result<()> {
    functions::register(ctx, source.config, scope.run_date)?;
    let end = ScalarValue::Date32(Some(date32(scope.labels_end.0)));
    ctx.register_udf(functions::Constant::new("labels_end", end).into());
    let buckets = [
        ("user_bucket_first", scope.users.first_bucket),
        ("user_bucket_last", scope.users.last_bucket),
        ("item_bucket_first", scope.items.first_bucket),
        ("item_bucket_last", scope.items.last_bucket),
    ];
    for (name, bucket) in buckets {
        ctx.register_udf(functions::Constant::new(name, ScalarValue::Int32(Some(bucket))).into());
    }
    let label_days = (scope.labels_end > scope.run_date).then(|| rollups.days_before(scope.labels_end));
    lake_days::register(ctx, source.config, &rollups.days_before(scope.run_date), label_days.as_ref())?;
    user_functions::create(ctx, source.sql).await?;
    source.lake.register(ctx, scope.run_date).await?;
    rollups.register(ctx)?;
    if !ctx.table_exist(EARLIER_DEMAND)? {
        let mut fields = schemas::file_schema("demand")?.fields().to_vec();
        fields.push(Arc::new(Field::new("_dt", DataType::Date32, true)));
        ctx.register_table(EARLIER_DEMAND, Arc::new(EmptyTable::new(Arc::new(Schema::new(fields)))))?;
    }
    register_repeats(ctx, source.sql, source.lake).await
}

/// Registers the functions that tell whether keys of master data have several rows, which views of master data call.
pub(crate) async fn register_repeats(ctx: &SessionContext, sql: &SqlFiles, lake: &Lake) -> Result<()> {
    repeated_items::register(ctx, sql, lake).await?;
    repeated_stock::register(ctx, sql, lake).await
}

/// Counts the items of a session (HyperLogLog, within a percent or two) and finds their first day.
pub(crate) const ITEMS_SEEN_SQL: &str = "SELECT approx_distinct(item_id), min(event_day) FROM unit_item_day \
     WHERE event_day < run_date() AND arrival_day < run_date()";

/// Splits a night's items into parts that fit in the engine's memory.
pub(crate) async fn item_parts(ctx: &SessionContext, config: &Config) -> Result<Vec<Part>> {
    let rows = ctx.sql(ITEMS_SEEN_SQL).await?.collect().await?;
    let items = rows.first().map_or(0, |row| row.column(0).as_primitive::<UInt64Type>().value(0));
    Ok(Part::for_items(config, items))
}
