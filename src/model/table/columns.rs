//! How the columns of a table become numbers: what training learnt of each, kept in the model's card.
//!
//! Numbers (and booleans) take the road of the users' tabular features: signed log, standardised, a flag where null.
//! Categories are looked up; null has a place of its own, and what training saw rarely or never shares another one. Vectors
//! are read by `vectors`.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

use super::vectors::{self, VectorRows, VectorScale};
use crate::failure::{Failure, Result};
use crate::model::inputs::signed_log;

/// A category seen in fewer training rows is treated as one that was never seen, so that "never seen" is learnt too.
const CATEGORY_ROWS_MIN: usize = 10;
/// Places of categories: null, and rare or never seen; the known ones follow.
const NULL: i64 = 0;
const UNKNOWN: i64 = 1;
const FIRST: i64 = 2;
/// Standardised numbers are kept within this many deviations.
pub(super) const DEVIATIONS_MAX: f32 = 8.0;

/// What training learnt of a column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnKind {
    /// Mean and deviation of the signed log.
    Number { mean: f32, deviation: f32 },
    /// The known categories, in order.
    Category { values: Vec<String> },
    /// Mean and deviation of each place.
    Vector(VectorScale),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    pub kind: ColumnKind,
}

/// The input columns of a model, in order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Columns(pub Vec<Column>);

/// Rows as the network takes them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TableInputs {
    pub rows: usize,
    /// Row-major [rows, 2 × numbers]: standardised values (0 where null), then null flags.
    pub reals: Vec<f32>,
    /// Row-major [rows, categories].
    pub categories: Vec<i64>,
    /// Of each column of vectors.
    pub vectors: Vec<VectorRows>,
}

/// What a type of Arrow is to a model of tables; `None` for what it has no use for.
fn is_category(given: &DataType) -> Option<bool> {
    match given {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(true),
        DataType::Dictionary(_, values) => is_category(values),
        DataType::Boolean | DataType::Null => Some(false),
        other if other.is_numeric() => Some(false),
        _ => None,
    }
}

impl Columns {
    /// Learns the named columns from the training rows of a table; `categories` are categories whatever their type.
    pub fn fit(
        table: &RecordBatch,
        names: &[String],
        categories: &[String],
        rows: &[usize],
        categories_max: usize,
    ) -> Result<Self> {
        let mut columns = Vec::new();
        for name in names {
            let array = table.column(table.schema().index_of(name)?);
            let (given, coded) = (array.data_type(), categories.contains(name));
            let vector = vectors::is_vector(given) && !coded;
            let of_type = is_category(given).or(vector.then_some(false)).ok_or_else(|| {
                let expected = match coded {
                    true => "codes for --category: numbers, booleans or text",
                    false => "numbers, booleans, text or vectors (lists of numbers)",
                };
                Failure::usage(format!("column {name}: expected {expected}, got {given}"))
                    .hint(format!("make a number or a text of it, or pass --exclude {name}"))
            })?;
            // Of logical nulls: a column that holds nothing else may have a type without a validity bitmap.
            if array.logical_nulls().is_some_and(|nulls| rows.iter().all(|&row| nulls.is_null(row))) {
                return Err(Failure::input(format!("column {name}: all {} rows of training are null", rows.len()))
                    .hint(format!("pass --exclude {name}, or mend the file")));
            }
            let kind = if vector {
                ColumnKind::Vector(VectorScale::fit(name, array, rows)?)
            } else if of_type || coded {
                known(&texts(array)?, rows, categories_max)
            } else {
                standard(name, &numbers(name, array)?, rows)?
            };
            columns.push(Column { name: name.clone(), kind });
        }
        Ok(Self(columns))
    }

    /// How many columns are numbers.
    pub fn numbers(&self) -> usize {
        self.0.iter().filter(|c| matches!(c.kind, ColumnKind::Number { .. })).count()
    }

    /// How many places each category column has.
    pub fn places(&self) -> Vec<i64> {
        let places = |c: &Column| match &c.kind {
            ColumnKind::Category { values } => Some(values.len() as i64 + FIRST),
            ColumnKind::Number { .. } | ColumnKind::Vector(_) => None,
        };
        self.0.iter().filter_map(places).collect()
    }

    /// How many numbers the vectors of each column of vectors have.
    pub fn widths(&self) -> Vec<i64> {
        let widths = |c: &Column| match &c.kind {
            ColumnKind::Vector(scale) => Some(scale.width as i64),
            ColumnKind::Number { .. } | ColumnKind::Category { .. } => None,
        };
        self.0.iter().filter_map(widths).collect()
    }

    /// Reads rows; `column` finds one by its name.
    pub fn read(&self, rows: usize, column: impl Fn(&str) -> Option<ArrayRef>) -> Result<TableInputs> {
        let (mut values, mut places, mut vectors) = (Vec::new(), Vec::new(), Vec::new());
        for Column { name, kind } in &self.0 {
            let array = column(name).ok_or_else(|| {
                let names: Vec<&str> = self.0.iter().map(|c| c.name.as_str()).collect();
                Failure::model(format!("column {name} is missing"))
                    .hint(format!("the model reads {}", names.join(", ")))
            })?;
            match kind {
                ColumnKind::Number { mean, deviation } => values.push((numbers(name, &array)?, *mean, *deviation)),
                ColumnKind::Category { values } => {
                    let index: HashMap<&str, i64> = values.iter().map(String::as_str).zip(FIRST..).collect();
                    let place = |text: &Option<String>| match text {
                        Some(text) => index.get(text.as_str()).copied().unwrap_or(UNKNOWN),
                        None => NULL,
                    };
                    places.push(texts(&array)?.iter().map(place).collect::<Vec<i64>>());
                }
                ColumnKind::Vector(scale) => vectors.push(scale.read(name, &array)?),
            }
        }
        let mut inputs = TableInputs { rows, vectors, ..Default::default() };
        for row in 0..rows {
            inputs.reals.extend(values.iter().map(|(column, mean, deviation)| match column[row] {
                value if value.is_nan() => 0.0,
                value => ((signed_log(value) - mean) / deviation).clamp(-DEVIATIONS_MAX, DEVIATIONS_MAX),
            }));
            inputs.reals.extend(values.iter().map(|(column, ..)| f32::from(u8::from(column[row].is_nan()))));
            inputs.categories.extend(places.iter().map(|column| column[row]));
        }
        Ok(inputs)
    }
}

/// Values as numbers, NaN where null; refuses text and infinity.
pub fn numbers(name: &str, array: &ArrayRef) -> Result<Vec<f64>> {
    if is_category(array.data_type()) != Some(false) {
        return Err(Failure::input(format!("column {name}: expected numbers, got {}", array.data_type())));
    }
    let array = cast(array, &DataType::Float64)?;
    let values: Vec<f64> = array.as_primitive::<Float64Type>().iter().map(|v| v.unwrap_or(f64::NAN)).collect();
    match values.iter().position(|v| v.is_infinite()) {
        None => Ok(values),
        Some(row) => Err(Failure::input(format!("column {name}: row {} is infinite", row + 1))
            .hint("a division by zero is the usual cause; make it null")),
    }
}

fn texts(array: &ArrayRef) -> Result<Vec<Option<String>>> {
    Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().iter().map(|t| t.map(String::from)).collect())
}

/// The most frequent categories that are no rarities, in alphabetical order.
fn known(texts: &[Option<String>], rows: &[usize], categories_max: usize) -> ColumnKind {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    rows.iter().filter_map(|&row| texts[row].as_deref()).for_each(|text| *counts.entry(text).or_default() += 1);
    let mut frequent: Vec<(&str, usize)> = counts.into_iter().filter(|(_, n)| *n >= CATEGORY_ROWS_MIN).collect();
    frequent.sort_by_key(|&(text, n)| (std::cmp::Reverse(n), text));
    frequent.truncate(categories_max);
    let mut values: Vec<String> = frequent.into_iter().map(|(text, _)| text.into()).collect();
    values.sort();
    ColumnKind::Category { values }
}

/// Mean and deviation of what is not null.
fn standard(name: &str, values: &[f64], rows: &[usize]) -> Result<ColumnKind> {
    let known: Vec<f64> =
        rows.iter().map(|&r| values[r]).filter(|v| !v.is_nan()).map(|v| signed_log(v).into()).collect();
    if known.is_empty() {
        return Err(Failure::input(format!("column {name}: all {} rows of training are NaN", rows.len())));
    }
    let n = known.len() as f64;
    let mean = known.iter().sum::<f64>() / n;
    let deviation = (known.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n).sqrt();
    Ok(ColumnKind::Number { mean: mean as f32, deviation: deviation_of(mean, deviation) })
}

/// What never varied says nothing, later values neither: its deviation is the largest number there is.
pub(super) fn deviation_of(mean: f64, deviation: f64) -> f32 {
    let constant = deviation <= 1e-6 * mean.abs().max(1e-3);
    if constant { f32::MAX } else { deviation as f32 }
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

    fn fit(table: &RecordBatch, categories: &[String]) -> Result<Columns> {
        let names: Vec<String> = table.schema().fields().iter().map(|f| f.name().clone()).collect();
        let rows: Vec<usize> = (0..table.num_rows()).collect();
        Columns::fit(table, &names, categories, &rows, 3)
    }

    fn read(columns: &Columns, table: &RecordBatch) -> TableInputs {
        columns.read(table.num_rows(), |name| table.column_by_name(name).cloned()).unwrap()
    }

    #[test]
    fn numbers_are_standardised_and_nulls_flagged() {
        let number: ArrayRef =
            Arc::new(Float64Array::from(vec![Some(0.0), None, Some(1f64.exp() - 1.0), Some(f64::NAN)]));
        let flag: ArrayRef = Arc::new(BooleanArray::from(vec![true, false, true, false]));
        let same: ArrayRef = Arc::new(Int64Array::from(vec![7; 4]));
        let table = batch(vec![("number", number), ("flag", flag), ("same", same)]);
        let inputs = read(&fit(&table, &[]).unwrap(), &table);
        let rows: Vec<Vec<f32>> =
            inputs.reals.chunks(6).map(|r| r.iter().map(|v| (v * 1e4).round() / 1e4).collect()).collect();
        assert_eq!(rows[0], [-1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(rows[1], [0.0, -1.0, 0.0, 1.0, 0.0, 0.0]);
        assert_eq!(rows[2], [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(rows[3], [0.0, -1.0, 0.0, 1.0, 0.0, 0.0], "NaN is read as null");
    }

    #[test]
    fn rare_unseen_and_null_categories_have_their_places() {
        // a 40, b 30, c 20, d 10 (one too many), e 5 (too rare), null 3.
        let texts = [("a", 40), ("b", 30), ("c", 20), ("d", 10), ("e", 5)].map(|(t, n)| vec![Some(t); n]).concat();
        let texts: ArrayRef = Arc::new(StringArray::from([texts, vec![None; 3]].concat()));
        let codes: ArrayRef = Arc::new(Int64Array::from_iter_values((0..108).map(|i| i % 2)));
        let table = batch(vec![("text", texts), ("code", codes)]);
        let columns = fit(&table, &["code".into()]).unwrap();
        assert_eq!((columns.places(), columns.numbers()), (vec![5, 4], 0));
        let seen: ArrayRef =
            Arc::new(StringArray::from(vec![Some("a"), Some("c"), Some("d"), Some("e"), Some("z"), None]));
        let codes: ArrayRef = Arc::new(Int64Array::from(vec![0, 1, 0, 1, 9, 1]));
        let inputs = read(&columns, &batch(vec![("code", codes), ("text", seen)]));
        assert_eq!(inputs.categories, [2, 2, 4, 3, 1, 2, 1, 3, 1, 1, 0, 3]);
    }

    #[test]
    fn columns_without_values_or_of_no_use_are_refused_by_name() {
        let null: ArrayRef = Arc::new(Float64Array::from(vec![None; 3]));
        let refused = fit(&batch(vec![("empty", null)]), &[]).unwrap_err();
        assert_eq!(refused.kind.exit_code(), 3);
        assert!(
            refused.to_string().contains("column empty: all 3 rows of training are null\nhint: pass --exclude empty")
        );
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
    fn a_model_says_which_column_it_misses() {
        let table = batch(vec![("x", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)]);
        let columns = fit(&table, &[]).unwrap();
        let missing = columns.read(1, |_| None).unwrap_err();
        assert_eq!((missing.kind.exit_code(), missing.message.as_str()), (6, "column x is missing"));
        let text: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        assert_eq!(columns.read(1, |_| Some(Arc::clone(&text))).unwrap_err().kind.exit_code(), 3);
    }
}
