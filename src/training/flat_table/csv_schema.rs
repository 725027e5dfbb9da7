//! Infers the schema of CSV files whose values may hold line breaks within quotes.
//!
//! DataFusion infers types from chunks that end with a line, but its line splitter (object_store's) loses track of
//! quotes: a line break within them ends a chunk, and the file is refused. So this file cuts the chunks; inference and
//! reading are DataFusion's.

use arrow::datatypes::Schema;
use bytes::Bytes;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::error::{DataFusionError, Result};
use datafusion::prelude::SessionContext;
use futures::{StreamExt, TryStreamExt, future, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use std::sync::Arc;

/// Types are inferred from at most this many rows: in practice all rows of a file that fits `train.rows_max`.
const INFERRED_ROWS_MAX: usize = 1_000_000;
const QUOTE: u8 = b'"';

/// Returns the merged schema of the files.
pub(crate) async fn infer(
    ctx: &SessionContext,
    files: &[(Arc<dyn ObjectStore>, Path)],
    delimiter: u8,
) -> Result<Schema> {
    let format = CsvFormat::default().with_has_header(true).with_delimiter(delimiter);
    let mut rows_left = INFERRED_ROWS_MAX;
    let mut schemas = Vec::new();
    for (store, path) in files {
        let inferred = infer_one(ctx, &format, store, path, rows_left).await;
        let (schema, rows) = inferred.map_err(|e| e.context(format!("CSV file {path}")))?;
        schemas.push(schema);
        rows_left -= rows.min(rows_left);
        if rows_left == 0 {
            break;
        }
    }
    Ok(Schema::try_merge(schemas)?)
}

/// Returns the schema of a file, and the number of rows from which it was inferred.
async fn infer_one(
    ctx: &SessionContext,
    format: &CsvFormat,
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    rows_max: usize,
) -> Result<(Schema, usize)> {
    let bytes = store.get(path).await?.into_stream();
    let chunks = bytes.map(Some).chain(stream::once(future::ready(None)));
    let whole_rows = chunks.scan(RowSplitter::default(), |splitter, chunk| {
        let rows = match chunk {
            Some(bytes) => bytes.map(|bytes| splitter.push(&bytes)).map_err(DataFusionError::from),
            // The text after the last line break is a row, too.
            None => Ok(splitter.finish()),
        };
        future::ready(Some(rows))
    });
    let not_empty = whole_rows.try_filter(|rows| future::ready(!rows.is_empty()));
    format.infer_schema_from_stream(&ctx.state(), rows_max, not_empty).await
}

/// Cuts bytes after the last line break that is not within quotes. A doubled quote within quotes changes nothing.
#[derive(Debug, Default)]
struct RowSplitter {
    /// The bytes of a row that has not ended.
    rest: Vec<u8>,
    /// True if `rest` ends within quotes.
    is_quoted: bool,
}

impl RowSplitter {
    /// Adds bytes and returns the rows that are now whole; empty if no row ends in the bytes.
    fn push(&mut self, bytes: &[u8]) -> Bytes {
        let mut last_end = None;
        for (index, byte) in bytes.iter().enumerate() {
            match *byte {
                QUOTE => self.is_quoted = !self.is_quoted,
                b'\n' if !self.is_quoted => last_end = Some(index + 1),
                _ => {}
            }
        }
        let Some(end) = last_end else {
            self.rest.extend_from_slice(bytes);
            return Bytes::new();
        };
        let mut rows = std::mem::replace(&mut self.rest, bytes[end..].to_vec());
        rows.extend_from_slice(&bytes[..end]);
        rows.into()
    }

    /// Returns the last row, which no line break ends.
    fn finish(&mut self) -> Bytes {
        std::mem::take(&mut self.rest).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::DataType;
    use object_store::memory::InMemory;

    const FILE: &str = "id,text,n\n1,\"one\ntwo\",5\n2,\"a \"\"word\"\"\n\n, and \\\",6.5\r\n3,\"\",7";

    #[test]
    fn chunks_hold_whole_rows_for_every_chunk_size() {
        for size in 1..FILE.len() {
            let mut splitter = RowSplitter::default();
            let mut chunks: Vec<Bytes> = FILE.as_bytes().chunks(size).map(|bytes| splitter.push(bytes)).collect();
            chunks.push(splitter.finish());
            assert_eq!(chunks.concat(), FILE.as_bytes());
            for chunk in chunks {
                let quotes = chunk.iter().filter(|byte| **byte == QUOTE).count();
                assert_eq!(quotes % 2, 0, "in chunks of {size}: {chunk:?}");
            }
        }
    }

    #[tokio::test]
    async fn types_are_inferred_across_quoted_line_breaks() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let path = Path::from("reviews.csv");
        store.put(&path, FILE.into()).await.unwrap();
        let schema = infer(&SessionContext::new(), &[(store, path)], b',').await.unwrap();
        let types: Vec<&DataType> = schema.fields().iter().map(|field| field.data_type()).collect();
        assert_eq!(types, [&DataType::Int64, &DataType::Utf8, &DataType::Float64]);
    }
}
