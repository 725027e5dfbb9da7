//! Sources of the features: lake, SQL files and settings; and sessions that share those settings.

use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::SessionContext;
use std::sync::Arc;

use super::erased_users;
use crate::config::Config;
use crate::lake::Lake;
use crate::sql_files::SqlFiles;

/// A listed lake with the SQL files and settings that turn it into features.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LakeSource<'a> {
    pub(crate) config: &'a Config,
    pub(crate) sql: &'a SqlFiles,
    pub(crate) lake: &'a Lake,
}

/// Opens an empty session that shares `ctx`'s settings, optimizer, memory pool and function factory, but none of its tables.
pub(crate) fn sibling(ctx: &SessionContext) -> SessionContext {
    let state = ctx.state();
    let empty = SessionStateBuilder::new()
        .with_config(ctx.copied_config().with_create_default_catalog_and_schema(true))
        .with_runtime_env(ctx.runtime_env())
        .with_default_features()
        .with_physical_optimizer_rules(state.physical_optimizers().to_vec());
    let empty = SessionContext::new_with_state(empty.build());
    let empty = match state.function_factory() {
        Some(factory) => empty.with_function_factory(Arc::clone(factory)),
        None => empty,
    };
    erased_users::share(ctx, &empty);
    empty
}
