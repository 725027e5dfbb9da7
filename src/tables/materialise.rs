//! Runs a query once and keeps its rows as Parquet files, registered in place of the query.

use arrow::datatypes::SchemaRef;
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::{cast, ident};
use datafusion::prelude::SessionContext;

use super::write_files::{self, StagedFile, WriteTarget};
use crate::failure::Result;
use crate::lake::{files_table::ListedFile, parquet_files, register_files, stores::Location};

/// Rows and bytes that a query left behind.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Materialised {
    pub rows: u64,
    pub bytes: u64,
}

/// Writes the rows of `query`, at least one file a partition that has any, below `folder`; `name` begins their names.
pub async fn write(
    ctx: &SessionContext,
    name: &str,
    query: DataFrame,
    folder: &Location,
) -> Result<(SchemaRef, Vec<StagedFile>)> {
    let schema = parquet_files::plain(query.schema().as_arrow());
    let fitted = query.schema().as_arrow().fields().iter().zip(schema.fields()).map(|(is, wanted)| {
        let same = is.data_type() == wanted.data_type();
        let column = ident(is.name());
        if same { column } else { cast(column, wanted.data_type().clone()).alias(is.name()) }
    });
    let fitted: Vec<_> = fitted.collect();
    let files = write_files::write(ctx, query.select(fitted)?, WriteTarget::plain(folder, name)?).await?;
    Ok((schema, files))
}

/// [`write`], then registers the files as table `name`.
pub async fn materialise(
    ctx: &SessionContext,
    name: &str,
    query: DataFrame,
    folder: &Location,
) -> Result<Materialised> {
    let (schema, files) = write(ctx, name, query, folder).await?;
    let done = Materialised {
        rows: files.iter().map(|f| f.rows as u64).sum(),
        bytes: files.iter().map(|f| f.bytes as u64).sum(),
    };
    let listed = files.iter().map(|f| parquet_files::listed(folder, folder.path(&f.path), f.bytes as u64, None));
    let listed = listed.collect();
    ctx.deregister_table(name)?;
    register_files(ctx, name, folder, schema, listed)?;
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
