//! Runs a query once, stores its rows as Parquet files and registers the files in place of the query.

use arrow::datatypes::SchemaRef;
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::{cast, ident};
use datafusion::prelude::SessionContext;

use super::write_files::{self, StagedFile, WriteTarget};
use crate::failure::Result;
use crate::lake::{files_table, files_table::ListedFile, parquet_files, stores::Location};

/// Rows and bytes that were written.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub(crate) struct Materialised {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

/// Writes the rows of `query` below `folder`, at least one file per partition that has rows. File names begin with `name`.
pub(crate) async fn write(
    ctx: &SessionContext,
    name: &str,
    query: DataFrame,
    folder: &Location,
) -> Result<(SchemaRef, Vec<StagedFile>)> {
    let schema = parquet_files::plain(query.schema().as_arrow());
    let mut columns = Vec::new();
    for (given, stored) in query.schema().as_arrow().fields().iter().zip(schema.fields()) {
        let column = ident(given.name());
        columns.push(match given.data_type() == stored.data_type() {
            true => column,
            false => cast(column, stored.data_type().clone()).alias(given.name()),
        });
    }
    let files = write_files::write(ctx, query.select(columns)?, WriteTarget::plain(folder, name)?).await?;
    Ok((schema, files))
}

/// Writes the rows of `query` as [`write`] does, then registers the files as table `name`.
pub(crate) async fn materialise(
    ctx: &SessionContext,
    name: &str,
    query: DataFrame,
    folder: &Location,
) -> Result<Materialised> {
    let (schema, files) = write(ctx, name, query, folder).await?;
    register_written(ctx, name, folder, schema, &files)?;
    Ok(Materialised {
        rows: files.iter().map(|f| f.rows as u64).sum(),
        bytes: files.iter().map(|f| f.bytes as u64).sum(),
    })
}

/// Registers files that [`write`] wrote as table `name`.
pub(crate) fn register_written(
    ctx: &SessionContext,
    name: &str,
    folder: &Location,
    schema: SchemaRef,
    files: &[StagedFile],
) -> Result<()> {
    let listed = files.iter().map(|f| parquet_files::listed(folder, folder.path(&f.path), f.bytes as u64, None));
    register_rows(ctx, name, folder, schema, listed.collect())
}

/// Registers the files of an earlier attempt as table `name`; returns false if there are none.
pub(crate) async fn reuse(ctx: &SessionContext, name: &str, schema: SchemaRef, folder: &Location) -> Result<bool> {
    let objects = folder.list().await?.into_iter();
    let listed = objects.map(|meta| ListedFile {
        name: folder.display(&meta.location),
        dt: None,
        meta,
        columns: None,
        folder_values: None,
    });
    let files: Vec<_> = listed.filter(|file| file.name.ends_with(".parquet")).collect();
    if files.is_empty() {
        return Ok(false);
    }
    register_rows(ctx, name, folder, schema, files)?;
    Ok(true)
}

/// Registers files as table `name` with the columns of the query alone: without `_file` and `_dt` of the listing, so that
/// `SELECT *` gives the same columns as the query's view.
pub(crate) fn register_rows(
    ctx: &SessionContext,
    name: &str,
    folder: &Location,
    schema: SchemaRef,
    files: Vec<ListedFile>,
) -> Result<()> {
    let columns: Vec<_> = schema.fields().iter().map(|field| ident(field.name())).collect();
    let rows = ctx.read_table(files_table(ctx, folder, schema, files)?)?.select(columns)?;
    ctx.deregister_table(name)?;
    ctx.register_table(name, rows.into_view())?;
    Ok(())
}
