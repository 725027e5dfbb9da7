//! Answers to the questions that PostgreSQL's clients ask `pg_catalog` and `information_schema` when they connect.
//!
//! `datafusion-pg-catalog` describes tables, columns and types. Added here: comments on tables and columns, functions, tables and
//! columns that clients name and that say nothing about this server, and an empty answer to what DataFusion cannot plan.

mod empty_answer;
mod functions;
mod names;
mod tables;
mod types;

use datafusion::common::config::ConfigOptions;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::SessionContext;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::{context::EmptyContextProvider, setup_pg_catalog};
use std::sync::Arc;

use crate::engine::schemas::CATALOG;
use crate::failure::{Failure, Result};
use crate::workspace::descriptions::Descriptions;

pub(super) use empty_answer::{empty_answer, may_answer_without_rows, reads_descriptions, without_subqueries};
pub(super) use names::{SEARCH_PATH, VERSION};

/// Adds both schemas to a session, and the functions that clients call.
pub(super) async fn install(ctx: &SessionContext, descriptions: &Descriptions) -> Result<()> {
    let ours = tables::functions_of(ctx);
    setup_pg_catalog(ctx, CATALOG, EmptyContextProvider).map_err(|e| Failure::from(*e))?;
    {
        let state = ctx.state_ref();
        let mut options: ConfigOptions = state.read().config_options().as_ref().clone();
        // Ours has more tables; the built-in one would hide it.
        options.catalog.information_schema = false;
        let known = state.read().clone();
        let mut config = known.config().clone();
        *config.options_mut() = options;
        let built = SessionStateBuilder::new_from_existing(known)
            .with_config(config)
            .with_type_planner(Arc::new(types::ClientTypes))
            .build();
        *state.write() = built;
    }
    tables::install(ctx)?;
    let known = tables::fill(ctx, &ours, descriptions).await?;
    functions::register(ctx, Arc::new(known));
    Ok(())
}
