//! The contract between a task and the training loop: batches, losses and validations.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use super::fit_settings::StepOptions;
use crate::failure::Result;

/// A thing that can be trained: the loop asks it for batches, losses and validations.
pub(crate) trait TrainingTask {
    type Batch;

    /// Name in messages, checkpoints and curves: `intents`.
    fn name(&self) -> &'static str;

    fn samples_per_epoch(&self) -> usize;

    fn batch_samples(&self, batch: &Self::Batch) -> usize;

    /// Batches of one epoch, without the first `epoch.skip` of them.
    fn batches(&self, epoch: Epoch) -> Result<Batches<Self::Batch>>;

    fn loss(&mut self, batch: &Self::Batch, rng: &mut ChaCha8Rng) -> Result<BatchLoss>;

    /// Contents of a batch, for the error that its loss is not a number.
    fn describe_batch(&self, batch: &Self::Batch) -> String;

    /// Validates the present weights. `None` without a validation set: the training loss then decides.
    fn validate(&mut self) -> Result<Option<Validation>>;

    fn step_options(&self) -> StepOptions {
        StepOptions::default()
    }

    /// Asks for a validation before the first epoch: the initial weights stay where no epoch does better. For tasks that
    /// start from good weights; without a validation set it has no effect.
    fn validates_initial_weights(&self) -> bool {
        false
    }
}

/// Batches of an epoch, made as they are needed.
pub(crate) type Batches<B> = Box<dyn Iterator<Item = Result<B>>>;

/// Everything that the batches of one epoch follow from.
#[derive(Debug, Clone)]
pub(crate) struct Epoch {
    /// Decides the order of the batches, and nothing else does.
    pub(crate) order: ChaCha8Rng,
    /// Batches at the start that are already done.
    pub(crate) skip: u64,
    pub(crate) step_seeds: StepSeeds,
}

/// Random numbers of an epoch's steps. They are known before the steps, so the thread that makes a batch can draw them.
#[derive(Debug, Clone)]
pub(crate) struct StepSeeds {
    seed: u64,
    /// Steps before the epoch.
    steps_before: u64,
}

impl Epoch {
    /// The epoch after `epochs` whole ones and `steps_before` steps, of a training by this seed.
    pub(super) fn new(seed: u64, epochs: u32, steps_before: u64, skip: u64) -> Self {
        let order = rng_of_stream(seed, 2 * u64::from(epochs) + 1);
        Self { order, skip, step_seeds: StepSeeds { seed, steps_before } }
    }

    /// The first epoch of a training by this seed.
    #[cfg(test)]
    pub(crate) fn first(seed: u64) -> Self {
        Self::new(seed, 0, 0, 0)
    }
}

impl StepSeeds {
    /// The random numbers that [`TrainingTask::loss`] gets for a batch; batches of an epoch count from 1.
    pub(crate) fn rng(&self, batch: u64) -> ChaCha8Rng {
        self.seed_and_rng(batch).1
    }

    /// The seed for libtorch's own random numbers (dropout), and those of [`StepSeeds::rng`].
    pub(super) fn seed_and_rng(&self, batch: u64) -> (i64, ChaCha8Rng) {
        let mut rng = rng_of_stream(self.seed, 2 * (self.steps_before + batch));
        (rng.random(), rng)
    }
}

fn rng_of_stream(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng
}

/// The loss of one batch.
#[derive(Debug)]
pub(crate) struct BatchLoss {
    /// One number with a gradient.
    pub(crate) trained: Tensor,
    /// The part that validation measures too, so that both curves show the same quantity. `None` means all of it.
    pub(crate) reported: Option<Tensor>,
}

impl From<Tensor> for BatchLoss {
    fn from(trained: Tensor) -> Self {
        Self { trained, reported: None }
    }
}

/// Result of a validation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Validation {
    pub(crate) loss: f64,
    /// Further figures of the epoch, by name; may be empty.
    pub(crate) figures: Vec<(&'static str, f64)>,
}
