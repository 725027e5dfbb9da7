//! Runs a query once and keeps its rows as Parquet files, registered in place of the query.

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use chrono::DateTime;
use datafusion::dataframe::DataFrame;
use datafusion::prelude::SessionContext;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, buffered::BufWriter};
use parquet::arrow::AsyncArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::sync::Arc;

use crate::failure::{Failure, Result};
use crate::lake::{files_table::ListedFile, register_files, stores::Location};

/// Rows, files and bytes that a query left behind.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Materialised {
    pub rows: u64,
    pub bytes: u64,
}

/// Writes the rows of `query`, one file a partition, below `folder`, and registers them as table `name`.
pub async fn materialise(
    ctx: &SessionContext,
    name: &str,
    query: DataFrame,
    folder: &Location,
) -> Result<Materialised> {
    let schema = plain(query.schema().as_arrow());
    let streams = query.execute_stream_partitioned().await?;
    let attempt = uuid::Uuid::new_v4().simple().to_string();
    let mut writers = tokio::task::JoinSet::new();
    for (partition, mut batches) in streams.into_iter().enumerate() {
        let (schema, folder) = (Arc::clone(&schema), folder.clone());
        let path = folder.path(&format!("{name}-{partition:05}-{attempt}.parquet"));
        writers.spawn(async move {
            let properties = WriterProperties::builder()
                .set_compression(Compression::ZSTD(ZstdLevel::default()))
                .set_max_row_group_row_count(Some(65_536))
                .build();
            let sink = BufWriter::new(Arc::clone(&folder.store), path.clone());
            let mut writer = AsyncArrowWriter::try_new(sink, Arc::clone(&schema), Some(properties))?;
            let mut rows = 0;
            while let Some(batch) = batches.next().await {
                let batch = batch?;
                rows += batch.num_rows() as u64;
                let columns = batch.columns().iter().zip(schema.fields());
                let columns = columns.map(|(c, f)| arrow::compute::cast(c, f.data_type())).collect::<Result<_, _>>()?;
                writer.write(&arrow::array::RecordBatch::try_new(Arc::clone(&schema), columns)?).await?;
            }
            writer.finish().await?;
            let meta = ObjectMeta {
                location: path,
                last_modified: DateTime::UNIX_EPOCH,
                size: writer.bytes_written() as u64,
                e_tag: None,
                version: None,
            };
            Ok::<_, Failure>((rows, ListedFile { name: folder.display(&meta.location), dt: None, meta }))
        });
    }
    let (mut done, mut files) = (Materialised::default(), Vec::new());
    while let Some(written) = writers.join_next().await {
        let (rows, file) = written.map_err(Failure::bug)??;
        done.rows += rows;
        done.bytes += file.meta.size;
        files.push(file);
    }
    files.sort_by(|a, b| a.meta.location.cmp(&b.meta.location));
    ctx.deregister_table(name)?;
    register_files(ctx, name, folder, schema, files)?;
    Ok(done)
}

/// Registers what an earlier attempt materialised; `false` where there is nothing.
pub async fn reuse(ctx: &SessionContext, name: &str, schema: SchemaRef, folder: &Location) -> Result<bool> {
    let found: Vec<_> = folder.list().await?;
    let files = found.into_iter().map(|meta| ListedFile { name: folder.display(&meta.location), dt: None, meta });
    let files: Vec<_> = files.filter(|f| f.name.ends_with(".parquet")).collect();
    if files.is_empty() {
        return Ok(false);
    }
    ctx.deregister_table(name)?;
    register_files(ctx, name, folder, schema, files)?;
    Ok(true)
}

/// Nullable columns without view types, at every depth.
pub fn plain(schema: &Schema) -> SchemaRef {
    fn of(data_type: &DataType) -> DataType {
        match data_type {
            DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
            DataType::List(f) => DataType::List(Arc::new(Field::new(f.name(), of(f.data_type()), true))),
            DataType::Struct(fields) => {
                let fields = fields.iter().map(|f| Field::new(f.name(), of(f.data_type()), true));
                DataType::Struct(fields.collect::<Fields>())
            }
            other => other.clone(),
        }
    }
    let fields = schema.fields().iter().map(|f| Field::new(f.name(), of(f.data_type()), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Counts the rows of a query, streaming.
pub async fn count(query: DataFrame) -> Result<u64> {
    let mut rows = 0;
    let mut batches = query.execute_stream().await?;
    while let Some(batch) = batches.try_next().await? {
        rows += batch.num_rows() as u64;
    }
    Ok(rows)
}
