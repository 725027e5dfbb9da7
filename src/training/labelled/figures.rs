//! How good a classifier is on its test rows.

use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

use super::labels::Targets;
use crate::failure::Result;
use crate::metrics::{auc, bootstrap_interval, f1};
use crate::model::labels::{LabelHead, LabelStructure};
use crate::training::table::lesson::{BOOTSTRAP_ROUNDS, binary_figures};

/// Labels of their own: as a table's binary ones; several, also the mean of their AUCs, and the share of rows with all of
/// them right. Classes: accuracy, F1 and AUC averaged over the classes, accuracy of the most frequent class. AUCs have 95 %
/// intervals. `raw` has the scores of the rows `test`, on the head's device; `column` is what several labels are called by.
pub fn figures(
    (head, raw): (&LabelHead, &Tensor),
    (targets, test): (&Targets, &[usize]),
    column: &str,
    seed: u64,
) -> Result<BTreeMap<String, f64>> {
    let _guard = tch::no_grad_guard();
    let by_label = |tensor: Tensor| -> Result<Vec<Vec<f64>>> {
        let columns = tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?.f_transpose(0, 1)?;
        Ok(Vec::<Vec<f64>>::try_from(columns.f_contiguous()?)?)
    };
    let probabilities = by_label(head.probabilities(raw))?;
    let decoded = by_label(head.decode(raw))?;
    let truths: Vec<Vec<bool>> = (0..targets.labels.len()).map(|label| targets.truth(label, test)).collect();
    let right = |row: usize| truths.iter().zip(&decoded).all(|(truth, got)| truth[row] == (got[row] > 0.5));
    let rows = test.len() as f64;
    let right = (0..test.len()).filter(|&row| right(row)).count() as f64 / rows;
    let mut figures = BTreeMap::new();
    if truths.len() > 1 {
        for (figure, value) in auc_macro(&probabilities, &truths, seed) {
            figures.insert(format!("{figure}_test_{column}"), value);
        }
    }
    if targets.kind == LabelStructure::Single {
        let f1s = truths.iter().zip(&decoded).map(|(truth, decoded)| f1(decoded, truth, 0.5)).sum::<f64>();
        let of_class = |truth: &Vec<bool>| truth.iter().filter(|y| **y).count();
        let most = truths.iter().map(of_class).max().unwrap_or(0) as f64;
        figures.insert(format!("accuracy_test_{column}"), right);
        figures.insert(format!("f1_macro_test_{column}"), f1s / truths.len().max(1) as f64);
        figures.insert(format!("accuracy_of_most_frequent_test_{column}"), most / rows);
        return Ok(figures);
    }
    for (label, truth) in truths.iter().enumerate() {
        let name = &targets.labels[label];
        let mut put = |figure: &str, value: f64| {
            figures.insert(format!("{figure}_test_{name}"), value);
        };
        binary_figures(&probabilities[label], truth, seed, &mut put);
    }
    figures.insert("all_labels_right_test".into(), right);
    Ok(figures)
}

/// The mean of the AUCs of all labels that have both values, with a 95 % interval over rows drawn with replacement.
fn auc_macro(probabilities: &[Vec<f64>], truths: &[Vec<bool>], seed: u64) -> Vec<(&'static str, f64)> {
    let rows = truths.first().map_or(0, Vec::len);
    let mean = |drawn: &[usize]| {
        let (mut sum, mut labels) = (0.0, 0.0);
        for (probabilities, truth) in probabilities.iter().zip(truths) {
            let of: Vec<f64> = drawn.iter().map(|&row| probabilities[row]).collect();
            let truth: Vec<bool> = drawn.iter().map(|&row| truth[row]).collect();
            if let Some(value) = auc(&of, &truth) {
                (sum, labels) = (sum + value, labels + 1.0);
            }
        }
        (labels > 0.0).then(|| sum / labels)
    };
    let all: Vec<usize> = (0..rows).collect();
    let Some(value) = mean(&all) else { return Vec::new() };
    let mut figures = vec![("auc_macro", value)];
    // What is drawn are the rows' numbers: the figure looks up what belongs to them.
    let numbers: Vec<f64> = all.iter().map(|&row| row as f64).collect();
    let of_drawn = |drawn: &[f64], _: &[bool]| mean(&drawn.iter().map(|&row| row as usize).collect::<Vec<_>>());
    if let Some((low, high)) = bootstrap_interval(&numbers, &vec![true; rows], of_drawn, BOOTSTRAP_ROUNDS, seed) {
        figures.extend([("auc_macro_low", low), ("auc_macro_high", high)]);
    }
    figures
}
