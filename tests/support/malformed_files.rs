//! Mutations of good Parquet files: what disks, cut uploads and careless writers leave.

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use parquet::basic::{Compression, Type as PhysicalType};
use parquet::file::metadata::{
    ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader, ParquetMetaDataWriter, RowGroupMetaData,
};
use parquet::file::statistics::Statistics;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

use super::random_lake::LakeFile;

/// The mutations, by name.
pub const MUTATIONS: [&str; 15] = [
    "cut",
    "cut in the middle",
    "bytes of the footer",
    "bytes of a page header",
    "bytes of the data",
    "magic",
    "length of the footer",
    "a column of another type",
    "number of rows",
    "number of values",
    "offsets",
    "sizes and codec",
    "statistics",
    "fewer row groups or columns",
    "invalid text",
];

/// Returns the bytes of a file after the mutation of that name.
pub fn mutate(rng: &mut ChaCha8Rng, file: &LakeFile, mutation: &str) -> Vec<u8> {
    let mut bytes = file.bytes.clone();
    let end = bytes.len();
    let footer = footer_start(&bytes);
    match mutation {
        "cut" => bytes.truncate(rng.random_range(0..end)),
        "cut in the middle" => {
            let from = rng.random_range(4..footer);
            bytes.drain(from..rng.random_range(from + 1..=footer));
        }
        "bytes of the footer" => flip(rng, &mut bytes, footer..end - 8),
        "bytes of a page header" => {
            let chunk = column_chunks(&metadata(&bytes)).choose(rng).unwrap().byte_range().0 as usize;
            flip(rng, &mut bytes, chunk..chunk + 20);
        }
        "bytes of the data" => flip(rng, &mut bytes, 4..footer),
        "magic" => {
            let at = *[0, end - 4].choose(rng).unwrap();
            bytes[at..at + 4].copy_from_slice([b"PARE", b"PAR2", b"\0\0\0\0", b"1RAP"].choose(rng).unwrap().as_slice());
        }
        "length of the footer" => {
            let length = (end - footer - 8) as u32;
            let lengths = [0, 1, length - 1, length + 1, end as u32, end as u32 - 8, i32::MAX as u32, u32::MAX];
            bytes[end - 8..end - 4].copy_from_slice(&lengths.choose(rng).unwrap().to_le_bytes());
        }
        "a column of another type" => {
            let count = file.rows.len();
            let (at, name) = *[(0, "ts"), (2, "user_id"), (9, "quantity"), (10, "price")].choose(rng).unwrap();
            let arrays: [ArrayRef; 3] = [
                Arc::new(StringArray::from(vec!["1"; count])),
                Arc::new(Float64Array::from(vec![1.0; count])),
                Arc::new(Int64Array::from(vec![1; count])),
            ];
            let array = Arc::clone(arrays.choose(rng).unwrap());
            bytes = file.shape.encode_with(rng, &file.rows, Some((at, name, array)));
        }
        "number of rows" => {
            let by = *[-1, 1, i64::MAX / 2, i64::MIN / 2].choose(rng).unwrap();
            bytes = match rng.random_bool(0.5) {
                true => change_rows_of_file(bytes, file.rows.len(), by),
                false => with_footer(&bytes, |found| change_rows(found, by)),
            };
        }
        "number of values" => {
            let by = *[-1, 1, i64::MAX / 2, i64::MIN / 2].choose(rng).unwrap();
            bytes = change_chunk(rng, &bytes, |chunk, _| {
                let values = chunk.num_values() + by;
                chunk.into_builder().set_num_values(values).build().unwrap()
            });
        }
        "offsets" => {
            bytes = change_chunk(rng, &bytes, |chunk, rng| {
                let offset = chunk.data_page_offset();
                let offsets = [0, -1, i64::MAX, i64::MIN, offset - 1, offset + 1, end as i64, end as i64 - 4];
                let to = *offsets.choose(rng).unwrap();
                let builder = chunk.into_builder();
                match rng.random_range(0..3) {
                    0 => builder.set_dictionary_page_offset(Some(to)),
                    1 => builder.set_offset_index_offset(Some(to)).set_offset_index_length(Some(10)),
                    _ => builder.set_data_page_offset(to),
                }
                .build()
                .unwrap()
            });
        }
        "sizes and codec" => {
            bytes = change_chunk(rng, &bytes, |chunk, rng| {
                let sizes = [0, -1, 1, i64::MAX, end as i64, chunk.compressed_size() - 1, chunk.compressed_size() + 1];
                let to = *sizes.choose(rng).unwrap();
                let codecs = [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::LZO, Compression::LZ4];
                let builder = chunk.into_builder();
                match rng.random_range(0..3) {
                    0 => builder.set_compression(*codecs.choose(rng).unwrap()),
                    1 => builder.set_total_uncompressed_size(to),
                    _ => builder.set_total_compressed_size(to),
                }
                .build()
                .unwrap()
            });
        }
        "statistics" => bytes = change_chunk(rng, &bytes, |chunk, _| odd_statistics(chunk)),
        "fewer row groups or columns" => {
            let columns = rng.random_bool(0.5);
            bytes = with_footer(&bytes, |found| fewer(found, columns));
        }
        // Texts of a random file are often compressed; then some other bytes change.
        "invalid text" => {
            let is_text = |at: &usize| bytes[*at..at + 4].iter().all(u8::is_ascii_lowercase);
            let texts: Vec<usize> = (4..footer - 4).filter(is_text).collect();
            match texts.choose(rng) {
                Some(&at) => bytes[at + 1] = 0xff,
                None => flip(rng, &mut bytes, 4..footer),
            }
        }
        other => unreachable!("{other}"),
    }
    bytes
}

fn flip(rng: &mut ChaCha8Rng, bytes: &mut [u8], within: std::ops::Range<usize>) {
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(within.clone());
        bytes[at] ^= rng.random_range(1..=255_u8);
    }
}

fn footer_start(bytes: &[u8]) -> usize {
    let tail: [u8; 4] = bytes[bytes.len() - 8..bytes.len() - 4].try_into().unwrap();
    bytes.len() - 8 - u32::from_le_bytes(tail) as usize
}

fn metadata(bytes: &[u8]) -> ParquetMetaData {
    ParquetMetaDataReader::decode_metadata(&bytes[footer_start(bytes)..bytes.len() - 8]).unwrap()
}

fn column_chunks(metadata: &ParquetMetaData) -> Vec<ColumnChunkMetaData> {
    metadata.row_groups().iter().flat_map(|group| group.columns().to_vec()).collect()
}

/// Replaces the footer by a changed one; the data stays.
fn with_footer(bytes: &[u8], change: impl FnOnce(ParquetMetaData) -> ParquetMetaData) -> Vec<u8> {
    let changed = change(metadata(bytes));
    let mut written = bytes[..footer_start(bytes)].to_vec();
    ParquetMetaDataWriter::new(&mut written, &changed).finish().unwrap();
    written
}

fn change_chunk(
    rng: &mut ChaCha8Rng,
    bytes: &[u8],
    change: impl FnOnce(ColumnChunkMetaData, &mut ChaCha8Rng) -> ColumnChunkMetaData,
) -> Vec<u8> {
    with_footer(bytes, |found| {
        let mut groups = found.row_groups().to_vec();
        let group = rng.random_range(0..groups.len());
        let mut columns = groups[group].columns().to_vec();
        let column = rng.random_range(0..columns.len());
        columns[column] = change(columns[column].clone(), rng);
        groups[group] = groups[group].clone().into_builder().set_column_metadata(columns).build().unwrap();
        ParquetMetaData::new(found.file_metadata().clone(), groups)
    })
}

/// Changes the rows of the first row group, and with it those of the file, which the metadata's writer computes.
fn change_rows(found: ParquetMetaData, by: i64) -> ParquetMetaData {
    let mut groups: Vec<RowGroupMetaData> = found.row_groups().to_vec();
    let rows = groups[0].num_rows().wrapping_add(by);
    groups[0] = groups[0].clone().into_builder().set_num_rows(rows).build().unwrap();
    ParquetMetaData::new(found.file_metadata().clone(), groups)
}

/// Changes the rows of the file and not those of its row groups. Such a number is the field after the schema: its head, then twice
/// the number, for small ones in one byte.
fn change_rows_of_file(mut bytes: Vec<u8>, rows: usize, by: i64) -> Vec<u8> {
    let footer = footer_start(&bytes);
    let field = [0x16, 2 * rows as u8];
    if let Some(at) = bytes[footer..].windows(2).position(|found| rows < 60 && found == field) {
        bytes[footer + at + 1] = (2 * (rows as i64 + by.signum())) as u8;
    }
    bytes
}

fn fewer(found: ParquetMetaData, columns: bool) -> ParquetMetaData {
    let mut groups = found.row_groups().to_vec();
    if !columns {
        groups.pop();
        return ParquetMetaData::new(found.file_metadata().clone(), groups);
    }
    // Swapped columns: the builder refuses a group that lacks one.
    let mut chunks = groups[0].columns().to_vec();
    chunks.rotate_left(1);
    groups[0] = groups[0].clone().into_builder().set_column_metadata(chunks).build().unwrap();
    ParquetMetaData::new(found.file_metadata().clone(), groups)
}

/// Returns the chunk with a least value above its greatest one, and more nulls than values.
fn odd_statistics(chunk: ColumnChunkMetaData) -> ColumnChunkMetaData {
    let nulls = Some(u64::MAX);
    let odd = match chunk.column_type() {
        PhysicalType::INT32 => Statistics::int32(Some(i32::MAX), Some(i32::MIN), None, nulls, false),
        PhysicalType::INT64 => Statistics::int64(Some(i64::MAX), Some(i64::MIN), None, nulls, false),
        PhysicalType::DOUBLE => Statistics::double(Some(f64::NAN), Some(f64::NAN), None, nulls, false),
        PhysicalType::FLOAT => Statistics::float(Some(f32::NAN), Some(f32::NAN), None, nulls, false),
        _ => Statistics::byte_array(Some(b"\xff\xfe".to_vec().into()), Some(Vec::new().into()), None, nulls, false),
    };
    chunk.into_builder().set_statistics(odd).build().unwrap()
}
