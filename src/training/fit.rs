//! The one training loop: AdamW with warm-up and cosine decay, clipped gradients, early stopping, the best weights
//! restored. What is trained, on which batches and by which loss, is the [`Lesson`]; what is kept and shown meanwhile,
//! the [`Journal`].
//!
//! Same lesson, plan and machine: the same weights to the bit, on CPU, in a process that trains nothing else meanwhile
//! (libtorch's random numbers are the process's). That holds for a training that was killed and goes on from a
//! checkpoint, too: the random numbers of each step and each epoch follow from the seed and its number alone.

use indicatif::ProgressBar;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tch::{Tensor, nn};

use super::adamw::AdamW;
use super::checkpoint::{Checkpoint, Position};
use super::journal::{EpochRecord, Journal, now};
use crate::failure::{Failure, Result};

/// The batches of an epoch as they are needed.
pub type Batches<B> = Box<dyn Iterator<Item = Result<B>>>;

/// What an epoch's batches follow from.
#[derive(Debug, Clone)]
pub struct Epoch {
    /// What alone decides the order of the batches.
    pub order: ChaCha8Rng,
    /// Batches at the beginning that are done already.
    pub skip: u64,
    /// What the steps draw.
    pub draws: StepDraws,
}

#[cfg(test)]
impl Epoch {
    /// The first one of a training by this seed.
    pub fn first(seed: u64) -> Self {
        Plan { epochs_max: 1, patience_epochs: 1, learning_rate: 1.0, weight_decay: 0.0, seed }
            .epoch(&Position::default())
    }
}

/// The random numbers of an epoch's steps, known before the steps are taken: what a batch draws can be drawn where it is
/// made.
#[derive(Debug, Clone)]
pub struct StepDraws {
    seed: u64,
    /// Steps before the epoch.
    steps_before: u64,
}

impl StepDraws {
    /// What [`Lesson::loss`] is given in the step of the epoch's batch of this number, counted from 1.
    pub fn of(&self, batch: u64) -> ChaCha8Rng {
        self.with_seed(batch).1
    }

    /// That, and the seed of libtorch's own (dropout).
    fn with_seed(&self, batch: u64) -> (i64, ChaCha8Rng) {
        let mut rng = draws(self.seed, 2 * (self.steps_before + batch));
        (rng.random(), rng)
    }
}

fn draws(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng
}

/// What the loop has to know of the thing that is learnt.
pub trait Lesson {
    type Batch;

    /// What is trained, for messages and names: `intents`.
    fn name(&self) -> &'static str;

    /// Samples of one epoch.
    fn samples(&self) -> usize;

    fn samples_of(&self, batch: &Self::Batch) -> usize;

    /// The batches of one epoch, without those that are done.
    fn batches(&self, epoch: Epoch) -> Result<Batches<Self::Batch>>;

    fn loss(&mut self, batch: &Self::Batch, rng: &mut ChaCha8Rng) -> Result<Loss>;

    /// What is in a batch, for the message that its loss is no number.
    fn describe(&self, batch: &Self::Batch) -> String;

    /// The loss on what is not trained on; `None` where there is nothing, and the training loss decides.
    fn validate(&mut self) -> Result<Option<Validation>>;

    /// How steps are taken.
    fn stepping(&self) -> Stepping {
        Stepping::default()
    }

    /// Whether the weights before the first epoch are validated and kept where no epoch does better. For what starts well;
    /// without `validate` it has no say.
    fn start_counts(&self) -> bool {
        false
    }
}

/// How steps are taken, where a lesson asks for something of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Stepping {
    pub schedule: Schedule,
    /// Gradients are clipped to this norm over all weights.
    pub gradient_norm_max: f64,
    /// Batches whose gradients make one step, at least 1; an epoch's last step may have fewer. A lesson with more than 1
    /// leaves no checkpoints: half a sum of gradients is not kept.
    pub accumulation_steps: u32,
    /// What a weight's learning rate is of the plan's, by name; 1 where it has no name here.
    pub rates: BTreeMap<String, f64>,
}

impl Default for Stepping {
    fn default() -> Self {
        Self { schedule: Schedule::Cosine, gradient_norm_max: 1.0, accumulation_steps: 1, rates: BTreeMap::new() }
    }
}

/// The share of the plan's learning rate after a share of all samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Schedule {
    /// Up in the first twentieth, then down a cosine to a twentieth.
    Cosine,
    /// Up in a line in the first `warmup_share`, then down in a line to nothing (Devlin et al. 2018).
    Linear { warmup_share: f64 },
}

impl Schedule {
    fn rate(self, learning_rate: f64, share: f64) -> f64 {
        match self {
            Self::Cosine => {
                let warm = (share / 0.05).min(1.0);
                let decay = 0.5 * (1.0 + (std::f64::consts::PI * share.min(1.0)).cos());
                learning_rate * warm * decay.max(0.05)
            }
            Self::Linear { warmup_share } if share < warmup_share => learning_rate * share / warmup_share,
            Self::Linear { warmup_share } => learning_rate * ((1.0 - share) / (1.0 - warmup_share)).max(0.0),
        }
    }
}

/// The loss of one batch.
#[derive(Debug)]
pub struct Loss {
    /// One number with a gradient.
    pub learnt: Tensor,
    /// The part of it that validation measures too, so that both curves show the same thing; all of it where `None`.
    pub measured: Option<Tensor>,
}

impl From<Tensor> for Loss {
    fn from(learnt: Tensor) -> Self {
        Self { learnt, measured: None }
    }
}

/// An epoch's validation.
#[derive(Debug, Clone, PartialEq)]
pub struct Validation {
    pub loss: f64,
    /// More to say about the epoch, by name; may be empty.
    pub figures: Vec<(&'static str, f64)>,
}

/// How long, how fast, and from which seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub epochs_max: u32,
    /// Epochs without a better validation loss before it stops.
    pub patience_epochs: u32,
    pub learning_rate: f64,
    pub weight_decay: f64,
    pub seed: u64,
}

impl Plan {
    /// What is left of the epoch that a training is in.
    fn epoch(&self, at: &Position) -> Epoch {
        let draws = StepDraws { seed: self.seed, steps_before: at.steps - at.batches };
        let order = self::draws(self.seed, 2 * u64::from(at.epochs) + 1);
        Epoch { order, skip: at.batches, draws }
    }
}

/// What became of a lesson.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    pub epochs: u32,
    pub steps: u64,
    /// Of the weights that are kept.
    pub loss: f64,
    pub seconds: f64,
}

/// Trains the weights of `store`, and leaves those of the best epoch in it.
pub fn fit<L: Lesson>(
    lesson: &mut L,
    store: &mut nn::VarStore,
    plan: &Plan,
    journal: &mut Journal,
    bar: &ProgressBar,
) -> Result<Fitted> {
    let mut learner = Learner::new(store, plan, lesson.stepping());
    if let Some(checkpoint) = journal.resume(lesson.name())? {
        learner.restore(checkpoint).map_err(|f| f.at(format!("checkpoint of {}", lesson.name())))?;
    }
    bar.set_length(lesson.samples() as u64 * u64::from(plan.epochs_max));
    if lesson.start_counts() && learner.at.steps == 0 {
        learner.start(lesson)?;
    }
    while !learner.is_done() {
        learner.epoch(lesson, journal, bar)?;
    }
    learner.finish(lesson.name(), journal)?;
    let at = learner.at;
    Ok(Fitted { epochs: at.epochs, steps: at.steps, loss: at.best, seconds: at.seconds })
}

/// Weights on their way, and where they are.
struct Learner<'a> {
    store: &'a mut nn::VarStore,
    plan: &'a Plan,
    stepping: Stepping,
    optimizer: AdamW,
    /// Batches since the last step whose gradients wait for it.
    waiting: u32,
    /// Of the last batch.
    learning_rate: f64,
    /// Of the best epoch; empty before there is one.
    best: BTreeMap<String, Tensor>,
    at: Position,
    /// Since when `at.seconds` has not been moved on.
    clock: Instant,
}

impl<'a> Learner<'a> {
    fn new(store: &'a mut nn::VarStore, plan: &'a Plan, stepping: Stepping) -> Self {
        let optimizer = AdamW::with_rates(store, plan.weight_decay, stepping.rates.clone());
        let (best, at, clock) = (BTreeMap::new(), Position::default(), Instant::now());
        Self { store, plan, stepping, optimizer, waiting: 0, learning_rate: 0.0, best, at, clock }
    }

    fn is_done(&self) -> bool {
        let at = &self.at;
        at.finished || at.epochs >= self.plan.epochs_max || at.worse >= self.plan.patience_epochs.max(1)
    }

    /// What is worth keeping before any epoch.
    fn start<L: Lesson>(&mut self, lesson: &mut L) -> Result<()> {
        if let Some(valid) = lesson.validate()?
            && valid.loss.is_finite()
        {
            tracing::info!("{}: before epoch 1: loss_valid {:.4}", lesson.name(), valid.loss);
            (self.at.best, self.best) = (valid.loss, copies(self.store));
        }
        Ok(())
    }

    /// What is left of the epoch that has begun, and its validation.
    fn epoch<L: Lesson>(&mut self, lesson: &mut L, journal: &mut Journal, bar: &ProgressBar) -> Result<()> {
        let began = Instant::now();
        let mut pace = Pace::by(|| began.elapsed());
        let epoch = self.plan.epoch(&self.at);
        let draws = epoch.draws.clone();
        let mut batches = lesson.batches(epoch)?;
        bar.set_position(self.at.samples + u64::from(self.at.epochs) * lesson.samples() as u64);
        while let Some(batch) = pace.wait(|| batches.next()) {
            let batch = batch?;
            self.step(lesson, &batch, &draws)?;
            let samples = lesson.samples_of(&batch) as u64;
            self.at.samples += samples;
            pace.samples += samples;
            bar.inc(samples);
            if self.stepping.accumulation_steps <= 1 && journal.is_due(self.at.steps) {
                self.keep(lesson.name(), journal);
            }
        }
        if self.waiting > 0 {
            self.descend()?;
        }
        pace.stop();
        let trained = self.at.loss_sum / self.at.batches.max(1) as f64;
        let valid = lesson.validate()?;
        let reached = valid.as_ref().map_or(trained, |v| v.loss);
        self.at = Position { epochs: self.at.epochs + 1, batches: 0, samples: 0, loss_sum: 0.0, ..self.at.clone() };
        if reached < self.at.best - 1e-5 {
            (self.at.best, self.at.worse, self.best) = (reached, 0, copies(self.store));
        } else {
            self.at.worse += 1;
        }
        let record = self.record(lesson.name(), trained, valid, &pace);
        tracing::info!("{}", described(&record));
        bar.set_message(described(&record));
        self.at.records.push(record.clone());
        journal.epoch(record);
        Ok(())
    }

    fn step<L: Lesson>(&mut self, lesson: &mut L, batch: &L::Batch, draws: &StepDraws) -> Result<()> {
        let at = &mut self.at;
        let share = (at.samples + lesson.samples_of(batch) as u64) as f64 / lesson.samples().max(1) as f64;
        let share = (f64::from(at.epochs) + share) / f64::from(self.plan.epochs_max);
        self.learning_rate = self.stepping.schedule.rate(self.plan.learning_rate, share);
        at.steps += 1;
        at.batches += 1;
        let (step, epoch, number) = (at.steps, at.epochs + 1, at.batches);
        let (seed, mut rng) = draws.with_seed(number);
        tch::manual_seed(seed);
        let Loss { learnt: loss, measured } = lesson.loss(batch, &mut rng)?;
        let stopped = |what: String| {
            let (name, holds) = (lesson.name(), lesson.describe(batch));
            let place = format!("step {step} (epoch {epoch}, batch {number})");
            Failure::model(format!("training of {name} stopped at {place}: {what}; the batch holds {holds}"))
                .hint("lower train.learning_rate; if it stops at the same batch again, look at that batch's features")
        };
        let value = loss.double_value(&[]);
        if !value.is_finite() {
            return Err(stopped(format!("the loss is {value}")));
        }
        if self.waiting == 0 {
            self.optimizer.zero_grad();
        }
        loss.f_backward()?;
        self.waiting += 1;
        if self.waiting >= self.stepping.accumulation_steps {
            self.descend().map_err(|f| stopped(f.message))?;
        }
        self.at.loss_sum += measured.map_or(value, |part| part.double_value(&[]));
        Ok(())
    }

    /// One step down the gradients that wait.
    fn descend(&mut self) -> Result<()> {
        if self.waiting > 1 {
            self.optimizer.scale(1.0 / f64::from(self.waiting))?;
        }
        self.waiting = 0;
        let norm = self.optimizer.clip(self.stepping.gradient_norm_max)?;
        if !norm.is_finite() {
            return Err(Failure::model(format!("the norm of the gradients is {norm}")));
        }
        self.optimizer.step(self.learning_rate)
    }

    fn record(
        &self,
        lesson: &str,
        trained: f64,
        valid: Option<Validation>,
        pace: &Pace<impl Fn() -> Duration>,
    ) -> EpochRecord {
        let share = f64::from(self.at.epochs) / f64::from(self.plan.epochs_max);
        let mut values = BTreeMap::from([
            ("loss_train".to_string(), trained),
            ("learning_rate".to_string(), self.stepping.schedule.rate(self.plan.learning_rate, share)),
            ("samples_per_second".to_string(), pace.samples_per_second()),
            ("waiting_share".to_string(), pace.waiting_share()),
        ]);
        if let Some(valid) = valid {
            values.insert("loss_valid".into(), valid.loss);
            values.extend(valid.figures.into_iter().map(|(name, figure)| (name.to_string(), figure)));
        }
        let (epoch, step) = (self.at.epochs, self.at.steps);
        EpochRecord { lesson: lesson.into(), epoch, step, wall_time: now(), values }
    }

    /// Puts the best weights back; the last checkpoint says that nothing is left to do.
    fn finish(&mut self, lesson: &str, journal: &mut Journal) -> Result<()> {
        if self.at.finished {
            return Ok(());
        }
        if self.best.is_empty() {
            let epochs = self.at.epochs;
            return Err(Failure::model(format!(
                "training of {lesson} stopped: the loss on the validation set was no number after any of {epochs} epochs"
            ))
            .hint("lower train.learning_rate"));
        }
        let best = std::mem::take(&mut self.best);
        put(self.store, |name| best.get(name).map(Tensor::shallow_clone))?;
        self.at.finished = true;
        self.keep(lesson, journal);
        Ok(())
    }

    fn keep(&mut self, lesson: &str, journal: &mut Journal) {
        self.at.seconds += self.clock.elapsed().as_secs_f64();
        self.clock = Instant::now();
        let weights = self.store.variables().into_iter().map(|(name, t)| (format!("weights/{name}"), t.detach()));
        let best = self.best.iter().map(|(name, t)| (format!("best/{name}"), t.shallow_clone()));
        journal.keep(lesson, &self.at, weights.chain(best).chain(self.optimizer.moments()).collect());
    }

    fn restore(&mut self, checkpoint: Checkpoint) -> Result<()> {
        let Checkpoint { position, mut tensors } = checkpoint;
        let mut take = |kind: &str, name: &str| tensors.remove(&format!("{kind}/{name}"));
        put(self.store, |name| take("weights", name))?;
        for name in self.store.variables().into_keys().filter(|_| position.best.is_finite() && !position.finished) {
            let best = take("best", &name).ok_or_else(|| Failure::model(format!("best/{name} is missing")))?;
            self.best.insert(name, best);
        }
        self.optimizer.restore(position.steps, &mut |name| tensors.remove(name))?;
        self.at = position;
        Ok(())
    }
}

/// `intents: epoch 3: loss_train 0.1234, …` in the order of the names.
fn described(record: &EpochRecord) -> String {
    let values: Vec<String> = record.values.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
    format!("{}: epoch {}: {}", record.lesson, record.epoch, values.join(", "))
}

/// How fast an epoch goes, and how much of its time goes by in waiting for batches.
struct Pace<C> {
    /// The time since the epoch began.
    clock: C,
    waited: Duration,
    took: Duration,
    samples: u64,
}

impl<C: Fn() -> Duration> Pace<C> {
    fn by(clock: C) -> Self {
        Self { clock, waited: Duration::ZERO, took: Duration::ZERO, samples: 0 }
    }

    fn wait<T>(&mut self, next: impl FnOnce() -> T) -> T {
        let since = (self.clock)();
        let got = next();
        self.waited += (self.clock)() - since;
        got
    }

    fn stop(&mut self) {
        self.took = (self.clock)();
    }

    fn samples_per_second(&self) -> f64 {
        self.samples as f64 / self.took.as_secs_f64().max(1e-9)
    }

    fn waiting_share(&self) -> f64 {
        self.waited.as_secs_f64() / self.took.as_secs_f64().max(1e-9)
    }
}

/// Copies of all weights.
fn copies(store: &nn::VarStore) -> BTreeMap<String, Tensor> {
    store.variables().into_iter().map(|(name, t)| (name, t.detach().copy())).collect()
}

/// Puts weights into a store.
fn put(store: &nn::VarStore, mut of: impl FnMut(&str) -> Option<Tensor>) -> Result<()> {
    let _guard = tch::no_grad_guard();
    for (name, mut variable) in store.variables() {
        let saved = of(&name).ok_or_else(|| Failure::model(format!("{name} is missing")))?;
        variable.f_copy_(&saved).map_err(|e| Failure::from(e).at(&name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{S3Config, TrainConfig};
    use crate::lake::stores::Location;
    use crate::training::journal::Places;
    use rand::seq::SliceRandom;
    use tch::{Device, Kind};

    /// One weight that should become 3; what validation says, epoch by epoch.
    struct One {
        weight: Tensor,
        steps: usize,
        sick_at: usize,
        dies_at: usize,
        /// Aims at what the batch and the step's random numbers say, not at 3.
        noisy: bool,
        /// Has a loss that is a number and gradients that are none.
        steep: bool,
        accumulation_steps: u32,
        start_counts: bool,
        valid: Vec<f64>,
        seen: Vec<f64>,
    }

    impl One {
        fn new(sick_at: usize, valid: &[f64]) -> (Self, nn::VarStore) {
            let store = nn::VarStore::new(Device::Cpu);
            let weight = store.root().zeros("weight", &[1]);
            (
                Self {
                    weight,
                    steps: 0,
                    sick_at,
                    dies_at: 0,
                    noisy: false,
                    steep: false,
                    accumulation_steps: 1,
                    start_counts: false,
                    valid: valid.to_vec(),
                    seen: Vec::new(),
                },
                store,
            )
        }
    }

    impl Lesson for One {
        type Batch = usize;

        fn name(&self) -> &'static str {
            "one"
        }

        fn samples(&self) -> usize {
            15
        }

        fn samples_of(&self, _: &usize) -> usize {
            3
        }

        fn batches(&self, mut epoch: Epoch) -> Result<Batches<usize>> {
            let mut order: Vec<usize> = (0..5).collect();
            order.shuffle(&mut epoch.order);
            Ok(Box::new(order.into_iter().skip(epoch.skip as usize).map(Ok)))
        }

        fn loss(&mut self, batch: &usize, rng: &mut ChaCha8Rng) -> Result<Loss> {
            self.steps += 1;
            if self.steps == self.dies_at {
                return Err(Failure::passing("killed"));
            }
            if self.noisy {
                let target = 3.0 + *batch as f64 * 0.1 + rng.random_range(-0.5..0.5);
                return Ok((&self.weight - target).square().sum(Kind::Float).into());
            }
            if self.steep {
                // One, and infinitely steep.
                return Ok(((&self.weight - self.weight.detach()).sqrt().sum(Kind::Float) + 1.0).into());
            }
            let wrong = if self.steps == self.sick_at { f64::NAN } else { 0.0 };
            Ok(((&self.weight - 3.0).square().sum(Kind::Float) + wrong).into())
        }

        fn describe(&self, batch: &usize) -> String {
            format!("user u{batch}")
        }

        fn stepping(&self) -> Stepping {
            Stepping { accumulation_steps: self.accumulation_steps, ..Default::default() }
        }

        fn start_counts(&self) -> bool {
            self.start_counts
        }

        fn validate(&mut self) -> Result<Option<Validation>> {
            self.seen.push(self.weight.double_value(&[0]));
            let loss = self.valid.get(self.seen.len() - 1).copied();
            // The figure that the lesson of intents gives, if it can be told.
            Ok(loss.map(|loss| Validation { loss, figures: vec![("auc_valid_purchase", 1.0 - loss)] }))
        }
    }

    fn plan(epochs_max: u32) -> Plan {
        Plan { epochs_max, patience_epochs: 2, learning_rate: 0.5, weight_decay: 0.0, seed: 1 }
    }

    #[test]
    fn without_a_validation_set_the_training_loss_decides() {
        let (mut one, mut store) = One::new(0, &[]);
        let fitted = fit(
            &mut one,
            &mut store,
            &Plan { patience_epochs: 50, ..plan(20) },
            &mut Journal::nowhere(),
            &ProgressBar::hidden(),
        )
        .unwrap();
        assert!((one.weight.double_value(&[0]) - 3.0).abs() < 0.1, "{fitted:?}");
    }

    #[test]
    fn it_stops_early_and_keeps_the_weights_of_the_best_epoch() {
        let (mut one, mut store) = One::new(0, &[1.0, 0.5, 0.7, 0.6, 0.1]);
        let fitted = fit(&mut one, &mut store, &plan(20), &mut Journal::nowhere(), &ProgressBar::hidden()).unwrap();
        assert_eq!((fitted.epochs, fitted.steps, fitted.loss), (4, 20, 0.5));
        assert_eq!(one.weight.double_value(&[0]), one.seen[1]);
        assert_ne!(one.seen[1], one.seen[3]);
    }

    #[test]
    fn a_good_start_is_kept_where_no_epoch_does_better() {
        // What validation says before the first epoch, and after each of three. Patience: two.
        for (valid, kept, epochs) in [([0.5, 0.7, 0.6, 0.1], 0, 2), ([0.5, 0.7, 0.4, 0.6], 2, 3)] {
            let (one, mut store) = One::new(0, &valid);
            let (mut one, plan) = (One { start_counts: true, ..one }, plan(3));
            let fitted = fit(&mut one, &mut store, &plan, &mut Journal::nowhere(), &ProgressBar::hidden()).unwrap();
            assert_eq!((fitted.loss, one.weight.double_value(&[0])), (valid[kept], one.seen[kept]), "{fitted:?}");
            assert_eq!(fitted.epochs, epochs);
        }
        let (one, mut store) = One::new(0, &[0.5]);
        let mut one = One { start_counts: true, ..one };
        let fitted = fit(&mut one, &mut store, &plan(0), &mut Journal::nowhere(), &ProgressBar::hidden()).unwrap();
        assert_eq!((fitted.epochs, fitted.steps, fitted.loss, one.steps), (0, 0, 0.5, 0));
    }

    #[test]
    fn the_bar_shows_the_losses_and_the_auc_of_the_last_epoch() {
        let (mut one, mut store) = One::new(0, &[0.5, 0.25]);
        let bar = ProgressBar::hidden();
        fit(&mut one, &mut store, &plan(2), &mut Journal::nowhere(), &bar).unwrap();
        let shown = bar.message();
        assert!(shown.starts_with("one: epoch 2: auc_valid_purchase 0.7500, "), "{shown}");
        assert!(shown.contains("loss_train ") && shown.contains("loss_valid 0.2500"), "{shown}");
        assert_eq!((bar.position(), bar.length()), (30, Some(30)), "two epochs of all samples");
    }

    #[test]
    fn a_loss_that_is_no_number_stops_it_with_the_step_and_the_batch() {
        let (mut one, mut store) = One::new(8, &[]);
        let failure =
            fit(&mut one, &mut store, &plan(20), &mut Journal::nowhere(), &ProgressBar::hidden()).unwrap_err();
        assert_eq!(failure.kind.exit_code(), 6);
        assert!(
            failure.message.contains("step 8 (epoch 2, batch 3): the loss is NaN; the batch holds user u"),
            "{failure}"
        );
        assert!(one.weight.double_value(&[0]).is_finite(), "the sick step was taken");
    }

    #[test]
    fn gradients_that_are_no_numbers_stop_it_before_they_reach_the_weights() {
        let (mut one, mut store) = One::new(0, &[]);
        one.steep = true;
        let failure = fit(&mut one, &mut store, &plan(1), &mut Journal::nowhere(), &ProgressBar::hidden()).unwrap_err();
        assert!(failure.message.contains("step 1 (epoch 1, batch 1): the norm of the gradients is"), "{failure}");
        assert_eq!(one.weight.double_value(&[0]), 0.0);
    }

    #[test]
    fn validation_that_is_never_a_number_stops_it_too() {
        let (mut one, mut store) = One::new(0, &[f64::NAN; 9]);
        let failure = fit(&mut one, &mut store, &plan(9), &mut Journal::nowhere(), &ProgressBar::hidden()).unwrap_err();
        assert!(failure.message.contains("no number after any of 2 epochs"), "{failure}");
    }

    #[test]
    fn the_learning_rate_warms_up_and_decays() {
        let rates: Vec<f64> = [0.025, 0.05, 0.5, 1.0].iter().map(|&s| Schedule::Cosine.rate(0.5, s)).collect();
        assert!(rates[0] < rates[1] && rates[1] > rates[2] && rates[2] > rates[3]);
        assert_eq!(rates[3], 0.5 * 0.05);
        let line = Schedule::Linear { warmup_share: 0.2 };
        let rates = [0.1, 0.2, 0.6, 1.0].map(|s| (line.rate(0.5, s) * 1e9).round() / 1e9);
        assert_eq!(rates, [0.25, 0.5, 0.25, 0.0]);
        assert_eq!(Schedule::Linear { warmup_share: 0.0 }.rate(0.5, 0.0), 0.5);
    }

    #[test]
    fn accumulated_batches_make_one_step_and_an_epoch_leaves_none_waiting() {
        let (one, mut store) = One::new(0, &[]);
        let mut one = One { accumulation_steps: 2, ..one };
        let fitted = fit(&mut one, &mut store, &plan(1), &mut Journal::nowhere(), &ProgressBar::hidden()).unwrap();
        assert_eq!(fitted.steps, 5);
        // Five batches, two a step: three steps. A step of AdamW on gradients of one sign is about its learning rate.
        let by_hand: f64 = [0.4, 0.8, 1.0].map(|share| Schedule::Cosine.rate(0.5, share)).iter().sum();
        let weight = one.weight.double_value(&[0]);
        assert!((weight - by_hand).abs() < 0.02, "{weight} {by_hand}");
    }

    #[test]
    fn the_pace_of_an_epoch_is_its_samples_by_all_of_its_time_and_the_share_of_it_that_was_waited() {
        let clock = std::cell::Cell::new(0u64);
        let later = |seconds: u64| clock.set(clock.get() + seconds);
        let mut pace = Pace::by(|| Duration::from_secs(clock.get()));
        assert_eq!((pace.samples_per_second(), pace.waiting_share()), (0.0, 0.0), "nothing yet");
        for (waits, computes) in [(2, 4), (1, 5)] {
            pace.wait(|| later(waits));
            later(computes);
            pace.samples += 300;
        }
        pace.stop();
        assert_eq!((pace.samples_per_second(), pace.waiting_share()), (50.0, 0.25));
        let (plan, (_, mut store)) = (plan(4), One::new(0, &[]));
        let values = Learner::new(&mut store, &plan, Stepping::default()).record("one", 0.5, None, &pace).values;
        assert_eq!((values["samples_per_second"], values["waiting_share"]), (50.0, 0.25), "each by its name");
    }

    /// A journal below `uri` with a checkpoint after every step.
    fn every_step(runtime: &tokio::runtime::Runtime, uri: &str) -> (Journal, Location) {
        let output = Location::open(uri, &S3Config::default()).unwrap();
        let places = Places::new(&output, "print", "run", runtime.handle().clone());
        let train = TrainConfig { checkpoint_steps: 1, checkpoint_seconds: 0, ..Default::default() };
        (Journal::new(Some(places), &train, serde_json::Value::Null), output)
    }

    /// Weight by its bits, validations of all processes, and what became of it.
    fn outcome(one: &One, fitted: &Fitted) -> (u64, u32, u64, u64) {
        (one.weight.double_value(&[0]).to_bits(), fitted.epochs, fitted.steps, fitted.loss.to_bits())
    }

    #[test]
    fn killed_at_any_step_and_gone_on_with_it_ends_the_same_to_the_bit() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        // No validation set: the mean training loss decides, whose sum has to survive too. The learning rate is such
        // that some epochs are worse than the one before.
        let plan = Plan { epochs_max: 6, patience_epochs: 2, weight_decay: 0.3, ..plan(6) };
        let noisy = || {
            let (one, store) = One::new(0, &[]);
            (One { noisy: true, ..one }, store)
        };
        let (mut whole, mut store) = noisy();
        let fitted = fit(&mut whole, &mut store, &plan, &mut Journal::nowhere(), &ProgressBar::hidden()).unwrap();
        for dies_at in 1..=fitted.steps as usize {
            let uri = format!("memory://fit-killed-{dies_at}");
            let (one, mut store) = noisy();
            let (mut journal, _) = every_step(&runtime, &uri);
            let mut one = One { dies_at, ..one };
            let killed = fit(&mut one, &mut store, &plan, &mut journal, &ProgressBar::hidden()).unwrap_err();
            assert_eq!(killed.message, "killed");
            let (mut one, mut store) = noisy();
            let (mut journal, output) = every_step(&runtime, &uri);
            let again = fit(&mut one, &mut store, &plan, &mut journal, &ProgressBar::hidden()).unwrap();
            assert_eq!(outcome(&one, &again), outcome(&whole, &fitted), "killed in step {dies_at}");
            assert_eq!(one.steps as u64, fitted.steps - dies_at as u64 + 1, "only what was left is done");
            let kept = runtime.block_on(output.folder("state/training/print").list()).unwrap();
            assert_eq!(kept.len(), 2.min(fitted.steps as usize + 1));
            // Once more: it is finished already.
            let (mut one, mut store) = noisy();
            let again = fit(&mut one, &mut store, &plan, &mut every_step(&runtime, &uri).0, &ProgressBar::hidden());
            assert_eq!((outcome(&one, &again.unwrap()), one.steps), (outcome(&whole, &fitted), 0));
        }
    }

    #[test]
    fn a_damaged_checkpoint_is_passed_over_for_the_one_before() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (mut journal, output) = every_step(&runtime, "memory://fit-damaged");
        let (one, mut store) = One::new(0, &[]);
        let mut one = One { dies_at: 9, ..one };
        fit(&mut one, &mut store, &plan(4), &mut journal, &ProgressBar::hidden()).unwrap_err();
        let folder = output.folder("state/training/print");
        let damage = |name: &str| {
            let bytes = runtime.block_on(folder.read(name)).unwrap();
            runtime.block_on(folder.write(name, bytes.slice(..bytes.len() / 2))).unwrap();
        };
        damage("one-0000000008.checkpoint");
        let steps_of_a_new_process = || {
            let (mut one, mut store) = One::new(0, &[]);
            let mut journal = every_step(&runtime, "memory://fit-damaged").0;
            let fitted = fit(
                &mut one,
                &mut store,
                &Plan { patience_epochs: 9, ..plan(4) },
                &mut journal,
                &ProgressBar::hidden(),
            );
            (one.steps, fitted.unwrap().steps)
        };
        assert_eq!(steps_of_a_new_process(), (13, 20), "from step 7 on");
        for name in runtime.block_on(folder.list()).unwrap() {
            damage(name.location.filename().unwrap());
        }
        assert_eq!(steps_of_a_new_process(), (20, 20), "from the start");
    }
}
