//! Turns the columns of a table into numbers with the scales and categories that training learnt; the model's card
//! holds them.
//!
//! Numbers and booleans are transformed like the users' tabular features: signed logarithm, standardised, with a flag
//! for null. Categories are looked up: null has an index, and all rare and unseen categories share another.
//! `vector_columns` transforms vectors.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

use super::scaling::{fit_scale, standardise};
use super::vector_columns::{self, VectorRows, VectorScale};
use crate::failure::{Failure, Result};
use crate::model::inputs::signed_log;

/// A category in fewer training rows is treated as unseen, so that the network also learns about unseen categories.
const CATEGORY_ROWS_MIN: usize = 10;
/// The index of null.
const NULL: i64 = 0;
/// The index of rare and unseen categories.
const UNKNOWN: i64 = 1;
/// The index of the first known category.
const FIRST: i64 = 2;

/// The scale or the categories of a column, learnt in training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ColumnKind {
    /// The mean and deviation of the signed logarithm.
    Number { mean: f32, deviation: f32 },
    /// The known categories, in the order of their indices.
    Category { values: Vec<String> },
    /// The mean and deviation of each dimension.
    Vector(VectorScale),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableColumn {
    pub(crate) name: String,
    pub(crate) kind: ColumnKind,
}

/// The input columns of a model, in order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TableColumns(pub Vec<TableColumn>);

/// The numbers of some rows that the network takes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct TableInputs {
    pub(crate) rows: usize,
    /// Row-major [rows, 2 × numbers]: standardised values (0 where null), then null flags.
    pub(crate) reals: Vec<f32>,
    /// Row-major [rows, categories].
    pub(crate) categories: Vec<i64>,
    /// Vectors of each vector column.
    pub(crate) vectors: Vec<VectorRows>,
}

/// Returns true for types of categories, false for types of numbers, `None` for others.
fn type_is_category(given: &DataType) -> Option<bool> {
    match given {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(true),
        DataType::Dictionary(_, values) => type_is_category(values),
        DataType::Boolean | DataType::Null => Some(false),
        other if other.is_numeric() => Some(false),
        _ => None,
    }
}

impl TableColumns {
    /// Learns the named columns from the training rows of a table. The columns in `categories` are categories whatever
    /// their type.
    pub(crate) fn fit(
        table: &RecordBatch,
        names: &[String],
        categories: &[String],
        rows: &[usize],
        categories_max: usize,
    ) -> Result<Self> {
        let mut columns = Vec::new();
        for name in names {
            let array = table.column(table.schema().index_of(name)?);
            let data_type = array.data_type();
            let is_code = categories.contains(name);
            let is_vector = vector_columns::is_vector(data_type) && !is_code;
            let is_category = type_is_category(data_type).or(is_vector.then_some(false)).ok_or_else(|| {
                let expected = match is_code {
                    true => "codes for --category: numbers, booleans or text",
                    false => "numbers, booleans, text or vectors (lists of numbers)",
                };
                Failure::usage(format!("column {name}: expected {expected}, got {data_type}"))
                    .hint(format!("convert it to a number or text, or pass --exclude {name}"))
            })?;
            // Logical nulls, because a column of nulls may have a type without a validity bitmap.
            if array.logical_nulls().is_some_and(|nulls| rows.iter().all(|&row| nulls.is_null(row))) {
                return Err(Failure::input(format!("column {name}: all {} training rows are null", rows.len()))
                    .hint(format!("pass --exclude {name}, or fix the file")));
            }
            let kind = if is_vector {
                ColumnKind::Vector(VectorScale::fit(name, array, rows)?)
            } else if is_category || is_code {
                fit_category(&texts(array)?, rows, categories_max)
            } else {
                fit_number(name, &numbers(name, array)?, rows)?
            };
            columns.push(TableColumn { name: name.clone(), kind });
        }
        Ok(Self(columns))
    }

    /// The number of numeric columns.
    pub(crate) fn numbers(&self) -> usize {
        self.0.iter().filter(|c| matches!(c.kind, ColumnKind::Number { .. })).count()
    }

    /// The number of indices of each category column.
    pub(crate) fn category_counts(&self) -> Vec<i64> {
        let count = |c: &TableColumn| match &c.kind {
            ColumnKind::Category { values } => Some(values.len() as i64 + FIRST),
            ColumnKind::Number { .. } | ColumnKind::Vector(_) => None,
        };
        self.0.iter().filter_map(count).collect()
    }

    /// The length of the vectors of each column of vectors.
    pub(crate) fn vector_widths(&self) -> Vec<i64> {
        let width = |c: &TableColumn| match &c.kind {
            ColumnKind::Vector(scale) => Some(scale.width as i64),
            ColumnKind::Number { .. } | ColumnKind::Category { .. } => None,
        };
        self.0.iter().filter_map(width).collect()
    }

    /// Turns rows into numbers. `column` returns a column by its name.
    pub(crate) fn transform(&self, rows: usize, column: impl Fn(&str) -> Option<ArrayRef>) -> Result<TableInputs> {
        let mut scaled_columns = Vec::new();
        let mut category_columns = Vec::new();
        let mut vectors = Vec::new();
        for TableColumn { name, kind } in &self.0 {
            let array = column(name).ok_or_else(|| {
                let names: Vec<&str> = self.0.iter().map(|c| c.name.as_str()).collect();
                Failure::model(format!("column {name} is missing"))
                    .hint(format!("the model reads {}", names.join(", ")))
            })?;
            match kind {
                ColumnKind::Number { mean, deviation } => {
                    scaled_columns.push((numbers(name, &array)?, *mean, *deviation));
                }
                ColumnKind::Category { values } => {
                    let indices: HashMap<&str, i64> = values.iter().map(String::as_str).zip(FIRST..).collect();
                    let index = |text: &Option<String>| match text {
                        Some(text) => indices.get(text.as_str()).copied().unwrap_or(UNKNOWN),
                        None => NULL,
                    };
                    category_columns.push(texts(&array)?.iter().map(index).collect::<Vec<i64>>());
                }
                ColumnKind::Vector(scale) => vectors.push(scale.transform(name, &array)?),
            }
        }
        let mut inputs = TableInputs { rows, vectors, ..Default::default() };
        for row in 0..rows {
            inputs.reals.extend(scaled_columns.iter().map(|(column, mean, deviation)| match column[row] {
                value if value.is_nan() => 0.0,
                value => standardise(signed_log(value), *mean, *deviation),
            }));
            inputs.reals.extend(scaled_columns.iter().map(|(column, ..)| f32::from(u8::from(column[row].is_nan()))));
            inputs.categories.extend(category_columns.iter().map(|column| column[row]));
        }
        Ok(inputs)
    }
}

/// Returns the values of a column as numbers, NaN for null. Refuses text and infinity.
pub(crate) fn numbers(name: &str, array: &ArrayRef) -> Result<Vec<f64>> {
    if type_is_category(array.data_type()) != Some(false) {
        return Err(Failure::input(format!("column {name}: expected numbers, got {}", array.data_type())));
    }
    let floats = cast(array, &DataType::Float64)?;
    let values: Vec<f64> = floats.as_primitive::<Float64Type>().iter().map(|v| v.unwrap_or(f64::NAN)).collect();
    match values.iter().position(|v| v.is_infinite()) {
        None => Ok(values),
        Some(row) => Err(Failure::input(format!("column {name}: row {} is infinite", row + 1))
            .hint("the usual cause is a division by zero; use null instead")),
    }
}

fn texts(array: &ArrayRef) -> Result<Vec<Option<String>>> {
    Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().iter().map(|t| t.map(String::from)).collect())
}

/// Learns the most frequent categories that are not rare, in alphabetical order.
fn fit_category(texts: &[Option<String>], rows: &[usize], categories_max: usize) -> ColumnKind {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    rows.iter().filter_map(|&row| texts[row].as_deref()).for_each(|text| *counts.entry(text).or_default() += 1);
    let mut frequent: Vec<(&str, usize)> = counts.into_iter().filter(|(_, n)| *n >= CATEGORY_ROWS_MIN).collect();
    frequent.sort_by_key(|&(text, n)| (std::cmp::Reverse(n), text));
    frequent.truncate(categories_max);
    let mut values: Vec<String> = frequent.into_iter().map(|(text, _)| text.into()).collect();
    values.sort();
    ColumnKind::Category { values }
}

/// Learns the mean and deviation of the values that are not null.
fn fit_number(name: &str, values: &[f64], rows: &[usize]) -> Result<ColumnKind> {
    let known: Vec<f64> =
        rows.iter().map(|&r| values[r]).filter(|v| !v.is_nan()).map(|v| signed_log(v).into()).collect();
    if known.is_empty() {
        return Err(Failure::input(format!("column {name}: all {} training rows are NaN", rows.len())));
    }
    let (mean, deviation) = fit_scale(known.into_iter());
    Ok(ColumnKind::Number { mean, deviation })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BooleanArray, Float64Array, Int64Array, ListArray, StringArray};
    use arrow::datatypes::Field;
    use std::sync::Arc;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
    }

    fn fit(table: &RecordBatch, categories: &[String]) -> Result<TableColumns> {
        let names: Vec<String> = table.schema().fields().iter().map(|f| f.name().clone()).collect();
        let rows: Vec<usize> = (0..table.num_rows()).collect();
        TableColumns::fit(table, &names, categories, &rows, 3)
    }

    fn transform(columns: &TableColumns, table: &RecordBatch) -> TableInputs {
        columns.transform(table.num_rows(), |name| table.column_by_name(name).cloned()).unwrap()
    }

    #[test]
    fn numbers_are_standardised_and_nulls_flagged() {
        let number: ArrayRef =
            Arc::new(Float64Array::from(vec![Some(0.0), None, Some(1f64.exp() - 1.0), Some(f64::NAN)]));
        let flag: ArrayRef = Arc::new(BooleanArray::from(vec![true, false, true, false]));
        let same: ArrayRef = Arc::new(Int64Array::from(vec![7; 4]));
        let table = batch(vec![("number", number), ("flag", flag), ("same", same)]);
        let inputs = transform(&fit(&table, &[]).unwrap(), &table);
        let rows: Vec<Vec<f32>> =
            inputs.reals.chunks(6).map(|r| r.iter().map(|v| (v * 1e4).round() / 1e4).collect()).collect();
        assert_eq!(rows[0], [-1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(rows[1], [0.0, -1.0, 0.0, 1.0, 0.0, 0.0]);
        assert_eq!(rows[2], [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(rows[3], [0.0, -1.0, 0.0, 1.0, 0.0, 0.0], "NaN is treated as null");
    }

    #[test]
    fn rare_unseen_and_null_categories_have_indices() {
        // 40 rows of a, 30 of b, 20 of c, 10 of d (more categories than allowed), 5 of e (too rare), 3 of null.
        let texts = [("a", 40), ("b", 30), ("c", 20), ("d", 10), ("e", 5)].map(|(t, n)| vec![Some(t); n]).concat();
        let texts: ArrayRef = Arc::new(StringArray::from([texts, vec![None; 3]].concat()));
        let codes: ArrayRef = Arc::new(Int64Array::from_iter_values((0..108).map(|i| i % 2)));
        let table = batch(vec![("text", texts), ("code", codes)]);
        let columns = fit(&table, &["code".into()]).unwrap();
        assert_eq!((columns.category_counts(), columns.numbers()), (vec![5, 4], 0));
        let seen: ArrayRef =
            Arc::new(StringArray::from(vec![Some("a"), Some("c"), Some("d"), Some("e"), Some("z"), None]));
        let codes: ArrayRef = Arc::new(Int64Array::from(vec![0, 1, 0, 1, 9, 1]));
        let inputs = transform(&columns, &batch(vec![("code", codes), ("text", seen)]));
        assert_eq!(inputs.categories, [2, 2, 4, 3, 1, 2, 1, 3, 1, 1, 0, 3]);
    }

    #[test]
    fn empty_and_unsupported_columns_are_refused_by_name() {
        let null: ArrayRef = Arc::new(Float64Array::from(vec![None; 3]));
        let refused = fit(&batch(vec![("empty", null)]), &[]).unwrap_err();
        assert_eq!(refused.kind.exit_code(), 3);
        assert!(refused.to_string().contains("column empty: all 3 training rows are null\nhint: pass --exclude empty"));
        let infinite: ArrayRef = Arc::new(Float64Array::from(vec![1.0, f64::INFINITY]));
        let refused = fit(&batch(vec![("x", infinite)]), &[]).unwrap_err();
        assert!(refused.message.contains("column x: row 2 is infinite"), "{refused}");
        let day: ArrayRef = Arc::new(arrow::array::Date32Array::from(vec![1, 2]));
        assert_eq!(fit(&batch(vec![("day", day)]), &[]).unwrap_err().kind.exit_code(), 2);
        let rows = vec![Some(vec![Some(1.0)]), None];
        let vectors: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(rows));
        let refused = fit(&batch(vec![("v", vectors)]), &["v".into()]).unwrap_err();
        assert!(refused.message.contains("column v: expected codes for --category"), "{refused}");
        let words: ArrayRef = Arc::new(ListArray::new_null(Arc::new(Field::new_list_field(DataType::Utf8, true)), 2));
        let refused = fit(&batch(vec![("words", words)]), &[]).unwrap_err();
        assert!(refused.message.contains("column words: expected numbers, booleans, text or vectors"), "{refused}");
    }

    #[test]
    fn a_missing_column_is_refused_by_name() {
        let table = batch(vec![("x", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)]);
        let columns = fit(&table, &[]).unwrap();
        let missing = columns.transform(1, |_| None).unwrap_err();
        assert_eq!((missing.kind.exit_code(), missing.message.as_str()), (6, "column x is missing"));
        let text: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        assert_eq!(columns.transform(1, |_| Some(Arc::clone(&text))).unwrap_err().kind.exit_code(), 3);
    }
}
