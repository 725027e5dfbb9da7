//! How a table is learnt, by the loop that all trainings share, and the figures on its test rows.

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::ops::Range;
use tch::{Kind, Tensor};

use super::classes;
use super::labels::Target;
use crate::config::networks::{AmountLossName, ClassWeights, LossName};
use crate::config::{Config, ModelConfig};
use crate::failure::{Failure, Result};
use crate::metrics::root_mean_squared_error;
use crate::metrics::{accuracy, auc, average_precision, bootstrap_interval, f1, mean_absolute_error};
use crate::model::losses;
use crate::model::table::bundle::to_vec;
use crate::model::table::columns::TableInputs;
use crate::model::table::network::{TableBatch, TableLabelKind, TableNetwork, row_indices};
use crate::training::fitting::{BatchLoss, Batches, Epoch, GroupBatch, TrainingTask, Validation, batches_of_groups};

/// Rows of one forward pass without gradients.
const EVALUATED_ROWS: usize = 4096;
/// Draws of an interval.
pub const BOOTSTRAP_ROUNDS: usize = 1000;
/// No class weighs more than this, however rare.
const CLASS_WEIGHT_MAX: f64 = 50.0;
/// Where the Huber loss turns linear, in deviations.
const HUBER_DELTA: f64 = 1.0;
/// Between Poisson (1) and gamma (2).
const TWEEDIE_POWER: f64 = 1.5;

pub struct TableLesson<'a> {
    network: &'a TableNetwork,
    /// All rows.
    inputs: TableBatch,
    truths: Truths,
    targets: &'a [Target],
    train: Vec<usize>,
    valid: &'a [usize],
    test: &'a [usize],
    model: &'a ModelConfig,
    label_smoothing: f64,
    /// The weight of a positive of each label, or of a class: float32 [1].
    positive_weights: Vec<Option<Tensor>>,
    batch_rows: usize,
}

impl<'a> TableLesson<'a> {
    pub fn new(
        network: &'a TableNetwork,
        inputs: &TableInputs,
        targets: &'a [Target],
        [train, valid, test]: &'a [Vec<usize>; 3],
        config: &'a Config,
    ) -> Result<Self> {
        if config.model.loss == LossName::Crf {
            return Err(Failure::usage("model.loss: expected bce, focal or iou for a table, got crf")
                .hint("the chain is one of intents; leave model.loss and model.head out"));
        }
        let weight = |target: &Target| {
            let (rows, positives) = (train.len() as f64, target.classes(train).iter().filter(|y| **y).count() as f64);
            let rarer = match (config.model.class_weights, target.label.kind) {
                (ClassWeights::Balanced, TableLabelKind::Binary) => (rows - positives) / positives.max(1.0),
                (ClassWeights::Balanced, TableLabelKind::Class { count, .. }) => {
                    rows / (count as f64 * positives.max(1.0))
                }
                _ => return Ok(None),
            };
            let weight = rarer.clamp(1.0 / CLASS_WEIGHT_MAX, CLASS_WEIGHT_MAX) as f32;
            Ok(Some(Tensor::f_from_slice(&[weight])?.f_to_device(network.device)?))
        };
        Ok(Self {
            network,
            inputs: TableBatch::from_inputs(inputs, &network.shape)?,
            truths: Truths::of(targets)?,
            targets,
            train: train.clone(),
            valid,
            test,
            model: &config.model,
            label_smoothing: config.train.label_smoothing,
            positive_weights: targets.iter().map(weight).collect::<Result<_>>()?,
            batch_rows: config.train.batch_rows as usize,
        })
    }

    /// The sum over the labels of their mean losses.
    fn objective(&self, raw: &Tensor, Truths(truths): &Truths, smoothing: f64) -> Result<Tensor> {
        let mut sum = Tensor::from(0f32).f_to_device(self.network.device)?;
        for (k, target) in self.targets.iter().enumerate() {
            if let TableLabelKind::Class { first, count } = target.label.kind {
                if k == first {
                    sum += self.classes(raw, first..first + count, truths, smoothing)?;
                }
                continue;
            }
            let actual = truths[k].f_to_device(self.network.device)?;
            let raw = raw.f_select(1, k as i64)?;
            sum += match target.label.kind {
                TableLabelKind::Binary => {
                    let actual = actual * (1.0 - smoothing) + 0.5 * smoothing;
                    self.binary(&raw, &actual, self.positive_weights[k].as_ref())
                }
                TableLabelKind::Amount { .. } => self.number(&(raw.softplus() + 1e-6), &actual),
                TableLabelKind::Number { .. } | TableLabelKind::Class { .. } => self.number(&raw, &actual),
            };
        }
        Ok(sum)
    }

    /// Of all classes of one label, which stand side by side.
    fn classes(&self, raw: &Tensor, at: Range<usize>, truths: &[Tensor], smoothing: f64) -> Result<Tensor> {
        let (first, count) = (at.start as i64, at.len() as i64);
        let ones = Tensor::f_stack(&truths[at.clone()], 1)?.f_to_device(self.network.device)?;
        let weights: Vec<&Tensor> = self.positive_weights[at].iter().flatten().collect();
        let weights = if weights.is_empty() { None } else { Some(Tensor::f_cat(&weights, 0)?) };
        Ok(classes::loss(&raw.f_narrow(1, first, count)?, &ones, weights.as_ref(), smoothing, self.model))
    }

    fn binary(&self, raw: &Tensor, actual: &Tensor, weight: Option<&Tensor>) -> Tensor {
        match self.model.loss {
            LossName::Bce | LossName::Crf => losses::cross_entropy(raw, actual, weight).mean(Kind::Float),
            LossName::Focal => losses::focal(raw, actual, self.model.focal_gamma).mean(Kind::Float),
            LossName::Iou => losses::soft_iou(&raw.unsqueeze(1), &actual.unsqueeze(1)).sum(Kind::Float),
        }
    }

    fn number(&self, expected: &Tensor, actual: &Tensor) -> Tensor {
        let each = match self.model.amount_loss {
            AmountLossName::Poisson => losses::poisson(expected, actual),
            AmountLossName::Mse => losses::squared_error(expected, actual),
            AmountLossName::Mae => losses::absolute_error(expected, actual),
            AmountLossName::Rmse => losses::root_mean_squared_error(expected, actual),
            AmountLossName::Huber => losses::huber(expected, actual, HUBER_DELTA),
            AmountLossName::Tweedie => losses::tweedie(expected, actual, TWEEDIE_POWER),
            AmountLossName::NegativeBinomial => losses::negative_binomial(expected, &expected.ones_like(), actual),
        };
        each.mean(Kind::Float)
    }

    /// Raw outputs without gradients, float32 [rows, labels].
    fn raw(&self, rows: &[usize]) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let part = |chunk: &[usize]| self.network.raw_outputs(&self.inputs.select(&row_indices(chunk)?)?, false);
        Ok(Tensor::f_cat(&rows.chunks(EVALUATED_ROWS).map(part).collect::<Result<Vec<_>>>()?, 0)?)
    }

    /// Of the test rows. Binary labels: AUC and average precision with 95 % intervals, accuracy and F1 at one half, the
    /// share of positives. Classes: how often the most probable one is right, and macro F1. Others: mean absolute and root
    /// mean squared error, beside those of the training mean.
    pub fn figures(&self, seed: u64) -> Result<BTreeMap<String, f64>> {
        let raw = self.raw(self.test)?;
        let mut figures = BTreeMap::new();
        for (k, Target { label, values }) in self.targets.iter().enumerate() {
            let predicted = to_vec(&label.kind.prediction(&raw, k)?)?;
            let mut put = |figure: &str, value: f64| {
                figures.insert(format!("{figure}_test_{}", label.column()), value);
            };
            if let TableLabelKind::Class { first, count } = label.kind {
                if k == first {
                    let of = |k: usize| to_vec(&label.kind.prediction(&raw, k)?);
                    let probabilities = (first..first + count).map(of).collect::<Result<Vec<_>>>()?;
                    let truths: Vec<_> = self.targets[first..][..count].iter().map(|t| t.classes(self.test)).collect();
                    classes::figures(&probabilities, &truths, seed, &mut put);
                }
            } else if label.kind == TableLabelKind::Binary {
                binary_figures(&predicted, &self.targets[k].classes(self.test), seed, &mut put);
            } else {
                let actual: Vec<f64> = self.test.iter().map(|&row| values[row]).collect();
                let mean = self.train.iter().map(|&row| values[row]).sum::<f64>() / self.train.len().max(1) as f64;
                let means = vec![mean; actual.len()];
                put("mae", mean_absolute_error(&predicted, &actual));
                put("rmse", root_mean_squared_error(&predicted, &actual));
                put("mae_of_mean", mean_absolute_error(&means, &actual));
                put("rmse_of_mean", root_mean_squared_error(&means, &actual));
            }
        }
        Ok(figures)
    }
}

/// What rows have of each label, as training takes it: float32 [rows] each, on the CPU.
struct Truths(Vec<Tensor>);

impl Truths {
    /// Of all rows.
    fn of(targets: &[Target]) -> Result<Self> {
        let of = |target: &Target| -> Result<Tensor> {
            let values: Vec<f32> =
                target.values.iter().map(|&value| target.label.kind.training_target(value)).collect();
            Ok(Tensor::f_from_slice(&values)?)
        };
        Ok(Self(targets.iter().map(of).collect::<Result<_>>()?))
    }

    fn take(&self, rows: &Tensor) -> Result<Self> {
        let of = |truth: &Tensor| -> Result<Tensor> { Ok(truth.f_index_select(0, rows)?) };
        Ok(Self(self.0.iter().map(of).collect::<Result<_>>()?))
    }
}

/// Inputs and labels of some rows, on the CPU.
pub struct LearntRows {
    inputs: TableBatch,
    truths: Truths,
}

/// AUC and average precision with 95 % intervals, accuracy and F1 at one half, the share of positives.
pub fn binary_figures(predicted: &[f64], truth: &[bool], seed: u64, put: &mut dyn FnMut(&str, f64)) {
    for (figure, of) in [("auc", auc as fn(&[f64], &[bool]) -> Option<f64>), ("ap", average_precision)] {
        let Some(value) = of(predicted, truth) else { continue };
        put(figure, value);
        if let Some((low, high)) = bootstrap_interval(predicted, truth, of, BOOTSTRAP_ROUNDS, seed) {
            put(&format!("{figure}_low"), low);
            put(&format!("{figure}_high"), high);
        }
    }
    put("accuracy", accuracy(predicted, truth, 0.5));
    put("f1", f1(predicted, truth, 0.5));
    put("positives", truth.iter().filter(|y| **y).count() as f64 / truth.len().max(1) as f64);
}

impl TrainingTask for TableLesson<'_> {
    type Batch = GroupBatch<LearntRows>;

    fn name(&self) -> &'static str {
        if self.network.shape.hidden.is_empty() { "regression" } else { "table" }
    }

    fn samples_per_epoch(&self) -> usize {
        self.train.len()
    }

    fn batch_samples(&self, batch: &Self::Batch) -> usize {
        batch.rows
    }

    fn batches(&self, mut epoch: Epoch) -> Result<Batches<Self::Batch>> {
        let mut rows = self.train.to_vec();
        rows.shuffle(&mut epoch.order);
        let cut: Vec<Vec<usize>> = rows.chunks(self.batch_rows).map(<[usize]>::to_vec).collect();
        let (inputs, truths) =
            (self.inputs.shallow_clone(), Truths(self.truths.0.iter().map(Tensor::shallow_clone).collect()));
        batches_of_groups(cut, epoch, move |rows, _| {
            let at = row_indices(rows)?;
            Ok(LearntRows { inputs: inputs.select(&at)?, truths: truths.take(&at)? })
        })
    }

    fn loss(&mut self, batch: &Self::Batch, _: &mut ChaCha8Rng) -> Result<BatchLoss> {
        let LearntRows { inputs, truths } = &batch.data;
        Ok(self.objective(&self.network.raw_outputs(inputs, true)?, truths, self.label_smoothing)?.into())
    }

    fn describe_batch(&self, batch: &Self::Batch) -> String {
        batch.describe()
    }

    fn validate(&mut self) -> Result<Option<Validation>> {
        let _guard = tch::no_grad_guard();
        let loss = self.objective(&self.raw(self.valid)?, &self.truths.take(&row_indices(self.valid)?)?, 0.0)?;
        Ok(Some(Validation { loss: loss.double_value(&[]), figures: Vec::new() }))
    }
}
