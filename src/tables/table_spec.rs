//! Declaration of a published table: its grain, its keys, its columns with type and meaning.
//!
//! [`published`](super::published) holds the declarations. The Arrow and Delta schemas (`schemas`), docs/reference/tables.md
//! (`reference`), sql/checks/keys.sql and values.sql (`generated_checks`) follow from them.

use arrow::datatypes::{DataType, TimeUnit};

/// One published table.
#[derive(Debug, Clone, Copy)]
pub struct TableSpec {
    pub name: &'static str,
    /// Completes the sentence "One row per …".
    pub(crate) grain: &'static str,
    /// Columns that identify a row within a night. Empty where rows may repeat.
    pub key: &'static [&'static str],
    /// Further column sets in which no two rows of a night agree.
    pub(crate) also_unique: &'static [&'static [&'static str]],
    /// Columns of the data files: all but `run_date`.
    pub(crate) columns: &'static [Column],
}

impl TableSpec {
    /// Every column set that must be unique and not null within a night.
    pub(crate) fn unique_sets(&self) -> impl Iterator<Item = &'static [&'static str]> {
        [self.key].into_iter().chain(self.also_unique.iter().copied()).filter(|columns| !columns.is_empty())
    }
}

/// One column of a published table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) kind: ColumnType,
    /// Meaning and unit; a column that may be null says when after `; null `, and a check holds the others to it.
    pub(crate) meaning: &'static str,
}

impl Column {
    /// Returns when the column may be null; `None` for one that never is.
    pub(crate) fn null_when(&self) -> Option<&'static str> {
        self.meaning.split_once("; null ").map(|(_, when)| when)
    }
}

pub(crate) const fn column(name: &'static str, kind: ColumnType, meaning: &'static str) -> Column {
    Column { name, kind, meaning }
}

/// The column types that published tables use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColumnType {
    Text,
    Date,
    /// An instant in UTC.
    Time,
    Int32,
    Int64,
    Float64,
    Boolean,
}

impl ColumnType {
    pub(crate) fn arrow(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::Date => DataType::Date32,
            Self::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::Float64 => DataType::Float64,
            Self::Boolean => DataType::Boolean,
        }
    }
}

/// Concatenates column lists, so that a declaration can include columns that are declared elsewhere.
pub(crate) const fn concatenated<const N: usize>(parts: &[&[Column]]) -> [Column; N] {
    let mut all = [column("", ColumnType::Text, ""); N];
    let (mut part, mut to) = (0, 0);
    while part < parts.len() {
        let mut from = 0;
        while from < parts[part].len() {
            all[to] = parts[part][from];
            from += 1;
            to += 1;
        }
        part += 1;
    }
    assert!(to == N, "the lengths of the parts do not add up");
    all
}
