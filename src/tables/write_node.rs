//! `WriteFilesExec` as a logical node, for plans that are shipped as logical plans and planned elsewhere.
//!
//! The client builds the node, the scheduler's planner turns it into the operator, the executors run it. All three must
//! run the same version of [`WriteTarget`], which travels as JSON.

use datafusion::catalog::Session;
use datafusion::common::{DFSchema, DFSchemaRef, Result as EngineResult};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use datafusion::prelude::DataFrame;
use std::fmt;
use std::sync::Arc;

use crate::failure::{Failure, Result};
use crate::tables::write_files::{WriteFilesExec, WriteTarget, output_schema};

/// Writes its input's rows; its own rows are the files (see [`WriteFilesExec`]).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd)]
pub struct WriteFilesNode {
    input: LogicalPlan,
    target: WriteTarget,
    schema: OutputSchema,
}

/// The fixed output schema. It never differs, so it takes no part in comparisons.
#[derive(Debug, Clone)]
struct OutputSchema(DFSchemaRef);

impl PartialEq for OutputSchema {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for OutputSchema {}
impl std::hash::Hash for OutputSchema {
    fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
}
impl PartialOrd for OutputSchema {
    fn partial_cmp(&self, _: &Self) -> Option<std::cmp::Ordering> {
        Some(std::cmp::Ordering::Equal)
    }
}

impl WriteFilesNode {
    pub fn new(input: LogicalPlan, target: WriteTarget) -> Result<Self> {
        let schema = OutputSchema(Arc::new(DFSchema::try_from(output_schema())?));
        Ok(Self { input, target, schema })
    }

    /// The rows of `rows` written: executing the result writes the files and returns them as rows.
    pub fn over(rows: DataFrame, target: WriteTarget) -> Result<DataFrame> {
        let (state, input) = rows.into_parts();
        let node = Arc::new(Self::new(input, target)?);
        Ok(DataFrame::new(state, LogicalPlan::Extension(Extension { node })))
    }

    /// The node without its input, for a plan codec.
    pub fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(&self.target).map_err(Failure::bug)
    }

    pub fn decode(bytes: &[u8], input: LogicalPlan) -> Result<Self> {
        Self::new(input, serde_json::from_slice(bytes).map_err(Failure::bug)?)
    }
}

impl UserDefinedLogicalNodeCore for WriteFilesNode {
    fn name(&self) -> &str {
        "WriteFiles"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema.0
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "WriteFiles: {}/{}", self.target.folder, self.target.partition)
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> EngineResult<Self> {
        match (inputs.pop(), inputs.is_empty()) {
            (Some(input), true) => Ok(Self::new(input, self.target.clone())?),
            _ => Err(Failure::bug("WriteFiles takes one input").into()),
        }
    }

    /// Files hold every column of the input, whatever the reader of the file list asks for.
    fn necessary_children_exprs(&self, _: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![(0..self.input.schema().fields().len()).collect()])
    }
}

/// Plans [`WriteFilesNode`]; installed in the session builder of client, scheduler and executors.
#[derive(Debug, Default)]
pub struct WriteFilesPlanner;

#[async_trait::async_trait]
impl ExtensionPlanner for WriteFilesPlanner {
    async fn plan_extension(
        &self,
        _: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        _: &dyn Session,
        _: &PhysicalPlanningContext,
    ) -> EngineResult<Option<Arc<dyn ExecutionPlan>>> {
        let (Some(node), [input]) = (node.as_any().downcast_ref::<WriteFilesNode>(), inputs) else { return Ok(None) };
        Ok(Some(Arc::new(WriteFilesExec::new(Arc::clone(input), node.target.clone()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Config;
    use crate::ids::{Generation, RunDate};
    use crate::lake::stores::Location;
    use crate::tables::write_files::from_batches;
    use datafusion::execution::context::QueryPlanner;
    use datafusion::execution::session_state::SessionStateBuilder;
    use datafusion::physical_planner::DefaultPhysicalPlanner;
    use datafusion::prelude::SessionContext;

    #[derive(Debug)]
    struct Planner;

    #[async_trait::async_trait]
    impl QueryPlanner for Planner {
        async fn create_physical_plan(
            &self,
            plan: &LogicalPlan,
            state: &dyn Session,
        ) -> EngineResult<Arc<dyn ExecutionPlan>> {
            let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(WriteFilesPlanner)]);
            planner.create_physical_plan(plan, state).await
        }
    }

    #[tokio::test]
    async fn a_logical_plan_writes_files_with_all_columns() {
        let output = Location::open("memory://logical/out", &S3Config::default()).unwrap();
        let state = SessionStateBuilder::new().with_default_features().with_query_planner(Arc::new(Planner)).build();
        let ctx = SessionContext::new_with_state(state);
        ctx.register_object_store(&output.store_url().unwrap(), Arc::clone(&output.store));
        let night: RunDate = "2026-03-01".parse().unwrap();
        let target = WriteTarget::new(&output, "segment", night, Generation(1)).unwrap();
        let rows =
            ctx.sql("SELECT 'a' AS segment, 1 AS users UNION ALL SELECT 'b' AS segment, 2 AS users").await.unwrap();
        let written = WriteFilesNode::over(rows, target).unwrap();
        let files = from_batches(&written.collect().await.unwrap()).unwrap();
        assert_eq!(files.iter().map(|f| f.rows).sum::<i64>(), 2);
        assert!(files.iter().all(|f| f.stats.contains("users")), "{files:?}");
    }
}
