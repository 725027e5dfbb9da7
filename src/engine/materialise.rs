//! Runs a query once and keeps its rows as Parquet files, registered in place of the query.

use arrow::datatypes::SchemaRef;
use datafusion::dataframe::DataFrame;
use datafusion::prelude::SessionContext;
use std::sync::Arc;

use crate::failure::{Failure, Result};
use crate::lake::{files_table::ListedFile, parquet_files, register_files, stores::Location};

/// Small, since nested feature rows are wide.
const ROW_GROUP_ROWS: usize = 65_536;

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
    let schema = parquet_files::plain(query.schema().as_arrow());
    let streams = query.execute_stream_partitioned().await?;
    let attempt = uuid::Uuid::new_v4().simple().to_string();
    let mut writers = tokio::task::JoinSet::new();
    for (partition, batches) in streams.into_iter().enumerate() {
        let (schema, folder) = (Arc::clone(&schema), folder.clone());
        let path = folder.path(&format!("{name}-{partition:05}-{attempt}.parquet"));
        writers.spawn(async move {
            let (rows, bytes) = parquet_files::write(&folder, &path, &schema, batches, ROW_GROUP_ROWS).await?;
            Ok::<_, Failure>((rows, parquet_files::listed(&folder, path, bytes, None)))
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
