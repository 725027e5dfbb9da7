//! The driver's side of a cluster: makes sessions whose plans run there.

use arrow::array::RecordBatch;
use async_trait::async_trait;
use ballista_core::execution_plans::execute_physical_plan;
use ballista_core::extension::SessionConfigExt;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use datafusion_proto::protobuf::PhysicalPlanNode;
use futures::TryStreamExt;
use std::sync::Arc;

use super::codec::PlanCodec;
use crate::config::Config;
use crate::engine::cooperative_joins;
use crate::engine::places::{Place, Remote};
use crate::failure::{Failure, Result};
use crate::score::models::Models;
use crate::score::operator::with_inputs_in_output;

/// Returns `ctx` unchanged where `engine.cluster` is `local`, else a session like it whose plans run on that cluster.
pub fn connect(ctx: SessionContext, config: &Config, models: &Arc<Models>) -> Result<SessionContext> {
    let address = match config.engine.cluster.as_str() {
        "local" => return Ok(ctx),
        other => other.strip_prefix("df://").ok_or_else(|| {
            Failure::usage(format!("engine.cluster: expected local or df://HOST:PORT, got {other:?}"))
        })?,
    };
    let cluster = Cluster { scheduler_url: format!("http://{address}"), codec: PlanCodec::new(Arc::clone(models)) };
    let settings = ctx.copied_config().upgrade_for_ballista().with_ballista_adaptive_query_planner(false);
    let mut settings = settings.with_extension(Arc::new(Place(Arc::new(cluster))));
    // A shared build side marks its matched rows within one process only, so no join is planned with one.
    settings.options_mut().optimizer.hash_join_single_partition_threshold = 0;
    settings.options_mut().optimizer.hash_join_single_partition_threshold_rows = 0;
    let state = SessionStateBuilder::new_from_existing(ctx.state()).with_config(settings).build();
    Ok(SessionContext::new_with_state(state))
}

#[derive(Debug)]
struct Cluster {
    scheduler_url: String,
    codec: PlanCodec,
}

#[async_trait]
impl Remote for Cluster {
    async fn run(&self, ctx: &SessionContext, plan: Arc<dyn ExecutionPlan>) -> Result<Vec<RecordBatch>> {
        let plan = cooperative_joins::without(with_inputs_in_output(plan).await?)?;
        let settings = ctx.copied_config();
        let ballista = settings.ballista_config();
        let rows = execute_physical_plan::<PhysicalPlanNode>(
            self.scheduler_url.clone(),
            &ballista,
            plan,
            &self.codec,
            ctx.session_id(),
            settings,
        );
        let failed = |e: datafusion::error::DataFusionError| Failure::from(e).at(self.scheduler_url.as_str());
        rows.await.map_err(failed)?.try_collect().await.map_err(failed)
    }
}
