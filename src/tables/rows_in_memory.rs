//! Keeps the rows of a query in memory, within the engine's limit, so that several queries read them.
//!
//! Rows that are divided by the hash of a column stay so: a query that groups or joins by that column moves none of them. Text is
//! held as views: a sort or a join then moves 16 bytes of a text, whatever its length.

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringViewArray, UInt32Array};
use arrow::buffer::Buffer;
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Int32Type, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result as EngineResult;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::stats::Statistics;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::source::{DataSource, DataSourceExec};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType, cast};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{DisplayFormatType, ExecutionPlan, execute_stream_partitioned};
use datafusion::prelude::{DataFrame, SessionContext, ident};
use futures::StreamExt;
use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::engine::{places, scans};
use crate::failure::{Failure, Result};

/// Rows of a query as a table; their memory is given back when the last session drops it.
#[derive(Debug)]
pub(crate) struct HeldRows {
    schema: SchemaRef,
    partitions: Vec<Vec<RecordBatch>>,
    /// The column by whose hash the partitions are divided.
    hashed_by: Option<String>,
    _reserved: Vec<MemoryReservation>,
}

/// Runs `query` and returns its rows; none, without the rows, if they take more than `bytes_max` bytes or than the engine has
/// left, or if the session's plans run on a cluster, whose executors could not read them.
pub(crate) async fn hold(ctx: &SessionContext, query: DataFrame, bytes_max: u64) -> Result<Option<HeldRows>> {
    match places::is_local(ctx) {
        true => hold_plan(ctx, with_views(query)?.create_physical_plan().await?, None, bytes_max).await,
        false => Ok(None),
    }
}

/// Like [`hold`], with the rows divided by the hash of a column.
pub(crate) async fn hold_hashed(
    ctx: &SessionContext,
    query: DataFrame,
    column: &str,
    bytes_max: u64,
) -> Result<Option<HeldRows>> {
    if !places::is_local(ctx) {
        return Ok(None);
    }
    let plan = with_views(query)?.create_physical_plan().await?;
    let index = plan.schema().index_of(column)?;
    let by_column =
        Partitioning::Hash(vec![Arc::new(Column::new(column, index))], ctx.copied_config().target_partitions());
    let divided = RepartitionExec::try_new(plan, by_column)?;
    hold_plan(ctx, Arc::new(divided), Some(column.into()), bytes_max).await
}

async fn hold_plan(
    ctx: &SessionContext,
    plan: Arc<dyn ExecutionPlan>,
    hashed_by: Option<String>,
    bytes_max: u64,
) -> Result<Option<HeldRows>> {
    let schema = plan.schema();
    let bytes = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for stream in execute_stream_partitioned(Arc::clone(&plan), ctx.task_ctx())? {
        let reserved = MemoryConsumer::new("HeldRows").register(&ctx.runtime_env().memory_pool);
        tasks.push(SpawnedTask::spawn(collect(stream, reserved, Arc::clone(&bytes), bytes_max)));
    }
    let mut collected = Vec::new();
    for task in tasks {
        collected.push(task.await.map_err(Failure::bug)??);
    }
    // Rows that take too much were read all the same.
    scans::add(ctx, &plan);
    let Some(collected) = collected.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
    let (partitions, _reserved) = collected.into_iter().unzip();
    Ok(Some(HeldRows { schema, partitions, hashed_by, _reserved }))
}

impl HeldRows {
    /// Puts all rows into one partition: queries of a session of one partition then group and sort them in one step.
    pub(crate) fn in_one_partition(self) -> Self {
        let partitions = vec![self.partitions.into_iter().flatten().collect()];
        Self { partitions, hashed_by: None, ..self }
    }

    /// Returns the rows in one partition, and a table of them sorted by an Int32 column, nulls last; rows of equal values keep their
    /// order. The engine's own sort would charge each sorted batch for the text of all of them.
    pub(crate) fn sorted_by(self, column: &str, batch_rows: usize) -> Result<(Self, Arc<dyn TableProvider>)> {
        let index = self.schema.index_of(column)?;
        // Contiguous columns: taking rows from many batches is slower.
        let rows = concat_batches(&self.schema, self.partitions.iter().flatten())?;
        let Some(values) = rows.column(index).as_primitive_opt::<Int32Type>() else {
            return Err(Failure::bug(format!("{column}: expected Int32, got {}", rows.column(index).data_type())));
        };
        let key = |value: Option<i32>| value.map_or(i64::MAX, i64::from);
        let mut order: Vec<(i64, u32)> = values.iter().map(key).zip(0..).collect();
        order.sort_by_key(|(key, _)| *key);
        let order = order.into_iter().map(|(_, row)| row).collect::<UInt32Array>();

        let starts = (0..rows.num_rows()).step_by(batch_rows);
        let slices = starts.map(|start| rows.slice(start, batch_rows.min(rows.num_rows() - start))).collect();
        let sorted = StreamingTable::try_new(Arc::clone(&self.schema), vec![Arc::new(SortedRows { rows, order })])?;
        Ok((Self { partitions: vec![slices], hashed_by: None, ..self }, Arc::new(sorted)))
    }
}

/// Rows in memory that are put in order batch by batch, when they are read.
#[derive(Debug)]
struct SortedRows {
    rows: RecordBatch,
    /// The number of each row, in order.
    order: UInt32Array,
}

impl PartitionStream for SortedRows {
    fn schema(&self) -> &SchemaRef {
        self.rows.schema_ref()
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows_max = context.session_config().batch_size();
        let (rows, order) = (self.rows.clone(), self.order.clone());
        let starts = (0..order.len()).step_by(rows_max);
        let sorted = starts.map(move |start| {
            let next = order.slice(start, rows_max.min(order.len() - start));
            Ok(take_record_batch(&rows, &next)?)
        });
        Box::pin(RecordBatchStreamAdapter::new(self.rows.schema(), futures::stream::iter(sorted)))
    }
}

/// Casts text columns to views. The cast comes before any division by hash: a view has another hash than the same text.
fn with_views(query: DataFrame) -> EngineResult<DataFrame> {
    let fields = query.schema().fields().iter();
    let columns = fields.map(|field| match field.data_type() {
        DataType::Utf8 => cast(ident(field.name()), DataType::Utf8View).alias(field.name()),
        _ => ident(field.name()),
    });
    let columns: Vec<Expr> = columns.collect();
    query.select(columns)
}

/// Copies the texts of views that keep much more memory alive than they show, so that the size of a batch is nearly its own.
fn with_own_texts(batch: &RecordBatch) -> EngineResult<RecordBatch> {
    let columns = batch.columns().iter().map(|column| match column.as_string_view_opt() {
        Some(views) if wastes_memory(views) => Arc::new(views.gc()) as ArrayRef,
        _ => Arc::clone(column),
    });
    Ok(RecordBatch::try_new(batch.schema(), columns.collect())?)
}

/// Returns true where less than two thirds of the buffers' bytes are texts of these views.
fn wastes_memory(views: &StringViewArray) -> bool {
    let held: usize = views.data_buffers().iter().map(Buffer::capacity).sum();
    2 * held > 3 * views.total_buffer_bytes_used()
}

/// Collects one partition; none if all partitions together take more than `bytes_max` bytes, of which `bytes` counts those so
/// far.
async fn collect(
    mut rows: SendableRecordBatchStream,
    reserved: MemoryReservation,
    bytes: Arc<AtomicU64>,
    bytes_max: u64,
) -> Result<Option<(Vec<RecordBatch>, MemoryReservation)>> {
    let mut batches = Vec::new();
    while let Some(batch) = rows.next().await {
        let batch = with_own_texts(&batch?)?;
        let more = batch.get_array_memory_size();
        let before = bytes.fetch_add(more as u64, Ordering::Relaxed);
        if before + more as u64 > bytes_max || reserved.try_grow(more).is_err() {
            return Ok(None);
        }
        batches.push(batch);
    }
    Ok(Some((batches, reserved)))
}

#[async_trait]
impl TableProvider for HeldRows {
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
        limit: Option<usize>,
    ) -> EngineResult<Arc<dyn ExecutionPlan>> {
        let rows = MemorySourceConfig::try_new(&self.partitions, self.schema(), projection.cloned())?;
        let source = HeldSource { rows: rows.with_limit(limit), hashed_by: self.hashed_by.clone() };
        Ok(DataSourceExec::from_data_source(source))
    }
}

/// The engine's source of rows in memory, with the column by whose hash they are divided.
#[derive(Debug, Clone)]
struct HeldSource {
    rows: MemorySourceConfig,
    hashed_by: Option<String>,
}

impl HeldSource {
    /// Returns `rows`, a changed copy of this source's, divided as before.
    fn with_rows(&self, rows: Arc<dyn DataSource>) -> Option<Arc<dyn DataSource>> {
        let rows: &dyn Any = rows.as_ref();
        let rows = rows.downcast_ref::<MemorySourceConfig>()?.clone();
        Some(Arc::new(Self { rows, hashed_by: self.hashed_by.clone() }))
    }
}

impl DataSource for HeldSource {
    fn open(&self, partition: usize, context: Arc<TaskContext>) -> EngineResult<SendableRecordBatchStream> {
        self.rows.open(partition, context)
    }

    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        self.rows.fmt_as(format, f)?;
        match &self.hashed_by {
            Some(column) => write!(f, ", hashed_by={column}"),
            None => Ok(()),
        }
    }

    fn output_partitioning(&self) -> Partitioning {
        let partitioning = self.rows.output_partitioning();
        let schema = Arc::clone(self.rows.eq_properties().schema());
        let index = self.hashed_by.as_ref().and_then(|name| Some((name, schema.index_of(name).ok()?)));
        match index {
            Some((name, index)) => {
                let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(name, index));
                Partitioning::Hash(vec![column], partitioning.partition_count())
            }
            None => partitioning,
        }
    }

    fn eq_properties(&self) -> EquivalenceProperties {
        self.rows.eq_properties()
    }

    fn partition_statistics(&self, partition: Option<usize>) -> EngineResult<Arc<Statistics>> {
        self.rows.partition_statistics(partition)
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn DataSource>> {
        self.with_rows(self.rows.with_fetch(limit)?)
    }

    fn fetch(&self) -> Option<usize> {
        self.rows.fetch()
    }

    fn try_swapping_with_projection(&self, projection: &ProjectionExprs) -> EngineResult<Option<Arc<dyn DataSource>>> {
        Ok(self.rows.try_swapping_with_projection(projection)?.and_then(|rows| self.with_rows(rows)))
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> EngineResult<TreeNodeRecursion>,
    ) -> EngineResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::util::pretty::pretty_format_batches;
    use datafusion::physical_plan::displayable;
    use datafusion::prelude::SessionConfig;

    const ROWS: &str =
        "SELECT CAST(v % 7 AS VARCHAR) AS user_id, v % 3 AS item, v FROM generate_series(1, 1000) AS t(v)";

    fn session() -> SessionContext {
        let mut settings = SessionConfig::new().with_target_partitions(3);
        settings.options_mut().optimizer.subset_repartition_threshold = 1;
        SessionContext::new_with_config(settings)
    }

    #[tokio::test]
    async fn rows_divided_by_a_column_are_grouped_and_joined_in_place() {
        let ctx = session();
        let query = ctx.sql(ROWS).await.unwrap();
        ctx.register_table("plain", query.clone().into_view()).unwrap();
        let held = hold_hashed(&ctx, query, "user_id", 1 << 20).await.unwrap().expect("fits");
        ctx.register_table("held", Arc::new(held)).unwrap();
        for sql in [
            "SELECT user_id, count(*) AS n, sum(v) AS total FROM TABLE GROUP BY user_id ORDER BY user_id",
            "SELECT user_id, item, max(v) AS newest FROM TABLE GROUP BY user_id, item ORDER BY user_id, item",
            "SELECT a.user_id, count(*) AS n FROM TABLE AS a JOIN TABLE AS b ON a.user_id = b.user_id AND a.v = b.v + 7 \
             GROUP BY a.user_id ORDER BY a.user_id",
            "SELECT count(*) AS n, sum(v) AS total FROM TABLE",
        ] {
            let plan = ctx.sql(&sql.replace("TABLE", "held")).await.unwrap().create_physical_plan().await.unwrap();
            let shown = displayable(plan.as_ref()).indent(false).to_string();
            assert!(!shown.contains("RepartitionExec"), "{shown}");
            let mut rows = Vec::new();
            for table in ["held", "plain"] {
                let found = ctx.sql(&sql.replace("TABLE", table)).await.unwrap().collect().await.unwrap();
                rows.push(pretty_format_batches(&found).unwrap().to_string());
            }
            assert_eq!(rows[0], rows[1], "{sql}");
        }
    }

    #[tokio::test]
    async fn rows_divided_by_a_column_meet_every_row_of_a_table_of_text() {
        let ctx = session();
        // Both sides of a join are divided by hash, however small they are.
        for size in ["", "_rows"] {
            let set = format!("SET datafusion.optimizer.hash_join_single_partition_threshold{size} = 0");
            ctx.sql(&set).await.unwrap().collect().await.unwrap();
        }
        let query = ctx.sql(ROWS).await.unwrap();
        ctx.register_table(
            "users",
            ctx.sql(&format!("SELECT DISTINCT user_id FROM ({ROWS})")).await.unwrap().into_view(),
        )
        .unwrap();
        let held = hold_hashed(&ctx, query, "user_id", 1 << 20).await.unwrap().expect("fits");
        ctx.register_table("held", Arc::new(held)).unwrap();
        let sql = "SELECT count(*) AS users, count(h.n) AS met, sum(h.n) AS rows FROM users LEFT JOIN \
            (SELECT user_id, count(*) AS n FROM held GROUP BY user_id) AS h ON users.user_id = h.user_id";
        let plan = ctx.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        let shown = displayable(plan.as_ref()).indent(false).to_string();
        assert!(shown.contains("mode=Partitioned"), "{shown}");
        let found = ctx.sql(sql).await.unwrap().collect().await.unwrap();
        let shown = pretty_format_batches(&found).unwrap().to_string();
        assert!(shown.contains("| 7     | 7   | 1000 |"), "{shown}");
    }

    #[tokio::test]
    async fn rows_are_sorted_when_they_are_read() {
        let ctx = session();
        let query = ctx
            .sql(
                "SELECT arrow_cast(nullif(v % 5, 3), 'Int32') AS bucket, repeat('x', v) AS text, v \
            FROM generate_series(1, 40) AS t(v)",
            )
            .await
            .unwrap();
        let held = hold(&ctx, query, 1 << 20).await.unwrap().expect("fits");
        let (held, sorted) = held.sorted_by("bucket", 7).unwrap();
        let sorted = ctx.read_table(sorted).unwrap().collect().await.unwrap();
        ctx.register_table("held", Arc::new(held)).unwrap();
        let engine = ctx.sql("SELECT * FROM held ORDER BY bucket, v").await.unwrap().collect().await.unwrap();
        let shown = |batches: &[RecordBatch]| pretty_format_batches(batches).unwrap().to_string();
        assert_eq!(shown(&sorted), shown(&engine));
    }

    #[tokio::test]
    async fn rows_that_take_too_much_are_not_held() {
        let ctx = session();
        let query = ctx.sql(ROWS).await.unwrap();
        assert!(hold(&ctx, query.clone(), 1000).await.unwrap().is_none());
        assert_eq!(ctx.runtime_env().memory_pool.reserved(), 0);
        let held = hold(&ctx, query, 1 << 20).await.unwrap().expect("fits");
        assert!(ctx.runtime_env().memory_pool.reserved() > 0);
        drop(held);
        assert_eq!(ctx.runtime_env().memory_pool.reserved(), 0);
    }
}
