//! Rows of a table on disk, sorted by a key and found by it with one or two small reads.
//!
//! The file is Arrow IPC in small compressed batches (arrow.apache.org/docs/format/Columnar.html). It has no name, so the system
//! removes it with the process.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::buffer::Buffer;
use arrow::error::ArrowError;
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::reader::{FileDecoder, read_footer_length};
use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use arrow::ipc::{Block, CompressionType, root_as_footer};
use datafusion::prelude::DataFrame;
use futures::TryStreamExt;
use std::fs::File;
use std::io::{BufWriter, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::failure::{Failure, Result};
use crate::serving::stored::{partition_point, sorted_by_key};

/// Rows of one batch: what a lookup reads.
const BATCH_ROWS: usize = 256;

/// Bytes at the end of the file that say how long its footer is.
const TRAILER: u64 = 10;

/// Rows of a table on disk by a text key.
#[derive(Debug)]
pub(super) struct KeyedRows {
    file: File,
    decoder: FileDecoder,
    blocks: Vec<Block>,
    /// The first key of each batch.
    first_keys: Vec<String>,
    key: usize,
}

impl KeyedRows {
    /// Runs a query and writes its rows below `folder`, sorted by `key`; rows without a key are left out.
    pub(super) async fn write(rows: DataFrame, key: &str, folder: &Path) -> Result<Self> {
        let mut stream = sorted_by_key(rows, key, None)?.execute_stream().await?;
        let schema = stream.schema();
        let index = schema.index_of(key)?;
        let at = |e: std::io::Error| Failure::transient(format!("{}: no file for rows: {e}", folder.display()));
        let file = tempfile::tempfile_in(folder).map_err(at)?;
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
        let mut writer = FileWriter::try_new_with_options(BufWriter::new(file), &schema, options)?;
        let mut first_keys = Vec::new();
        while let Some(batch) = stream.try_next().await? {
            for start in (0..batch.num_rows()).step_by(BATCH_ROWS) {
                let slice = batch.slice(start, BATCH_ROWS.min(batch.num_rows() - start));
                first_keys.push(slice.column(index).as_string::<i32>().value(0).to_string());
                writer.write(&slice)?;
            }
        }
        writer.finish()?;
        let mut file = writer.into_inner()?.into_inner().map_err(|e| at(e.into_error()))?;
        let bytes = file.seek(std::io::SeekFrom::End(0)).map_err(at)?;
        Self::open(file, bytes, first_keys, index)
    }

    fn open(file: File, bytes: u64, first_keys: Vec<String>, key: usize) -> Result<Self> {
        let damaged = |e: ArrowError| Failure::bug(format!("rows on disk: {e}"));
        let trailer = read(&file, bytes - TRAILER, TRAILER as usize)?;
        let trailer = trailer.try_into().map_err(|_| Failure::bug("rows on disk: a trailer of another length"))?;
        let footer_bytes = read_footer_length(trailer).map_err(damaged)?;
        let footer = read(&file, bytes - TRAILER - footer_bytes as u64, footer_bytes)?;
        let footer = root_as_footer(&footer).map_err(|e| Failure::bug(format!("rows on disk: {e}")))?;
        let schema = footer.schema().ok_or_else(|| Failure::bug("rows on disk: a footer without columns"))?;
        let decoder = FileDecoder::new(Arc::new(fb_to_schema(schema)), footer.version());
        let blocks: Vec<Block> = footer.recordBatches().iter().flatten().copied().collect();
        match blocks.len() == first_keys.len() {
            true => Ok(Self { file, decoder, blocks, first_keys, key }),
            false => Err(Failure::bug("rows on disk: a footer of other batches")),
        }
    }

    /// Returns the rows of a key.
    pub(super) fn of(&self, key: &str) -> Result<Vec<RecordBatch>> {
        let mut found = Vec::new();
        // The batch before the first that begins with the key may end with it.
        let first = self.first_keys.partition_point(|first| first.as_str() < key).saturating_sub(1);
        for (block, first_key) in self.blocks[first..].iter().zip(&self.first_keys[first..]) {
            if first_key.as_str() > key {
                break;
            }
            let rows = self.batch(block)?;
            let keys = rows.column(self.key).as_string::<i32>();
            let start = partition_point(keys.len(), |row| keys.value(row) < key);
            let end = partition_point(keys.len(), |row| keys.value(row) <= key);
            if start < end {
                found.push(rows.slice(start, end - start));
            }
        }
        Ok(found)
    }

    fn batch(&self, block: &Block) -> Result<RecordBatch> {
        let bytes = block.bodyLength() as usize + block.metaDataLength() as usize;
        let buffer = Buffer::from_vec(read(&self.file, block.offset() as u64, bytes)?);
        let rows = self.decoder.read_record_batch(block, &buffer)?;
        rows.ok_or_else(|| Failure::bug("rows on disk: a block without rows"))
    }
}

fn read(file: &File, offset: u64, bytes: usize) -> Result<Vec<u8>> {
    let mut buffer = vec![0; bytes];
    file.read_exact_at(&mut buffer, offset).map_err(|e| Failure::transient(format!("rows on disk: {e}")))?;
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;
    use datafusion::prelude::SessionContext;

    #[tokio::test]
    async fn rows_of_a_key_are_found_across_batches() {
        // Key k has k rows; some keys begin or end where a batch does.
        let keys: Vec<usize> = (0..60).flat_map(|k| std::iter::repeat_n(k, k)).collect();
        let names: ArrayRef =
            Arc::new(keys.iter().rev().map(|k| (*k > 3).then(|| format!("u{k:03}"))).collect::<StringArray>());
        let values: ArrayRef = Arc::new(keys.iter().rev().map(|k| *k as i64).collect::<Int64Array>());
        let ctx = SessionContext::new();
        let rows = RecordBatch::try_from_iter([("n", values), ("user_id", names)]).unwrap();
        let rows = ctx.read_batch(rows).unwrap();
        let stored = KeyedRows::write(rows, "user_id", &std::env::temp_dir()).await.unwrap();
        assert!(stored.blocks.len() > 5);
        let found = |key: &str| -> Vec<i64> {
            let rows = stored.of(key).unwrap();
            rows.iter().flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
        };
        for k in 4..60 {
            assert_eq!(found(&format!("u{k:03}")), vec![k; k as usize]);
        }
        for unknown in ["", "u003", "u0041", "u060", "zz"] {
            assert!(found(unknown).is_empty(), "{unknown}");
        }
    }

    #[tokio::test]
    async fn a_table_without_rows_has_no_keys() {
        let ctx = SessionContext::new();
        let rows = ctx.sql("SELECT CAST(NULL AS VARCHAR) AS user_id, 1 AS n").await.unwrap();
        let stored = KeyedRows::write(rows, "user_id", &std::env::temp_dir()).await.unwrap();
        assert!(stored.of("u1").unwrap().is_empty());
    }
}
