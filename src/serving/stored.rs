//! One table's rows in memory by a text key, found in microseconds.

use arrow::array::{Array, AsArray, RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::logical_expr::{Expr, cast, ident};
use datafusion::prelude::DataFrame;
use std::sync::Arc;

use crate::failure::Result;

/// The rows of a table, ordered by a key.
#[derive(Debug)]
pub(super) struct StoredRows {
    rows: RecordBatch,
    key: usize,
}

impl StoredRows {
    /// Reads rows, ordered by `key` and then by `order`; rows without a key are left out.
    pub(super) async fn read(rows: DataFrame, key: &str, order: Option<&str>) -> Result<Self> {
        let rows = sorted_by_key(rows, key, order)?;
        let schema = Arc::new(rows.schema().as_arrow().clone());
        let index = schema.index_of(key)?;
        let batches = rows.collect().await?;
        let schema = batches.first().map_or(schema, RecordBatch::schema);
        Ok(Self { rows: concat_batches(&schema, &batches)?, key: index })
    }

    /// Returns the rows of a key; none if it has none.
    pub(super) fn of(&self, key: &str) -> RecordBatch {
        let (first, end) = self.range(key);
        self.rows.slice(first, end - first)
    }

    /// Returns the rows of several keys.
    pub(super) fn of_all<'a>(&self, keys: impl IntoIterator<Item = &'a str>) -> Result<Option<RecordBatch>> {
        let places: UInt64Array = keys
            .into_iter()
            .flat_map(|key| {
                let (first, end) = self.range(key);
                first as u64..end as u64
            })
            .collect();
        match places.is_empty() {
            true => Ok(None),
            false => Ok(Some(take_record_batch(&self.rows, &places)?)),
        }
    }

    /// Returns the key of each row, in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.rows.column(self.key).as_string_opt::<i32>().into_iter().flat_map(|keys| keys.iter().flatten())
    }

    /// Returns the mean of a column of numbers; `None` where there is none.
    pub(super) fn mean(&self, column: &str) -> Option<f64> {
        let numbers = self.rows.column_by_name(column)?.as_primitive_opt::<Float64Type>()?;
        let count = numbers.len() - numbers.null_count();
        (count > 0).then(|| numbers.iter().flatten().sum::<f64>() / count as f64)
    }

    fn range(&self, key: &str) -> (usize, usize) {
        let Some(keys) = self.rows.column(self.key).as_string_opt::<i32>() else { return (0, 0) };
        let first = partition_point(keys.len(), |row| keys.value(row) < key);
        let end = partition_point(keys.len(), |row| keys.value(row) <= key);
        (first, end)
    }
}

/// Sorts rows by a key, as plain text whatever a reader makes of it, and then by `order`; rows without a key are left out.
pub(super) fn sorted_by_key(rows: DataFrame, key: &str, order: Option<&str>) -> Result<DataFrame> {
    let columns = rows.schema().fields().iter().map(|field| match field.name() == key {
        true => cast(ident(key), DataType::Utf8).alias(key),
        false => ident(field.name()),
    });
    let columns: Vec<Expr> = columns.collect();
    let rows = rows.filter(ident(key).is_not_null())?.select(columns)?;
    let keys = [key].into_iter().chain(order);
    Ok(rows.sort(keys.map(|key| ident(key).sort(true, true)).collect::<Vec<_>>())?)
}

/// Returns how many of `len` rows come before the first for which `before` is false; they are ordered so.
pub(super) fn partition_point(len: usize, before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = low + (high - low) / 2;
        match before(middle) {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Float64Array, Int32Array, StringArray};
    use arrow::datatypes::Int32Type;
    use datafusion::prelude::SessionContext;

    #[tokio::test]
    async fn rows_of_a_user_are_found_in_order() {
        let ctx = SessionContext::new();
        let users: ArrayRef = Arc::new(StringArray::from(vec!["b", "a", "b", "c'\"; --"]));
        let ranks: ArrayRef = Arc::new(Int32Array::from(vec![2, 1, 1, 1]));
        let shares: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.25), None, Some(0.75), Some(0.5)]));
        let rows = RecordBatch::try_from_iter([("user_id", users), ("rank", ranks), ("share", shares)]).unwrap();
        let stored = StoredRows::read(ctx.read_batch(rows).unwrap(), "user_id", Some("rank")).await.unwrap();
        let ranks = |rows: RecordBatch| rows.column(1).as_primitive::<Int32Type>().values().to_vec();
        assert_eq!(ranks(stored.of("a")), [1]);
        assert_eq!(ranks(stored.of("b")), [1, 2]);
        assert_eq!(ranks(stored.of("c'\"; --")), [1]);
        for unknown in ["", "aa", "B", "zz"] {
            assert!(ranks(stored.of(unknown)).is_empty());
        }
        assert_eq!(ranks(stored.of_all(["b", "aa", "a"]).unwrap().unwrap()), [1, 2, 1]);
        assert!(stored.of_all(["aa"]).unwrap().is_none());
        assert_eq!((stored.mean("share"), stored.mean("rank"), stored.mean("colour")), (Some(0.5), None, None));
    }
}
