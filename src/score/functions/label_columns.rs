//! The result columns of `classify_text` and `classify_image`: labels with their probabilities, or one label's probability.

use arrow::array::{ArrayRef, AsArray, Float64Array, Float64Builder, ListArray, StringBuilder, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields};
use std::sync::Arc;

use super::output_cache::Outputs;
use crate::failure::{Failure, Result};

/// The probability of each label of each row; none for a row without a result.
pub(super) type Probabilities = Outputs<f64>;

/// Type of a column: float64 where a call names one label, otherwise list<struct<label, probability>>.
pub(super) fn data_type(labelled: bool) -> DataType {
    if labelled { DataType::Float64 } else { DataType::List(list_item()) }
}

fn list_item() -> Arc<Field> {
    Arc::new(Field::new_list_field(DataType::Struct(fields()), true))
}

fn fields() -> Fields {
    vec![Field::new("label", DataType::Utf8, false), Field::new("probability", DataType::Float64, false)].into()
}

/// The label that a call names on its first row; empty for null.
pub(super) fn named(label: &ArrayRef) -> Result<String> {
    let labels = cast(label, &DataType::Utf8)?;
    Ok(labels.as_string::<i32>().iter().next().flatten().unwrap_or_default().into())
}

/// The place of a label. `function` and `version` are for the message.
pub(super) fn find<L: AsRef<str>>(labels: &[L], wanted: &str, function: &str, version: &str) -> Result<usize> {
    labels.iter().position(|label| label.as_ref() == wanted).ok_or_else(|| {
        let labels: Vec<&str> = labels.iter().map(AsRef::as_ref).collect();
        Failure::usage(format!(
            "{function}: expected one of the labels {} of {version} as third argument, got {wanted:?}",
            labels.join(", ")
        ))
    })
}

/// The column of a call: the probability of the `wanted` label, or of all labels in the order of the card; null for a row
/// without a result.
pub(super) fn column(labels: &[String], wanted: Option<usize>, rows: &Probabilities) -> ArrayRef {
    match wanted {
        None => all_labels(labels, rows),
        Some(place) => Arc::new(rows.iter().map(|row| row.as_ref().map(|row| row[place])).collect::<Float64Array>()),
    }
}

fn all_labels(labels: &[String], rows: &Probabilities) -> ArrayRef {
    let (mut names, mut probabilities) = (StringBuilder::new(), Float64Builder::new());
    for row in rows.iter().flatten() {
        for (label, probability) in labels.iter().zip(row.iter()) {
            names.append_value(label);
            probabilities.append_value(*probability);
        }
    }
    let values = StructArray::new(fields(), vec![Arc::new(names.finish()), Arc::new(probabilities.finish())], None);
    let lengths = rows.iter().map(|row| row.as_ref().map_or(0, |row| row.len()));
    let nulls = NullBuffer::from_iter(rows.iter().map(Option::is_some));
    Arc::new(ListArray::new(list_item(), OffsetBuffer::from_lengths(lengths), Arc::new(values), Some(nulls)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Array;

    #[test]
    fn a_row_without_a_result_is_null_and_an_unknown_label_refused() {
        let row = |p: f64| Some(Arc::from([p, 0.5]));
        let found: Probabilities = vec![row(0.1), None, row(0.2)];
        let labels = ["x".to_string(), "y".to_string()];
        let all = column(&labels, None, &found);
        assert_eq!((0..3).map(|row| all.is_valid(row)).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(all.data_type(), &data_type(false));
        let one = column(&labels, Some(1), &found);
        assert_eq!((one.null_count(), one.len(), one.data_type()), (1, 3, &data_type(true)));
        let wanted: ArrayRef = Arc::new(arrow::array::StringArray::from(vec!["z"]));
        let refused = find(&labels, &named(&wanted).unwrap(), "classify_text", "text-1").unwrap_err();
        assert!(refused.message.contains("one of the labels x, y of text-1"), "{refused}");
    }
}
