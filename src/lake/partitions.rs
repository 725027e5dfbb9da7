//! Reads the values in folder names such as `dt=2026-03-01` and `country=DE`.

use arrow::array::StringArray;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::Field;
use chrono::NaiveDate;
use datafusion::common::ScalarValue;
use percent_encoding::percent_decode_str;

use crate::failure::{Failure, Result};

/// The value of folder names that stands for null.
const HIVE_NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// A column that a folder above a file names, and its value there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FolderValue {
    pub(super) column: String,
    pub(super) value: Option<String>,
}

/// Returns the values that the folders of a file name, all but `dt`.
pub(super) fn folder_values(parts: &[String]) -> Vec<FolderValue> {
    let folders = parts.split_last().map_or(&[][..], |(_, folders)| folders);
    let named = folders.iter().filter_map(|part| part.split_once('='));
    let named = named.filter(|(column, _)| !column.is_empty() && !column.eq_ignore_ascii_case("dt"));
    let value = |value: &str| (value != HIVE_NULL).then(|| percent_decoded(value));
    named.map(|(column, found)| FolderValue { column: percent_decoded(column), value: value(found) }).collect()
}

/// Returns the value of a declared column in the folders of a file, in the declared type; `None` where no folder names the
/// column. Refuses (exit 3) a value that does not convert.
pub(super) fn value_in_folders(
    file: &str,
    field: &Field,
    values: &[FolderValue],
    dt: Option<NaiveDate>,
) -> Result<Option<ScalarValue>> {
    let same = |value: &&FolderValue| value.column.to_lowercase() == field.name().to_lowercase();
    let found: Vec<&FolderValue> = values.iter().filter(same).collect();
    let value = match (&found[..], dt) {
        ([], Some(date)) if field.name().eq_ignore_ascii_case("dt") => Some(date.to_string()),
        ([], _) => return Ok(None),
        ([one], _) => one.value.clone(),
        (several, _) => {
            let name = field.name();
            return Err(Failure::input(format!(
                "{file}: {} folders name the column {name}: expected one",
                several.len()
            ))
            .hint("move the file into a folder that names each column once"));
        }
    };
    let text = StringArray::from(vec![value.clone()]);
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    if field.data_type().is_nested() {
        return Err(no_value(file, field, value.as_deref()));
    }
    let typed =
        cast_with_options(&text, field.data_type(), &strict).map_err(|_| no_value(file, field, value.as_deref()))?;
    Ok(Some(ScalarValue::try_from_array(&typed, 0)?))
}

fn no_value(file: &str, field: &Field, value: Option<&str>) -> Failure {
    let (name, value) = (field.name(), value.unwrap_or("null"));
    Failure::input(format!(
        "{file}: column {name} of the folder's name: expected {}, found `{value}`",
        field.data_type()
    ))
    .hint(format!("rename the folder, or declare `{name} VARCHAR` and convert it in the view's SQL"))
}

/// Decodes `%3A` and the like, which writers put for characters that folder names cannot have; other text stays as it is.
fn percent_decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8().map_or_else(|_| text.into(), |decoded| decoded.into_owned())
}

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
fn partition_value<'a>(part: &'a str, key: &str) -> Option<&'a str> {
    let (found, value) = part.split_once('=')?;
    found.eq_ignore_ascii_case(key).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::DataType;

    fn values(path: &str) -> Vec<FolderValue> {
        folder_values(&path.split('/').map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn folders_name_columns_in_the_declared_type() {
        let path = "dt=2026-01-05/country=DE/hour=07/at=10%3A00/none=__HIVE_DEFAULT_PARTITION__/x=1.parquet";
        let found = values(path);
        let date = NaiveDate::from_ymd_opt(2026, 1, 5);
        let read = |name: &str, data_type: DataType| {
            value_in_folders(path, &Field::new(name, data_type, true), &found, date).unwrap()
        };
        assert_eq!(read("Country", DataType::Utf8), Some("DE".into()));
        assert_eq!(read("hour", DataType::Int64), Some(ScalarValue::Int64(Some(7))));
        assert_eq!(read("hour", DataType::Utf8), Some("07".into()));
        assert_eq!(read("at", DataType::Utf8), Some("10:00".into()));
        assert_eq!(read("none", DataType::Int64), Some(ScalarValue::Int64(None)));
        assert_eq!(read("dt", DataType::Utf8), Some("2026-01-05".into()));
        assert_eq!(read("x", DataType::Utf8), None, "the name of a file is no folder");
    }

    #[test]
    fn a_value_that_does_not_convert_is_refused() {
        let read = |path: &str, data_type: DataType| {
            value_in_folders(path, &Field::new("hour", data_type, true), &values(path), None).unwrap_err()
        };
        let refused = read("hour=seven/a.parquet", DataType::Int64);
        assert_eq!(refused.kind.exit_code(), 3);
        assert!(
            refused.message.contains("column hour of the folder's name: expected Int64, found `seven`"),
            "{refused}"
        );
        assert!(read("hour=1/a.parquet", DataType::new_list(DataType::Int64, true)).message.contains("expected List"));
        assert!(read("hour=1/hour=2/a.parquet", DataType::Int64).message.contains("2 folders name"));
    }

    #[test]
    fn text_that_is_not_encoded_stays() {
        assert_eq!(["50%", "%zz", "a%20b", "%ff", "%C3%A9"].map(percent_decoded), ["50%", "%zz", "a b", "%ff", "é"]);
    }
}
