//! Plans that are made once and run over the rows of each request.
//!
//! A [`RequestTable`] has a name and columns and no rows. A [`PreparedPlan`] reads such tables; each run brings their rows along,
//! in the configuration of its own task.

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result as EngineResult;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, reset_plan_states};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, collect};
use datafusion::prelude::{DataFrame, SessionContext};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::failure::Result;

/// The rows of one request, by table.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestRows(BTreeMap<&'static str, Vec<RecordBatch>>);

impl RequestRows {
    /// Adds rows to a table. Columns that the table has and they lack are null; others are ignored.
    pub(crate) fn add(&mut self, table: &'static str, rows: impl IntoIterator<Item = RecordBatch>) {
        self.0.entry(table).or_default().extend(rows);
    }

    /// Returns the rows of a table so far.
    pub(crate) fn of(&self, table: &str) -> &[RecordBatch] {
        self.0.get(table).map_or(&[], Vec::as_slice)
    }
}

/// A table whose rows each request brings along.
#[derive(Debug)]
pub(crate) struct RequestTable {
    name: &'static str,
    schema: SchemaRef,
}

impl RequestTable {
    pub(crate) fn provider(name: &'static str, schema: SchemaRef) -> Arc<dyn TableProvider> {
        Arc::new(Self { name, schema })
    }
}

#[async_trait]
impl TableProvider for RequestTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> EngineResult<Arc<dyn ExecutionPlan>> {
        let schema = datafusion::common::project_schema(&self.schema, projection)?;
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ));
        Ok(Arc::new(RequestScan { table: self.name, schema, properties }))
    }
}

/// Reads a table's rows from the request of the task.
#[derive(Debug)]
struct RequestScan {
    table: &'static str,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl DisplayAs for RequestScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "RequestScan: {}", self.table)
    }
}

impl ExecutionPlan for RequestScan {
    fn name(&self) -> &'static str {
        "RequestScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> EngineResult<TreeNodeRecursion>,
    ) -> EngineResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> EngineResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> EngineResult<SendableRecordBatchStream> {
        let request = context.session_config().get_extension::<RequestRows>();
        let rows = request.iter().flat_map(|request| request.of(self.table));
        let rows: Vec<EngineResult<RecordBatch>> = rows.map(|rows| fit(rows, &self.schema)).collect();
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), futures::stream::iter(rows))))
    }
}

/// Returns the columns of `schema`, by name.
fn fit(rows: &RecordBatch, schema: &SchemaRef) -> EngineResult<RecordBatch> {
    let column = |field: &arrow::datatypes::FieldRef| -> EngineResult<ArrayRef> {
        match rows.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
            Some(column) => Ok(cast(column, field.data_type())?),
            None => Ok(new_null_array(field.data_type(), rows.num_rows())),
        }
    };
    let columns = schema.fields().iter().map(column).collect::<EngineResult<_>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// A physical plan over [`RequestTable`]s.
#[derive(Debug)]
pub(crate) struct PreparedPlan {
    plan: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
}

impl PreparedPlan {
    /// Makes the plan of a query.
    pub(crate) async fn new(query: DataFrame) -> Result<Self> {
        let (state, plan) = query.into_parts();
        Ok(Self { plan: state.create_physical_plan(&plan).await?, task: state.task_ctx() })
    }

    /// Runs the plan over the rows of a request.
    pub(crate) async fn run(&self, request: &Arc<RequestRows>) -> Result<Vec<RecordBatch>> {
        let base = &self.task;
        let task = TaskContext::new(
            None,
            base.session_id(),
            base.session_config().clone().with_extension(Arc::clone(request)),
            base.scalar_functions().clone(),
            base.higher_order_functions().clone(),
            base.aggregate_functions().clone(),
            base.window_functions().clone(),
            base.runtime_env(),
        );
        // Some operators keep what they read the first time.
        let plan = reset_plan_states(Arc::clone(&self.plan))?;
        Ok(collect(plan, Arc::new(task)).await?)
    }
}

/// Prepares a session for plans that can run again and again: over few rows, in one partition.
pub(crate) fn settle(ctx: &SessionContext) {
    let state = ctx.state_ref();
    let mut state = state.write();
    let options = state.config_mut().options_mut();
    options.execution.target_partitions = 1;
    // A plan with such filters must not run twice.
    options.optimizer.enable_dynamic_filter_pushdown = false;
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    options.optimizer.enable_topk_dynamic_filter_pushdown = false;
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    fn numbers(values: &[i64]) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        RecordBatch::try_from_iter([("n", column)]).unwrap()
    }

    #[tokio::test]
    async fn each_run_sees_its_own_rows() {
        let ctx = SessionContext::new();
        settle(&ctx);
        let schema = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int32, true),
            Field::new("missing", DataType::Utf8, true),
        ]));
        ctx.register_table("a", RequestTable::provider("a", Arc::clone(&schema))).unwrap();
        ctx.register_table("b", RequestTable::provider("b", schema)).unwrap();
        let sql = "SELECT sum(a.n) AS total, count(a.missing) AS known, count(DISTINCT b.n) AS pairs \
            FROM a LEFT JOIN b ON a.n = b.n ORDER BY total";
        let plan = PreparedPlan::new(ctx.sql(sql).await.unwrap()).await.unwrap();
        for (a, b, expected) in [([1, 2, 3], vec![2], (6, 0, 1)), ([5, 5, 5], vec![5, 7], (15, 0, 1))] {
            let mut request = RequestRows::default();
            request.add("a", [numbers(&a[..2]), numbers(&a[2..])]);
            request.add("b", [numbers(&b)]);
            let rows = plan.run(&Arc::new(request)).await.unwrap();
            let values: Vec<i64> = (0..3).map(|c| rows[0].column(c).as_primitive::<Int64Type>().value(0)).collect();
            assert_eq!(values, [expected.0, expected.1, expected.2]);
        }
        let nothing = plan.run(&Arc::default()).await.unwrap();
        assert_eq!(nothing[0].column(2).as_primitive::<Int64Type>().value(0), 0);
    }
}
