//! Converts rows of text to batches of a lake's declared types; skips rows without a required value, and counts them by reason.

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, StringBuilder};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::DataType;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::failure::Result;
use crate::lake::declared::Declared;

/// Counts of skipped rows by reason.
pub(crate) type Reasons = BTreeMap<String, u64>;

/// Rows that are collected for the next batch.
pub(crate) struct TypedRows {
    declared: Declared,
    columns: Vec<StringBuilder>,
    rows: usize,
}

impl TypedRows {
    pub(crate) fn new(declared: Declared) -> Self {
        let columns = declared.schema.fields().iter().map(|_| StringBuilder::new()).collect();
        Self { declared, columns, rows: 0 }
    }

    /// The names of the columns, in the order that [`Self::push`] takes values.
    pub(crate) fn names(&self) -> Vec<String> {
        self.declared.schema.fields().iter().map(|f| f.name().clone()).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    pub(crate) fn push(&mut self, values: Vec<Option<String>>) {
        for ((column, field), value) in self.columns.iter_mut().zip(self.declared.schema.fields()).zip(values) {
            // Text stays as it was published; blanks around a number or a time are ignored.
            let text = *field.data_type() == DataType::Utf8;
            column.append_option(value.as_deref().map(|v| if text { v } else { v.trim() }));
        }
        self.rows += 1;
    }

    /// Returns the collected rows, typed, and counts of the skipped ones. An unreadable value of a column that is not required
    /// becomes null.
    pub(crate) fn take(&mut self) -> Result<(RecordBatch, Reasons)> {
        let mut reasons: Vec<Option<String>> = vec![None; self.rows];
        let mut columns: Vec<ArrayRef> = Vec::new();
        for (column, field) in self.columns.iter_mut().zip(self.declared.schema.fields()) {
            let text = column.finish();
            // Null if the text does not convert.
            let typed = cast(&text, field.data_type())?;
            if self.declared.required.contains(field.name()) {
                for row in (0..self.rows).filter(|&row| typed.is_null(row)) {
                    let reason = match text.is_null(row) {
                        true => format!("no {}", field.name()),
                        false => format!("{} does not convert to {}", field.name(), field.data_type()),
                    };
                    reasons[row].get_or_insert(reason);
                }
            }
            columns.push(typed);
        }
        self.rows = 0;
        let whole: BooleanArray = reasons.iter().map(|r| Some(r.is_none())).collect();
        let batch = filter_record_batch(&RecordBatch::try_new(Arc::clone(&self.declared.schema), columns)?, &whole)?;
        let mut counted = Reasons::new();
        for reason in reasons.into_iter().flatten() {
            *counted.entry(reason).or_default() += 1;
        }
        Ok((batch, counted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::SessionContext;

    #[tokio::test]
    async fn rows_that_lack_what_is_required_are_counted_by_reason() {
        let sql = "CREATE TABLE raw (n BIGINT NOT NULL, at TIMESTAMP(6) NOT NULL, x DOUBLE, t VARCHAR)";
        let mut rows =
            TypedRows::new(Declared::parse(&SessionContext::new(), "raw.sql", "view.sql", sql).await.unwrap());
        let row = |values: [&str; 4]| values.map(|v| (!v.is_empty()).then(|| v.to_string())).to_vec();
        rows.push(row([" 1", "2026-01-01 10:00:00", "one", " t "]));
        rows.push(row(["", "2026-01-01", "1", "t"]));
        rows.push(row(["2", "soon", "1", "t"]));
        rows.push(row(["two", "soon", "1", "t"]));
        let (batch, reasons) = rows.take().unwrap();
        let printed = arrow::util::pretty::pretty_format_batches(&[batch]).unwrap().to_string();
        assert!(printed.contains("| 1 | 2026-01-01T10:00:00 |   |  t  |"), "{printed}");
        let reasons: Vec<_> = reasons.iter().map(|(reason, n)| format!("{reason}: {n}")).collect();
        assert_eq!(reasons, ["at does not convert to Timestamp(µs): 1", "n does not convert to Int64: 1", "no n: 1"]);
        assert_eq!(rows.take().unwrap().0.num_rows(), 0);
    }
}
