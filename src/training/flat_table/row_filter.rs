//! Selects the rows of a table that training uses, batch by batch.

use arrow::array::{Array, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::failure::Result;
use crate::ids::ContentHash;

/// Decides which rows are used.
pub(crate) struct RowFilter {
    /// The columns whose hash is a row's key.
    pub(crate) key_columns: Vec<String>,
    /// Rows with a null in one of these columns are ignored.
    pub(crate) required_columns: Vec<String>,
    /// If given, rows with a value in this column but without a label are collected too.
    pub(crate) unlabelled_input: Option<String>,
    /// The share of rows that are sampled; 1 or more for all.
    pub(crate) sampled_share: f64,
}

/// The rows that a filter selected.
#[derive(Default)]
pub(crate) struct FilteredRows {
    pub(crate) labelled: KeyedRows,
    pub(crate) unlabelled: KeyedRows,
    /// The number of rows with a null in a required column.
    pub(crate) ignored: usize,
    rows_read: usize,
}

/// Some rows with their keys and numbers.
#[derive(Default)]
pub(crate) struct KeyedRows {
    batches: Vec<RecordBatch>,
    pub(crate) keys: Vec<String>,
    /// The number of each row in its files, from 1.
    pub(crate) numbers: Vec<usize>,
}

impl FilteredRows {
    /// Adds the selected rows of the next batch.
    pub(crate) fn add(&mut self, batch: &RecordBatch, filter: &RowFilter) -> Result<()> {
        let keys = row_keys(batch, &filter.key_columns)?;
        let is_complete = rows_without_nulls(batch, &filter.required_columns)?;
        let is_sampled: Vec<bool> =
            keys.iter().map(|key| filter.sampled_share >= 1.0 || is_in_sample(key, filter.sampled_share)).collect();
        self.ignored += is_complete.iter().filter(|complete| !**complete).count();
        if let Some(input) = &filter.unlabelled_input {
            let has_input = rows_without_nulls(batch, std::slice::from_ref(input))?;
            let rows = 0..batch.num_rows();
            let mask = rows.map(|row| has_input[row] && !is_complete[row] && is_sampled[row]).collect();
            self.unlabelled.add(batch, &keys, mask, self.rows_read)?;
        }
        let mask = is_complete.iter().zip(&is_sampled).map(|(complete, sampled)| *complete && *sampled).collect();
        self.labelled.add(batch, &keys, mask, self.rows_read)?;
        self.rows_read += batch.num_rows();
        Ok(())
    }
}

impl KeyedRows {
    /// Adds the rows of a batch that the mask selects; `rows_before` is the number of rows in earlier batches.
    fn add(&mut self, batch: &RecordBatch, keys: &[String], mask: Vec<bool>, rows_before: usize) -> Result<()> {
        for row in (0..batch.num_rows()).filter(|&row| mask[row]) {
            self.keys.push(keys[row].clone());
            self.numbers.push(rows_before + row + 1);
        }
        self.batches.push(filter_record_batch(batch, &mask.into())?);
        Ok(())
    }

    pub(crate) fn concat(&self, schema: &SchemaRef) -> Result<RecordBatch> {
        Ok(concat_batches(schema, &self.batches)?)
    }
}

/// Returns true for each row with a value in all of these columns.
fn rows_without_nulls(batch: &RecordBatch, columns: &[String]) -> Result<Vec<bool>> {
    let mut is_complete = vec![true; batch.num_rows()];
    for column in columns {
        if let Some(nulls) = batch.column(batch.schema().index_of(column)?).logical_nulls() {
            for (complete, valid) in is_complete.iter_mut().zip(nulls.iter()) {
                *complete &= valid;
            }
        }
    }
    Ok(is_complete)
}

/// Returns a hash of each row's inputs. Rows with equal inputs are in the same split, so that no test row is in
/// training.
fn row_keys(batch: &RecordBatch, columns: &[String]) -> Result<Vec<String>> {
    let options = FormatOptions::default().with_null("\u{1}");
    let mut formatters = Vec::new();
    for column in columns.iter().filter_map(|name| batch.column_by_name(name)) {
        formatters.push(ArrayFormatter::try_new(column, &options)?);
    }
    let key = |row: usize| {
        let mut hasher = blake3::Hasher::new();
        for formatter in &formatters {
            hasher.update(formatter.value(row).to_string().as_bytes()).update(&[0]);
        }
        ContentHash::from_hasher(&hasher).full()
    };
    Ok((0..batch.num_rows()).map(key).collect())
}

/// Returns true for this share of all keys. It uses the end of the hash, since the beginning decides the split.
fn is_in_sample(key: &str, share: f64) -> bool {
    let end = u64::from_str_radix(&key[key.len() - 8..], 16).unwrap_or_default();
    (end as f64) < share * 2f64.powi(32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Float64Array, StringArray};
    use std::collections::BTreeSet;
    use std::sync::Arc;

    fn batch() -> RecordBatch {
        let a: ArrayRef = Arc::new(StringArray::from(vec![Some("x"), Some("x"), None, Some("null"), Some("")]));
        let b: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), Some(1.0), Some(1.0), None, Some(1.0)]));
        RecordBatch::try_from_iter_with_nullable([("a", a, true), ("b", b, true)]).unwrap()
    }

    #[test]
    fn equal_rows_have_equal_keys_and_null_is_not_a_word() {
        let keys = row_keys(&batch(), &["a".into()]).unwrap();
        assert_eq!(keys[0], keys[1]);
        let different: BTreeSet<&String> = keys.iter().collect();
        assert_eq!(different.len(), 4);
    }

    #[test]
    fn incomplete_rows_are_ignored_and_unlabelled_ones_collected() {
        let filter = RowFilter {
            key_columns: vec!["a".into()],
            required_columns: vec!["a".into(), "b".into()],
            unlabelled_input: Some("a".into()),
            sampled_share: 1.0,
        };
        let mut rows = FilteredRows::default();
        rows.add(&batch(), &filter).unwrap();
        rows.add(&batch(), &filter).unwrap();
        assert_eq!((rows.labelled.numbers.as_slice(), rows.ignored), ([1, 2, 5, 6, 7, 10].as_slice(), 4));
        assert_eq!(rows.unlabelled.numbers, [4, 9]);
        let unlabelled = rows.unlabelled.concat(&batch().schema()).unwrap();
        assert_eq!((unlabelled.num_rows(), rows.unlabelled.keys.len()), (2, 2));
    }

    #[test]
    fn a_sample_has_its_share_of_the_keys() {
        let keys = (0..10_000).map(|i| ContentHash::from_bytes(format!("{i}")).full());
        let sampled = keys.filter(|key| is_in_sample(key, 0.3)).count();
        assert!((2_800..3_200).contains(&sampled), "{sampled}");
    }
}
