//! Evaluates a classifier on its test rows.

use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

use super::targets::LabelTargets;
use crate::failure::Result;
use crate::metrics::{auc, bootstrap_interval_over_indices, f1};
use crate::model::labels::{LabelHead, LabelStructure};
use crate::training::flat_table::{BOOTSTRAP_ROUNDS, binary_figures};

/// The rows to evaluate on.
pub(crate) struct TestRows<'a> {
    pub(crate) rows: &'a [usize],
    pub(crate) targets: &'a LabelTargets,
    /// Names figures over several labels.
    pub(crate) column: &'a str,
}

/// Returns figures on the test rows, whose logits are on the head's device.
///
/// Independent labels: the figures of binary labels, the share of rows with all labels right, and for several labels
/// their mean AUC. Classes: accuracy, mean F1 and AUC over the classes, and the accuracy of the most frequent class.
/// AUCs have 95 % intervals.
pub(crate) fn test_figures(
    head: &LabelHead,
    logits: &Tensor,
    test: TestRows<'_>,
    seed: u64,
) -> Result<BTreeMap<String, f64>> {
    let TestRows { rows, targets, column } = test;
    let _guard = tch::no_grad_guard();
    let probabilities = by_label(&head.probabilities(logits))?;
    let predicted = by_label(&head.decode(logits))?;
    let truths: Vec<Vec<bool>> = (0..targets.labels.len()).map(|label| targets.truth(label, rows)).collect();
    let all_right = share_of_rows_right(&truths, &predicted, rows.len());
    let mut figures = BTreeMap::new();
    if truths.len() > 1 {
        for (figure, value) in mean_auc(&probabilities, &truths, seed) {
            figures.insert(format!("{figure}_test_{column}"), value);
        }
    }
    if targets.kind == LabelStructure::Single {
        let f1s = truths.iter().zip(&predicted).map(|(truth, predicted)| f1(predicted, truth, 0.5)).sum::<f64>();
        let class_rows = truths.iter().map(|truth| truth.iter().filter(|y| **y).count());
        let most_frequent = class_rows.max().unwrap_or(0) as f64;
        figures.insert(format!("accuracy_test_{column}"), all_right);
        figures.insert(format!("f1_macro_test_{column}"), f1s / truths.len().max(1) as f64);
        figures.insert(format!("accuracy_of_most_frequent_test_{column}"), most_frequent / rows.len() as f64);
        return Ok(figures);
    }
    for (label, truth) in truths.iter().enumerate() {
        let name = &targets.labels[label];
        let mut put = |figure: &str, value: f64| {
            figures.insert(format!("{figure}_test_{name}"), value);
        };
        binary_figures(&probabilities[label], truth, seed, &mut put);
    }
    figures.insert("all_labels_right_test".into(), all_right);
    Ok(figures)
}

/// Transposes float [rows, labels] to one vector per label.
fn by_label(tensor: &Tensor) -> Result<Vec<Vec<f64>>> {
    let columns = tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?.f_transpose(0, 1)?;
    Ok(Vec::<Vec<f64>>::try_from(columns.f_contiguous()?)?)
}

/// Returns the share of rows whose labels are all predicted right.
fn share_of_rows_right(truths: &[Vec<bool>], predicted: &[Vec<f64>], rows: usize) -> f64 {
    let is_right = |row: usize| truths.iter().zip(predicted).all(|(truth, label)| truth[row] == (label[row] > 0.5));
    (0..rows).filter(|&row| is_right(row)).count() as f64 / rows as f64
}

/// Returns the mean AUC of the labels that have both values, with a 95 % bootstrap interval over rows.
fn mean_auc(probabilities: &[Vec<f64>], truths: &[Vec<bool>], seed: u64) -> Vec<(&'static str, f64)> {
    let mean = |rows: &[usize]| {
        let mut sum = 0.0;
        let mut labels = 0.0;
        for (probabilities, truth) in probabilities.iter().zip(truths) {
            let sampled: Vec<f64> = rows.iter().map(|&row| probabilities[row]).collect();
            let sampled_truth: Vec<bool> = rows.iter().map(|&row| truth[row]).collect();
            if let Some(value) = auc(&sampled, &sampled_truth) {
                sum += value;
                labels += 1.0;
            }
        }
        (labels > 0.0).then(|| sum / labels)
    };
    let rows: Vec<usize> = (0..truths.first().map_or(0, Vec::len)).collect();
    let Some(value) = mean(&rows) else { return Vec::new() };
    let mut figures = vec![("auc_macro", value)];
    if let Some((low, high)) = bootstrap_interval_over_indices(rows.len(), BOOTSTRAP_ROUNDS, seed, mean) {
        figures.extend([("auc_macro_low", low), ("auc_macro_high", high)]);
    }
    figures
}
