//! Trains the network of a table with the common training loop, and evaluates it on the test rows.

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::ops::Range;
use tch::{Kind, Tensor};

use super::class_labels;
use super::targets::Target;
use crate::config::networks::{AmountLossName, ClassWeights, LossName};
use crate::config::{Config, ModelConfig};
use crate::failure::{Failure, Result};
use crate::metrics::{mean_absolute_error, root_mean_squared_error};
use crate::model::losses;
use crate::model::table::bundle::to_vec;
use crate::model::table::columns::TableInputs;
use crate::model::table::network::{TableBatch, TableLabelKind, TableNetwork, row_indices};
use crate::training::fitting::{BatchLoss, Batches, Epoch, GroupBatch, TrainingTask, Validation, batches_of_groups};
use crate::training::flat_table::{binary_figures, limit_class_weight};

/// Rows per forward pass without gradients.
const EVALUATED_ROWS: usize = 4096;
/// The Huber loss is linear from this many deviations on.
const HUBER_DELTA: f64 = 1.0;
/// Power of the Tweedie loss, between Poisson (1) and gamma (2).
const TWEEDIE_POWER: f64 = 1.5;

pub(crate) struct TableTask<'a> {
    network: &'a TableNetwork,
    /// The inputs of all rows.
    inputs: TableBatch,
    values: TargetValues,
    targets: &'a [Target],
    train: &'a [usize],
    valid: &'a [usize],
    test: &'a [usize],
    model: &'a ModelConfig,
    label_smoothing: f64,
    /// Weight of a positive or of a class for each target, float32 [1].
    positive_weights: Vec<Option<Tensor>>,
    batch_rows: usize,
}

/// The inputs and target values of some rows, on the CPU.
pub(crate) struct TableTaskBatch {
    inputs: TableBatch,
    values: TargetValues,
}

/// Values of each target in the unit of the network's output, float32 [rows] on the CPU.
struct TargetValues(Vec<Tensor>);

impl<'a> TableTask<'a> {
    pub(crate) fn new(
        network: &'a TableNetwork,
        inputs: &TableInputs,
        targets: &'a [Target],
        [train, valid, test]: &'a [Vec<usize>; 3],
        config: &'a Config,
    ) -> Result<Self> {
        if config.model.loss == LossName::Crf {
            return Err(Failure::usage("model.loss: expected bce, focal or iou for a table, got crf")
                .hint("a chain is only for intents; remove model.loss and model.head"));
        }
        let mut positive_weights = Vec::new();
        for target in targets {
            let weight = positive_weight(config.model.class_weights, target, train);
            positive_weights.push(match weight {
                Some(weight) => Some(Tensor::f_from_slice(&[weight])?.f_to_device(network.device)?),
                None => None,
            });
        }
        Ok(Self {
            network,
            inputs: TableBatch::from_inputs(inputs, &network.shape)?,
            values: TargetValues::of_all_rows(targets)?,
            targets,
            train,
            valid,
            test,
            model: &config.model,
            label_smoothing: config.train.label_smoothing,
            positive_weights,
            batch_rows: config.train.batch_rows as usize,
        })
    }

    /// Returns the sum over the labels of their mean losses.
    fn objective(&self, outputs: &Tensor, TargetValues(values): &TargetValues, smoothing: f64) -> Result<Tensor> {
        let mut sum = Tensor::from(0f32).f_to_device(self.network.device)?;
        for (output, target) in self.targets.iter().enumerate() {
            if let TableLabelKind::Class { first, count } = target.label.kind {
                if output == first {
                    sum += self.class_loss(outputs, first..first + count, values, smoothing)?;
                }
                continue;
            }
            let actual = values[output].f_to_device(self.network.device)?;
            let column = outputs.f_select(1, output as i64)?;
            sum += match target.label.kind {
                TableLabelKind::Binary => {
                    let smoothed = actual * (1.0 - smoothing) + 0.5 * smoothing;
                    self.binary_loss(&column, &smoothed, self.positive_weights[output].as_ref())
                }
                TableLabelKind::Amount { .. } => self.number_loss(&(column.softplus() + 1e-6), &actual),
                TableLabelKind::Number { .. } | TableLabelKind::Class { .. } => self.number_loss(&column, &actual),
            };
        }
        Ok(sum)
    }

    /// Returns the loss of one label's classes, whose outputs are adjacent.
    fn class_loss(&self, outputs: &Tensor, at: Range<usize>, values: &[Tensor], smoothing: f64) -> Result<Tensor> {
        let logits = outputs.f_narrow(1, at.start as i64, at.len() as i64)?;
        let ones = Tensor::f_stack(&values[at.clone()], 1)?.f_to_device(self.network.device)?;
        let by_class: Vec<&Tensor> = self.positive_weights[at].iter().flatten().collect();
        let weights = if by_class.is_empty() { None } else { Some(Tensor::f_cat(&by_class, 0)?) };
        Ok(class_labels::loss(&logits, &ones, weights.as_ref(), smoothing, self.model))
    }

    fn binary_loss(&self, logits: &Tensor, actual: &Tensor, weight: Option<&Tensor>) -> Tensor {
        match self.model.loss {
            LossName::Bce | LossName::Crf => losses::cross_entropy(logits, actual, weight).mean(Kind::Float),
            LossName::Focal => losses::focal(logits, actual, self.model.focal_gamma).mean(Kind::Float),
            LossName::Iou => losses::soft_iou(&logits.unsqueeze(1), &actual.unsqueeze(1)).sum(Kind::Float),
        }
    }

    fn number_loss(&self, expected: &Tensor, actual: &Tensor) -> Tensor {
        let by_row = match self.model.amount_loss {
            AmountLossName::Poisson => losses::poisson(expected, actual),
            AmountLossName::Mse => losses::squared_error(expected, actual),
            AmountLossName::Mae => losses::absolute_error(expected, actual),
            AmountLossName::Rmse => losses::root_mean_squared_error(expected, actual),
            AmountLossName::Huber => losses::huber(expected, actual, HUBER_DELTA),
            AmountLossName::Tweedie => losses::tweedie(expected, actual, TWEEDIE_POWER),
            AmountLossName::NegativeBinomial => losses::negative_binomial(expected, &expected.ones_like(), actual),
        };
        by_row.mean(Kind::Float)
    }

    /// Returns raw outputs without gradients: float32 [rows, outputs].
    fn evaluate(&self, rows: &[usize]) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let mut outputs = Vec::new();
        for chunk in rows.chunks(EVALUATED_ROWS) {
            outputs.push(self.network.raw_outputs(&self.inputs.select(&row_indices(chunk)?)?, false)?);
        }
        Ok(Tensor::f_cat(&outputs, 0)?)
    }

    /// Returns figures on the test rows. Binary labels: those of [`binary_figures`]. Classes: those of
    /// [`class_labels::test_figures`]. Numbers: mean absolute and root mean squared error, of the network and of the
    /// training mean.
    pub(crate) fn test_figures(&self, seed: u64) -> Result<BTreeMap<String, f64>> {
        let outputs = self.evaluate(self.test)?;
        let mut figures = BTreeMap::new();
        for (output, Target { label, values }) in self.targets.iter().enumerate() {
            let predicted = to_vec(&label.kind.prediction(&outputs, output)?)?;
            let mut put = |figure: &str, value: f64| {
                figures.insert(format!("{figure}_test_{}", label.column()), value);
            };
            if let TableLabelKind::Class { first, count } = label.kind {
                if output == first {
                    let mut probabilities = Vec::new();
                    for class in first..first + count {
                        probabilities.push(to_vec(&label.kind.prediction(&outputs, class)?)?);
                    }
                    let truths: Vec<_> = self.targets[first..][..count].iter().map(|t| t.truth(self.test)).collect();
                    class_labels::test_figures(&probabilities, &truths, seed, &mut put);
                }
            } else if label.kind == TableLabelKind::Binary {
                binary_figures(&predicted, &self.targets[output].truth(self.test), seed, &mut put);
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

/// Returns the weight of a positive or class; `None` if labels are not weighted.
fn positive_weight(weights: ClassWeights, target: &Target, train: &[usize]) -> Option<f32> {
    let rows = train.len() as f64;
    let positives = target.truth(train).iter().filter(|y| **y).count() as f64;
    match (weights, target.label.kind) {
        (ClassWeights::Balanced, TableLabelKind::Binary) => {
            Some(limit_class_weight((rows - positives) / positives.max(1.0)))
        }
        (ClassWeights::Balanced, TableLabelKind::Class { count, .. }) => {
            Some(limit_class_weight(rows / (count as f64 * positives.max(1.0))))
        }
        _ => None,
    }
}

impl TargetValues {
    fn of_all_rows(targets: &[Target]) -> Result<Self> {
        let mut values = Vec::new();
        for target in targets {
            let converted: Vec<f32> = target.values.iter().map(|v| target.label.kind.training_target(*v)).collect();
            values.push(Tensor::f_from_slice(&converted)?);
        }
        Ok(Self(values))
    }

    /// Returns the values of some rows, given as int64 [rows] on the CPU.
    fn select(&self, rows: &Tensor) -> Result<Self> {
        let mut selected = Vec::new();
        for values in &self.0 {
            selected.push(values.f_index_select(0, rows)?);
        }
        Ok(Self(selected))
    }

    fn shallow_clone(&self) -> Self {
        Self(self.0.iter().map(Tensor::shallow_clone).collect())
    }
}

impl TrainingTask for TableTask<'_> {
    type Batch = GroupBatch<TableTaskBatch>;

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
        let mut shuffled = self.train.to_vec();
        shuffled.shuffle(&mut epoch.order);
        let groups: Vec<Vec<usize>> = shuffled.chunks(self.batch_rows).map(<[usize]>::to_vec).collect();
        let inputs = self.inputs.shallow_clone();
        let values = self.values.shallow_clone();
        batches_of_groups(groups, epoch, move |rows, _| {
            let indices = row_indices(rows)?;
            Ok(TableTaskBatch { inputs: inputs.select(&indices)?, values: values.select(&indices)? })
        })
    }

    fn loss(&mut self, batch: &Self::Batch, _: &mut ChaCha8Rng) -> Result<BatchLoss> {
        let TableTaskBatch { inputs, values } = &batch.data;
        Ok(self.objective(&self.network.raw_outputs(inputs, true)?, values, self.label_smoothing)?.into())
    }

    fn describe_batch(&self, batch: &Self::Batch) -> String {
        batch.describe()
    }

    fn validate(&mut self) -> Result<Option<Validation>> {
        let _guard = tch::no_grad_guard();
        let values = self.values.select(&row_indices(self.valid)?)?;
        let loss = self.objective(&self.evaluate(self.valid)?, &values, 0.0)?;
        Ok(Some(Validation { loss: loss.double_value(&[]), figures: Vec::new() }))
    }
}
