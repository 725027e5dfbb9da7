//! Tells the types of CSV files whose values may hold line breaks within quotes.
//!
//! DataFusion tells types by pieces that end with a line, and its cut into lines (object_store's) loses count of the quotes:
//! a line break within them ends a piece, and the file is refused. So the pieces are cut here; telling and reading are
//! DataFusion's.

use arrow::datatypes::Schema;
use bytes::Bytes;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::error::{DataFusionError, Result};
use datafusion::prelude::SessionContext;
use futures::{StreamExt, TryStreamExt, future, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use std::sync::Arc;

/// Rows from which types are told: in practice all of a file that fits `train.rows_max`.
const TYPED_ROWS_MAX: usize = 1_000_000;
const QUOTE: u8 = b'"';

/// The columns of these files together.
pub async fn schema(ctx: &SessionContext, files: &[(Arc<dyn ObjectStore>, Path)], delimiter: u8) -> Result<Schema> {
    let format = CsvFormat::default().with_has_header(true).with_delimiter(delimiter);
    let (state, mut left, mut schemas) = (ctx.state(), TYPED_ROWS_MAX, Vec::new());
    for (store, path) in files {
        let told = async {
            let bytes = store.get(path).await?.into_stream();
            let pieces = bytes.map(Some).chain(stream::once(future::ready(None)));
            let whole = pieces.scan(Rows::default(), |rows, piece| {
                // What is left behind the last line break is a row, too.
                let piece = match piece {
                    Some(bytes) => bytes.map(|bytes| rows.whole(&bytes)).map_err(DataFusionError::from),
                    None => Ok(rows.rest()),
                };
                future::ready(Some(piece))
            });
            let whole = whole.try_filter(|bytes| future::ready(!bytes.is_empty()));
            format.infer_schema_from_stream(&state, left, whole).await
        };
        let (schema, read) = told.await.map_err(|e| e.context(format!("CSV file {path}")))?;
        left -= read.min(left);
        schemas.push(schema);
        if left == 0 {
            break;
        }
    }
    Ok(Schema::try_merge(schemas)?)
}

/// Cuts bytes behind the last line break that stands in no quotes. A doubled quote within quotes opens and closes none.
#[derive(Debug, Default)]
struct Rows {
    rest: Vec<u8>,
    /// Whether `rest` ends within quotes.
    quoted: bool,
}

impl Rows {
    /// Whole rows out of what was left and what comes; empty where no row ends.
    fn whole(&mut self, bytes: &[u8]) -> Bytes {
        let mut end = None;
        for (place, byte) in bytes.iter().enumerate() {
            match *byte {
                QUOTE => self.quoted = !self.quoted,
                b'\n' if !self.quoted => end = Some(place + 1),
                _ => {}
            }
        }
        let Some(end) = end else {
            self.rest.extend_from_slice(bytes);
            return Bytes::new();
        };
        let mut rows = std::mem::replace(&mut self.rest, bytes[end..].to_vec());
        rows.extend_from_slice(&bytes[..end]);
        rows.into()
    }

    fn rest(&mut self) -> Bytes {
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
    fn rows_are_whole_however_the_bytes_come() {
        for size in 1..FILE.len() {
            let mut rows = Rows::default();
            let mut pieces: Vec<Bytes> = FILE.as_bytes().chunks(size).map(|piece| rows.whole(piece)).collect();
            pieces.push(rows.rest());
            assert_eq!(pieces.concat(), FILE.as_bytes());
            for piece in pieces {
                let quotes = piece.iter().filter(|byte| **byte == QUOTE).count();
                assert_eq!(quotes % 2, 0, "in pieces of {size}: {piece:?}");
            }
        }
    }

    #[tokio::test]
    async fn types_are_told_across_line_breaks() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let path = Path::from("reviews.csv");
        store.put(&path, FILE.into()).await.unwrap();
        let schema = schema(&SessionContext::new(), &[(store, path)], b',').await.unwrap();
        let types: Vec<&DataType> = schema.fields().iter().map(|field| field.data_type()).collect();
        assert_eq!(types, [&DataType::Int64, &DataType::Utf8, &DataType::Float64]);
    }
}
