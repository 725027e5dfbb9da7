//! LabelStructure of exclusive classes, such as an item's category: reading, loss and figures. Each class is an output of the
//! network, with one softmax over the classes of a label.

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use std::collections::BTreeSet;
use tch::{Kind, Tensor};

use super::targets::Target;
use crate::config::ModelConfig;
use crate::config::networks::LossName;
use crate::failure::Result;
use crate::metrics::bootstrap_interval_over_indices;
use crate::model::table::network::{TableLabel, TableLabelKind};
use crate::training::flat_table::{
    BOOTSTRAP_ROUNDS, class_loss, class_names, class_overlap_loss, is_text, numeric_labels,
};

/// True for text that does not mean yes and no, and for all columns in `categories`.
pub(crate) fn is_class_label(name: &str, column: &ArrayRef, categories: &[String]) -> bool {
    categories.iter().any(|category| category == name) || (is_text(column) && numeric_labels(name, column).is_err())
}

/// Returns a target of zeros and ones for each class of the training rows; `first` is the output of the first class.
pub(crate) fn read_targets(name: &str, column: &ArrayRef, train: &[usize], first: usize) -> Result<Vec<Target>> {
    let array = cast(column, &DataType::LargeUtf8)?;
    let texts: Vec<&str> = array.as_string::<i64>().iter().map(|text| text.unwrap_or_default()).collect();
    let classes = class_names(name, &texts, train)?;
    let count = classes.len();
    tracing::info!("label {name}: learning {count} classes");
    let unknown = texts.iter().filter(|text| !classes.contains(*text)).count();
    if unknown > 0 {
        tracing::warn!("label {name}: figures ignore {unknown} rows whose class is in no training row");
    }
    let target = |class: &str| Target {
        label: TableLabel { name: format!("{name}={class}"), kind: TableLabelKind::Class { first, count } },
        values: texts.iter().map(|text| f64::from(u8::from(*text == class))).collect(),
    };
    Ok(classes.into_iter().map(target).collect())
}

/// Returns the mean loss of logits, float32 [rows, classes], against zeros and ones of the same shape. A row without a
/// one adds nothing. `weights` are float32 [classes].
pub(crate) fn loss(
    logits: &Tensor,
    ones: &Tensor,
    weights: Option<&Tensor>,
    smoothing: f64,
    model: &ModelConfig,
) -> Tensor {
    let has_positive = ones.amax([0i64].as_slice(), false);
    let smoothed: Tensor = ones * (1.0 - smoothing) + smoothing / ones.size()[1] as f64;
    match model.loss {
        LossName::Iou => {
            let probabilities = logits.log_softmax(-1, Kind::Float).exp();
            class_overlap_loss(&probabilities, &smoothed, &has_positive)
        }
        LossName::Bce | LossName::Focal | LossName::Crf => {
            class_loss(model.loss, model.focal_gamma, logits, &smoothed, weights)
        }
    }
}

/// The most probable class of a row, and its class in the table.
#[derive(Clone, Copy)]
struct Choice {
    predicted: usize,
    actual: usize,
}

/// Passes on the accuracy of the most probable class and the mean F1 of the classes (of those that occur or are
/// predicted), with 95 % bootstrap intervals over rows. `probabilities` and `truths` are by class.
pub(crate) fn test_figures(
    probabilities: &[Vec<f64>],
    truths: &[Vec<bool>],
    seed: u64,
    put: &mut dyn FnMut(&str, f64),
) {
    let rows = 0..truths.first().map_or(0, Vec::len);
    let choices: Vec<Choice> = rows.filter_map(|row| choice(probabilities, truths, row)).collect();
    type Metric = fn(&[Choice]) -> Option<f64>;
    for (name, metric) in [("accuracy", accuracy as Metric), ("f1_macro", f1_macro)] {
        let Some(value) = metric(&choices) else { continue };
        put(name, value);
        let of_sample = |rows: &[usize]| metric(&rows.iter().map(|&row| choices[row]).collect::<Vec<Choice>>());
        let interval = bootstrap_interval_over_indices(choices.len(), BOOTSTRAP_ROUNDS, seed, of_sample);
        if let Some((low, high)) = interval {
            put(&format!("{name}_low"), low);
            put(&format!("{name}_high"), high);
        }
    }
    let counts = (0..truths.len()).map(|class| choices.iter().filter(|choice| choice.actual == class).count());
    let most_frequent = counts.max().unwrap_or_default();
    put("accuracy_of_most_frequent", most_frequent as f64 / choices.len().max(1) as f64);
}

/// `None` for a row whose class is in no training row.
fn choice(probabilities: &[Vec<f64>], truths: &[Vec<bool>], row: usize) -> Option<Choice> {
    let actual = truths.iter().position(|truth| truth[row])?;
    let by_probability = |a: &usize, b: &usize| probabilities[*a][row].total_cmp(&probabilities[*b][row]);
    let predicted = (0..probabilities.len()).max_by(by_probability).unwrap_or_default();
    Some(Choice { predicted, actual })
}

fn accuracy(choices: &[Choice]) -> Option<f64> {
    let right = choices.iter().filter(|choice| choice.predicted == choice.actual).count();
    (!choices.is_empty()).then(|| right as f64 / choices.len() as f64)
}

fn f1_macro(choices: &[Choice]) -> Option<f64> {
    let classes: BTreeSet<usize> = choices.iter().flat_map(|choice| [choice.predicted, choice.actual]).collect();
    let f1 = |class: usize| {
        let count = |is: &dyn Fn(&Choice) -> bool| choices.iter().filter(|choice| is(choice)).count() as f64;
        let predicted = count(&|choice| choice.predicted == class);
        let actual = count(&|choice| choice.actual == class);
        let both = count(&|choice| choice.predicted == class && choice.actual == class);
        2.0 * both / (predicted + actual)
    };
    (!choices.is_empty()).then(|| classes.iter().map(|class| f1(*class)).sum::<f64>() / classes.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use std::sync::Arc;

    #[test]
    fn texts_and_named_codes_are_classes_but_yes_and_no_are_not() {
        let texts = |texts: Vec<&str>| Arc::new(StringArray::from(texts)) as ArrayRef;
        assert!(is_class_label("y", &texts(vec!["bag", "shoe"]), &[]));
        assert!(!is_class_label("y", &texts(vec!["yes", "no"]), &[]));
        let codes: ArrayRef = Arc::new(Int64Array::from(vec![3, 1, 2, 3]));
        assert!(!is_class_label("y", &codes, &[]) && is_class_label("y", &codes, &["y".into()]));
        // The class of the third row is in no training row.
        let targets = read_targets("y", &codes, &[0, 1, 3], 5).unwrap();
        let names: Vec<&str> = targets.iter().map(|t| t.label.name.as_str()).collect();
        assert_eq!((names, targets[1].values.as_slice()), (vec!["y=1", "y=3"], [1.0, 0.0, 0.0, 1.0].as_slice()));
        assert!(targets.iter().all(|t| t.label.kind == TableLabelKind::Class { first: 5, count: 2 }));
        assert!(read_targets("y", &codes, &[0, 3], 0).unwrap_err().message.contains("have the same value, 3"));
    }

    #[test]
    fn each_loss_agrees_with_plain_arithmetic() {
        let tensor = |values: [f64; 4]| Tensor::from_slice(&values).to_kind(Kind::Float).view([2, 2]);
        let (logits, ones) = (tensor([1.0, 3.0, 0.0, 0.0]), tensor([0.0, 1.0, 1.0, 0.0]));
        let p = [3f64.exp() / (1f64.exp() + 3f64.exp()), 0.5];
        let value =
            |model: &ModelConfig, weights: Option<&Tensor>| loss(&logits, &ones, weights, 0.0, model).double_value(&[]);
        let mut model = ModelConfig::default();
        assert!((value(&model, None) + (p[0].ln() + p[1].ln()) / 2.0).abs() < 1e-6);
        let weights = Tensor::from_slice(&[2f32, 1.0]);
        assert!((value(&model, Some(&weights)) + (p[0].ln() + 2.0 * p[1].ln()) / 2.0).abs() < 1e-6);
        model.loss = LossName::Focal;
        model.focal_gamma = 2.0;
        let focal = |p: f64| (1.0 - p).powi(2) * p.ln();
        assert!((value(&model, None) + (focal(p[0]) + focal(p[1])) / 2.0).abs() < 1e-6);
    }

    #[test]
    fn figures_ignore_rows_of_unknown_classes() {
        // Predicted: a, a, b, b; actual: a, b, b, unknown.
        let probabilities = [vec![0.9, 0.8, 0.1, 0.2], vec![0.1, 0.2, 0.9, 0.8]];
        let truths = [vec![true, false, false, false], vec![false, true, true, false]];
        let mut figures = std::collections::BTreeMap::new();
        test_figures(&probabilities, &truths, 1, &mut |name, value| {
            figures.insert(name.to_string(), value);
        });
        let close_to_two_thirds = |name: &str| (figures[name] - 2.0 / 3.0).abs() < 1e-9;
        assert!(close_to_two_thirds("accuracy") && close_to_two_thirds("f1_macro"), "{figures:?}");
        assert!(close_to_two_thirds("accuracy_of_most_frequent"), "{figures:?}");
        assert!(figures["accuracy_low"] < figures["accuracy"] && figures["accuracy_high"] == 1.0, "{figures:?}");
    }
}
