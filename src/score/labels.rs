//! What `classify_text` and `classify_image` give: columns of labels and their probabilities, out of rows that may have none.

use arrow::array::{ArrayRef, AsArray, Float64Array, Float64Builder, ListArray, StringBuilder, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields};
use std::sync::Arc;

use super::distinct::Answers;
use crate::failure::{Failure, Result};

/// The probability of each label of each row; none where a row has no answer.
pub type Probabilities = Answers<f64>;

/// What a label and its probability are called.
pub fn fields() -> Fields {
    vec![Field::new("label", DataType::Utf8, false), Field::new("probability", DataType::Float64, false)].into()
}

/// list<struct<label, probability>> [rows]: all labels in the order of the card; null where a row has no answer.
pub fn lists(names: &[String], rows: &Probabilities) -> ArrayRef {
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
pub fn column(rows: &Probabilities, place: usize) -> ArrayRef {
    Arc::new(rows.iter().map(|row| row.as_ref().map(|row| row[place])).collect::<Float64Array>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Array;

    #[test]
    fn what_has_no_answer_is_null_and_an_unknown_label_is_refused() {
        let row = |p: f64| Some(Arc::from([p, 0.5]));
        let found: Probabilities = vec![row(0.1), None, row(0.2)];
        let names = ["x".to_string(), "y".to_string()];
        let lists = lists(&names, &found);
        assert_eq!((0..3).map(|row| lists.is_valid(row)).collect::<Vec<_>>(), [true, false, true]);
        let column = column(&found, 1);
        assert_eq!((column.null_count(), column.len()), (1, 3));
        let wanted: ArrayRef = Arc::new(arrow::array::StringArray::from(vec!["z"]));
        let refused = place(&names, &wanted, "classify_text", "text-1").unwrap_err();
        assert!(refused.message.contains("one of the labels x, y of text-1"), "{refused}");
    }
}
