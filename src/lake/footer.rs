//! Reads the footer of a lake file: its columns, or why it is not a Parquet file that can be read.

use bytes::Bytes;
use object_store::ObjectStoreExt;
use parquet::arrow::parquet_to_arrow_schema;
use parquet::basic::LogicalType;
use parquet::errors::ParquetError;
use parquet::file::metadata::{FooterTail, ParquetMetaData, ParquetMetaDataReader};

use super::declared::ParquetColumns;
use super::files_table::ListedFile;
use super::stores::Location;
use crate::failure::{Cause, Failure, Result};

/// Bytes at the end of a file that are asked for first: most footers fit, so that a store is asked once.
const FOOTER_BYTES_EXPECTED: u64 = 64 << 10;
/// The length of the metadata and the magic bytes.
const TAIL_BYTES: u64 = 8;

/// Reads a file's columns; refuses (exit 3) what is no whole Parquet file.
pub(super) async fn read(lake: &Location, file: &ListedFile) -> Result<ParquetColumns> {
    if file.meta.size == 0 {
        return Err(refused(file, "0 bytes, as a cut upload leaves them"));
    }
    let bytes = end_of(lake, file, FOOTER_BYTES_EXPECTED).await?;
    if bytes.ends_with(b"PARE") {
        return Err(refused(file, "a file that is encrypted (it ends with PARE)"));
    }
    let tail = bytes.len().checked_sub(TAIL_BYTES as usize).map(|at| FooterTail::try_from(&bytes[at..]));
    let tail = tail.ok_or_else(|| refused(file, format!("{} bytes", bytes.len())))?;
    let tail = tail.map_err(|e| refused(file, &e).caused_by(e))?;
    let footer_bytes = tail.metadata_length() as u64 + TAIL_BYTES;
    // The crate's reader subtracts without looking.
    if footer_bytes > file.meta.size {
        return Err(refused(file, format!("a footer of {footer_bytes} bytes in a file of {}", file.meta.size)));
    }
    let bytes = match footer_bytes > bytes.len() as u64 {
        true => end_of(lake, file, footer_bytes).await?,
        false => bytes,
    };
    let footer = decode(&bytes, file.meta.size).map_err(|e| refused(file, &e).caused_by(e))?;
    let footer = footer.file_metadata();
    let schema = parquet_to_arrow_schema(footer.schema_descr(), footer.key_value_metadata())
        .map_err(|e| refused(file, &e).caused_by(e))?;
    let columns = footer.schema_descr().columns().iter();
    let uuids = columns.filter(|column| column.logical_type_ref() == Some(&LogicalType::Uuid));
    Ok(ParquetColumns { schema, uuids: uuids.map(|column| column.path().string()).collect() })
}

async fn end_of(lake: &Location, file: &ListedFile, bytes: u64) -> Result<Bytes> {
    let range = file.meta.size.saturating_sub(bytes)..file.meta.size;
    let read = lake.store.get_range(&file.meta.location, range).await;
    read.map_err(|e| Failure::from(e).at(&file.name))
}

/// Decodes the metadata in the last bytes of a file. A damaged one may make the decoder panic.
fn decode(end: &Bytes, file_bytes: u64) -> Result<ParquetMetaData, ParquetError> {
    let decoded = std::panic::catch_unwind(|| {
        let mut reader = ParquetMetaDataReader::new();
        reader.try_parse_sized(end, file_bytes)?;
        reader.finish()
    });
    decoded.unwrap_or_else(|_| Err(ParquetError::General("metadata that does not decode".into())))
}

fn refused(file: &ListedFile, found: impl std::fmt::Display) -> Failure {
    Failure {
        cause: Some(Cause::Undecodable { searched: true }),
        ..Failure::input(format!("{}: expected a whole Parquet file, found: {found}", file.name))
    }
}
