//! The physical operator that computes scores.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::execution::session_state::SessionState;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use datafusion::prelude::SessionContext;
use futures::{StreamExt, TryStreamExt};
use std::fmt;
use std::sync::Arc;

use crate::failure::Failure;
use crate::score::functions::ScoringFunction;
use crate::score::models::{ModelInputs, ModelRef, Models};
use crate::score::sql_model::LoadedModel;

/// Rows that a partition gathers from its input for one request.
const REQUEST_ROWS: usize = 4096;
/// Bytes that end a request earlier, where rows hold images.
const REQUEST_BYTES: usize = 64 << 20;

/// Appends one column of scores to its input; keeps partitions, rows and their order.
#[derive(Debug, Clone)]
pub(crate) struct ScoreExec {
    input: Arc<dyn ExecutionPlan>,
    pub(crate) scoring: Scoring,
    models: Arc<Models>,
    /// The session whose lake the call may read; none in a process that got the plan from another one.
    session: Option<ScoringSession>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

/// The call that a [`ScoreExec`] computes: everything but its input and the process's models.
#[derive(Debug, Clone)]
pub(crate) struct Scoring {
    pub(crate) function: ScoringFunction,
    /// The function's inputs, then the label where the call names one.
    pub(crate) arguments: Vec<Arc<dyn PhysicalExpr>>,
    pub(crate) column: String,
    pub(crate) model: ModelRef,
}

impl Scoring {
    fn field(&self) -> Field {
        let labelled = self.arguments.len() > self.function.signature().inputs;
        Field::new(&self.column, self.function.result_type(labelled), self.function.nullable())
    }
}

/// The session that planned an operator.
#[derive(Clone)]
pub(super) struct ScoringSession(Arc<SessionContext>);

impl ScoringSession {
    pub(super) fn new(state: &SessionState) -> Self {
        Self(Arc::new(SessionContext::new_with_state(state.clone())))
    }
}

impl fmt::Debug for ScoringSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScoringSession({})", self.0.session_id())
    }
}

impl ScoreExec {
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>, scoring: Scoring, models: Arc<Models>) -> Result<Self> {
        let field = Arc::new(scoring.field());
        let fields: Vec<_> = input.schema().fields().iter().cloned().chain([field]).collect();
        let schema = Arc::new(Schema::new_with_metadata(fields, input.schema().metadata().clone()));
        // The score is the last column, so that what is known of the input's columns by their places stays true.
        let equivalences = EquivalenceProperties::new(Arc::clone(&schema))
            .extend(input.properties().equivalence_properties().clone())?;
        let properties = PlanProperties::new(
            equivalences,
            input.properties().partitioning.clone(),
            input.properties().emission_type,
            input.properties().boundedness,
        );
        Ok(Self { input, scoring, models, session: None, schema, properties: Arc::new(properties) })
    }

    pub(super) fn in_session(self, session: Option<ScoringSession>) -> Self {
        Self { session, ..self }
    }

    /// Loads the model, after what the call reads of the session's lake has been refreshed.
    async fn load(&self) -> Result<Arc<dyn LoadedModel>, Failure> {
        let Scoring { function, model, .. } = &self.scoring;
        let inputs = match &self.session {
            None => ModelInputs::from(model.clone()),
            Some(session) => self.models.inputs(model, function.lake_inputs(), &session.0).await?,
        };
        function.load(&self.models, &inputs).await
    }

    async fn score(&self, model: Arc<dyn LoadedModel>, batch: RecordBatch) -> Result<RecordBatch> {
        let mut inputs = Vec::with_capacity(self.scoring.arguments.len());
        for argument in &self.scoring.arguments {
            inputs.push(argument.evaluate(&batch)?.into_array(batch.num_rows())?);
        }
        let label = inputs.split_off(self.scoring.function.signature().inputs).pop();
        let scores = model.evaluate(inputs, label).await?;
        let columns = batch.columns().iter().cloned().chain([scores]).collect();
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

impl DisplayAs for ScoreExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let Scoring { function, column, model, .. } = &self.scoring;
        let ModelRef { version, weights_hash, .. } = model;
        write!(f, "ScoreExec: {column} = {}, model={version}, weights={weights_hash}", function.name())
    }
}

impl ExecutionPlan for ScoreExec {
    fn name(&self) -> &str {
        "ScoreExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for argument in &self.scoring.arguments {
            if f(argument)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(input) = children.pop() else { return plan_err!("ScoreExec: expected one input") };
        let exec = Self::new(input, self.scoring.clone(), Arc::clone(&self.models))?;
        Ok(Arc::new(exec.in_session(self.session.clone())))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let exec = self.clone();
        let stream = futures::stream::once(async move {
            // Boxed: in a debug build these futures are hundreds of kilobytes, which every caller's stack would hold.
            let model = Box::pin(exec.load()).await?;
            let in_flight = exec.models.in_flight_max();
            let scored = gather(input).map(move |batch| {
                let (exec, model) = (exec.clone(), Arc::clone(&model));
                async move { Box::pin(exec.score(model, batch?)).await }
            });
            Ok::<_, DataFusionError>(scored.buffered(in_flight))
        })
        .try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream)))
    }
}

/// Returns `plan` for other processes: what its calls read of the session's lake is in the output, and the plan says where.
pub(crate) async fn with_inputs_in_output(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>, Failure> {
    let mut scores = Vec::new();
    plan.apply(|node| {
        scores.extend(node.downcast_ref::<ScoreExec>().cloned());
        Ok(TreeNodeRecursion::Continue)
    })?;
    let mut pinned = Vec::new();
    for ScoreExec { scoring, models, session, .. } in scores {
        let model = match session {
            None => scoring.model,
            Some(session) => {
                models.inputs_in_output(&scoring.model, scoring.function.lake_inputs(), &session.0).await?
            }
        };
        pinned.push(model);
    }
    // In the order of `apply`.
    let mut pinned = pinned.into_iter();
    let plan = plan.transform_down(|node| {
        let Some(mut exec) = node.downcast_ref::<ScoreExec>().cloned() else { return Ok(Transformed::no(node)) };
        exec.scoring.model = pinned.next().unwrap_or(exec.scoring.model);
        Ok(Transformed::yes(Arc::new(exec) as Arc<dyn ExecutionPlan>))
    })?;
    Ok(plan.data)
}

/// Joins small input batches into requests.
fn gather(input: SendableRecordBatchStream) -> impl futures::Stream<Item = Result<RecordBatch>> {
    let schema = input.schema();
    futures::stream::try_unfold((input, schema), |(mut input, schema)| async move {
        let (mut waiting, mut rows, mut bytes) = (Vec::new(), 0, 0);
        while rows < REQUEST_ROWS && bytes < REQUEST_BYTES {
            let Some(batch) = input.try_next().await? else { break };
            rows += batch.num_rows();
            // All values of a sliced list are counted, which at worst makes a request smaller.
            for column in batch.columns() {
                bytes += column.to_data().get_slice_memory_size()?;
            }
            waiting.push(batch);
        }
        if rows == 0 {
            return Ok(None);
        }
        let joined = concat_batches(&schema, &waiting)?;
        Ok(Some((joined, (input, schema))))
    })
}
