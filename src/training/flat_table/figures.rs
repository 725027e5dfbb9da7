//! Figures of binary labels.

use crate::metrics::{accuracy, auc, average_precision, bootstrap_interval, f1};

/// Bootstrap samples per interval.
pub(crate) const BOOTSTRAP_ROUNDS: usize = 1000;

/// Passes on AUC and average precision with 95 % intervals, accuracy and F1 at one half, and the share of positives.
pub(crate) fn binary_figures(predicted: &[f64], truth: &[bool], seed: u64, put: &mut dyn FnMut(&str, f64)) {
    type Metric = fn(&[f64], &[bool]) -> Option<f64>;
    for (name, metric) in [("auc", auc as Metric), ("ap", average_precision)] {
        let Some(value) = metric(predicted, truth) else { continue };
        put(name, value);
        if let Some((low, high)) = bootstrap_interval(predicted, truth, metric, BOOTSTRAP_ROUNDS, seed) {
            put(&format!("{name}_low"), low);
            put(&format!("{name}_high"), high);
        }
    }
    put("accuracy", accuracy(predicted, truth, 0.5));
    put("f1", f1(predicted, truth, 0.5));
    put("positives", truth.iter().filter(|y| **y).count() as f64 / truth.len().max(1) as f64);
}
