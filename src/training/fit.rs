//! The one training loop: AdamW (Loshchilov and Hutter 2019) with warm-up and cosine decay, clipped gradients, early
//! stopping, the best weights restored. What is trained, on which batches and by which loss, is the [`Lesson`].
//!
//! Same lesson, plan and machine: the same weights to the bit, on CPU, in a process that trains nothing else meanwhile
//! (libtorch's random numbers are the process's).

use indicatif::ProgressBar;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::time::Instant;
use tch::nn::OptimizerConfig;
use tch::{Tensor, nn};

use crate::failure::{Failure, Result};

/// What the loop has to know of the thing that is learnt.
pub trait Lesson {
    type Batch;

    /// What is trained, for messages: `intents`.
    fn name(&self) -> &'static str;

    /// The batches of one epoch, shuffled.
    fn batches(&mut self, rng: &mut ChaCha8Rng) -> Vec<Self::Batch>;

    /// The loss of one batch, one number with a gradient.
    fn loss(&mut self, batch: &Self::Batch, rng: &mut ChaCha8Rng) -> Result<Tensor>;

    /// What is in a batch, for the message that its loss is no number.
    fn describe(&self, batch: &Self::Batch) -> String;

    /// The loss on what is not trained on; `None` where there is nothing, and the training loss decides.
    fn validate(&mut self) -> Result<Option<Validation>>;
}

/// An epoch's validation.
#[derive(Debug, Clone, PartialEq)]
pub struct Validation {
    pub loss: f64,
    /// More to say about the epoch; may be empty.
    pub note: String,
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
    /// The learning rate after a share of all steps: up in the first twentieth, then down a cosine to a twentieth.
    fn learning_rate(&self, share: f64) -> f64 {
        let warm = (share / 0.05).min(1.0);
        let decay = 0.5 * (1.0 + (std::f64::consts::PI * share.min(1.0)).cos());
        self.learning_rate * warm * decay.max(0.05)
    }
}

/// Gradients are clipped to this norm over all weights.
const GRADIENT_NORM_MAX: f64 = 1.0;

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
pub fn fit(lesson: &mut impl Lesson, store: &mut nn::VarStore, plan: &Plan, bar: &ProgressBar) -> Result<Fitted> {
    let clock = Instant::now();
    tch::manual_seed(plan.seed as i64);
    let mut rng = ChaCha8Rng::seed_from_u64(plan.seed);
    let mut optimizer = nn::AdamW { wd: plan.weight_decay, ..Default::default() }.build(store, plan.learning_rate)?;
    let (mut best, mut kept, mut worse) = (f64::INFINITY, Vec::new(), 0);
    let (mut steps, mut epoch) = (0, 0);
    while epoch < plan.epochs_max && worse < plan.patience_epochs.max(1) {
        epoch += 1;
        let batches = lesson.batches(&mut rng);
        bar.set_length(batches.len() as u64 * u64::from(plan.epochs_max));
        let mut sum = 0.0;
        for (at, batch) in batches.iter().enumerate() {
            steps += 1;
            let share = (f64::from(epoch - 1) + (at + 1) as f64 / batches.len() as f64) / f64::from(plan.epochs_max);
            optimizer.set_lr(plan.learning_rate(share));
            let loss = lesson.loss(batch, &mut rng)?;
            let value = loss.double_value(&[]);
            if !value.is_finite() {
                return Err(stopped(lesson, batch, format!("step {steps} (epoch {epoch}, batch {})", at + 1), value));
            }
            optimizer.zero_grad();
            loss.f_backward()?;
            optimizer.clip_grad_norm(GRADIENT_NORM_MAX);
            optimizer.step();
            sum += value;
            bar.inc(1);
        }
        let trained = sum / batches.len().max(1) as f64;
        let valid = lesson.validate()?;
        let note = match &valid {
            Some(v) => format!(", valid loss {:.4}{}", v.loss, v.note),
            None => String::new(),
        };
        let message = format!("epoch {epoch}: loss {trained:.4}{note}");
        tracing::info!("{}: {message}", lesson.name());
        bar.set_message(message);
        let reached = valid.map_or(trained, |v| v.loss);
        if reached < best - 1e-5 {
            (best, kept, worse) = (reached, snapshot(store), 0);
        } else {
            worse += 1;
        }
    }
    if kept.is_empty() {
        return Err(Failure::model(format!(
            "training of {} stopped: the loss on the validation set was no number after any of {epoch} epochs",
            lesson.name()
        ))
        .hint("lower train.learning_rate"));
    }
    restore(store, &kept);
    Ok(Fitted { epochs: epoch, steps, loss: best, seconds: clock.elapsed().as_secs_f64() })
}

fn stopped<L: Lesson>(lesson: &L, batch: &L::Batch, place: String, loss: f64) -> Failure {
    let (name, batch) = (lesson.name(), lesson.describe(batch));
    Failure::model(format!("training of {name} stopped at {place}: the loss is {loss}; the batch holds {batch}"))
        .hint("lower train.learning_rate; if it stops at the same batch again, look at that batch's features")
}

/// Copies of all weights.
fn snapshot(store: &nn::VarStore) -> Vec<(String, Tensor)> {
    store.variables().into_iter().map(|(name, t)| (name, t.detach().copy())).collect()
}

/// Puts copied weights back.
fn restore(store: &mut nn::VarStore, weights: &[(String, Tensor)]) {
    let mut variables = store.variables();
    tch::no_grad(|| {
        for (name, saved) in weights {
            if let Some(variable) = variables.get_mut(name) {
                variable.copy_(saved);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    /// One weight that should become 3; what validation says, epoch by epoch.
    struct One {
        weight: Tensor,
        steps: usize,
        sick_at: usize,
        valid: Vec<f64>,
        seen: Vec<f64>,
    }

    impl One {
        fn new(sick_at: usize, valid: &[f64]) -> (Self, nn::VarStore) {
            let store = nn::VarStore::new(Device::Cpu);
            let weight = store.root().zeros("weight", &[1]);
            (Self { weight, steps: 0, sick_at, valid: valid.to_vec(), seen: Vec::new() }, store)
        }
    }

    impl Lesson for One {
        type Batch = usize;

        fn name(&self) -> &'static str {
            "one"
        }

        fn batches(&mut self, _: &mut ChaCha8Rng) -> Vec<usize> {
            (0..5).collect()
        }

        fn loss(&mut self, _: &usize, _: &mut ChaCha8Rng) -> Result<Tensor> {
            self.steps += 1;
            let wrong = if self.steps == self.sick_at { f64::NAN } else { 0.0 };
            Ok((&self.weight - 3.0).square().sum(Kind::Float) + wrong)
        }

        fn describe(&self, batch: &usize) -> String {
            format!("user u{batch}")
        }

        fn validate(&mut self) -> Result<Option<Validation>> {
            self.seen.push(self.weight.double_value(&[0]));
            let loss = self.valid.get(self.seen.len() - 1).copied();
            Ok(loss.map(|loss| Validation { loss, note: String::new() }))
        }
    }

    fn plan(epochs_max: u32) -> Plan {
        Plan { epochs_max, patience_epochs: 2, learning_rate: 0.5, weight_decay: 0.0, seed: 1 }
    }

    #[test]
    fn without_a_validation_set_the_training_loss_decides() {
        let (mut one, mut store) = One::new(0, &[]);
        let fitted =
            fit(&mut one, &mut store, &Plan { patience_epochs: 50, ..plan(20) }, &ProgressBar::hidden()).unwrap();
        assert!((one.weight.double_value(&[0]) - 3.0).abs() < 0.1, "{fitted:?}");
    }

    #[test]
    fn it_stops_early_and_keeps_the_weights_of_the_best_epoch() {
        let (mut one, mut store) = One::new(0, &[1.0, 0.5, 0.7, 0.6, 0.1]);
        let fitted = fit(&mut one, &mut store, &plan(20), &ProgressBar::hidden()).unwrap();
        assert_eq!((fitted.epochs, fitted.steps, fitted.loss), (4, 20, 0.5));
        assert_eq!(one.weight.double_value(&[0]), one.seen[1]);
        assert_ne!(one.seen[1], one.seen[3]);
    }

    #[test]
    fn a_loss_that_is_no_number_stops_it_with_the_step_and_the_batch() {
        let (mut one, mut store) = One::new(8, &[]);
        let failure = fit(&mut one, &mut store, &plan(20), &ProgressBar::hidden()).unwrap_err();
        assert_eq!(failure.kind.exit_code(), 6);
        assert!(
            failure.message.contains("step 8 (epoch 2, batch 3): the loss is NaN; the batch holds user u2"),
            "{failure}"
        );
        assert!(one.weight.double_value(&[0]).is_finite(), "the sick step was taken");
    }

    #[test]
    fn validation_that_is_never_a_number_stops_it_too() {
        let (mut one, mut store) = One::new(0, &[f64::NAN; 9]);
        let failure = fit(&mut one, &mut store, &plan(9), &ProgressBar::hidden()).unwrap_err();
        assert!(failure.message.contains("no number after any of 2 epochs"), "{failure}");
    }

    #[test]
    fn the_learning_rate_warms_up_and_decays() {
        let rates: Vec<f64> = [0.025, 0.05, 0.5, 1.0].iter().map(|&s| plan(1).learning_rate(s)).collect();
        assert!(rates[0] < rates[1] && rates[1] > rates[2] && rates[2] > rates[3]);
        assert_eq!(rates[3], 0.5 * 0.05);
    }
}
