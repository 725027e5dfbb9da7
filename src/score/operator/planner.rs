//! Plans `ScoreNode`s. Reads the cards of models; neither loads nor writes contents.

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use std::sync::Arc;

use super::exec::{ScoreExec, Scoring, ScoringSession};
use super::node::ScoreNode;
use crate::score::models::Models;

#[derive(Debug)]
pub(super) struct ScoringPlanner {
    pub(crate) models: Arc<Models>,
}

#[async_trait]
impl QueryPlanner for ScoringPlanner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, state: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let scores = Arc::new(PlanScores { models: Arc::clone(&self.models) });
        DefaultPhysicalPlanner::with_extension_planners(vec![scores]).create_physical_plan(plan, state).await
    }
}

struct PlanScores {
    models: Arc<Models>,
}

#[async_trait]
impl ExtensionPlanner for PlanScores {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        state: &dyn Session,
        planning: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<ScoreNode>() else { return Ok(None) };
        let session = state.as_any().downcast_ref::<SessionState>().map(ScoringSession::new);
        let mut plan = Arc::clone(&inputs[0]);
        for call in &node.calls {
            let physical = |e| planner.create_physical_expr(e, node.input.schema(), state, planning);
            let scoring = Scoring {
                function: call.function,
                arguments: call.arguments.iter().map(physical).collect::<Result<_>>()?,
                column: call.column.clone(),
                model: call.function.pin(&self.models, &call.model).await?,
            };
            plan = Arc::new(ScoreExec::new(plan, scoring, Arc::clone(&self.models))?.in_session(session.clone()));
        }
        Ok(Some(plan))
    }
}
