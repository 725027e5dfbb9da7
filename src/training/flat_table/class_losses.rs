//! Losses of labels with exclusive classes, and limits of class weights.

use tch::{Kind, Tensor};

use crate::config::networks::LossName;
use crate::model::losses;

/// No class weighs more than this, however rare, and none less than its inverse.
const CLASS_WEIGHT_MAX: f64 = 50.0;

pub(crate) fn limit_class_weight(weight: f64) -> f32 {
    weight.clamp(1.0 / CLASS_WEIGHT_MAX, CLASS_WEIGHT_MAX) as f32
}

/// Returns the mean cross-entropy or focal loss of logits, float32 [rows, classes], against zeros and ones of the same
/// shape. A row without a one adds nothing. `weights` are float32 [classes]; the focal loss ignores them. The overlap
/// has a function of its own: [`class_overlap_loss`].
pub(crate) fn class_loss(
    loss: LossName,
    gamma: f64,
    logits: &Tensor,
    ones: &Tensor,
    weights: Option<&Tensor>,
) -> Tensor {
    let likelihood = logits.log_softmax(-1, Kind::Float);
    let weighted = match (loss, weights) {
        (LossName::Focal, _) => {
            let missed: Tensor = 1.0 - likelihood.exp();
            ones * missed.pow_tensor_scalar(gamma) * &likelihood
        }
        (LossName::Bce | LossName::Crf | LossName::Iou, Some(weights)) => ones * &likelihood * weights,
        (LossName::Bce | LossName::Crf | LossName::Iou, None) => ones * &likelihood,
    };
    -weighted.sum_dim_intlist(-1i64, false, None::<Kind>).mean(Kind::Float)
}

/// Returns one minus the soft overlap, averaged over the labels with a positive in the batch; `has_positive` is float32
/// [labels]. A label without a positive has no overlap to increase: its remaining gradient, 1 / (1 + Σp)², is larger
/// than that of a batch with positives, and a few such batches of a rare label drive its sigmoid to a no from which it
/// does not recover.
pub(crate) fn class_overlap_loss(probabilities: &Tensor, ones: &Tensor, has_positive: &Tensor) -> Tensor {
    let by_label = losses::soft_iou_of_probabilities(probabilities, ones) * has_positive;
    by_label.sum(Kind::Float) / has_positive.sum(Kind::Float).clamp_min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 6] = [1.0, 2.0, -1.0, 0.0, 0.5, 0.0];
    /// Two rows; none has the last label.
    const ONES: [f32; 6] = [0.0, 1.0, 0.0, 1.0, 0.0, 0.0];

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::from_slice(values).view([-1, 3])
    }

    /// Returns the softmax by plain arithmetic.
    fn probability(row: usize, label: usize) -> f64 {
        let exp = |k: usize| f64::from(LOGITS[row * 3 + k]).exp();
        exp(label) / (0..3).map(exp).sum::<f64>()
    }

    #[test]
    fn class_losses_agree_with_plain_arithmetic() {
        let value = |loss, weights: Option<&Tensor>| {
            class_loss(loss, 2.0, &tensor(&LOGITS), &tensor(&ONES), weights).double_value(&[])
        };
        let right = [probability(0, 1), probability(1, 0)];
        let bce = -(right[0].ln() + right[1].ln()) / 2.0;
        assert!((value(LossName::Bce, None) - bce).abs() < 1e-6);
        let weights = Tensor::from_slice(&[2f32, 1.0, 1.0]);
        let weighted = -(right[0].ln() + 2.0 * right[1].ln()) / 2.0;
        assert!((value(LossName::Bce, Some(&weights)) - weighted).abs() < 1e-6);
        let focal = |p: f64| -(1.0 - p).powi(2) * p.ln();
        assert!((value(LossName::Focal, None) - (focal(right[0]) + focal(right[1])) / 2.0).abs() < 1e-6);
    }

    #[test]
    fn the_overlap_is_the_mean_over_labels_with_a_positive() {
        let iou = |label: usize, truth: [f64; 2]| {
            let p = |row| probability(row, label);
            let shared: f64 = (0..2).map(|row| p(row) * truth[row]).sum();
            let either: f64 = (0..2).map(|row| p(row) + truth[row] - p(row) * truth[row]).sum();
            1.0 - (shared + 1.0) / (either + 1.0)
        };
        let loss_and_steepest_slope = |ones: &Tensor| {
            let logits = tensor(&LOGITS).set_requires_grad(true);
            let has_positive = ones.amax([0i64].as_slice(), false);
            let loss = class_overlap_loss(&logits.softmax(-1, Kind::Float), ones, &has_positive);
            loss.backward();
            (loss.double_value(&[]), logits.grad().abs().max().double_value(&[]))
        };
        let (value, slope) = loss_and_steepest_slope(&tensor(&ONES));
        let expected = (iou(0, [0.0, 1.0]) + iou(1, [1.0, 0.0])) / 2.0;
        assert!((value - expected).abs() < 1e-6 && slope > 0.0);
        let without_positives = loss_and_steepest_slope(&tensor(&ONES).zeros_like());
        assert_eq!(without_positives, (0.0, 0.0), "a batch without positives has no gradient");
    }
}
