//! Reads the values in folder names such as `dt=2026-03-01`.

use chrono::NaiveDate;

use crate::failure::{Failure, Result};

/// Returns the date of the `dt=` folder, if there is one.
pub(super) fn partition_date(name: &str, parts: &[String]) -> Result<Option<NaiveDate>> {
    let folders = parts.split_last().map_or(&[][..], |(_, folders)| folders);
    let values: Vec<&str> = folders.iter().filter_map(|part| partition_value(part, "dt")).collect();
    match values[..] {
        [] => Ok(None),
        [value] => parse_date(name, value).map(Some),
        _ => Err(no_date(name, &format!("several: {}", values.join(", ")))),
    }
}

/// Parses the date of a partition; other spellings than `2026-03-01` are refused (exit 3).
pub(super) fn parse_date(name: &str, value: &str) -> Result<NaiveDate> {
    match NaiveDate::parse_from_str(value, "%Y-%m-%d") {
        Ok(date) if date.to_string() == value => Ok(date),
        _ => Err(no_date(name, &format!("`{value}`"))),
    }
}

fn no_date(name: &str, found: &str) -> Failure {
    Failure::input(format!("{name}: partition dt: expected an ISO date (dt=2026-03-01), found {found}")).hint(
        "give the folder its date; rows whose date is not known belong in a folder whose name begins with _, which is \
         ignored",
    )
}

/// Returns the value of a folder `key=value`; the key in any case.
pub(super) fn partition_value<'a>(part: &'a str, key: &str) -> Option<&'a str> {
    let (found, value) = part.split_once('=')?;
    found.eq_ignore_ascii_case(key).then_some(value)
}
