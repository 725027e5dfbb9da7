//! Reads the values of label columns.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use std::collections::BTreeSet;

use crate::failure::{Failure, Result};
use crate::model::table::columns;

/// The words for yes and no, in any case.
const WORDS: [(&str, f64); 8] =
    [("true", 1.0), ("false", 0.0), ("yes", 1.0), ("no", 0.0), ("t", 1.0), ("f", 0.0), ("y", 1.0), ("n", 0.0)];
/// A column with more classes holds ids or texts.
const CLASSES_MAX: usize = 1000;

pub(crate) fn is_text(column: &ArrayRef) -> bool {
    matches!(column.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Returns a label's values as numbers, 1 and 0 for text that means yes and no. Refuses other text and NaN.
pub(crate) fn numeric_labels(name: &str, column: &ArrayRef) -> Result<Vec<f64>> {
    if is_text(column) {
        return yes_or_no_labels(name, column);
    }
    let values = columns::numbers(name, column).map_err(|f| f.at("label"))?;
    match values.iter().position(|v| v.is_nan()) {
        None => Ok(values),
        Some(row) => Err(Failure::input(format!("label {name}: row {} is NaN", row + 1))),
    }
}

/// Returns the values of a label that has only zeros and ones; `None` for any other.
pub(crate) fn binary_labels(name: &str, column: &ArrayRef) -> Option<Vec<f64>> {
    let values = numeric_labels(name, column).ok()?;
    values.iter().all(|v| *v == 0.0 || *v == 1.0).then_some(values)
}

fn yes_or_no_labels(name: &str, column: &ArrayRef) -> Result<Vec<f64>> {
    let array = cast(column, &DataType::Utf8)?;
    let texts: Vec<&str> = array.as_string::<i32>().iter().flatten().collect();
    let mut values = Vec::with_capacity(texts.len());
    for text in &texts {
        let Some((_, value)) = WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(text.trim())) else {
            let distinct: BTreeSet<&str> = texts.iter().copied().take(1000).collect();
            let examples: Vec<&str> = distinct.into_iter().take(4).collect();
            return Err(Failure::input(format!(
                "label {name}: expected true/false, yes/no, 0/1 or numbers, got {text:?}"
            ))
            .hint(format!("convert it to true and false; its first values are {}", examples.join(", "))));
        };
        values.push(*value);
    }
    Ok(values)
}

/// Returns the classes of the training rows in alphabetical order. Refuses a label with one class, or with too many.
pub(crate) fn class_names<'a>(label: &str, texts: &[&'a str], train: &[usize]) -> Result<BTreeSet<&'a str>> {
    let classes: BTreeSet<&str> = train.iter().map(|&row| texts[row]).collect();
    match classes.len() {
        0 | 1 => Err(constant_label(label, train.len(), classes.first().unwrap_or(&"nothing"))),
        2..=CLASSES_MAX => Ok(classes),
        count => Err(Failure::input(format!("label {label}: expected at most {CLASSES_MAX} classes, got {count}"))
            .hint("merge rare classes, or choose another column")),
    }
}

/// The refusal of a label with one value.
pub(crate) fn constant_label(name: &str, rows: usize, value: &str) -> Failure {
    Failure::input(format!(
        "label {name}: all {rows} training rows have the same value, {value}: there is nothing to learn"
    ))
    .hint("choose another column, or add rows")
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BooleanArray, Float64Array, StringArray};
    use std::sync::Arc;

    #[test]
    fn yes_and_no_have_several_words_and_others_are_refused() {
        let labels = |column: ArrayRef| numeric_labels("y", &column);
        assert_eq!(labels(Arc::new(StringArray::from(vec!["TRUE", "no", "Y"]))).unwrap(), [1.0, 0.0, 1.0]);
        assert_eq!(labels(Arc::new(BooleanArray::from(vec![true, false]))).unwrap(), [1.0, 0.0]);
        let refused = labels(Arc::new(StringArray::from(vec!["yes", "maybe"]))).unwrap_err();
        assert_eq!(refused.kind.exit_code(), 3);
        assert!(refused.message.contains("label y: expected true/false") && refused.message.contains("maybe"));
        let nan = labels(Arc::new(Float64Array::from(vec![1.0, f64::NAN]))).unwrap_err();
        assert!(nan.message.contains("row 2 is NaN"), "{nan}");
    }

    #[test]
    fn one_class_and_too_many_classes_are_refused() {
        assert!(class_names("y", &["3", "1", "3"], &[0, 2]).unwrap_err().message.contains("have the same value, 3"));
        let many: Vec<String> = (0..1001).map(|i| i.to_string()).collect();
        let texts: Vec<&str> = many.iter().map(String::as_str).collect();
        let refused = class_names("y", &texts, &(0..1001).collect::<Vec<_>>()).unwrap_err();
        assert_eq!((refused.kind.exit_code(), refused.message.contains("at most 1000 classes, got 1001")), (3, true));
    }
}
