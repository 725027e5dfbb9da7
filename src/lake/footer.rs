//! Reads the footer of a lake file: its columns, or why it is not a Parquet file that can be read.

use bytes::Bytes;
use object_store::ObjectStoreExt;
use parquet::arrow::parquet_to_arrow_schema;
use parquet::basic::LogicalType;
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, FooterTail, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData,
};

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
    let metadata = decode(&bytes, file.meta.size).map_err(|e| refused(file, &e).caused_by(e))?;
    if let Some(found) = contradiction(&metadata, file.meta.size - footer_bytes) {
        return Err(refused(file, found));
    }
    let footer = metadata.file_metadata();
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

/// Returns what the metadata says that cannot be true of a file with that many bytes before its footer. A reader would believe it:
/// leave out rows, or ask the store for bytes that are not there.
fn contradiction(metadata: &ParquetMetaData, data_bytes: u64) -> Option<String> {
    let rows_in_file = metadata.file_metadata().num_rows();
    let groups = metadata.row_groups();
    let rows = groups.iter().map(RowGroupMetaData::num_rows);
    let rows_in_groups = rows.clone().try_fold(0_i64, |sum, rows| sum.checked_add(rows));
    if rows_in_groups != Some(rows_in_file) || rows.clone().any(|rows| rows < 0) {
        let rows: Vec<String> = rows.map(|rows| rows.to_string()).collect();
        return Some(format!("{rows_in_file} rows in row groups of {}", rows.join(", ")));
    }
    let is_inside = |(offset, bytes): (i64, i64)| match (u64::try_from(offset), u64::try_from(bytes)) {
        (Ok(offset), Ok(bytes)) => offset.checked_add(bytes).is_some_and(|end| end <= data_bytes),
        _ => false,
    };
    groups.iter().flat_map(RowGroupMetaData::columns).find_map(|column| {
        // Read alone, such a column has no rows.
        if column.compressed_size() == 0 && column.num_values() > 0 {
            return Some(format!(
                "column {} with 0 bytes for {} values",
                column.column_path().string(),
                column.num_values()
            ));
        }
        let (offset, bytes) = byte_ranges(column).into_iter().flatten().find(|range| !is_inside(*range))?;
        let name = column.column_path().string();
        Some(format!("column {name} with {bytes} bytes at {offset}, and {data_bytes} bytes before the footer"))
    })
}

/// Returns offset and length of everything that a column of a row group has in the file.
fn byte_ranges(column: &ColumnChunkMetaData) -> [Option<(i64, i64)>; 4] {
    let index = |offset: Option<i64>, bytes: Option<i32>| offset.zip(bytes.map(i64::from));
    let pages = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
    [
        Some((pages, column.compressed_size())),
        index(column.offset_index_offset(), column.offset_index_length()),
        index(column.column_index_offset(), column.column_index_length()),
        index(column.bloom_filter_offset(), column.bloom_filter_length()),
    ]
}

fn refused(file: &ListedFile, found: impl std::fmt::Display) -> Failure {
    Failure {
        cause: Some(Cause::Undecodable { searched: true }),
        ..Failure::input(format!("{}: expected a whole Parquet file, found: {found}", file.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Config;
    use crate::lake::listing::Listing;
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use parquet::arrow::ArrowWriter;
    use parquet::file::metadata::ParquetMetaDataWriter;
    use std::sync::Arc;

    fn good() -> Vec<u8> {
        let numbers = Arc::new(Int64Array::from_iter_values(0..100)) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("quantity", numbers)]).unwrap();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap()
    }

    /// Changes a file's column, and replaces the footer.
    fn changed(column: impl Fn(ColumnChunkMetaData) -> ColumnChunkMetaData) -> Vec<u8> {
        let bytes = good();
        let at = bytes.len() - TAIL_BYTES as usize;
        let footer = at - FooterTail::try_from(&bytes[at..]).unwrap().metadata_length();
        let metadata = ParquetMetaDataReader::decode_metadata(&bytes[footer..at]).unwrap();
        let group = metadata.row_group(0).clone();
        let columns = vec![column(group.column(0).clone())];
        let group = group.into_builder().set_column_metadata(columns).build().unwrap();
        let metadata = ParquetMetaData::new(metadata.file_metadata().clone(), vec![group]);
        let mut written = bytes[..footer].to_vec();
        ParquetMetaDataWriter::new(&mut written, &metadata).finish().unwrap();
        written
    }

    /// Changes the number of rows of the whole file, which the metadata's writer computes.
    fn with_fewer_rows() -> Vec<u8> {
        let mut bytes = good();
        let hundred = [0x16, 0xc8, 0x01]; // a field of eight bytes that follows its neighbour, and the number, twice and in sevens
        let at = bytes.windows(3).position(|found| found == hundred).unwrap();
        bytes[at + 1] = 0xc6;
        bytes
    }

    async fn read_bytes(name: &str, bytes: Vec<u8>) -> Result<ParquetColumns> {
        let folder = Location::open(&format!("memory://footer/{name}"), &S3Config::default()).unwrap();
        folder.write("a.parquet", bytes).await.unwrap();
        let listed = Listing::read(&folder).await.unwrap();
        read(&folder, &listed.files[0]).await
    }

    #[tokio::test]
    async fn a_footer_that_contradicts_its_file_is_refused() {
        assert!(read_bytes("good", good()).await.is_ok());
        assert!(read_bytes("same", changed(|column| column)).await.is_ok());
        let offset = |to: i64| {
            move |column: ColumnChunkMetaData| {
                column.into_builder().set_dictionary_page_offset(Some(to)).build().unwrap()
            }
        };
        let empty = |column: ColumnChunkMetaData| column.into_builder().set_total_compressed_size(0).build().unwrap();
        let mut cut = good();
        cut.drain(10..20);
        let cases = [
            ("rows", with_fewer_rows(), "99 rows in row groups of 100"),
            ("negative", changed(offset(-4)), "column quantity with"),
            ("far", changed(offset(i64::MAX)), "bytes at 9223372036854775807"),
            ("cut", cut, "bytes before the footer"),
            ("empty", changed(empty), "column quantity with 0 bytes for 100 values"),
        ];
        for (name, bytes, expected) in cases {
            let Err(refused) = read_bytes(name, bytes).await else { panic!("{name}: expected a refusal") };
            assert_eq!(refused.kind.exit_code(), 3);
            assert!(refused.message.contains("a.parquet: expected a whole Parquet file"), "{refused}");
            assert!(refused.message.contains(expected), "{refused}");
        }
    }
}
