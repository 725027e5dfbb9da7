//! Newtypes for what must not be mixed up: run dates, generations, model versions.

use chrono::{DateTime, Days, NaiveDate, TimeZone, Utc};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

use crate::failure::Failure;

/// The night's date D: everything is scored as of D 00:00 in the lake's time zone, and D is the first target date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunDate(pub NaiveDate);

impl RunDate {
    /// The instant D 00:00 local. In zones that skip midnight on a clock change, the first instant of the day.
    pub fn as_of(self, zone: chrono_tz::Tz) -> DateTime<Utc> {
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

/// How many times a night was started; the fencing token of its publications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_bad_date_says_what_is_expected() {
        assert!("27.11.2017".parse::<RunDate>().unwrap_err().to_string().contains("YYYY-MM-DD"));
    }
}
