//! Streams simulated rows into Parquet: one open file per table, row groups of bounded size.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use object_store::buffered::BufWriter;
use parquet::arrow::AsyncArrowWriter;
use parquet::basic::Encoding;
use parquet::file::properties::WriterPropertiesBuilder;
use std::sync::Arc;

use crate::failure::Result;
use crate::lake::parquet_files::{LAKE_ROW_GROUP_ROWS, writer_properties};
use crate::lake::stores::Location;

/// A Parquet file that is being written.
pub(super) struct ParquetSink {
    writer: AsyncArrowWriter<BufWriter>,
    schema: SchemaRef,
}

impl ParquetSink {
    pub(super) fn open(to: &Location, name: &str, schema: &SchemaRef) -> Result<Self> {
        Self::open_with(to, name, schema, writer_properties(LAKE_ROW_GROUP_ROWS))
    }

    /// Opens a file for rows sorted by their first column, a text: stores the difference to the previous row, splits floats by
    /// byte, and does not try a dictionary of a million distinct values.
    pub(super) fn open_sorted(to: &Location, name: &str, schema: &SchemaRef) -> Result<Self> {
        let mut properties = writer_properties(LAKE_ROW_GROUP_ROWS).set_dictionary_enabled(false);
        for field in schema.fields() {
            let column = field.name().as_str().into();
            properties = match field.data_type() {
                DataType::Utf8 => properties.set_column_encoding(column, Encoding::DELTA_BYTE_ARRAY),
                DataType::Float32 => properties.set_column_encoding(column, Encoding::BYTE_STREAM_SPLIT),
                _ => properties,
            };
        }
        Self::open_with(to, name, schema, properties)
    }

    fn open_with(to: &Location, name: &str, schema: &SchemaRef, properties: WriterPropertiesBuilder) -> Result<Self> {
        let properties = properties.build();
        let sink = BufWriter::new(Arc::clone(&to.store), to.path(name));
        let writer = AsyncArrowWriter::try_new(sink, Arc::clone(schema), Some(properties))?;
        Ok(Self { writer, schema: Arc::clone(schema) })
    }

    pub(super) async fn write(&mut self, columns: Vec<ArrayRef>) -> Result<()> {
        Ok(self.writer.write(&RecordBatch::try_new(Arc::clone(&self.schema), columns)?).await?)
    }

    /// Closes the file; returns its size in bytes.
    pub(super) async fn close(mut self) -> Result<u64> {
        self.writer.finish().await?;
        Ok(self.writer.bytes_written() as u64)
    }
}

pub(super) fn money() -> DataType {
    DataType::Decimal128(18, 4)
}

pub(super) fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

pub(super) fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(|(name, t)| Field::new(*name, t.clone(), true)).collect::<Vec<_>>()))
}
