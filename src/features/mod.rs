//! Turns lake views into rollup units, merged state and feature views, all by the files under sql/.

pub mod contract;
pub mod functions;
pub mod last_events;
pub mod rollups;
pub mod views;

use datafusion::prelude::{SessionConfig, SessionContext};

use crate::config::Config;
use crate::failure::Result;
use crate::ids::RunDate;
use crate::lake::Lake;
use crate::sql_files::SqlFiles;
use rollups::Rollups;

/// Registers lake, state, feature and label views and the functions of a night of `run_date` in `ctx`.
/// Labels read nothing on or after `labels_end`.
pub async fn register(
    ctx: &SessionContext,
    config: &Config,
    sql: &SqlFiles,
    lake: &Lake,
    rollups: &Rollups,
    run_date: RunDate,
    labels_end: RunDate,
) -> Result<()> {
    functions::register(ctx, config, run_date)?;
    let end = datafusion::common::ScalarValue::Date32(Some(functions::days_of(labels_end)));
    ctx.register_udf(functions::Constant::new("labels_end", end).into());
    lake.register(ctx, run_date).await?;
    rollups.register(ctx)?;
    views::register(ctx, sql, &["state", "features", "labels"]).await
}

/// An empty session with the engine's settings and memory: own tables, shared limits.
pub fn sibling(ctx: &SessionContext) -> SessionContext {
    let config: SessionConfig = ctx.copied_config().with_create_default_catalog_and_schema(true);
    SessionContext::new_with_config_rt(config, ctx.runtime_env())
}
