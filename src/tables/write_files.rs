//! `WriteFilesExec`: an operator that writes each input partition as Parquet files and emits one row per file.
//!
//! The rows contain everything that the driver needs to commit the files, so the operator runs wherever its partition runs: on
//! a local thread or on an executor. Files of an attempt whose rows never arrive are in no manifest, and `gc` removes them.
//! File names are unique, so a retry overwrites nothing. `cluster/codec.rs` sends the operator to executors as its
//! [`WriteTarget`].

use arrow::array::{Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result as EngineResult};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, EvaluationType, ReplaceChildrenOptions, SchedulingType,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use datafusion::prelude::{DataFrame, SessionContext};
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, buffered::BufWriter, path::Path};
use parquet::arrow::AsyncArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::{Arc, LazyLock};
use url::Url;

use crate::engine::places;
use crate::failure::{Failure, Result};
use crate::ids::{Generation, RunDate};
use crate::lake::parquet_files::writer_properties;
use crate::lake::stores::Location;
use crate::tables::file_stats::delta_stats;
use crate::tables::schemas::{self, PARTITION};

/// Key of the Parquet metadata that names the process that wrote a file.
pub const WRITTEN_BY: &str = "intentcast.written_by";

/// Largest size in bytes of a row group in memory. It bounds the writer's memory for rows of any width.
const ROW_GROUP_BYTES_MAX: usize = 32 << 20;

/// Size in bytes at which a column's dictionary is given up. At the crate's default, 1 MiB, a row group of 65,536 different ids or
/// times is written as a dictionary to its end, in twice the time and with no fewer bytes.
const DICTIONARY_BYTES_MAX: usize = 32 << 10;

/// Folder, names and sizes of the files. Sent to executors as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct WriteTarget {
    /// Scheme and authority of the store, as registered with the session (`s3://bucket`, `file:///`).
    pub(crate) store: Url,
    /// Path of the table's folder within the store.
    pub(crate) folder: String,
    /// `run_date=D`: the folder below the table's and the beginning of each emitted path. Empty: no such folder.
    pub(crate) partition: String,
    /// Beginning of the file names, so that people recognise the files.
    pub(crate) name: String,
    pub(crate) file_rows_max: u64,
    pub(crate) row_group_rows_max: u64,
    pub(crate) zstd_level: i32,
}

impl WriteTarget {
    pub(crate) fn new(location: &Location, table: &str, run_date: RunDate, generation: Generation) -> Result<Self> {
        Ok(Self {
            store: location.store_url()?,
            folder: table_location(location, table).prefix.to_string(),
            partition: format!("{PARTITION}={run_date}"),
            name: format!("g{generation}"),
            file_rows_max: 2_000_000,
            row_group_rows_max: 200_000,
            zstd_level: 3, // published once, read often
        })
    }

    /// Puts files directly into `folder`, their names beginning with `name`.
    pub(crate) fn plain(folder: &Location, name: &str) -> Result<Self> {
        Ok(Self {
            store: folder.store_url()?,
            folder: folder.prefix.to_string(),
            partition: String::new(),
            name: name.into(),
            file_rows_max: u64::MAX,
            // Small, because nested feature rows are wide.
            row_group_rows_max: 65_536,
            zstd_level: 1, // written every night, read a few times
        })
    }
}

/// Returns the folder of a table below the output's root.
pub(crate) fn table_location(output: &Location, table: &str) -> Location {
    output.folder(&format!("tables/{table}"))
}

/// A file that is written but not committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedFile {
    /// Relative to the table's folder.
    pub(crate) path: String,
    pub(crate) rows: i64,
    pub(crate) bytes: i64,
    /// Delta's per-file statistics, as JSON.
    pub(crate) stats: String,
    /// The attempt that wrote it. An attempt may write several files.
    pub(crate) attempt: String,
}

/// Schema of the operator's rows.
static OUTPUT: LazyLock<SchemaRef> = LazyLock::new(|| {
    let number = |name| Field::new(name, DataType::Int64, false);
    let text = |name| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![text("path"), number("rows"), number("bytes"), text("stats"), text("attempt")]))
});

/// Writes its input and emits (`path`, `rows`, `bytes`, `stats`, `attempt`), one row per file.
#[derive(Debug, Clone)]
pub(crate) struct WriteFilesExec {
    input: Arc<dyn ExecutionPlan>,
    target: WriteTarget,
    properties: Arc<PlanProperties>,
}

impl WriteFilesExec {
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>, target: WriteTarget) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&OUTPUT)),
            datafusion::physical_expr::Partitioning::UnknownPartitioning(
                input.properties().partitioning.partition_count(),
            ),
            EmissionType::Final,
            Boundedness::Bounded,
        )
        .with_evaluation_type(EvaluationType::Lazy)
        .with_scheduling_type(SchedulingType::Cooperative);
        Self { input, target, properties: Arc::new(properties) }
    }

    pub(crate) fn target(&self) -> &WriteTarget {
        &self.target
    }
}

impl DisplayAs for WriteFilesExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "WriteFilesExec: {}/{}, {}*", self.target.folder, self.target.partition, self.target.name)
    }
}

impl ExecutionPlan for WriteFilesExec {
    fn name(&self) -> &str {
        "WriteFilesExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    /// Repartitioning the input would only make more and smaller files.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> EngineResult<TreeNodeRecursion>,
    ) -> EngineResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> EngineResult<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(Self::new(input, self.target.clone()))),
            _ => Err(Failure::bug("WriteFilesExec takes one input").into()),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> EngineResult<Arc<dyn ExecutionPlan>> {
        let mode = datafusion::physical_plan::execution_plan::ChildrenPropertiesMode::Recompute;
        self.replace_children(children, ReplaceChildrenOptions::new(mode))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> EngineResult<SendableRecordBatchStream> {
        let store = context.runtime_env().object_store(ObjectStoreUrl::parse(&self.target.store)?)?;
        let rows = self.input.execute(partition, context)?;
        let files = write_partition(rows, store, self.target.clone(), partition);
        let batches = futures::stream::once(files).map_err(DataFusionError::from);
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&OUTPUT), batches)))
    }
}

async fn write_partition(
    mut rows: SendableRecordBatchStream,
    store: Arc<dyn ObjectStore>,
    target: WriteTarget,
    partition: usize,
) -> Result<RecordBatch> {
    let attempt = uuid::Uuid::new_v4().simple().to_string();
    let mut done: Vec<StagedFile> = Vec::new();
    let mut open: Option<OpenFile> = None;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        if batch.num_rows() == 0 {
            continue;
        }
        let mut file = match open.take() {
            Some(file) => file,
            None => OpenFile::create(&store, &target, &batch, partition, &attempt, done.len())?,
        };
        file.writer.write(&batch).await?;
        file.rows += batch.num_rows() as u64;
        if file.writer.in_progress_size() >= ROW_GROUP_BYTES_MAX {
            file.writer.flush().await?;
        }
        match file.rows >= target.file_rows_max {
            true => done.push(file.close().await?),
            false => open = Some(file),
        }
    }
    if let Some(file) = open {
        done.push(file.close().await?);
    }
    to_batch(&done)
}

struct OpenFile {
    writer: AsyncArrowWriter<BufWriter>,
    schema: SchemaRef,
    path: String,
    attempt: String,
    rows: u64,
}

impl OpenFile {
    fn create(
        store: &Arc<dyn ObjectStore>,
        target: &WriteTarget,
        first: &RecordBatch,
        partition: usize,
        attempt: &str,
        number: usize,
    ) -> Result<Self> {
        let name = format!("{}-p{partition}-{number}-{attempt}.parquet", target.name);
        let path = match target.partition.as_str() {
            "" => name,
            folder => format!("{folder}/{name}"),
        };
        let whole = Path::parse(format!("{}/{path}", target.folder)).map_err(Failure::bug)?;
        let properties = writer_properties(target.row_group_rows_max as usize)
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(target.zstd_level)?))
            .set_dictionary_page_size_limit(DICTIONARY_BYTES_MAX)
            .set_key_value_metadata(Some(vec![KeyValue::new(WRITTEN_BY.into(), process_name())]))
            .build();
        let object = BufWriter::new(Arc::clone(store), whole);
        let writer = AsyncArrowWriter::try_new(object, first.schema(), Some(properties))?;
        Ok(Self { writer, schema: first.schema(), path, attempt: attempt.into(), rows: 0 })
    }

    async fn close(mut self) -> Result<StagedFile> {
        let footer = self.writer.finish().await?;
        Ok(StagedFile {
            stats: delta_stats(&self.schema, &footer),
            bytes: self.writer.bytes_written() as i64,
            path: self.path,
            rows: self.rows as i64,
            attempt: self.attempt,
        })
    }
}

/// Returns `process 4711`, which leads to the log of the executor that wrote a file.
fn process_name() -> String {
    format!("process {}", std::process::id())
}

fn to_batch(files: &[StagedFile]) -> Result<RecordBatch> {
    let text = |column: fn(&StagedFile) -> &str| Arc::new(StringArray::from_iter_values(files.iter().map(column)));
    let number = |column: fn(&StagedFile) -> i64| Arc::new(Int64Array::from_iter_values(files.iter().map(column)));
    Ok(RecordBatch::try_new(
        Arc::clone(&OUTPUT),
        vec![
            text(|f| f.path.as_str()),
            number(|f| f.rows),
            number(|f| f.bytes),
            text(|f| f.stats.as_str()),
            text(|f| f.attempt.as_str()),
        ],
    )?)
}

/// Converts the operator's rows to files, in path order.
pub(crate) fn from_batches(batches: &[RecordBatch]) -> Result<Vec<StagedFile>> {
    let mut files = Vec::new();
    for batch in batches {
        let text = |i: usize| batch.column(i).as_any().downcast_ref::<StringArray>();
        let number = |i: usize| batch.column(i).as_any().downcast_ref::<Int64Array>();
        let (Some(path), Some(rows), Some(bytes), Some(stats), Some(attempt)) =
            (text(0), number(1), number(2), text(3), text(4))
        else {
            return Err(Failure::bug(format!("staged files: expected {}, got {}", *OUTPUT, batch.schema())));
        };
        files.extend((0..batch.num_rows()).map(|i| StagedFile {
            path: path.value(i).into(),
            rows: rows.value(i),
            bytes: bytes.value(i),
            stats: stats.value(i).into(),
            attempt: attempt.value(i).into(),
        }));
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Casts `rows` to the table's schema and writes them into its folder, without a commit.
pub async fn stage(
    ctx: &SessionContext,
    rows: DataFrame,
    output: &Location,
    table: &str,
    (run_date, generation): (RunDate, Generation),
) -> Result<Vec<StagedFile>> {
    ctx.register_object_store(&output.store_url()?, Arc::clone(&output.store));
    write(ctx, schemas::conform(rows, table)?, WriteTarget::new(output, table, run_date, generation)?).await
}

/// Writes the rows of a query to `target`, in this process or on the session's cluster.
pub(crate) async fn write(ctx: &SessionContext, rows: DataFrame, target: WriteTarget) -> Result<Vec<StagedFile>> {
    let plan = Arc::new(WriteFilesExec::new(rows.create_physical_plan().await?, target));
    from_batches(&places::run(ctx, plan).await?)
}
