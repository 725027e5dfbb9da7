//! The one training loop: AdamW with warm-up and decay, clipped gradients, early stopping, the best weights restored.
//! The [`TrainingTask`] decides what is trained, on which batches and with which loss; the [`Journal`] stores checkpoints
//! and curves meanwhile.
//!
//! The same task, settings and machine give the same weights to the bit, on a CPU, in a process that trains nothing else
//! meanwhile (libtorch's random numbers belong to the process). That also holds for a training that was killed and
//! resumes from a checkpoint: the random numbers of each step and epoch follow from the seed and its number alone.

use indicatif::ProgressBar;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tch::{Tensor, nn};

use super::adamw::AdamW;
use super::checkpoint::{Checkpoint, TrainingProgress};
use super::epoch_record::EpochRecord;
use super::fit_settings::{FitSettings, StepOptions};
use super::task::{BatchLoss, Epoch, StepSeeds, TrainingTask, Validation};
use super::throughput::ThroughputMeter;
use super::training_journal::Journal;
use crate::failure::{Failure, Result};

/// A loss has to fall by more than this to count as better.
const IMPROVEMENT_MIN: f64 = 1e-5;

/// Result of a fit.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FitSummary {
    pub(crate) epochs: u32,
    pub(crate) steps: u64,
    /// The lowest loss, which belongs to the final weights.
    pub(crate) loss: f64,
    pub(crate) seconds: f64,
}

/// Trains the weights of `store` in place; ends with those of the best epoch.
pub(crate) fn fit<T: TrainingTask>(
    task: &mut T,
    store: &mut nn::VarStore,
    settings: &FitSettings,
    journal: &mut Journal,
    bar: &ProgressBar,
) -> Result<FitSummary> {
    let mut trainer = Trainer::new(store, settings, task.step_options());
    if let Some(checkpoint) = journal.load_checkpoint(task.name())? {
        trainer.restore(checkpoint).map_err(|f| f.at(format!("checkpoint of {}", task.name())))?;
    }
    bar.set_length(task.samples_per_epoch() as u64 * u64::from(settings.epochs_max));
    if task.validates_initial_weights() && trainer.progress.steps == 0 {
        trainer.validate_initial_weights(task)?;
    }
    while !trainer.is_done() {
        trainer.train_epoch(task, journal, bar)?;
    }
    trainer.finish(task.name(), journal)?;
    let TrainingProgress { epochs, steps, best_loss, seconds, .. } = trainer.progress;
    Ok(FitSummary { epochs, steps, loss: best_loss, seconds })
}

/// The weights in training and the state around them.
struct Trainer<'a> {
    store: &'a mut nn::VarStore,
    settings: &'a FitSettings,
    options: StepOptions,
    optimizer: AdamW,
    /// Batches since the last step, whose gradients are summed up for the next.
    accumulated: u32,
    /// Learning rate of the last batch.
    learning_rate: f64,
    /// Weights of the best epoch; empty before the first.
    best_weights: BTreeMap<String, Tensor>,
    progress: TrainingProgress,
    /// Start of the time that `progress.seconds` does not include yet.
    clock: Instant,
}

impl<'a> Trainer<'a> {
    fn new(store: &'a mut nn::VarStore, settings: &'a FitSettings, options: StepOptions) -> Self {
        let optimizer = AdamW::with_rate_factors(store, settings.weight_decay, options.rate_factors.clone());
        Self {
            store,
            settings,
            options,
            optimizer,
            accumulated: 0,
            learning_rate: 0.0,
            best_weights: BTreeMap::new(),
            progress: TrainingProgress::default(),
            clock: Instant::now(),
        }
    }

    fn is_done(&self) -> bool {
        let progress = &self.progress;
        progress.finished
            || progress.epochs >= self.settings.epochs_max
            || progress.epochs_without_improvement >= self.settings.patience_epochs.max(1)
    }

    fn validate_initial_weights<T: TrainingTask>(&mut self, task: &mut T) -> Result<()> {
        if let Some(valid) = task.validate()?
            && valid.loss.is_finite()
        {
            tracing::info!("{}: before epoch 1: loss_valid {:.4}", task.name(), valid.loss);
            self.progress.best_loss = valid.loss;
            self.best_weights = copy_weights(self.store);
        }
        Ok(())
    }

    /// Trains the rest of the epoch that has begun, and validates.
    fn train_epoch<T: TrainingTask>(&mut self, task: &mut T, journal: &mut Journal, bar: &ProgressBar) -> Result<()> {
        let began = Instant::now();
        let mut meter = ThroughputMeter::new(|| began.elapsed());
        let epoch = self.present_epoch();
        let step_seeds = epoch.step_seeds.clone();
        let mut batches = task.batches(epoch)?;
        bar.set_position(self.progress.samples + u64::from(self.progress.epochs) * task.samples_per_epoch() as u64);
        while let Some(batch) = meter.wait(|| batches.next()) {
            let batch = batch?;
            self.train_batch(task, &batch, &step_seeds)?;
            let samples = task.batch_samples(&batch) as u64;
            self.progress.samples += samples;
            meter.add_samples(samples);
            bar.inc(samples);
            if self.options.accumulation_steps <= 1 && journal.checkpoint_is_due(self.progress.steps) {
                self.write_checkpoint(task.name(), journal);
            }
        }
        if self.accumulated > 0 {
            self.take_step()?;
        }
        meter.stop();
        let loss_train = self.progress.loss_sum / self.progress.batches.max(1) as f64;
        let valid = task.validate()?;
        self.end_epoch(valid.as_ref().map_or(loss_train, |v| v.loss));
        let record = self.record(task.name(), loss_train, valid, &meter);
        tracing::info!("{}", record.summary());
        bar.set_message(record.summary());
        self.progress.records.push(record.clone());
        journal.record_epoch(record);
        Ok(())
    }

    /// Returns the rest of the epoch that the training is in.
    fn present_epoch(&self) -> Epoch {
        let progress = &self.progress;
        let steps_before = progress.steps - progress.batches;
        Epoch::new(self.settings.seed, progress.epochs, steps_before, progress.batches)
    }

    fn train_batch<T: TrainingTask>(&mut self, task: &mut T, batch: &T::Batch, step_seeds: &StepSeeds) -> Result<()> {
        let progress = &mut self.progress;
        let samples_after = progress.samples + task.batch_samples(batch) as u64;
        let epoch_share = samples_after as f64 / task.samples_per_epoch().max(1) as f64;
        let share = (f64::from(progress.epochs) + epoch_share) / f64::from(self.settings.epochs_max);
        self.learning_rate = self.options.schedule.rate(self.settings.learning_rate, share);
        progress.steps += 1;
        progress.batches += 1;
        let place = format!("step {} (epoch {}, batch {})", progress.steps, progress.epochs + 1, progress.batches);
        let (seed, mut rng) = step_seeds.seed_and_rng(progress.batches);
        tch::manual_seed(seed);
        let BatchLoss { trained: loss, reported } = task.loss(batch, &mut rng)?;
        let stopped = |reason: String| {
            let name = task.name();
            let contents = task.describe_batch(batch);
            Failure::model(format!("training of {name} stopped at {place}: {reason}; the batch holds {contents}")).hint(
                "lower train.learning_rate; if it stops at the same batch again, check the features of that batch",
            )
        };
        let value = loss.double_value(&[]);
        if !value.is_finite() {
            return Err(stopped(format!("the loss is {value}")));
        }
        if self.accumulated == 0 {
            self.optimizer.zero_grad();
        }
        loss.f_backward()?;
        self.accumulated += 1;
        if self.accumulated >= self.options.accumulation_steps {
            self.take_step().map_err(|f| stopped(f.message))?;
        }
        self.progress.loss_sum += reported.map_or(value, |part| part.double_value(&[]));
        Ok(())
    }

    /// Takes one step along the accumulated gradients.
    fn take_step(&mut self) -> Result<()> {
        if self.accumulated > 1 {
            self.optimizer.scale(1.0 / f64::from(self.accumulated))?;
        }
        self.accumulated = 0;
        let norm = self.optimizer.clip(self.options.gradient_norm_max)?;
        if !norm.is_finite() {
            return Err(Failure::model(format!("the norm of the gradients is {norm}")));
        }
        self.optimizer.step(self.learning_rate)
    }

    /// Counts the epoch, and copies the weights where `loss` is the lowest so far.
    fn end_epoch(&mut self, loss: f64) {
        self.progress.epochs += 1;
        self.progress.batches = 0;
        self.progress.samples = 0;
        self.progress.loss_sum = 0.0;
        if loss < self.progress.best_loss - IMPROVEMENT_MIN {
            self.progress.best_loss = loss;
            self.progress.epochs_without_improvement = 0;
            self.best_weights = copy_weights(self.store);
        } else {
            self.progress.epochs_without_improvement += 1;
        }
    }

    fn record(
        &self,
        task: &str,
        loss_train: f64,
        valid: Option<Validation>,
        meter: &ThroughputMeter<impl Fn() -> Duration>,
    ) -> EpochRecord {
        let share = f64::from(self.progress.epochs) / f64::from(self.settings.epochs_max);
        let mut values = BTreeMap::from([
            ("loss_train".to_string(), loss_train),
            ("learning_rate".to_string(), self.options.schedule.rate(self.settings.learning_rate, share)),
            ("samples_per_second".to_string(), meter.samples_per_second()),
            ("waiting_share".to_string(), meter.waiting_share()),
        ]);
        if let Some(valid) = valid {
            values.insert("loss_valid".into(), valid.loss);
            values.extend(valid.figures.into_iter().map(|(name, figure)| (name.to_string(), figure)));
        }
        EpochRecord::new(task, self.progress.epochs, self.progress.steps, values)
    }

    /// Restores the best weights; the last checkpoint says that nothing is left to do.
    fn finish(&mut self, task: &str, journal: &mut Journal) -> Result<()> {
        if self.progress.finished {
            return Ok(());
        }
        if self.best_weights.is_empty() {
            let epochs = self.progress.epochs;
            return Err(Failure::model(format!(
                "training of {task} stopped: the validation loss was not a number after any of {epochs} epochs"
            ))
            .hint("lower train.learning_rate"));
        }
        let best = std::mem::take(&mut self.best_weights);
        set_weights(self.store, |name| best.get(name).map(Tensor::shallow_clone))?;
        self.progress.finished = true;
        self.write_checkpoint(task, journal);
        Ok(())
    }

    fn write_checkpoint(&mut self, task: &str, journal: &mut Journal) {
        self.progress.seconds += self.clock.elapsed().as_secs_f64();
        self.clock = Instant::now();
        let weights = self.store.variables().into_iter().map(|(name, t)| (format!("weights/{name}"), t.detach()));
        let best = self.best_weights.iter().map(|(name, t)| (format!("best/{name}"), t.shallow_clone()));
        let tensors = weights.chain(best).chain(self.optimizer.moments()).collect();
        journal.write_checkpoint(task, &self.progress, tensors);
    }

    fn restore(&mut self, checkpoint: Checkpoint) -> Result<()> {
        let Checkpoint { progress, mut tensors } = checkpoint;
        set_weights(self.store, |name| tensors.remove(&format!("weights/{name}")))?;
        if progress.best_loss.is_finite() && !progress.finished {
            for name in self.store.variables().into_keys() {
                let saved = tensors.remove(&format!("best/{name}"));
                let best = saved.ok_or_else(|| Failure::model(format!("best/{name} is missing")))?;
                self.best_weights.insert(name, best);
            }
        }
        self.optimizer.restore(progress.steps, &mut |name| tensors.remove(name))?;
        self.progress = progress;
        Ok(())
    }
}

fn copy_weights(store: &nn::VarStore) -> BTreeMap<String, Tensor> {
    store.variables().into_iter().map(|(name, t)| (name, t.detach().copy())).collect()
}

/// Sets each weight of a store to the one saved under its name.
fn set_weights(store: &nn::VarStore, mut saved: impl FnMut(&str) -> Option<Tensor>) -> Result<()> {
    let _guard = tch::no_grad_guard();
    for (name, mut variable) in store.variables() {
        let weight = saved(&name).ok_or_else(|| Failure::model(format!("{name} is missing")))?;
        variable.f_copy_(&weight).map_err(|e| Failure::from(e).at(&name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
