//! How a classifier is taught beyond its head, by the loop that all trainings share, on batches made ahead.

use rand_chacha::ChaCha8Rng;
use std::sync::Arc;
use tch::Tensor;

use super::goal::Goal;
use super::{Making, Reader};
use crate::config::Config;
use crate::failure::Result;
use crate::training::fitting::{
    BatchLoss, Batches, Epoch, GroupBatch, StepOptions, TrainingTask, Validation, batches_of_groups,
};

pub struct LabelledLesson<'a, R: Reader> {
    pub reader: &'a R,
    pub goal: &'a Goal,
    pub train: &'a [usize],
    pub valid: &'a [usize],
    pub config: &'a Config,
    pub step_options: StepOptions,
}

impl<R: Reader> LabelledLesson<'_, R> {
    fn objective(&self, raw: &Tensor, ones: &Tensor, smoothing: f64) -> Result<Tensor> {
        self.goal.loss((self.reader.head(), raw), ones, smoothing, self.config.model.loss)
    }
}

/// Inputs and labels of some rows, on the CPU.
pub struct LabelledBatch<I> {
    inputs: I,
    /// float32 [rows, labels].
    ones: Tensor,
}

/// Raw scores without gradients, float32 [rows, labels] on the reader's device, where the chain's weights lie.
pub fn evaluated(reader: &impl Reader, rows: &[usize]) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    Ok(reader.in_batches(rows, &|vectors| reader.head().logits(vectors))?.f_to_device(reader.device())?)
}

impl<R: Reader> TrainingTask for LabelledLesson<'_, R> {
    type Batch = GroupBatch<LabelledBatch<<R::Making as Making>::Inputs>>;

    fn name(&self) -> &'static str {
        self.reader.name()
    }

    fn samples_per_epoch(&self) -> usize {
        self.train.len()
    }

    fn batch_samples(&self, batch: &Self::Batch) -> usize {
        batch.rows
    }

    fn batches(&self, mut epoch: Epoch) -> Result<Batches<Self::Batch>> {
        let groups = self.reader.grouped(self.train, &mut epoch.order);
        let (making, targets) = (self.reader.making(), Arc::clone(&self.goal.targets));
        batches_of_groups(groups, epoch, move |rows, rng| {
            Ok(LabelledBatch { inputs: making.make(rows, rng)?, ones: targets.of(rows)? })
        })
    }

    fn loss(&mut self, batch: &Self::Batch, _: &mut ChaCha8Rng) -> Result<BatchLoss> {
        let LabelledBatch { inputs, ones } = &batch.data;
        let raw = self.reader.head().logits(&self.reader.learnt(inputs)?)?;
        Ok(self.objective(&raw, ones, self.config.train.label_smoothing)?.into())
    }

    fn describe_batch(&self, batch: &Self::Batch) -> String {
        batch.describe()
    }

    fn validate(&mut self) -> Result<Option<Validation>> {
        let _guard = tch::no_grad_guard();
        let raw = evaluated(self.reader, self.valid)?;
        let loss = self.objective(&raw, &self.goal.targets.of(self.valid)?, 0.0)?;
        Ok(Some(Validation { loss: loss.double_value(&[]), figures: Vec::new() }))
    }

    fn step_options(&self) -> StepOptions {
        self.step_options.clone()
    }

    /// The head has learnt already: what fine-tuning only makes worse is not kept.
    fn validates_initial_weights(&self) -> bool {
        true
    }
}
