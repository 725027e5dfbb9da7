//! Opens the files of a table.

use arrow::datatypes::Schema;
use datafusion::error::DataFusionError;
use datafusion::prelude::{CsvReadOptions, DataFrame, ParquetReadOptions, SessionContext};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use std::sync::Arc;

use super::csv_schema;
use crate::config::Config;
use crate::failure::{Failure, FailureKind, Result};
use crate::lake::{stores::Location, unreadable};

/// The rows of all files, not read yet.
pub(crate) struct OpenedFiles {
    pub(crate) frame: DataFrame,
    /// Empty for CSV.
    parquet_urls: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Csv,
    Parquet,
}

struct TableFiles {
    format: Format,
    urls: Vec<String>,
    objects: Vec<(Arc<dyn ObjectStore>, Path)>,
}

/// Opens files and folders of one format.
pub(crate) async fn open(ctx: &SessionContext, config: &Config, uris: &[String]) -> Result<OpenedFiles> {
    let files = list_all(ctx, config, uris).await?;
    match files.format {
        Format::Csv => {
            let delimiter = config.table.delimiter.as_bytes().first().copied().unwrap_or(b',');
            let schema = csv_schema::infer(ctx, &files.objects, delimiter).await.map_err(unreadable_file)?;
            let options = CsvReadOptions::new().delimiter(delimiter).schema(&schema).newlines_in_values(true);
            let frame = ctx.read_csv(files.urls, options).await.map_err(unreadable_file)?;
            Ok(OpenedFiles { frame, parquet_urls: Vec::new() })
        }
        Format::Parquet => {
            let opened = ctx.read_parquet(files.urls.clone(), ParquetReadOptions::default()).await;
            Ok(OpenedFiles { frame: opened.map_err(unreadable_file)?, parquet_urls: files.urls })
        }
    }
}

async fn list_all(ctx: &SessionContext, config: &Config, uris: &[String]) -> Result<TableFiles> {
    let mut all: Option<TableFiles> = None;
    let mut has_both = false;
    for uri in uris {
        let files = list(ctx, config, uri).await?;
        match &mut all {
            None => all = Some(files),
            Some(earlier) => {
                has_both |= earlier.format != files.format;
                earlier.urls.extend(files.urls);
                earlier.objects.extend(files.objects);
            }
        }
    }
    match all {
        None => Err(Failure::usage("train: pass --table and the files to learn from")),
        Some(_) if has_both => Err(Failure::usage("--table: expected CSV or Parquet, got both")),
        Some(files) => Ok(files),
    }
}

/// Lists one file, or the CSV files or else the Parquet files of a folder.
async fn list(ctx: &SessionContext, config: &Config, uri: &str) -> Result<TableFiles> {
    let location = Location::open(uri, &config.s3)?;
    ctx.register_object_store(&location.store_url()?, Arc::clone(&location.store));
    // No store lists an object below its own name, so listing works only for folders.
    let objects = match location.store.head(&location.prefix).await {
        Ok(file) => vec![file],
        Err(_) => location.list().await?,
    };
    for (format, extension) in [(Format::Csv, ".csv"), (Format::Parquet, ".parquet")] {
        let mut files = TableFiles { format, urls: Vec::new(), objects: Vec::new() };
        for object in objects.iter().filter(|object| object.location.as_ref().ends_with(extension)) {
            files.urls.push(location.full_url(&object.location));
            files.objects.push((Arc::clone(&location.store), object.location.clone()));
        }
        if !files.urls.is_empty() {
            return Ok(files);
        }
    }
    Err(Failure::input(format!("--table {uri}: expected .csv or .parquet files, found none"))
        .hint("decompress files first, for example with zstd -d or gunzip"))
}

/// Turns an error of a reader into one about the file.
pub(crate) fn unreadable_file(error: DataFusionError) -> Failure {
    let failure = Failure::from(error).at("--table");
    match failure.kind {
        FailureKind::Bug => Failure { kind: FailureKind::Input, ..failure }
            .hint("check the file; CSV needs a header line and the delimiter that table.delimiter names"),
        _ => failure,
    }
}

impl OpenedFiles {
    /// Adds the file and the column that cannot be decoded to a failure: Parquet's reader names neither.
    pub(crate) async fn locate(&self, ctx: &SessionContext, schema: &Schema, failure: Failure) -> Failure {
        if !failure.is_undecodable() {
            return failure;
        }
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        for url in &self.parquet_urls {
            let Ok(file) = ctx.read_parquet(url, ParquetReadOptions::default()).await else { continue };
            if let Ok(Some(column)) = unreadable::undecoded_column(&file, &columns).await {
                return failure
                    .at(format!("{url}: column {column}"))
                    .hint("fix or leave out the file, or store the column as bytes");
            }
        }
        failure
    }
}
