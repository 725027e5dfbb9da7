//! Labels of classes that rule each other out, such as an item's category: each class is an output of the network, with one
//! softmax over all of a label's. Here they are read, and here are their loss and their figures.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use std::collections::BTreeSet;
use tch::{Kind, Tensor};

use super::labels::{self, Target, nothing_to_learn};
use super::lesson::BOOTSTRAP_ROUNDS;
use crate::config::ModelConfig;
use crate::config::networks::LossName;
use crate::failure::{Failure, Result};
use crate::metrics::bootstrap_interval;
use crate::model::losses;
use crate::model::table::network::{TableLabel, TableLabelKind};

/// More classes than this are no classes: ids, or texts.
const CLASSES_MAX: usize = 1000;

/// Whether a label is of classes: text that says neither yes nor no, or whatever `--category` names.
pub fn is_label(name: &str, column: &ArrayRef, categories: &[String]) -> bool {
    let text = matches!(column.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    categories.iter().any(|category| category == name) || (text && labels::values(name, column).is_err())
}

/// A target of zeros and ones for each class that training rows have; `first` is the output of the first.
pub fn read(name: &str, column: &ArrayRef, train: &[usize], first: usize) -> Result<Vec<Target>> {
    let texts = cast(column, &DataType::LargeUtf8)?;
    let texts: Vec<&str> = texts.as_string::<i64>().iter().map(|text| text.unwrap_or_default()).collect();
    let classes: BTreeSet<&str> = train.iter().map(|&row| texts[row]).collect();
    let count = classes.len();
    match count {
        0 | 1 => return Err(nothing_to_learn(name, train.len(), classes.first().unwrap_or(&"nothing"))),
        2..=CLASSES_MAX => {}
        _ => {
            return Err(Failure::input(format!("label {name}: expected at most {CLASSES_MAX} classes, got {count}"))
                .hint("put the rare ones together, or choose another column"));
        }
    }
    tracing::info!("label {name}: learnt as {count} classes");
    let unknown = texts.iter().filter(|text| !classes.contains(*text)).count();
    if unknown > 0 {
        tracing::warn!("label {name}: {unknown} rows of classes that no training row has are left out of its figures");
    }
    let target = |class: &str| Target {
        label: TableLabel { name: format!("{name}={class}"), kind: TableLabelKind::Class { first, count } },
        values: texts.iter().map(|text| f64::from(u8::from(*text == class))).collect(),
    };
    Ok(classes.into_iter().map(target).collect())
}

/// The mean loss of raw outputs, float32 [rows, classes], against zeros and ones of the same shape. A row without a one adds
/// nothing. `weights` are those of the classes.
pub fn loss(raw: &Tensor, ones: &Tensor, weights: Option<&Tensor>, smoothing: f64, model: &ModelConfig) -> Tensor {
    let likelihood = raw.log_softmax(-1, Kind::Float);
    let there = ones.amax([0i64].as_slice(), false);
    let ones: Tensor = ones * (1.0 - smoothing) + smoothing / ones.size()[1] as f64;
    let each = match (model.loss, weights) {
        (LossName::Iou, _) => {
            // Of a class that the batch has not, there is no overlap to widen.
            let of_classes = losses::soft_iou_of_probabilities(&likelihood.exp(), &ones) * &there;
            return of_classes.sum(Kind::Float) / there.sum(Kind::Float).clamp_min(1.0);
        }
        (LossName::Focal, _) => {
            let missed: Tensor = 1.0 - likelihood.exp();
            ones * missed.pow_tensor_scalar(model.focal_gamma) * &likelihood
        }
        (LossName::Bce | LossName::Crf, Some(weights)) => ones * &likelihood * weights,
        (LossName::Bce | LossName::Crf, None) => ones * &likelihood,
    };
    -each.sum_dim_intlist(-1i64, false, None::<Kind>).mean(Kind::Float)
}

/// How often the most probable class is the right one, and the mean of the classes' F1 (of those that some row has or is
/// said to have), with 95 % intervals over rows drawn with replacement. `probabilities` and `truths` are by class.
pub fn figures(probabilities: &[Vec<f64>], truths: &[Vec<bool>], seed: u64, put: &mut dyn FnMut(&str, f64)) {
    let rows = 0..truths.first().map_or(0, Vec::len);
    let chosen = |row: usize| {
        let by = |a: &usize, b: &usize| probabilities[*a][row].total_cmp(&probabilities[*b][row]);
        (0..probabilities.len()).max_by(by).unwrap_or_default()
    };
    let truth = |row: usize| truths.iter().position(|truth| truth[row]);
    let pairs: Vec<(usize, usize)> = rows.filter_map(|row| Some((chosen(row), truth(row)?))).collect();
    // What is drawn are the rows' numbers: the figure looks up what belongs to them.
    let numbers: Vec<f64> = (0..pairs.len()).map(|row| row as f64).collect();
    for (name, of) in [("accuracy", accuracy as fn(&[(usize, usize)]) -> Option<f64>), ("f1_macro", f1_macro)] {
        let Some(value) = of(&pairs) else { continue };
        put(name, value);
        let of_drawn =
            |drawn: &[f64], _: &[bool]| of(&drawn.iter().map(|&row| pairs[row as usize]).collect::<Vec<_>>());
        let known = vec![true; pairs.len()];
        if let Some((low, high)) = bootstrap_interval(&numbers, &known, of_drawn, BOOTSTRAP_ROUNDS, seed) {
            put(&format!("{name}_low"), low);
            put(&format!("{name}_high"), high);
        }
    }
    let most = (0..truths.len()).map(|class| pairs.iter().filter(|pair| pair.1 == class).count()).max();
    put("accuracy_of_most_frequent", most.unwrap_or_default() as f64 / pairs.len().max(1) as f64);
}

/// Of chosen and right classes.
fn accuracy(pairs: &[(usize, usize)]) -> Option<f64> {
    let right = pairs.iter().filter(|(chosen, truth)| chosen == truth).count();
    (!pairs.is_empty()).then(|| right as f64 / pairs.len() as f64)
}

fn f1_macro(pairs: &[(usize, usize)]) -> Option<f64> {
    let classes: BTreeSet<usize> = pairs.iter().flat_map(|(chosen, truth)| [*chosen, *truth]).collect();
    let f1 = |class: usize| {
        let count = |is: &dyn Fn(&(usize, usize)) -> bool| pairs.iter().filter(|pair| is(pair)).count() as f64;
        let (chosen, truth) = (count(&|pair| pair.0 == class), count(&|pair| pair.1 == class));
        2.0 * count(&|pair| *pair == (class, class)) / (chosen + truth)
    };
    (!pairs.is_empty()).then(|| classes.iter().map(|class| f1(*class)).sum::<f64>() / classes.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use std::sync::Arc;

    #[test]
    fn texts_and_named_codes_are_classes_and_yes_or_no_is_not() {
        let of = |texts: Vec<&str>| Arc::new(StringArray::from(texts)) as ArrayRef;
        assert!(is_label("y", &of(vec!["bag", "shoe"]), &[]) && !is_label("y", &of(vec!["yes", "no"]), &[]));
        let codes: ArrayRef = Arc::new(Int64Array::from(vec![3, 1, 2, 3]));
        assert!(!is_label("y", &codes, &[]) && is_label("y", &codes, &["y".into()]));
        // The class of the third row is none that training knows.
        let targets = read("y", &codes, &[0, 1, 3], 5).unwrap();
        let names: Vec<&str> = targets.iter().map(|t| t.label.name.as_str()).collect();
        assert_eq!((names, targets[1].values.as_slice()), (vec!["y=1", "y=3"], [1.0, 0.0, 0.0, 1.0].as_slice()));
        assert!(targets.iter().all(|t| t.label.kind == TableLabelKind::Class { first: 5, count: 2 }));
        assert!(read("y", &codes, &[0, 3], 0).unwrap_err().message.contains("have the same value, 3"));
        let many: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1001));
        let refused = read("y", &many, &(0..1001).collect::<Vec<_>>(), 0).unwrap_err();
        assert_eq!((refused.kind.exit_code(), refused.message.contains("at most 1000 classes, got 1001")), (3, true));
    }

    #[test]
    fn the_losses_agree_with_plain_arithmetic() {
        let (raw, ones) = ([1.0f64, 3.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0]);
        let tensor = |values: &[f64]| Tensor::from_slice(values).to_kind(Kind::Float).view([2, 2]);
        let p = [3f64.exp() / (1f64.exp() + 3f64.exp()), 0.5];
        let of = |model: &ModelConfig, weights: Option<&Tensor>| {
            loss(&tensor(&raw), &tensor(&ones), weights, 0.0, model).double_value(&[])
        };
        let mut model = ModelConfig::default();
        assert!((of(&model, None) + (p[0].ln() + p[1].ln()) / 2.0).abs() < 1e-6);
        let weights = Tensor::from_slice(&[2f32, 1.0]);
        assert!((of(&model, Some(&weights)) + (p[0].ln() + 2.0 * p[1].ln()) / 2.0).abs() < 1e-6);
        model.loss = LossName::Focal;
        model.focal_gamma = 2.0;
        let focal = |p: f64| (1.0 - p).powi(2) * p.ln();
        assert!((of(&model, None) + (focal(p[0]) + focal(p[1])) / 2.0).abs() < 1e-6);
    }

    #[test]
    fn figures_count_what_was_chosen_and_leave_unknown_classes_out() {
        // Chosen: a, a, b, b; right: a, b, b, none of them.
        let probabilities = [vec![0.9, 0.8, 0.1, 0.2], vec![0.1, 0.2, 0.9, 0.8]];
        let truths = [vec![true, false, false, false], vec![false, true, true, false]];
        let mut got = std::collections::BTreeMap::new();
        figures(&probabilities, &truths, 1, &mut |name, value| {
            got.insert(name.to_string(), value);
        });
        assert!((got["accuracy"] - 2.0 / 3.0).abs() < 1e-9 && (got["f1_macro"] - 2.0 / 3.0).abs() < 1e-9, "{got:?}");
        assert!((got["accuracy_of_most_frequent"] - 2.0 / 3.0).abs() < 1e-9);
        assert!(got["accuracy_low"] < got["accuracy"] && got["accuracy_high"] == 1.0, "{got:?}");
    }
}
