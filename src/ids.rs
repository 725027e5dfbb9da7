//! Small types for values that must not be confused: run dates, generations, model versions, hashes of content.

use arrow::datatypes::Date32Type;
use chrono::{DateTime, Days, NaiveDate, TimeZone, Utc};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

use crate::failure::Failure;

/// Date D of a night: everything is computed as of D 00:00 in the lake's time zone, and D is the first target date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunDate(pub NaiveDate);

impl RunDate {
    /// Returns the instant D 00:00 local time. If a clock change skips midnight, that is the first instant of the day.
    pub(crate) fn as_of(self, zone: chrono_tz::Tz) -> DateTime<Utc> {
        (0..4)
            .filter_map(|hour| self.0.and_hms_opt(hour, 0, 0))
            .find_map(|local| zone.from_local_datetime(&local).earliest())
            .map(|t| t.with_timezone(&Utc))
            .unwrap_or_else(|| self.0.and_time(chrono::NaiveTime::MIN).and_utc())
    }

    pub fn plus_days(self, days: i64) -> Self {
        let moved = match u64::try_from(days) {
            Ok(n) => self.0.checked_add_days(Days::new(n)),
            Err(_) => self.0.checked_sub_days(Days::new(days.unsigned_abs())),
        };
        Self(moved.unwrap_or(self.0))
    }
}

impl fmt::Display for RunDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.format("%Y-%m-%d"))
    }
}

impl FromStr for RunDate {
    type Err = Failure;
    fn from_str(text: &str) -> Result<Self, Failure> {
        NaiveDate::parse_from_str(text, "%Y-%m-%d").map(Self).map_err(|_| {
            Failure::usage(format!("date: expected YYYY-MM-DD, got {text:?}")).hint("for example 2026-03-01")
        })
    }
}

/// Number of times a night was started; the fencing token of its publications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Returns a date as Arrow's date32 counts it: days since 1970-01-01.
pub(crate) fn date32(date: NaiveDate) -> i32 {
    Date32Type::from_naive_date(date)
}

/// Returns the date of a number of days since 1970-01-01; `None` beyond the calendar.
pub(crate) fn date_of_day(day: i32) -> Option<NaiveDate> {
    Date32Type::to_naive_date_opt(day)
}

/// A BLAKE3 hash that names content, as hex digits. How many are written is part of the name of files and models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContentHash(blake3::Hash);

impl ContentHash {
    pub(crate) fn from_bytes(bytes: impl AsRef<[u8]>) -> Self {
        Self(blake3::hash(bytes.as_ref()))
    }

    /// The hash of everything that was fed to `hasher`.
    pub(crate) fn from_hasher(hasher: &blake3::Hasher) -> Self {
        Self(hasher.finalize())
    }

    /// 16 digits: distinguishes the files of one output and the versions of one registry.
    pub(crate) fn short(self) -> String {
        self.0.to_hex()[..16].into()
    }

    /// 32 digits: distinguishes inputs whose confusion would go unnoticed.
    pub(crate) fn long(self) -> String {
        self.0.to_hex()[..32].into()
    }

    /// All 64 digits.
    pub(crate) fn full(self) -> String {
        self.0.to_hex().to_string()
    }
}

/// Version of a trained model: the day on which its labels end and the beginning of its weights' hash, `20260301-0a1b2c3d`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ModelVersion(pub(crate) String);

impl ModelVersion {
    /// Composes the version of a model whose labels end before `labels_end` (`2026-03-01`).
    pub(crate) fn new(labels_end: &str, weights_hash: &str) -> Self {
        Self(format!("{}-{}", labels_end.replace('-', ""), weights_hash.get(..8).unwrap_or(weights_hash)))
    }

    /// Returns the day before which all of the model's labels end; `None` for a name that training did not make.
    pub(crate) fn labels_end(&self) -> Option<NaiveDate> {
        NaiveDate::parse_from_str(self.0.split_once('-')?.0, "%Y%m%d").ok()
    }
}

impl fmt::Display for ModelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shorter_hashes_are_the_beginning_of_longer_ones() {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"in").update(b"tent");
        let hash = ContentHash::from_hasher(&hasher);
        assert_eq!(hash, ContentHash::from_bytes("intent"));
        assert!(hash.full().starts_with(&hash.long()) && hash.long().starts_with(&hash.short()));
        assert_eq!((hash.short().len(), hash.long().len(), hash.full().len()), (16, 32, 64));
    }

    #[test]
    fn as_of_is_local_midnight() {
        let date: RunDate = "2017-11-27".parse().unwrap();
        assert_eq!(date.as_of(chrono_tz::Asia::Shanghai).to_rfc3339(), "2017-11-26T16:00:00+00:00");
    }

    #[test]
    fn a_skipped_midnight_is_the_first_instant_of_the_day() {
        let date: RunDate = "2018-11-04".parse().unwrap(); // São Paulo skipped 00:00
        assert_eq!(date.as_of(chrono_tz::America::Sao_Paulo).to_rfc3339(), "2018-11-04T03:00:00+00:00");
    }

    #[test]
    fn a_model_version_names_the_day_on_which_its_labels_end() {
        let version = ModelVersion::new("2026-03-01", "0a1b2c3d4e5f");
        assert_eq!(
            (version.0.as_str(), version.labels_end()),
            ("20260301-0a1b2c3d", NaiveDate::from_ymd_opt(2026, 3, 1))
        );
        assert_eq!(ModelVersion("m1".into()).labels_end(), None);
    }

    #[test]
    fn a_bad_date_says_what_is_expected() {
        assert!("27.11.2017".parse::<RunDate>().unwrap_err().to_string().contains("YYYY-MM-DD"));
    }
}
