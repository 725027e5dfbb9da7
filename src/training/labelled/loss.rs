//! The loss of a classifier by kind of label, with class weights and label smoothing. Both the fit of the head alone
//! and the training of all weights minimise it.

use std::sync::Arc;
use tch::{Device, Kind, Tensor};

use super::targets::LabelTargets;
use crate::config::Config;
use crate::config::networks::{ClassWeights, LossName};
use crate::failure::Result;
use crate::model::labels::{LabelHead, LabelStructure};
use crate::model::losses;
use crate::training::flat_table::{class_loss, class_overlap_loss, limit_class_weight};

pub(crate) struct ClassifierLoss {
    pub(crate) targets: Arc<LabelTargets>,
    focal_gamma: f64,
    /// Weights of positives, or of classes: float32 [labels].
    weights: Option<Tensor>,
}

impl ClassifierLoss {
    /// Class weights are those of the training rows.
    pub(crate) fn new(targets: &Arc<LabelTargets>, train: &[usize], config: &Config, device: Device) -> Result<Self> {
        let weights = match config.model.class_weights {
            ClassWeights::None => None,
            ClassWeights::Balanced => {
                Some(Tensor::f_from_slice(&balanced_weights(targets, train))?.f_to_device(device)?)
            }
        };
        Ok(Self { targets: Arc::clone(targets), focal_gamma: config.model.focal_gamma, weights })
    }

    /// Returns the mean loss of logits, float32 [rows, labels], against the zeros and ones of these rows, of the same
    /// shape and on any device. A chain always uses its own likelihood.
    pub(crate) fn mean(
        &self,
        head: &LabelHead,
        logits: &Tensor,
        ones: &Tensor,
        smoothing: f64,
        loss: LossName,
    ) -> Result<Tensor> {
        let kind = self.targets.kind;
        let ones = ones.f_to_device(logits.device())?;
        let has_positive = ones.f_amax([0i64].as_slice(), false)?;
        let uniform = match kind {
            LabelStructure::Single => 1.0 / self.targets.labels.len() as f64,
            LabelStructure::Multi | LabelStructure::Chain => 0.5,
        };
        let smoothed: Tensor = ones * (1.0 - smoothing) + uniform * smoothing;
        let weights = self.weights.as_ref();
        // A match without a wildcard, so that a new loss is not trained as another one.
        Ok(match (kind, loss) {
            (LabelStructure::Chain, LossName::Bce | LossName::Focal | LossName::Iou | LossName::Crf) => {
                head.negative_log_likelihood(logits, &smoothed).mean(Kind::Float)
            }
            (LabelStructure::Single, LossName::Iou) => {
                class_overlap_loss(&logits.softmax(-1, Kind::Float), &smoothed, &has_positive)
            }
            (LabelStructure::Single, LossName::Bce | LossName::Focal | LossName::Crf) => {
                class_loss(loss, self.focal_gamma, logits, &smoothed, weights)
            }
            (LabelStructure::Multi, LossName::Iou) => class_overlap_loss(&logits.sigmoid(), &smoothed, &has_positive),
            (LabelStructure::Multi, LossName::Focal) => {
                losses::focal(logits, &smoothed, self.focal_gamma).mean(Kind::Float)
            }
            (LabelStructure::Multi, LossName::Bce | LossName::Crf) => {
                losses::cross_entropy(logits, &smoothed, weights).mean(Kind::Float)
            }
        })
    }
}

/// Returns weights inversely proportional to how frequent positives, or rows of a class, are in training.
fn balanced_weights(targets: &LabelTargets, train: &[usize]) -> Vec<f32> {
    let rows = train.len() as f64;
    let labels = targets.labels.len();
    let weight = |label| {
        let count = targets.truth(label, train).iter().filter(|y| **y).count() as f64;
        match targets.kind {
            LabelStructure::Single => rows / (labels as f64 * f64::max(count, 1.0)),
            LabelStructure::Multi | LabelStructure::Chain => (rows - count) / f64::max(count, 1.0),
        }
    };
    (0..labels).map(|label| limit_class_weight(weight(label))).collect()
}
