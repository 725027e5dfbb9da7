//! Writes rows as Parquet: the properties that all our files share, and one stream of rows as one file of a store.

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use chrono::DateTime;
use datafusion::execution::SendableRecordBatchStream;
use futures::TryStreamExt;
use object_store::{ObjectMeta, buffered::BufWriter, path::Path};
use parquet::arrow::AsyncArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use std::sync::Arc;

use super::files_table::ListedFile;
use super::stores::Location;
use crate::failure::Result;

/// Rows of a row group in the files of a lake.
pub(crate) const LAKE_ROW_GROUP_ROWS: usize = 131_072;

/// Returns what every Parquet file of ours shares: zstd, and row groups of a bounded number of rows.
pub(crate) fn writer_properties(row_group_rows: usize) -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(row_group_rows))
}

/// Streams `batches`, cast to `schema`, into one file; returns its rows and bytes.
pub(crate) async fn write(
    location: &Location,
    path: &Path,
    schema: &SchemaRef,
    mut batches: SendableRecordBatchStream,
    row_group_rows: usize,
) -> Result<(u64, u64)> {
    let sink = BufWriter::new(Arc::clone(&location.store), path.clone());
    let properties = writer_properties(row_group_rows).build();
    let mut writer = AsyncArrowWriter::try_new(sink, Arc::clone(schema), Some(properties))?;
    let mut rows = 0;
    while let Some(batch) = batches.try_next().await? {
        rows += batch.num_rows() as u64;
        let columns = batch.columns().iter().zip(schema.fields());
        let columns = columns.map(|(c, f)| cast(c, f.data_type())).collect::<Result<_, _>>()?;
        writer.write(&RecordBatch::try_new(Arc::clone(schema), columns)?).await?;
    }
    writer.finish().await?;
    Ok((rows, writer.bytes_written() as u64))
}

/// Describes a file that we wrote ourselves, without listing the store.
pub(crate) fn listed(location: &Location, path: Path, bytes: u64, dt: Option<chrono::NaiveDate>) -> ListedFile {
    let name = location.display(&path);
    let meta =
        ObjectMeta { location: path, last_modified: DateTime::UNIX_EPOCH, size: bytes, e_tag: None, version: None };
    ListedFile { name, dt, meta, columns: None, folder_values: None }
}

/// Returns the schema with nullable columns and without view types, at every depth: our files are written and read so.
pub(crate) fn plain(schema: &Schema) -> SchemaRef {
    fn plain_type(data_type: &DataType) -> DataType {
        match data_type {
            DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
            DataType::List(f) => DataType::List(Arc::new(Field::new(f.name(), plain_type(f.data_type()), true))),
            DataType::Struct(fields) => {
                let fields = fields.iter().map(|f| Field::new(f.name(), plain_type(f.data_type()), true));
                DataType::Struct(fields.collect::<Fields>())
            }
            other => other.clone(),
        }
    }
    let fields = schema.fields().iter().map(|f| Field::new(f.name(), plain_type(f.data_type()), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
