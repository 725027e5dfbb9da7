//! Trains all weights of a classifier with the common training loop.

use rand_chacha::ChaCha8Rng;
use std::sync::Arc;
use tch::Tensor;

use super::loss::ClassifierLoss;
use super::row_encoder::{InputBuilder, RowEncoder, evaluate_logits};
use crate::config::Config;
use crate::failure::Result;
use crate::training::fitting::{
    BatchLoss, Batches, Epoch, GroupBatch, StepOptions, TrainingTask, Validation, batches_of_groups,
};

pub(crate) struct ClassifierTask<'a, E: RowEncoder> {
    pub(crate) encoder: &'a E,
    pub(crate) loss: &'a ClassifierLoss,
    pub(crate) train: &'a [usize],
    pub(crate) valid: &'a [usize],
    pub(crate) config: &'a Config,
    pub(crate) step_options: StepOptions,
}

/// The inputs and labels of some rows, on the CPU.
pub(crate) struct ClassifierBatch<I> {
    inputs: I,
    /// float32 [rows, labels].
    ones: Tensor,
}

impl<E: RowEncoder> ClassifierTask<'_, E> {
    fn mean_loss(&self, logits: &Tensor, ones: &Tensor, smoothing: f64) -> Result<Tensor> {
        self.loss.mean(self.encoder.head(), logits, ones, smoothing, self.config.model.loss)
    }
}

impl<E: RowEncoder> TrainingTask for ClassifierTask<'_, E> {
    type Batch = GroupBatch<ClassifierBatch<<E::Builder as InputBuilder>::Inputs>>;

    fn name(&self) -> &'static str {
        self.encoder.name()
    }

    fn samples_per_epoch(&self) -> usize {
        self.train.len()
    }

    fn batch_samples(&self, batch: &Self::Batch) -> usize {
        batch.rows
    }

    fn batches(&self, mut epoch: Epoch) -> Result<Batches<Self::Batch>> {
        let groups = self.encoder.group_rows(self.train, &mut epoch.order);
        let builder = self.encoder.input_builder();
        let targets = Arc::clone(&self.loss.targets);
        batches_of_groups(groups, epoch, move |rows, rng| {
            Ok(ClassifierBatch { inputs: builder.build(rows, rng)?, ones: targets.select(rows)? })
        })
    }

    fn loss(&mut self, batch: &Self::Batch, _: &mut ChaCha8Rng) -> Result<BatchLoss> {
        let ClassifierBatch { inputs, ones } = &batch.data;
        let logits = self.encoder.head().logits(&self.encoder.training_vectors(inputs)?)?;
        Ok(self.mean_loss(&logits, ones, self.config.train.label_smoothing)?.into())
    }

    fn describe_batch(&self, batch: &Self::Batch) -> String {
        batch.describe()
    }

    fn validate(&mut self) -> Result<Option<Validation>> {
        let _guard = tch::no_grad_guard();
        let logits = evaluate_logits(self.encoder, self.valid)?;
        let loss = self.mean_loss(&logits, &self.loss.targets.select(self.valid)?, 0.0)?;
        Ok(Some(Validation { loss: loss.double_value(&[]), figures: Vec::new() }))
    }

    fn step_options(&self) -> StepOptions {
        self.step_options.clone()
    }

    /// The head is already fitted, so fine-tuning that only makes it worse is discarded.
    fn validates_initial_weights(&self) -> bool {
        true
    }
}
