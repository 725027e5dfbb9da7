//! Splits of training data: by id into training, validation and test set, by time into past dates.

use crate::failure::{Failure, Result};
use crate::ids::RunDate;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    Train,
    Valid,
    Test,
}

/// Assigns an id by its hash: 80 % train, 10 % validation, 10 % test.
pub fn split(id: &str) -> Split {
    match blake3::hash(id.as_bytes()).as_bytes()[0] {
        0..=25 => Split::Test,
        26..=51 => Split::Valid,
        _ => Split::Train,
    }
}

/// Returns whether an id is in a share of all ids, by its hash; the answer is the same at every date.
pub(crate) fn is_in_share(id: &str, share: f64) -> bool {
    // These bytes are independent of those that splits, parts and blocks use.
    let hash = blake3::hash(id.as_bytes());
    let place = u32::from_le_bytes([16, 17, 18, 19].map(|byte| hash.as_bytes()[byte]));
    f64::from(place) < share * 2f64.powi(32)
}

/// Past dates, newest first, whose labels of `label_days` days end before `end`.
pub(crate) fn past_dates(end: RunDate, label_days: u32, step_days: u32, count: u32) -> Vec<RunDate> {
    (0..i64::from(count)).map(|k| end.plus_days(-i64::from(label_days) - k * i64::from(step_days))).collect()
}

/// Fails where a set is too small to train on, with a hint on what to change.
pub(crate) fn require_rows(kind: &str, rows: usize, rows_min: usize) -> Result<()> {
    match rows >= rows_min {
        true => Ok(()),
        false => Err(Failure::input(format!("training: expected at least {rows_min} {kind}, got {rows}"))
            .hint("train on a later --date or a larger lake, lower train.as_of_dates, or raise train.labels_share")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_past_dates_end_before_the_training_date() {
        let end: RunDate = "2026-03-01".parse().unwrap();
        let dates = past_dates(end, 28, 7, 3);
        assert_eq!(dates.iter().map(|d| d.to_string()).collect::<Vec<_>>(), ["2026-02-01", "2026-01-25", "2026-01-18"]);
        assert!(dates.iter().all(|d| d.plus_days(28) <= end));
    }

    #[test]
    fn the_split_is_eighty_ten_ten() {
        let count = |wanted: Split| (0..10_000).filter(|i| split(&format!("u{i}")) == wanted).count();
        assert!((7_800..8_200).contains(&count(Split::Train)) && (900..1_130).contains(&count(Split::Test)));
    }
}
