//! Writes a Parquet file again without the rows of some persons.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Schema};
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, ZstdLevel};

use super::file_stats::delta_stats;
use crate::failure::{Failure, Result};
use crate::lake::parquet_files::writer_properties;
use crate::lake::stores::Location;

/// Endings of the names of columns that say whose row it is.
const OWNER_COLUMNS: [&str; 2] = ["user_id", "person_id"];

/// Rows of a row group.
const ROW_GROUP_ROWS_MAX: usize = 200_000;

/// A file without the rows that were left out.
pub(crate) struct Rewritten {
    pub(crate) bytes: Vec<u8>,
    /// Rows that stay.
    pub(crate) rows: u64,
    pub(crate) rows_left_out: u64,
    /// Delta's per-file statistics, as JSON.
    pub(crate) stats: String,
}

/// Says whether a row may have an owner in this column.
pub(crate) fn names_owner(column: &str) -> bool {
    OWNER_COLUMNS.iter().any(|ending| column.ends_with(ending))
}

/// Counts the rows of a file whose owner is left out. A file that is gone has none.
pub(crate) async fn count(location: &Location, path: &Path, is_left_out: &dyn Fn(&str) -> bool) -> Result<u64> {
    let Some(bytes) = location.read_at(path).await? else { return Ok(0) };
    scan(bytes, is_left_out, &mut |_| Ok(())).map_err(|failure| failure.at(location.display(path)))
}

/// Reads a file, and returns it without the rows whose owner is left out; `None` if it has no such
/// row or is gone. `visit` sees those rows.
pub(crate) async fn without(
    location: &Location,
    path: &Path,
    is_left_out: &dyn Fn(&str) -> bool,
    visit: &mut dyn FnMut(&RecordBatch) -> Result<()>,
) -> Result<Option<Rewritten>> {
    let at = |failure: Failure| failure.at(location.display(path));
    let Some(bytes) = location.read_at(path).await? else { return Ok(None) };
    let rows_left_out = scan(bytes.clone(), is_left_out, visit).map_err(at)?;
    if rows_left_out == 0 {
        return Ok(None);
    }
    let rewritten = rewrite(bytes, is_left_out, rows_left_out).map_err(at)?;
    Ok(Some(rewritten))
}

/// Counts the rows to leave out, and shows them to `visit` where there are any. Reads only the owners' columns first.
fn scan(
    bytes: bytes::Bytes,
    is_left_out: &dyn Fn(&str) -> bool,
    visit: &mut dyn FnMut(&RecordBatch) -> Result<()>,
) -> Result<u64> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone())?;
    let columns: Vec<usize> =
        reader.schema().fields().iter().enumerate().filter(|(_, f)| has_owner(f)).map(|(at, _)| at).collect();
    if columns.is_empty() {
        return Ok(0);
    }
    let owners = ProjectionMask::roots(reader.parquet_schema(), columns);
    let mut left_out = 0;
    for batch in reader.with_projection(owners).build()? {
        let kept = kept_rows(&batch?, is_left_out)?;
        left_out += (kept.len() - kept.true_count()) as u64;
    }
    if left_out > 0 {
        for batch in ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()? {
            let batch = batch?;
            let gone = arrow::compute::not(&kept_rows(&batch, is_left_out)?)?;
            if gone.true_count() > 0 {
                visit(&filter_record_batch(&batch, &gone)?)?;
            }
        }
    }
    Ok(left_out)
}

fn rewrite(bytes: bytes::Bytes, is_left_out: &dyn Fn(&str) -> bool, rows_left_out: u64) -> Result<Rewritten> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    let schema = Schema::clone(reader.schema()).with_metadata(Default::default());
    let properties =
        writer_properties(ROW_GROUP_ROWS_MAX).set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?)).build();
    let mut written = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut written, reader.schema().clone(), Some(properties))?;
    let mut rows = 0;
    for batch in reader.build()? {
        let batch = batch?;
        let kept = filter_record_batch(&batch, &kept_rows(&batch, is_left_out)?)?;
        rows += kept.num_rows() as u64;
        writer.write(&kept)?;
    }
    let footer = writer.close()?;
    Ok(Rewritten { stats: delta_stats(&schema, &footer), bytes: written, rows, rows_left_out })
}

fn has_owner(field: &arrow::datatypes::Field) -> bool {
    match field.data_type() {
        DataType::Struct(parts) => parts.iter().any(|part| has_owner(part)),
        data_type => names_owner(field.name()) && is_text(data_type),
    }
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

/// Returns which rows stay.
fn kept_rows(batch: &RecordBatch, is_left_out: &dyn Fn(&str) -> bool) -> Result<BooleanArray> {
    let mut gone = vec![false; batch.num_rows()];
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if has_owner(field) {
            mark(column, is_left_out, &mut gone)?;
        }
    }
    Ok(gone.into_iter().map(|gone| Some(!gone)).collect())
}

fn mark(column: &ArrayRef, is_left_out: &dyn Fn(&str) -> bool, gone: &mut [bool]) -> Result<()> {
    if let DataType::Struct(parts) = column.data_type() {
        for (part, values) in parts.iter().zip(column.as_struct().columns()) {
            if has_owner(part) {
                mark(values, is_left_out, gone)?;
            }
        }
        return Ok(());
    }
    let ids = cast(column, &DataType::Utf8)?;
    let ids = ids.as_string::<i32>();
    let mut last: (Option<&str>, bool) = (None, false);
    for (row, gone) in gone.iter_mut().enumerate() {
        if ids.is_null(row) {
            continue;
        }
        let id = ids.value(row);
        if last.0 != Some(id) {
            last = (Some(id), is_left_out(id));
        }
        *gone |= last.1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Config;
    use datafusion::prelude::SessionContext;

    #[tokio::test]
    async fn other_rows_stay_as_they_are() {
        let output = Location::open("memory://left-out/out", &S3Config::default()).unwrap();
        let ctx = SessionContext::new();
        let sql = "SELECT CASE WHEN value % 3 = 0 THEN NULL ELSE concat('u', value % 5) END AS user_id, \
                   concat('u', value % 5) AS item_id, value, named_struct('user_id', concat('g', value)) AS features \
                   FROM range(0, 1000)";
        let rows = ctx.sql(sql).await.unwrap().collect().await.unwrap();
        let mut file = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut file, rows[0].schema(), None).unwrap();
        rows.iter().for_each(|batch| writer.write(batch).unwrap());
        writer.close().unwrap();
        output.write("a.parquet", file).await.unwrap();
        let path = output.path("a.parquet");
        let is_left_out = |id: &str| id == "u1" || id == "g7";
        let mut seen = 0;
        let mut visit = |batch: &RecordBatch| {
            seen += batch.num_rows() as u64;
            Ok(())
        };
        let made = without(&output, &path, &is_left_out, &mut visit).await.unwrap().unwrap();
        // 200 rows have the remainder 1, 67 of them without an owner; one more row has an owner within its features.
        assert_eq!((made.rows, made.rows_left_out, seen), (1000 - 134, 134, 134));
        assert_eq!(count(&output, &path, &is_left_out).await.unwrap(), 134);
        output.write("b.parquet", made.bytes).await.unwrap();
        let again = without(&output, &output.path("b.parquet"), &is_left_out, &mut |_| Ok(())).await.unwrap();
        assert!(again.is_none());
        let reader = ParquetRecordBatchReaderBuilder::try_new(output.read("b.parquet").await.unwrap()).unwrap();
        let left: Vec<RecordBatch> = reader.build().unwrap().map(|batch| batch.unwrap()).collect();
        let filtered = rows.iter().map(|b| filter_record_batch(b, &kept_rows(b, &is_left_out).unwrap()).unwrap());
        let whole = |batches: &[RecordBatch]| arrow::compute::concat_batches(&rows[0].schema(), batches).unwrap();
        assert_eq!(whole(&left).columns(), whole(&filtered.collect::<Vec<_>>()).columns());
        assert!(made.stats.contains("\"numRecords\":866"), "{}", made.stats);
    }
}
