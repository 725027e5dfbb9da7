//! Runs a physical plan in this process, or wherever the session's [`Place`] sends it.

use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::SessionContext;
use std::fmt::Debug;
use std::sync::Arc;

use super::scans;
use crate::failure::Result;

/// Runs a plan on other machines and returns its rows.
#[async_trait]
pub(crate) trait Remote: Debug + Send + Sync {
    async fn run(&self, ctx: &SessionContext, plan: Arc<dyn ExecutionPlan>) -> Result<Vec<RecordBatch>>;
}

/// Carries the remote in the session's configuration, so that sessions made from it run in the same place.
#[derive(Debug)]
pub(crate) struct Place(pub(crate) Arc<dyn Remote>);

/// Returns true where plans run in this process.
pub(crate) fn is_local(ctx: &SessionContext) -> bool {
    ctx.copied_config().get_extension::<Place>().is_none()
}

/// Runs `plan` and returns all of its rows at once; meant for plans with few result rows.
pub async fn run(ctx: &SessionContext, plan: Arc<dyn ExecutionPlan>) -> Result<Vec<RecordBatch>> {
    match ctx.copied_config().get_extension::<Place>() {
        Some(place) => place.0.run(ctx, plan).await,
        None => {
            let rows = collect(Arc::clone(&plan), ctx.task_ctx()).await?;
            scans::add(ctx, &plan);
            Ok(rows)
        }
    }
}
