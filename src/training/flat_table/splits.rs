//! Splits the rows of a table into training, validation and test: by time, or by a hash of their inputs.

use arrow::array::{Array, AsArray, Float64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use std::collections::HashSet;

use crate::failure::{Failure, Result};
use crate::training::datasets::{Split, split};

/// The split of each row.
#[derive(Debug)]
pub(crate) struct RowSplits {
    by_row: Vec<Split>,
    rule: Rule,
}

#[derive(Debug)]
enum Rule {
    Hash,
    Time {
        column: String,
        /// The earliest time of a validation row.
        first_valid: f64,
    },
}

impl RowSplits {
    /// Splits rows by their keys; rows with equal keys are in the same split.
    pub(crate) fn by_hash(keys: &[String]) -> Self {
        Self { by_row: keys.iter().map(|key| split(key)).collect(), rule: Rule::Hash }
    }

    /// Puts the earliest 80 % of the rows into training and the last 10 % into test; rows with equal times are in the
    /// same split.
    pub(crate) fn by_time(column: &str, rows: &RecordBatch) -> Result<Self> {
        let times = times(column, rows)?;
        if times.null_count() > 0 || times.values().iter().any(|t| t.is_nan()) {
            return Err(refuse_time_column(column, "nulls"));
        }
        let mut sorted = times.values().to_vec();
        sorted.sort_by(f64::total_cmp);
        let quantile = |tenths: usize| sorted.get(sorted.len() * tenths / 10).copied().unwrap_or_default();
        let first_valid = quantile(8);
        let first_test = quantile(9);
        let split_of = |time: &f64| match time {
            time if *time < first_valid => Split::Train,
            time if *time < first_test => Split::Valid,
            _ => Split::Test,
        };
        let by_row = times.values().iter().map(split_of).collect();
        Ok(Self { by_row, rule: Rule::Time { column: column.to_string(), first_valid } })
    }

    /// Replaces the keys of a split by hash, so that rows with equal inputs are in the same split. A split by time
    /// stays.
    pub(crate) fn use_keys(&mut self, keys: &[String]) {
        if let Rule::Hash = self.rule {
            *self = Self::by_hash(keys);
        }
    }

    pub(crate) fn by_row(&self) -> &Vec<Split> {
        &self.by_row
    }

    pub(crate) fn rows_in(&self, split: Split) -> Vec<usize> {
        (0..self.by_row.len()).filter(|&row| self.by_row[row] == split).collect()
    }

    /// Describes the rule for people.
    pub(crate) fn description(&self) -> String {
        match &self.rule {
            Rule::Hash => "split 80/10/10 by a hash of the row".into(),
            Rule::Time { column, .. } => format!("split by {column}: 80 % earlier, 10 %, 10 % later"),
        }
    }

    /// Returns which of some rows without a label may be used in training: those that the rule puts into training and
    /// whose keys are not those of validation or test rows.
    pub(crate) fn usable_in_training(
        &self,
        rows: &RecordBatch,
        keys: &[String],
        held_out: &HashSet<&str>,
    ) -> Result<Vec<bool>> {
        let in_training: Vec<bool> = match &self.rule {
            // A row without a time is in no split.
            Rule::Time { column, first_valid } => {
                times(column, rows)?.iter().map(|time| time.is_some_and(|t| t < *first_valid)).collect()
            }
            Rule::Hash => keys.iter().map(|key| split(key) == Split::Train).collect(),
        };
        Ok(in_training.into_iter().zip(keys).map(|(early, key)| early && !held_out.contains(key.as_str())).collect())
    }
}

/// Returns a time column as numbers.
fn times(column: &str, rows: &RecordBatch) -> Result<Float64Array> {
    let array = rows.column(rows.schema().index_of(column)?);
    let numbers = match array.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Boolean => {
            return Err(refuse_time_column(column, "text"));
        }
        DataType::Date32 => cast(&cast(array, &DataType::Int32)?, &DataType::Float64)?,
        other if other.is_temporal() => cast(&cast(array, &DataType::Int64)?, &DataType::Float64)?,
        _ => cast(array, &DataType::Float64)?,
    };
    Ok(numbers.as_primitive::<Float64Type>().clone())
}

fn refuse_time_column(column: &str, got: &str) -> Failure {
    Failure::input(format!("--time-column {column}: expected dates, times or numbers on every row, got {got}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ContentHash;
    use arrow::array::{ArrayRef, Date32Array, StringArray};
    use std::sync::Arc;

    fn batch(name: &str, column: ArrayRef) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable([(name, column, true)]).unwrap()
    }

    #[test]
    fn later_rows_are_tested_and_equal_times_stay_together() {
        let days: Vec<i32> = (0..100).rev().map(|i| i / 4).collect();
        let splits = RowSplits::by_time("day", &batch("day", Arc::new(Date32Array::from(days.clone())))).unwrap();
        let days_in = |split| splits.rows_in(split).into_iter().map(|row| days[row]).collect::<Vec<i32>>();
        let [train, valid, test] = [Split::Train, Split::Valid, Split::Test].map(days_in);
        assert_eq!((train.len(), valid.len(), test.len()), (80, 8, 12));
        assert!(train.iter().max() < valid.iter().min() && valid.iter().max() < test.iter().min());
        let Rule::Time { first_valid, .. } = splits.rule else { panic!("{splits:?}") };
        assert_eq!(valid.iter().min().map(|day| f64::from(*day)), Some(first_valid));
        let text: ArrayRef = Arc::new(StringArray::from(vec!["Feb"]));
        let refused = RowSplits::by_time("month", &batch("month", text)).unwrap_err();
        assert!(refused.message.contains("--time-column month: expected dates"), "{refused}");
    }

    #[test]
    fn unlabelled_rows_are_used_unless_they_are_held_out() {
        let keys: Vec<String> = (0..200).map(|i| ContentHash::from_bytes(format!("{i}")).full()).collect();
        let days: ArrayRef = Arc::new(Float64Array::from_iter((0..200).map(|i| (i % 4 > 0).then_some(f64::from(i)))));
        let rows = batch("day", days);
        let held_out: HashSet<&str> = keys[10..20].iter().map(String::as_str).collect();
        let usable = |splits: RowSplits| splits.usable_in_training(&rows, &keys, &held_out).unwrap();
        for (row, used) in usable(RowSplits::by_hash(&keys)).into_iter().enumerate() {
            assert_eq!(used, split(&keys[row]) == Split::Train && !(10..20).contains(&row), "{row}");
        }
        let by_time = RowSplits { by_row: Vec::new(), rule: Rule::Time { column: "day".into(), first_valid: 100.0 } };
        for (row, used) in usable(by_time).into_iter().enumerate() {
            assert_eq!(used, row < 100 && row % 4 > 0 && !(10..20).contains(&row), "{row}");
        }
    }
}
