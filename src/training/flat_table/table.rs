//! A flat table in memory, with its rows split into training, validation and test.

use arrow::array::{ArrayRef, RecordBatch};
use std::collections::HashSet;
use std::sync::Arc;

use super::options::TableOptions;
use super::splits::RowSplits;
use crate::failure::Result;
use crate::training::datasets::Split;
use crate::training::fitting::TrainingFingerprint;

#[derive(Debug)]
pub(crate) struct FlatTable {
    pub(crate) rows: RecordBatch,
    /// The number of each row in its files, from 1, for messages.
    pub(crate) numbers: Vec<usize>,
    pub(crate) splits: RowSplits,
    /// The number of rows that lack a label or the input column.
    pub(crate) ignored_rows: usize,
    /// The input column's values on rows without a label. Values of validation and test rows are not among them, nor
    /// rows that would be in these splits. `None` if the task does not read such rows.
    pub(crate) unlabelled: Option<ArrayRef>,
}

impl FlatTable {
    pub(crate) fn column(&self, name: &str) -> Result<&ArrayRef> {
        Ok(self.rows.column(self.rows.schema().index_of(name)?))
    }

    pub(crate) fn rows_in(&self, split: Split) -> Vec<usize> {
        self.splits.rows_in(split)
    }

    /// Returns the rows for training, validation and test that `keep` accepts.
    pub(crate) fn rows_by_split(&self, keep: impl Fn(usize) -> bool) -> [Vec<usize>; 3] {
        [Split::Train, Split::Valid, Split::Test].map(|split| {
            let mut rows = self.rows_in(split);
            rows.retain(|&row| keep(row));
            rows
        })
    }

    /// Adds the rows, their splits and the options to the fingerprint of a training.
    pub(crate) fn add_to_fingerprint(
        &self,
        options: &TableOptions,
        fingerprint: &mut TrainingFingerprint,
    ) -> Result<()> {
        fingerprint.add_debug(&(&options.label, &options.category, &options.exclude, self.splits.by_row()))?;
        // As rows, because the Debug representation of a long array shows only its ends.
        if let Some(unlabelled) = &self.unlabelled {
            fingerprint.add_rows(&RecordBatch::try_from_iter([("unlabelled", Arc::clone(unlabelled))])?)?;
        }
        fingerprint.add_rows(&self.rows)
    }
}

/// Returns the keys of validation and test rows.
pub(crate) fn held_out_keys<'a>(keys: &'a [String], splits: &RowSplits) -> HashSet<&'a str> {
    let held_out = keys.iter().zip(splits.by_row()).filter(|(_, split)| **split != Split::Train);
    held_out.map(|(key, _)| key.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use arrow::array::StringArray;

    #[test]
    fn every_row_and_unlabelled_value_changes_the_fingerprint() {
        let texts = |changed: Option<usize>| -> ArrayRef {
            let text = |row| if changed == Some(row) { "another".to_string() } else { format!("text {row}") };
            Arc::new(StringArray::from_iter_values((0..100).map(text)))
        };
        let fingerprint = |rows: ArrayRef, unlabelled: ArrayRef| {
            let keys = vec!["key".to_string(); 100];
            let table = FlatTable {
                rows: RecordBatch::try_from_iter([("text", rows)]).unwrap(),
                numbers: (1..=100).collect(),
                splits: RowSplits::by_hash(&keys),
                ignored_rows: 0,
                unlabelled: Some(unlabelled),
            };
            let mut fingerprint = TrainingFingerprint::new(&Config::default(), &()).unwrap();
            table.add_to_fingerprint(&TableOptions::default(), &mut fingerprint).unwrap();
            fingerprint.finish()
        };
        let unchanged = fingerprint(texts(None), texts(None));
        assert_eq!(unchanged, fingerprint(texts(None), texts(None)));
        assert_ne!(unchanged, fingerprint(texts(Some(50)), texts(None)));
        assert_ne!(unchanged, fingerprint(texts(None), texts(Some(50))));
    }
}
