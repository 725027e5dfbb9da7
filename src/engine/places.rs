//! Where a physical plan runs: in this process, or wherever the session's [`Place`] takes it.

use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::SessionContext;
use std::fmt::Debug;
use std::sync::Arc;

use crate::failure::Result;

/// Other machines that can run a plan and return its rows.
#[async_trait]
pub trait Remote: Debug + Send + Sync {
    async fn run(&self, ctx: &SessionContext, plan: Arc<dyn ExecutionPlan>) -> Result<Vec<RecordBatch>>;
}

/// Travels in the session's configuration, so that sessions made from it run at the same place.
#[derive(Debug)]
pub struct Place(pub Arc<dyn Remote>);

/// Runs `plan` to its end. For plans of few result rows: all of them are returned at once.
pub async fn run(ctx: &SessionContext, plan: Arc<dyn ExecutionPlan>) -> Result<Vec<RecordBatch>> {
    match ctx.copied_config().get_extension::<Place>() {
        Some(place) => place.0.run(ctx, plan).await,
        None => Ok(collect(plan, ctx.task_ctx()).await?),
    }
}
