//! What a classifier of texts or pictures is trained by: the losses of each kind of label, with class weights and smoothing. The head
//! alone (`probe`) and everything together (`lesson`) learn by the same.

use std::sync::Arc;
use tch::{Device, Kind, Tensor};

use super::labels::Targets;
use crate::config::Config;
use crate::config::networks::{ClassWeights, LossName};
use crate::failure::Result;
use crate::model::labels::{LabelHead, LabelStructure};
use crate::model::losses;

/// No class weighs more than this, however rare.
const CLASS_WEIGHT_MAX: f64 = 50.0;

pub struct Goal {
    pub targets: Arc<Targets>,
    gamma: f64,
    /// Of positives, or of classes: float32 [labels].
    weights: Option<Tensor>,
}

impl Goal {
    /// Class weights are those of the training rows.
    pub fn new(targets: &Arc<Targets>, train: &[usize], config: &Config, device: Device) -> Result<Self> {
        let weights = match config.model.class_weights {
            ClassWeights::None => None,
            ClassWeights::Balanced => Some(Tensor::f_from_slice(&balanced(targets, train))?.f_to_device(device)?),
        };
        Ok(Self { targets: Arc::clone(targets), gamma: config.model.focal_gamma, weights })
    }

    /// The mean loss of raw scores, float32 [rows, labels], against the zeros and ones of these rows, of the same shape and
    /// on any device. A chain has its own.
    pub fn loss(
        &self,
        (head, raw): (&LabelHead, &Tensor),
        ones: &Tensor,
        smoothing: f64,
        by: LossName,
    ) -> Result<Tensor> {
        let ones = ones.f_to_device(raw.device())?;
        let weights = self.weights.as_ref();
        let even = match self.targets.kind {
            LabelStructure::Single => 1.0 / self.targets.labels.len() as f64,
            LabelStructure::Multi | LabelStructure::Chain => 0.5,
        };
        let there = ones.f_amax([0i64].as_slice(), false)?;
        let ones: Tensor = ones * (1.0 - smoothing) + even * smoothing;
        Ok(match (self.targets.kind, by) {
            // Every loss by its name, so that a new one is not trained as another.
            (LabelStructure::Chain, LossName::Bce | LossName::Focal | LossName::Iou | LossName::Crf) => {
                head.negative_log_likelihood(raw, &ones).mean(Kind::Float)
            }
            (kind @ (LabelStructure::Single | LabelStructure::Multi), LossName::Iou) => {
                let probabilities =
                    if kind == LabelStructure::Single { raw.softmax(-1, Kind::Float) } else { raw.sigmoid() };
                overlap(&probabilities, &ones, &there)
            }
            (LabelStructure::Single, LossName::Bce | LossName::Focal | LossName::Crf) => {
                single(by, self.gamma, raw, &ones, weights)
            }
            (LabelStructure::Multi, LossName::Focal) => losses::focal(raw, &ones, self.gamma).mean(Kind::Float),
            (LabelStructure::Multi, LossName::Bce | LossName::Crf) => {
                losses::cross_entropy(raw, &ones, weights).mean(Kind::Float)
            }
        })
    }
}

/// As much more as positives (or rows of a class) are rarer in training.
fn balanced(targets: &Targets, train: &[usize]) -> Vec<f32> {
    let rows = train.len() as f64;
    let count = |label| targets.truth(label, train).iter().filter(|y| **y).count() as f64;
    let weight = |label| match targets.kind {
        LabelStructure::Single => rows / (targets.labels.len() as f64 * f64::max(count(label), 1.0)),
        LabelStructure::Multi | LabelStructure::Chain => (rows - count(label)) / f64::max(count(label), 1.0),
    };
    let labels = 0..targets.labels.len();
    labels.map(|label| weight(label).clamp(1.0 / CLASS_WEIGHT_MAX, CLASS_WEIGHT_MAX) as f32).collect()
}

/// Cross-entropy and focal loss of one label among several, by the names of those of independent labels.
fn single(loss: LossName, gamma: f64, raw: &Tensor, ones: &Tensor, weights: Option<&Tensor>) -> Tensor {
    let likelihood = raw.log_softmax(-1, Kind::Float);
    let each = match (loss, weights) {
        (LossName::Focal, _) => {
            let missed: Tensor = 1.0 - likelihood.exp();
            ones * missed.pow_tensor_scalar(gamma) * &likelihood
        }
        // `Goal::loss` keeps the overlap to itself.
        (LossName::Bce | LossName::Crf | LossName::Iou, Some(weights)) => ones * &likelihood * weights,
        (LossName::Bce | LossName::Crf | LossName::Iou, None) => ones * &likelihood,
    };
    -each.sum_dim_intlist(-1i64, false, None::<Kind>).mean(Kind::Float)
}

/// One minus the soft overlap, as a mean over the labels that are `there` in the batch. A label without a positive has no
/// overlap to widen: what is left of its gradient, 1 / (1 + Σp)², is larger than that of a batch with positives, and some
/// such batches of a rare label teach every row a no from which its sigmoid does not come back.
fn overlap(probabilities: &Tensor, ones: &Tensor, there: &Tensor) -> Tensor {
    let of_labels = losses::soft_iou_of_probabilities(probabilities, ones) * there;
    of_labels.sum(Kind::Float) / there.sum(Kind::Float).clamp_min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: [f32; 6] = [1.0, 2.0, -1.0, 0.0, 0.5, 0.0];
    /// Of two rows; no one has the last label.
    const ONES: [f32; 6] = [0.0, 1.0, 0.0, 1.0, 0.0, 0.0];

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::from_slice(values).view([-1, 3])
    }

    fn p(row: usize, label: usize) -> f64 {
        let e = |k: usize| f64::from(RAW[row * 3 + k]).exp();
        e(label) / (0..3).map(e).sum::<f64>()
    }

    #[test]
    fn losses_of_single_labels_agree_with_plain_arithmetic() {
        let value = |loss| single(loss, 2.0, &tensor(&RAW), &tensor(&ONES), None).double_value(&[]);
        let bce = -(p(0, 1).ln() + p(1, 0).ln()) / 2.0;
        assert!((value(LossName::Bce) - bce).abs() < 1e-6);
        let of = |p: f64| -(1.0 - p).powi(2) * p.ln();
        assert!((value(LossName::Focal) - (of(p(0, 1)) + of(p(1, 0))) / 2.0).abs() < 1e-6);
    }

    #[test]
    fn the_overlap_is_that_of_the_labels_which_are_there() {
        let iou = |label: usize, truth: [f64; 2]| {
            let shared: f64 = (0..2).map(|row| p(row, label) * truth[row]).sum();
            let either: f64 = (0..2).map(|row| p(row, label) + truth[row] - p(row, label) * truth[row]).sum();
            1.0 - (shared + 1.0) / (either + 1.0)
        };
        let of = |ones: &Tensor| {
            let raw = tensor(&RAW).set_requires_grad(true);
            let there = ones.amax([0i64].as_slice(), false);
            let loss = overlap(&raw.softmax(-1, Kind::Float), ones, &there);
            loss.backward();
            (loss.double_value(&[]), raw.grad().abs().max().double_value(&[]))
        };
        let (value, steep) = of(&tensor(&ONES));
        assert!((value - (iou(0, [0.0, 1.0]) + iou(1, [1.0, 0.0])) / 2.0).abs() < 1e-6 && steep > 0.0);
        assert_eq!(of(&tensor(&ONES).zeros_like()), (0.0, 0.0), "a batch without a positive pulls nowhere");
    }
}
