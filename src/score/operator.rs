//! Scoring as an operator: calls of `score_intents`, `forecast_demand` and their like become `ScoreNode` → `ScoreExec`.
//!
//! The analyzer rule takes every such call out of a node's expressions and puts one node below it that computes each
//! distinct call once; a call of another call's result has a node above that one's. Filters over scores stay above the nodes,
//! so no pushdown can copy a call and score twice.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Int64Type, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{
    Column, DFSchema, DFSchemaRef, DataFusionError, Result, config::ConfigOptions, exec_err, plan_err,
};
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::session_state::SessionState;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    Expr, Extension, LogicalPlan, Projection, UserDefinedLogicalNode, UserDefinedLogicalNodeCore, lit,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use datafusion::prelude::SessionContext;
use futures::{StreamExt, TryStreamExt};
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use super::embedding::SharedEncoder;
use super::functions::{Scorer, demand_column, intent_column};
use super::images::ImageScorer;
use super::models::{ModelRef, Models};
use super::pictures::SharedImageEncoder;
use super::recommend::ItemIndex;
use super::service::{ScoringService, as_struct};
use super::table::TableScorer;
use super::text::TextScorer;

/// Rows that a partition gathers from its input before it asks the service.
const REQUEST_ROWS: usize = 4096;
const REQUEST_BYTES: usize = 64 << 20;

/// Installs functions, rule and planner in a new session like `ctx`.
pub fn install(ctx: &SessionContext, models: Arc<Models>) -> SessionContext {
    use datafusion::execution::session_state::SessionStateBuilder;
    let state = SessionStateBuilder::new_from_existing(ctx.state())
        .with_query_planner(Arc::new(ScoringPlanner { models }))
        .with_analyzer_rule(Arc::new(ExtractScores))
        .build();
    let ctx = SessionContext::new_with_state(state);
    Scorer::ALL.iter().for_each(|s| ctx.register_udf(s.function()));
    ctx
}

/// One distinct call: which function, of what, by which model (empty = the session's).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd)]
struct Call {
    scorer: Scorer,
    arguments: Vec<Expr>,
    model: String,
    /// The column that holds the result.
    column: String,
}

impl Call {
    /// Whether a score of the same node stands in an argument.
    fn reads(&self, column: &str) -> bool {
        let mut read = self.arguments.iter().flat_map(Expr::column_refs);
        read.any(|c| c.relation.is_none() && c.name == column)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ScoreNode {
    input: LogicalPlan,
    calls: Vec<Call>,
    schema: DFSchemaRef,
}

impl PartialOrd for ScoreNode {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        self.calls.partial_cmp(&other.calls)
    }
}

impl ScoreNode {
    fn new(input: LogicalPlan, calls: Vec<Call>) -> Result<Self> {
        let scored =
            calls.iter().map(|c| (None, Arc::new(Field::new(&c.column, c.scorer.data_type(), c.scorer.nullable()))));
        let fields = input.schema().iter().map(|(q, f)| (q.cloned(), Arc::clone(f))).chain(scored).collect();
        let schema = DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?;
        Ok(Self { input, calls, schema: Arc::new(schema) })
    }
}

impl UserDefinedLogicalNodeCore for ScoreNode {
    fn name(&self) -> &str {
        "Score"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.calls.iter().flat_map(|c| c.arguments.clone()).collect()
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.calls.iter().map(|c| c.column.clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let calls: Vec<_> = self.calls.iter().map(|c| format!("{} = {}", c.column, c.scorer.name())).collect();
        write!(f, "Score: {}", calls.join(", "))
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let mut exprs = exprs.into_iter();
        let mut next = |c: &Call| Call { arguments: exprs.by_ref().take(c.arguments.len()).collect(), ..c.clone() };
        let calls = self.calls.iter().map(&mut next).collect();
        match inputs.pop() {
            Some(input) if inputs.is_empty() => Self::new(input, calls),
            _ => plan_err!("Score: expected one input"),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.input.schema().fields().len();
        let mut needed: Vec<usize> = output_columns.iter().copied().filter(|&c| c < width).collect();
        for call in &self.calls {
            for column in call.arguments.iter().flat_map(Expr::column_refs) {
                needed.extend(self.input.schema().maybe_index_of_column(column));
            }
        }
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}

/// See the module's opening.
#[derive(Debug)]
struct ExtractScores;

impl AnalyzerRule for ExtractScores {
    fn name(&self) -> &str {
        "extract_scores"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(extract)?.data)
    }
}

fn extract(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if matches!(plan, LogicalPlan::Extension(_)) {
        return Ok(Transformed::no(plan));
    }
    let mut calls: Vec<Call> = Vec::new();
    let names: Vec<_> = plan.expressions().iter().map(|e| e.qualified_name()).collect();
    let mut rewritten = Vec::new();
    for expression in plan.expressions() {
        let done = expression.transform_up(|e| match as_call(&e)? {
            None => Ok(Transformed::no(e)),
            // A call of what another call gives waits for a node above that one's.
            Some(call) if calls.iter().any(|known| call.reads(&known.column)) => Ok(Transformed::no(e)),
            Some(call) => {
                let same =
                    |c: &&Call| (c.scorer, &c.arguments, &c.model) == (call.scorer, &call.arguments, &call.model);
                let column = match calls.iter().find(same) {
                    Some(known) => known.column.clone(),
                    None => {
                        let column = format!("__score_{}", calls.len());
                        calls.push(Call { column: column.clone(), ..call });
                        column
                    }
                };
                Ok(Transformed::yes(Expr::Column(Column::new_unqualified(column))))
            }
        })?;
        rewritten.push(done.data);
    }
    if calls.is_empty() {
        return Ok(Transformed::no(plan));
    }
    let inputs = plan.inputs();
    let [input] = inputs.as_slice() else {
        return plan_err!("{}: can not stand in a join's condition; compute it in a subquery", calls[0].scorer.name());
    };
    // Nodes above may use other names for their own score columns.
    let taken = input.schema().fields().iter().filter(|f| f.name().starts_with("__score_")).count();
    let renamed = |e: Expr| -> Result<Expr> {
        Ok(e.transform_up(|e| match &e {
            Expr::Column(c) if c.relation.is_none() && calls.iter().any(|call| call.column == c.name) => {
                Ok(Transformed::yes(Expr::Column(Column::new_unqualified(format!("{}_{taken}", c.name)))))
            }
            _ => Ok(Transformed::no(e)),
        })?
        .data)
    };
    let named: Vec<Expr> = rewritten
        .into_iter()
        .zip(names)
        .map(|(e, (relation, name))| {
            let e = renamed(e)?;
            // What the node calls its outputs stays as the query wrote it.
            let keeps = matches!(plan, LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Window(_));
            Ok(if keeps && e.qualified_name() != (relation.clone(), name.clone()) {
                e.alias_qualified(relation, name)
            } else {
                e
            })
        })
        .collect::<Result<_>>()?;
    let unchanged: Vec<Expr> = plan.schema().iter().map(Expr::from).collect();
    let passes_input_through = matches!(plan, LogicalPlan::Filter(_) | LogicalPlan::Sort(_) | LogicalPlan::Limit(_));
    let calls = calls.iter().map(|c| Call { column: format!("{}_{taken}", c.column), ..c.clone() }).collect();
    let node = ScoreNode::new((*input).clone(), calls)?;
    let below = LogicalPlan::Extension(Extension { node: Arc::new(node) });
    let mut above = extract(plan.with_new_exprs(named, vec![below])?)?.data;
    if passes_input_through {
        above = LogicalPlan::Projection(Projection::try_new(unchanged, Arc::new(above))?);
    }
    Ok(Transformed::yes(above))
}

fn as_call(expression: &Expr) -> Result<Option<Call>> {
    let Expr::ScalarFunction(f) = expression else { return Ok(None) };
    let Some(scorer) = Scorer::ALL.into_iter().find(|s| s.name() == f.func.name()) else { return Ok(None) };
    let scorer = if f.args.len() > 2 { scorer.of_label() } else { scorer };
    let model = match f.args.get(scorer.arity()) {
        None => String::new(),
        Some(Expr::Literal(value, _)) => value.try_as_str().flatten().unwrap_or_default().to_string(),
        Some(other) => return plan_err!("{}: expected a literal model version, got {other}", scorer.name()),
    };
    let mut arguments: Vec<Expr> = f.args.iter().take(scorer.arity()).cloned().collect();
    if scorer.takes_label() {
        arguments.push(f.args.get(2).cloned().unwrap_or_else(|| lit("")));
    }
    Ok(Some(Call { scorer, arguments, model, column: String::new() }))
}

#[derive(Debug)]
struct ScoringPlanner {
    models: Arc<Models>,
}

#[async_trait]
impl QueryPlanner for ScoringPlanner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, state: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let own = Arc::new(PlanScores { models: Arc::clone(&self.models) });
        DefaultPhysicalPlanner::with_extension_planners(vec![own]).create_physical_plan(plan, state).await
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
        let session = state.as_any().downcast_ref::<SessionState>();
        let session = session.map(|state| SessionContext::new_with_state(state.clone()));
        let mut catalogue = String::new();
        if let Some(ctx) = &session {
            // What users met, and what items show.
            let reads = |call: &&Call| matches!(call.scorer, Scorer::Intents | Scorer::Recommend);
            for call in node.calls.iter().filter(reads) {
                self.models.refresh_contents(ctx, &self.models.card(&call.model).await?, None).await?;
            }
            if node.calls.iter().any(|call| call.scorer == Scorer::Recommend) {
                catalogue = self.models.catalogue(ctx).await?;
            }
        }
        let mut plan = Arc::clone(&inputs[0]);
        for call in &node.calls {
            let physical = |e| planner.create_physical_expr(e, node.input.schema(), state, planning);
            let scoring = Scoring {
                scorer: call.scorer,
                arguments: call.arguments.iter().map(physical).collect::<Result<_>>()?,
                column: call.column.clone(),
                model: match call.scorer {
                    Scorer::Table => self.models.pin_table(&call.model).await?,
                    Scorer::Embed => self.models.pin_encoder(&call.model).await?,
                    Scorer::EmbedImage => self.models.pin_image_encoder(&call.model).await?,
                    Scorer::Text | Scorer::TextLabel => self.models.pin_text(&call.model).await?,
                    Scorer::Image | Scorer::ImageLabel => self.models.pin_image(&call.model).await?,
                    Scorer::Recommend => {
                        ModelRef { catalogue: catalogue.clone(), ..self.models.pin(&call.model).await? }
                    }
                    Scorer::Intents | Scorer::Demand => self.models.pin(&call.model).await?,
                },
            };
            plan = Arc::new(ScoreExec::new(plan, scoring, Arc::clone(&self.models))?);
        }
        Ok(Some(plan))
    }
}

/// Appends one column of scores to its input; keeps partitions, rows and their order.
#[derive(Debug, Clone)]
pub struct ScoreExec {
    input: Arc<dyn ExecutionPlan>,
    pub scoring: Scoring,
    models: Arc<Models>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

/// What a [`ScoreExec`] computes: all of it but its input and the process's models.
#[derive(Debug, Clone)]
pub struct Scoring {
    pub scorer: Scorer,
    pub arguments: Vec<Arc<dyn PhysicalExpr>>,
    pub column: String,
    pub model: ModelRef,
}

impl ScoreExec {
    pub fn new(input: Arc<dyn ExecutionPlan>, scoring: Scoring, models: Arc<Models>) -> Result<Self> {
        let field = Arc::new(Field::new(&scoring.column, scoring.scorer.data_type(), scoring.scorer.nullable()));
        let fields: Vec<_> = input.schema().fields().iter().cloned().chain([field]).collect();
        let schema = Arc::new(Schema::new_with_metadata(fields, input.schema().metadata().clone()));
        // The score comes last: what is known of the input's columns by their places stays true.
        let known = EquivalenceProperties::new(Arc::clone(&schema))
            .extend(input.properties().equivalence_properties().clone())?;
        let properties = PlanProperties::new(
            known,
            input.properties().partitioning.clone(),
            input.properties().emission_type,
            input.properties().boundedness,
        );
        Ok(Self { input, scoring, models, schema, properties: Arc::new(properties) })
    }
}

impl DisplayAs for ScoreExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let Scoring { scorer, column, model, .. } = &self.scoring;
        let ModelRef { version, weights_hash, .. } = model;
        write!(f, "ScoreExec: {column} = {}, model={version}, weights={weights_hash}", scorer.name())
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
        match children.pop() {
            Some(input) => Ok(Arc::new(Self::new(input, self.scoring.clone(), Arc::clone(&self.models))?)),
            None => plan_err!("ScoreExec: expected one input"),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let exec = self.clone();
        let stream = futures::stream::once(async move {
            let model = exec.loaded().await?;
            let in_flight = exec.models.in_flight_max();
            let scored = gather(input).map(move |batch| {
                let (exec, model) = (exec.clone(), model.clone());
                async move { exec.score(&model, batch?).await }
            });
            Ok::<_, DataFusionError>(scored.buffered(in_flight))
        })
        .try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream)))
    }
}

/// What scores the rows of a [`ScoreExec`].
#[derive(Debug, Clone)]
enum Loaded {
    Night(ScoringService),
    Items(ItemIndex),
    Table(Arc<TableScorer>),
    Encoder(Arc<SharedEncoder>),
    ImageEncoder(Arc<SharedImageEncoder>),
    Text(Arc<TextScorer>),
    Image(Arc<ImageScorer>),
}

impl ScoreExec {
    async fn loaded(&self) -> Result<Loaded> {
        let (models, model) = (&self.models, &self.scoring.model);
        Ok(match self.scoring.scorer {
            Scorer::Table => Loaded::Table(models.pinned_table(model).await?),
            Scorer::Embed => Loaded::Encoder(models.pinned_encoder(model).await?),
            Scorer::EmbedImage => Loaded::ImageEncoder(models.pinned_image_encoder(model).await?),
            Scorer::Text | Scorer::TextLabel => Loaded::Text(models.pinned_text(model).await?),
            Scorer::Image | Scorer::ImageLabel => Loaded::Image(models.pinned_image(model).await?),
            Scorer::Recommend => Loaded::Items(models.items(model).await?),
            Scorer::Intents | Scorer::Demand => Loaded::Night(models.pinned(model).await?),
        })
    }

    async fn score(&self, model: &Loaded, batch: RecordBatch) -> Result<RecordBatch> {
        let evaluated = self.scoring.arguments.iter().map(|a| a.evaluate(&batch)?.into_array(batch.num_rows()));
        let arguments = evaluated.collect::<Result<Vec<_>>>()?;
        let column = match (model, self.scoring.scorer, arguments.as_slice()) {
            (Loaded::Night(service), Scorer::Intents, [features]) => {
                intent_column(&service.score(as_struct(features)?).await?, &service.card.version)
            }
            (Loaded::Night(service), Scorer::Demand, [history]) => {
                demand_column(&service.forecast(as_struct(history)?).await?)
            }
            (Loaded::Items(items), Scorer::Recommend, [taste, exclude, k]) => {
                let (taste, exclude, k) = (Arc::clone(taste), Arc::clone(exclude), positive(k)?);
                let items = items.clone();
                // A matrix product over the whole catalogue is no work for a thread that serves streams.
                tokio::task::spawn_blocking(move || items.column(&taste, &exclude, k))
                    .await
                    .map_err(|e| DataFusionError::Execution(format!("recommend: {e}")))??
            }
            (Loaded::Table(table), Scorer::Table, [features, label]) => {
                let (table, features, label) = (Arc::clone(table), Arc::clone(features), Arc::clone(label));
                tokio::task::spawn_blocking(move || table.column(&features, &label))
                    .await
                    .map_err(|e| DataFusionError::Execution(format!("predict_table: {e}")))??
            }
            (Loaded::Encoder(encoder), Scorer::Embed, [texts]) => {
                let (encoder, texts) = (Arc::clone(encoder), Arc::clone(texts));
                tokio::task::spawn_blocking(move || encoder.column(&texts))
                    .await
                    .map_err(|e| DataFusionError::Execution(format!("embed_text: {e}")))??
            }
            (Loaded::ImageEncoder(encoder), Scorer::EmbedImage, [pictures]) => {
                let (encoder, pictures) = (Arc::clone(encoder), Arc::clone(pictures));
                tokio::task::spawn_blocking(move || encoder.column(&pictures))
                    .await
                    .map_err(|e| DataFusionError::Execution(format!("embed_image: {e}")))??
            }
            (Loaded::Text(text), Scorer::Text | Scorer::TextLabel, [texts, label @ ..]) => {
                let (text, texts, label) = (Arc::clone(text), Arc::clone(texts), label.first().cloned());
                tokio::task::spawn_blocking(move || match label {
                    None => text.lists(&texts),
                    Some(label) => text.column(&texts, &label),
                })
                .await
                .map_err(|e| DataFusionError::Execution(format!("classify_text: {e}")))??
            }
            (Loaded::Image(image), Scorer::Image | Scorer::ImageLabel, [pictures, label @ ..]) => {
                let (image, pictures, label) = (Arc::clone(image), Arc::clone(pictures), label.first().cloned());
                tokio::task::spawn_blocking(move || match label {
                    None => image.lists(&pictures),
                    Some(label) => image.column(&pictures, &label),
                })
                .await
                .map_err(|e| DataFusionError::Execution(format!("classify_image: {e}")))??
            }
            (_, scorer, other) => return exec_err!("{}: got {} arguments", scorer.name(), other.len()),
        };
        let columns = batch.columns().iter().cloned().chain([column]).collect();
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

/// The k of `recommend`: the same on every row.
fn positive(k: &ArrayRef) -> Result<usize> {
    match k.as_primitive_opt::<Int64Type>().map(|k| k.values().first().copied().unwrap_or(0)) {
        Some(k) if k > 0 => Ok(k as usize),
        _ => exec_err!("recommend: expected a positive whole number as k, got {:?}", k.slice(0, k.len().min(1))),
    }
}

/// Joins small input batches up to [`REQUEST_ROWS`], or [`REQUEST_BYTES`] where rows are pictures.
fn gather(input: SendableRecordBatchStream) -> impl futures::Stream<Item = Result<RecordBatch>> {
    let schema = input.schema();
    futures::stream::try_unfold((input, schema), |(mut input, schema)| async move {
        let (mut waiting, mut rows, mut bytes) = (Vec::new(), 0, 0);
        while rows < REQUEST_ROWS && bytes < REQUEST_BYTES {
            match input.try_next().await? {
                Some(batch) => {
                    rows += batch.num_rows();
                    // Of a slice of lists all of their values are counted: a request is smaller then, and no more.
                    for column in batch.columns() {
                        bytes += column.to_data().get_slice_memory_size()?;
                    }
                    waiting.push(batch);
                }
                None => break,
            }
        }
        if rows == 0 {
            return Ok(None);
        }
        let joined = concat_batches(&schema, &waiting)?;
        Ok(Some((joined, (input, schema))))
    })
}
