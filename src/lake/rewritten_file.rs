//! Writes a Parquet file of a lake again without some rows, value by value: what its other rows hold, the types of its columns, their
//! compression and the file's own metadata stay as they are, whichever program wrote it.

use arrow::array::{Array, ArrayRef, AsArray, LargeStringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::column::writer::ColumnWriterImpl;
use parquet::data_type::DataType as ParquetType;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use std::collections::HashSet;
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use super::scratch_copy;
use crate::failure::{Failure, Result};

/// Rows that are copied at once.
const ROWS_AT_ONCE: usize = 8192;

/// A file without the rows that were left out.
pub(crate) struct RewrittenFile {
    /// Without a name.
    pub(crate) file: File,
    pub(crate) metadata: ParquetMetaData,
    pub(crate) rows_left_out: u64,
}

/// Writes a file without the rows of which one of `columns`, whose names may have another case, holds an id that is left out, as a
/// scratch file of `folder`; `None` if it has no such row. Holds a column of a row group in memory.
pub(crate) fn without(
    from: &File,
    columns: &[String],
    is_left_out: &dyn Fn(&str) -> bool,
    folder: &Path,
) -> Result<Option<RewrittenFile>> {
    let kept = kept_rows(from, columns, is_left_out)?;
    let rows_left_out = kept.iter().flatten().filter(|kept| !**kept).count() as u64;
    if rows_left_out == 0 {
        return Ok(None);
    }
    let file = scratch_copy::create(folder)?;
    let metadata = copy_rows(from, &file, &kept).map_err(|e| match e {
        ParquetError::External(source) => match source.downcast::<std::io::Error>() {
            Ok(error) if is_of_space(error.kind()) => scratch_copy::failure(&error),
            Ok(error) => Failure::from(ParquetError::External(error)),
            Err(other) => Failure::from(ParquetError::External(other)),
        },
        other => Failure::from(other),
    })?;
    Ok(Some(RewrittenFile { file, metadata, rows_left_out }))
}

/// Says whether a file has rows of which one of `columns` holds such an id.
pub(crate) fn holds(from: &File, columns: &[String], is_wanted: &dyn Fn(&str) -> bool) -> Result<bool> {
    Ok(kept_rows(from, columns, is_wanted)?.iter().flatten().any(|kept| !kept))
}

fn is_of_space(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

fn copy_rows(from: &File, to: &File, kept: &[Vec<bool>]) -> std::result::Result<ParquetMetaData, ParquetError> {
    let reader = SerializedFileReader::new(from.try_clone()?)?;
    let schema = reader.metadata().file_metadata().schema_descr().root_schema_ptr();
    let mut writer = SerializedFileWriter::new(to, schema, Arc::new(properties_of(reader.metadata())))?;
    for (group, kept) in kept.iter().enumerate() {
        if !kept.contains(&true) {
            continue;
        }
        let from = reader.get_row_group(group)?;
        let mut to = writer.next_row_group()?;
        for column in 0..from.num_columns() {
            let Some(mut next) = to.next_column()? else { break };
            copy_column(from.get_column_reader(column)?, &mut next, kept)?;
            next.close()?;
        }
        to.close()?;
    }
    writer.close()
}

/// Says whether an id is left out as a column has it: programs that know no missing integer write 13085 as 13085.0.
fn is_left_out_as(text: &str, is_left_out: &dyn Fn(&str) -> bool) -> bool {
    is_left_out(text) || text.strip_suffix(".0").is_some_and(is_left_out)
}

/// Returns which rows of each row group stay.
fn kept_rows(from: &File, columns: &[String], is_left_out: &dyn Fn(&str) -> bool) -> Result<Vec<Vec<bool>>> {
    let wanted: HashSet<String> = columns.iter().map(|column| column.to_lowercase()).collect();
    let footer = ArrowReaderMetadata::load(from, ArrowReaderOptions::default())?;
    let fields = footer.schema().fields().iter().enumerate();
    let roots = fields.filter(|(_, field)| wanted.contains(&field.name().to_lowercase())).map(|(at, _)| at);
    let owners = ProjectionMask::roots(footer.parquet_schema(), roots.collect::<Vec<_>>());
    let mut groups = Vec::new();
    for (group, found) in footer.metadata().row_groups().iter().enumerate() {
        let file = from.try_clone().map_err(ParquetError::from)?;
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, footer.clone());
        let mut kept = Vec::with_capacity(usize::try_from(found.num_rows()).unwrap_or_default());
        for batch in reader.with_row_groups(vec![group]).with_projection(owners.clone()).build()? {
            let batch = batch?;
            let first = kept.len();
            kept.resize(first + batch.num_rows(), true);
            for column in batch.columns() {
                let texts = texts_of(column)?;
                let texts = texts.as_string::<i64>();
                for (row, kept) in kept[first..].iter_mut().enumerate() {
                    *kept &= texts.is_null(row) || !is_left_out_as(texts.value(row), is_left_out);
                }
            }
        }
        groups.push(kept);
    }
    Ok(groups)
}

/// Returns ids as SQL reads them.
fn texts_of(column: &ArrayRef) -> Result<ArrayRef> {
    if column.data_type() != &DataType::FixedSizeBinary(16) {
        return Ok(cast_with_options(column, &DataType::LargeUtf8, &CastOptions::default())?);
    }
    let ids = column.as_fixed_size_binary().iter();
    let texts = ids.map(|id| id.and_then(|id| uuid::Uuid::from_slice(id).ok()).map(|id| id.to_string()));
    Ok(Arc::new(texts.collect::<LargeStringArray>()))
}

fn properties_of(metadata: &ParquetMetaData) -> WriterProperties {
    let file = metadata.file_metadata();
    let mut properties = WriterProperties::builder().set_key_value_metadata(file.key_value_metadata().cloned());
    if let Some(program) = file.created_by() {
        // Hive shifts times of INT96 by what it finds here.
        properties = properties.set_created_by(program.into());
    }
    if let Some(first) = metadata.row_groups().first() {
        properties = properties.set_sorting_columns(first.sorting_columns().cloned());
        for column in first.columns() {
            let path = column.column_path().clone();
            properties = properties
                .set_column_compression(path.clone(), column.compression())
                .set_column_bloom_filter_enabled(path, column.bloom_filter_offset().is_some());
        }
    }
    properties.build()
}

fn copy_column(
    from: ColumnReader,
    to: &mut SerializedColumnWriter<'_>,
    kept: &[bool],
) -> std::result::Result<(), ParquetError> {
    match from {
        ColumnReader::BoolColumnReader(from) => copy(from, to.typed(), kept),
        ColumnReader::Int32ColumnReader(from) => copy(from, to.typed(), kept),
        ColumnReader::Int64ColumnReader(from) => copy(from, to.typed(), kept),
        ColumnReader::Int96ColumnReader(from) => copy(from, to.typed(), kept),
        ColumnReader::FloatColumnReader(from) => copy(from, to.typed(), kept),
        ColumnReader::DoubleColumnReader(from) => copy(from, to.typed(), kept),
        ColumnReader::ByteArrayColumnReader(from) => copy(from, to.typed(), kept),
        ColumnReader::FixedLenByteArrayColumnReader(from) => copy(from, to.typed(), kept),
    }
}

/// Copies the values and levels of the rows that stay (levels: Dremel, section 4).
fn copy<T: ParquetType>(
    mut from: ColumnReaderImpl<T>,
    to: &mut ColumnWriterImpl<'_, T>,
    kept: &[bool],
) -> std::result::Result<(), ParquetError> {
    let (present, repeats) = {
        let column = to.get_descriptor();
        (column.max_def_level(), column.max_rep_level() > 0)
    };
    let mut row = 0;
    loop {
        let (mut values, mut definitions, mut repetitions) = (Vec::new(), Vec::new(), Vec::new());
        let (rows, _, levels) =
            from.read_records(ROWS_AT_ONCE, Some(&mut definitions), Some(&mut repetitions), &mut values)?;
        if rows == 0 {
            return Ok(());
        }
        let mut values = values.into_iter();
        let (mut kept_values, mut kept_definitions, mut kept_repetitions) = (Vec::new(), Vec::new(), Vec::new());
        for level in 0..levels {
            if level > 0 && (!repeats || repetitions[level] == 0) {
                row += 1;
            }
            let is_kept = kept.get(row).copied().unwrap_or(true);
            let value = if present == 0 || definitions[level] == present { values.next() } else { None };
            if !is_kept {
                continue;
            }
            kept_values.extend(value);
            if present > 0 {
                kept_definitions.push(definitions[level]);
            }
            if repeats {
                kept_repetitions.push(repetitions[level]);
            }
        }
        row += 1;
        let definitions = (present > 0).then_some(kept_definitions.as_slice());
        let repetitions = repeats.then_some(kept_repetitions.as_slice());
        if !kept_values.is_empty() || !kept_definitions.is_empty() {
            to.write_batch(&kept_values, definitions, repetitions)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BooleanArray, RecordBatch};
    use datafusion::prelude::SessionContext;
    use parquet::arrow::ArrowWriter;
    use parquet::basic::{Compression, Type};
    use parquet::data_type::{ByteArray, ByteArrayType, Int96, Int96Type};
    use parquet::schema::parser::parse_message_type;
    use std::io::Write;

    fn file_of(bytes: &[u8]) -> File {
        let mut file = scratch_copy::create(&std::env::temp_dir()).unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn rewritten(file: &File, column: &str, id: &str) -> Option<RewrittenFile> {
        let columns = [column.to_string()];
        let made = without(file, &columns, &|found| found == id, &std::env::temp_dir()).unwrap();
        assert_eq!(holds(file, &columns, &|found| found == id).unwrap(), made.is_some());
        made
    }

    fn read(file: &File) -> RecordBatch {
        let reader = ParquetRecordBatchReaderBuilder::try_new(file.try_clone().unwrap()).unwrap();
        let schema = Arc::clone(reader.schema());
        let batches: Vec<RecordBatch> = reader.build().unwrap().map(|batch| batch.unwrap()).collect();
        arrow::compute::concat_batches(&schema, &batches).unwrap()
    }

    #[tokio::test]
    async fn other_rows_and_the_file_stay_as_they_are() {
        let sql = "SELECT CASE WHEN value % 7 = 0 THEN NULL ELSE concat('u', value % 5) END AS \"USER_ID\", value, \
                   CASE WHEN value % 3 = 0 THEN NULL WHEN value % 4 = 0 THEN [] \
                        ELSE [concat('a', value), NULL, 'b'] END AS names, \
                   named_struct('price', value / 2.0, 'tags', [named_struct('x', value)]) AS nested, \
                   arrow_cast(value, 'Decimal128(20, 2)') AS amount, value % 2 = 0 AS even \
                   FROM range(0, 30000)";
        let rows = SessionContext::new().sql(sql).await.unwrap().collect().await.unwrap();
        let rows = arrow::compute::concat_batches(&rows[0].schema(), &rows).unwrap();
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(11_000))
            .set_compression(Compression::SNAPPY)
            .set_key_value_metadata(Some(vec![parquet::file::metadata::KeyValue::new(
                "made".into(),
                "by hand".to_string(),
            )]))
            .build();
        let mut file = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut file, rows.schema(), Some(properties)).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();

        let made = rewritten(&file_of(&file), "user_id", "u1").unwrap();
        let owners = rows.column(0).as_string::<i32>();
        let stays: BooleanArray = owners.iter().map(|id| Some(id != Some("u1"))).collect();
        let expected = arrow::compute::filter_record_batch(&rows, &stays).unwrap();
        let left = read(&made.file);
        for (at, field) in rows.schema().fields().iter().enumerate() {
            for row in 0..expected.num_rows() {
                let value =
                    |batch: &RecordBatch| arrow::util::display::array_value_to_string(batch.column(at), row).unwrap();
                assert_eq!(value(&left), value(&expected), "{} of row {row}", field.name());
            }
        }
        assert_eq!(made.rows_left_out as usize, rows.num_rows() - expected.num_rows());
        let file = made.metadata.file_metadata();
        assert!(file.key_value_metadata().unwrap().iter().any(|pair| pair.value.as_deref() == Some("by hand")));
        assert_eq!(made.metadata.num_row_groups(), 3);
        assert_eq!(made.metadata.row_group(0).column(0).compression(), Compression::SNAPPY);
        assert!(rewritten(&made.file, "user_id", "u1").is_none());
    }

    #[test]
    fn types_that_no_writer_of_ours_makes_are_kept() {
        let schema = parse_message_type("message events { REQUIRED INT96 at; OPTIONAL BYTE_ARRAY visitor; }");
        let mut file = Vec::new();
        let mut writer = SerializedFileWriter::new(&mut file, Arc::new(schema.unwrap()), Default::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        // Of the year 2300, which nanoseconds of 64 bits don't reach.
        let times = [1, 2, 3].map(|nanos| Int96::from(vec![nanos, 0, 2_561_118]));
        column.typed::<Int96Type>().write_batch(&times, None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let ids = ["13085.0", "13086"].map(ByteArray::from);
        column.typed::<ByteArrayType>().write_batch(&ids, Some(&[1, 0, 1]), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();

        let made = rewritten(&file_of(&file), "visitor", "13085").unwrap();
        assert_eq!((made.rows_left_out, made.metadata.file_metadata().num_rows()), (1, 2));
        let reader = SerializedFileReader::new(made.file).unwrap();
        assert_eq!(reader.metadata().file_metadata().schema_descr().column(0).physical_type(), Type::INT96);
        let rows: Vec<String> = reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect();
        assert_eq!(rows.len(), 2);
        assert!(rows[0].contains("null") && rows[1].contains("49, 51, 48, 56, 54"), "{rows:?}");
    }

    #[test]
    fn all_rows_may_go() {
        let rows = RecordBatch::try_from_iter([(
            "user_id",
            Arc::new(arrow::array::Int64Array::from(vec![7, 7])) as arrow::array::ArrayRef,
        )]);
        let rows = rows.unwrap();
        let mut file = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut file, rows.schema(), None).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
        let made = rewritten(&file_of(&file), "user_id", "7").unwrap();
        let left = read(&made.file);
        assert_eq!((made.rows_left_out, left.num_rows(), left.schema()), (2, 0, rows.schema()));
    }
}
