//! Turns lake views into rollup units, merged state and feature views, all by the files under sql/.

pub mod content_key;
pub mod contract;
pub mod functions;
pub mod last_events;
pub mod ordered_list;
pub mod parts;
pub mod rollups;
pub mod user_functions;
pub mod views;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Schema, UInt64Type};
use datafusion::common::ScalarValue;
use datafusion::datasource::empty::EmptyTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use std::sync::Arc;

use crate::config::Config;
use crate::failure::Result;
use crate::ids::RunDate;
use crate::lake::Lake;
use crate::sql_files::SqlFiles;
use crate::tables::schemas;
use parts::Part;
use rollups::Rollups;

/// What earlier nights published of demand, with the run date as `_dt`; whoever reads published nights registers it
/// before [`register`], which makes it empty otherwise.
pub const EARLIER_DEMAND: &str = "earlier_demand";

/// What a session sees of the lake.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    pub run_date: RunDate,
    /// Labels read nothing on or after this date.
    pub labels_end: RunDate,
    /// The users that state and feature views hold.
    pub users: Part,
    /// The items whose days and histories they hold.
    pub items: Part,
}

impl Scope {
    /// Every user, as the night of `run_date` sees them; no labels.
    pub fn night(run_date: RunDate) -> Self {
        Self { run_date, labels_end: run_date, users: Part::ALL, items: Part::ALL }
    }
}

/// Registers lake, state, feature and label views and the functions of a night in `ctx`.
pub async fn register(
    ctx: &SessionContext,
    config: &Config,
    sql: &SqlFiles,
    lake: &Lake,
    rollups: &Rollups,
    scope: Scope,
) -> Result<()> {
    functions::register(ctx, config, scope.run_date)?;
    let end = ScalarValue::Date32(Some(functions::days_of(scope.labels_end)));
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
    user_functions::create(ctx, sql).await?;
    lake.register(ctx, scope.run_date).await?;
    rollups.register(ctx)?;
    if !ctx.table_exist(EARLIER_DEMAND)? {
        let mut fields = schemas::file_schema("demand")?.fields().to_vec();
        fields.push(Arc::new(Field::new("_dt", DataType::Date32, true)));
        ctx.register_table(EARLIER_DEMAND, Arc::new(EmptyTable::new(Arc::new(Schema::new(fields)))))?;
    }
    views::register(ctx, sql, &["state", "features", "labels"]).await
}

/// About how many items a session knows of, by a sketch of a percent or two, and their first day.
pub const ITEMS_SEEN_SQL: &str = "SELECT approx_distinct(item_id), min(event_day) FROM unit_item_day \
     WHERE event_day < run_date() AND arrival_day < run_date()";

/// The parts of a night's items.
pub async fn item_parts(ctx: &SessionContext, config: &Config) -> Result<Vec<Part>> {
    let rows = ctx.sql(ITEMS_SEEN_SQL).await?.collect().await?;
    let items = rows.first().map_or(0, |row| row.column(0).as_primitive::<UInt64Type>().value(0));
    Ok(Part::of_items(config, items))
}

/// An empty session with the engine's settings and memory: own tables, shared limits, and its way to make functions.
pub fn sibling(ctx: &SessionContext) -> SessionContext {
    let config: SessionConfig = ctx.copied_config().with_create_default_catalog_and_schema(true);
    let empty = SessionContext::new_with_config_rt(config, ctx.runtime_env());
    match ctx.state().function_factory() {
        Some(factory) => empty.with_function_factory(Arc::clone(factory)),
        None => empty,
    }
}
