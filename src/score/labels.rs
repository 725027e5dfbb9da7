//! What `classify_text` and `classify_image` give: columns of labels and their probabilities, out of rows that may have none.
//! Rows that are equal cost one pass.

use arrow::array::{ArrayRef, AsArray, Float64Array, Float64Builder, ListArray, StringBuilder, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use crate::failure::{Failure, Result};

/// The probability of each label of each row; none where a row has no answer.
pub type Answers = Vec<Option<Arc<[f64]>>>;

/// What a label and its probability are called.
pub fn fields() -> Fields {
    vec![Field::new("label", DataType::Utf8, false), Field::new("probability", DataType::Float64, false)].into()
}

/// list<struct<label, probability>> [rows]: all labels in the order of the card; null where a row has no answer.
pub fn lists(names: &[String], rows: &Answers) -> ArrayRef {
    let (mut labels, mut probabilities) = (StringBuilder::new(), Float64Builder::new());
    for row in rows.iter().flatten() {
        for (label, probability) in names.iter().zip(row.iter()) {
            labels.append_value(label);
            probabilities.append_value(*probability);
        }
    }
    let values = StructArray::new(fields(), vec![Arc::new(labels.finish()), Arc::new(probabilities.finish())], None);
    let lengths = rows.iter().map(|row| row.as_ref().map_or(0, |row| row.len()));
    let nulls = NullBuffer::from_iter(rows.iter().map(Option::is_some));
    let item = Arc::new(Field::new_list_field(DataType::Struct(fields()), true));
    Arc::new(ListArray::new(item, OffsetBuffer::from_lengths(lengths), Arc::new(values), Some(nulls)))
}

/// The place of the label that `wanted` names on every row; `function` and `version` are what a refusal calls them.
pub fn place(names: &[String], wanted: &ArrayRef, function: &str, version: &str) -> Result<usize> {
    let wanted = cast(wanted, &DataType::Utf8)?;
    let wanted = wanted.as_string::<i32>().iter().next().flatten().unwrap_or_default();
    names.iter().position(|label| label == wanted).ok_or_else(|| {
        Failure::usage(format!(
            "{function}: expected one of the labels {} of {version} as third argument, got {wanted:?}",
            names.join(", ")
        ))
    })
}

/// float64 [rows]: the probability of the label at a place; null where a row has no answer.
pub fn column(rows: &Answers, place: usize) -> ArrayRef {
    Arc::new(rows.iter().map(|row| row.as_ref().map(|row| row[place])).collect::<Float64Array>())
}

/// What `of` says of the rows that are there; it sees each different one once.
pub fn answers<T: Copy + Eq + Hash>(
    rows: &[Option<T>],
    of: impl FnOnce(&[T]) -> Result<Vec<Option<Vec<f64>>>>,
) -> Result<Answers> {
    let (mut places, mut distinct) = (HashMap::new(), Vec::new());
    for &row in rows.iter().flatten() {
        places.entry(row).or_insert_with(|| {
            distinct.push(row);
            distinct.len() - 1
        });
    }
    let found: Answers = of(&distinct)?.into_iter().map(|row| row.map(Arc::from)).collect();
    let answer = |row: T| places.get(&row).and_then(|&place| found[place].clone());
    Ok(rows.iter().map(|row| row.and_then(answer)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Array;

    #[test]
    fn equal_rows_are_asked_once_and_what_has_no_answer_is_null() {
        let rows = [Some("a"), None, Some("bad"), Some("a"), Some("b")];
        let mut asked = Vec::new();
        let found = answers(&rows, |distinct| {
            asked = distinct.to_vec();
            Ok(distinct.iter().map(|row| (*row != "bad").then(|| vec![row.len() as f64, 0.5])).collect())
        });
        let found = found.unwrap();
        assert_eq!(asked, ["a", "bad", "b"]);
        let names = ["x".to_string(), "y".to_string()];
        let lists = lists(&names, &found);
        assert_eq!((0..5).map(|row| lists.is_valid(row)).collect::<Vec<_>>(), [true, false, false, true, true]);
        let column = column(&found, 1);
        assert_eq!((column.null_count(), column.len()), (2, 5));
        let wanted: ArrayRef = Arc::new(arrow::array::StringArray::from(vec!["z"]));
        let refused = place(&names, &wanted, "classify_text", "text-1").unwrap_err();
        assert!(refused.message.contains("one of the labels x, y of text-1"), "{refused}");
    }
}
