//! One user's published rows in memory, found in microseconds.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use datafusion::logical_expr::{Expr, col};
use datafusion::prelude::{DataFrame, SessionContext};
use std::sync::Arc;

use super::visible;
use crate::failure::{Failure, Result};

/// The rows of one night's table, ordered by user.
#[derive(Debug)]
pub(super) struct StoredRows {
    rows: RecordBatch,
    user_id: usize,
}

impl StoredRows {
    /// Reads the rows of the given users (all without `users`), ordered by user and then by `order`.
    pub(super) async fn read(
        ctx: &SessionContext,
        table: &str,
        users: Option<&DataFrame>,
        order: Option<&str>,
    ) -> Result<Self> {
        let mut rows = ctx.table(table).await?;
        if let Some(users) = users {
            rows = visible::rows_of(users, rows)?;
        }
        let keys = ["user_id"].into_iter().chain(order);
        let rows = rows.sort(keys.map(|key| col(key).sort(true, true)).collect::<Vec<_>>())?;
        let schema = Arc::new(rows.schema().as_arrow().clone());
        let (user_id, _) =
            schema.column_with_name("user_id").ok_or_else(|| Failure::bug(format!("{table} has no user_id")))?;
        // As plain strings, whatever a reader makes of them.
        let columns = schema.fields().iter().map(|field| match field.name() == "user_id" {
            true => datafusion::logical_expr::cast(col("user_id"), arrow::datatypes::DataType::Utf8).alias("user_id"),
            false => col(field.name()),
        });
        let batches = rows.select(columns.collect::<Vec<Expr>>())?.collect().await?;
        let schema = batches.first().map_or(schema, RecordBatch::schema);
        Ok(Self { rows: concat_batches(&schema, &batches)?, user_id })
    }

    /// Returns the rows of a user; none if the user has none.
    pub(super) fn of(&self, user_id: &str) -> RecordBatch {
        let Some(ids) = self.rows.column(self.user_id).as_string_opt::<i32>() else { return self.rows.slice(0, 0) };
        let first = partition_point(ids.len(), |row| ids.value(row) < user_id);
        let end = partition_point(ids.len(), |row| ids.value(row) <= user_id);
        self.rows.slice(first, end - first)
    }
}

/// Returns how many of `len` rows come before the first for which `before` is false; they are ordered so.
fn partition_point(len: usize, before: impl Fn(usize) -> bool) -> usize {
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
    use arrow::array::{ArrayRef, Int32Array, StringArray};

    #[tokio::test]
    async fn rows_of_a_user_are_found_in_order() {
        let ctx = SessionContext::new();
        let users: ArrayRef = Arc::new(StringArray::from(vec!["b", "a", "b", "c'\"; --"]));
        let ranks: ArrayRef = Arc::new(Int32Array::from(vec![2, 1, 1, 1]));
        ctx.register_batch("t", RecordBatch::try_from_iter([("user_id", users), ("rank", ranks)]).unwrap()).unwrap();
        let stored = StoredRows::read(&ctx, "t", None, Some("rank")).await.unwrap();
        let ranks_of =
            |user: &str| stored.of(user).column(1).as_primitive::<arrow::datatypes::Int32Type>().values().to_vec();
        assert_eq!(ranks_of("a"), [1]);
        assert_eq!(ranks_of("b"), [1, 2]);
        assert_eq!(ranks_of("c'\"; --"), [1]);
        for unknown in ["", "aa", "B", "zz"] {
            assert!(ranks_of(unknown).is_empty());
        }
    }
}
