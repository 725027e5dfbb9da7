//! Streams simulated rows into Parquet: one open file a table, row groups of bounded size.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use object_store::buffered::BufWriter;
use parquet::arrow::AsyncArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use std::sync::Arc;

use crate::failure::Result;
use crate::lake::stores::Location;

const ROW_GROUP_ROWS: usize = 131_072;

/// One Parquet file that is being written.
pub(super) struct Sink {
    writer: AsyncArrowWriter<BufWriter>,
    schema: SchemaRef,
}

impl Sink {
    pub(super) fn open(to: &Location, name: &str, schema: &SchemaRef) -> Result<Self> {
        Self::open_with(to, name, schema, properties())
    }

    /// For rows in the order of their first column, a text: it is kept as what differs from the row before, floats byte
    /// by byte, and no dictionary of a million different values is tried.
    pub(super) fn open_sorted(to: &Location, name: &str, schema: &SchemaRef) -> Result<Self> {
        let mut properties = properties().set_dictionary_enabled(false);
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

    /// Ends the file; returns its bytes.
    pub(super) async fn close(mut self) -> Result<u64> {
        self.writer.finish().await?;
        Ok(self.writer.bytes_written() as u64)
    }
}

fn properties() -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
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
