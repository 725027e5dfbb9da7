//! How a classifier is taught beyond its head, by the loop that all trainings share.

use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use super::Reader;
use super::goal::Goal;
use crate::config::Config;
use crate::failure::Result;
use crate::training::fit::{self, Batches, Lesson, Loss, Stepping, Validation};

pub struct LabelledLesson<'a, R: Reader> {
    pub reader: &'a R,
    pub goal: &'a Goal<'a>,
    pub train: &'a [usize],
    pub valid: &'a [usize],
    pub config: &'a Config,
    pub stepping: Stepping,
}

impl<R: Reader> LabelledLesson<'_, R> {
    fn objective(&self, raw: &Tensor, rows: &[usize], smoothing: f64) -> Result<Tensor> {
        self.goal.loss((self.reader.head(), raw), rows, smoothing, self.config.model.loss)
    }
}

/// Raw scores without gradients, float32 [rows, labels] on the reader's device, where the chain's weights lie.
pub fn evaluated(reader: &impl Reader, rows: &[usize]) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    Ok(reader.in_batches(rows, &|vectors| reader.head().raw(vectors))?.f_to_device(reader.device())?)
}

impl<R: Reader> Lesson for LabelledLesson<'_, R> {
    type Batch = Vec<usize>;

    fn name(&self) -> &'static str {
        self.reader.name()
    }

    fn samples(&self) -> usize {
        self.train.len()
    }

    fn samples_of(&self, batch: &Vec<usize>) -> usize {
        batch.len()
    }

    fn batches(&self, mut rng: ChaCha8Rng, skip: u64) -> Result<Batches<Vec<usize>>> {
        Ok(fit::left(self.reader.grouped(self.train, &mut rng), skip))
    }

    fn loss(&mut self, batch: &Vec<usize>, rng: &mut ChaCha8Rng) -> Result<Loss> {
        let raw = self.reader.head().raw(&self.reader.learnt(batch, rng)?)?;
        Ok(self.objective(&raw, batch, self.config.train.label_smoothing)?.into())
    }

    fn describe(&self, batch: &Vec<usize>) -> String {
        format!("{} rows, the first is row {}", batch.len(), batch.first().map_or(0, |row| row + 1))
    }

    fn validate(&mut self) -> Result<Option<Validation>> {
        let _guard = tch::no_grad_guard();
        let raw = evaluated(self.reader, self.valid)?;
        let loss = self.objective(&raw, self.valid, 0.0)?;
        Ok(Some(Validation { loss: loss.double_value(&[]), figures: Vec::new() }))
    }

    fn stepping(&self) -> Stepping {
        self.stepping.clone()
    }

    /// The head has learnt already: what fine-tuning only makes worse is not kept.
    fn start_counts(&self) -> bool {
        true
    }
}
