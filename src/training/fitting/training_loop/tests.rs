//! Tests of the training loop, on a task of one weight.

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind};

use super::*;
use crate::config::{S3Config, TrainConfig};
use crate::lake::stores::Location;
use crate::training::fitting::fit_settings::Schedule;
use crate::training::fitting::task::Batches;
use crate::training::fitting::training_journal::JournalLocation;

/// Trains one weight towards 3; validation losses are given, epoch by epoch.
struct OneWeight {
    weight: Tensor,
    steps: usize,
    /// Step whose loss is NaN; 0 for none.
    nan_at: usize,
    /// Step that fails; 0 for none.
    fails_at: usize,
    /// Aims at a target that the batch and the step's random numbers decide, instead of 3.
    noisy: bool,
    /// Has a finite loss with an infinite gradient.
    infinite_gradient: bool,
    accumulation_steps: u32,
    validates_initial_weights: bool,
    valid: Vec<f64>,
    /// The weight at each validation.
    validated: Vec<f64>,
}

impl OneWeight {
    fn new(nan_at: usize, valid: &[f64]) -> (Self, nn::VarStore) {
        let store = nn::VarStore::new(Device::Cpu);
        let weight = store.root().zeros("weight", &[1]);
        (
            Self {
                weight,
                steps: 0,
                nan_at,
                fails_at: 0,
                noisy: false,
                infinite_gradient: false,
                accumulation_steps: 1,
                validates_initial_weights: false,
                valid: valid.to_vec(),
                validated: Vec::new(),
            },
            store,
        )
    }
}

impl TrainingTask for OneWeight {
    type Batch = usize;

    fn name(&self) -> &'static str {
        "one"
    }

    fn samples_per_epoch(&self) -> usize {
        15
    }

    fn batch_samples(&self, _: &usize) -> usize {
        3
    }

    fn batches(&self, mut epoch: Epoch) -> Result<Batches<usize>> {
        let mut order: Vec<usize> = (0..5).collect();
        order.shuffle(&mut epoch.order);
        Ok(Box::new(order.into_iter().skip(epoch.skip as usize).map(Ok)))
    }

    fn loss(&mut self, batch: &usize, rng: &mut ChaCha8Rng) -> Result<BatchLoss> {
        self.steps += 1;
        if self.steps == self.fails_at {
            return Err(Failure::transient("killed"));
        }
        if self.noisy {
            let target = 3.0 + *batch as f64 * 0.1 + rng.random_range(-0.5..0.5);
            return Ok((&self.weight - target).square().sum(Kind::Float).into());
        }
        if self.infinite_gradient {
            return Ok(((&self.weight - self.weight.detach()).sqrt().sum(Kind::Float) + 1.0).into());
        }
        let wrong = if self.steps == self.nan_at { f64::NAN } else { 0.0 };
        Ok(((&self.weight - 3.0).square().sum(Kind::Float) + wrong).into())
    }

    fn describe_batch(&self, batch: &usize) -> String {
        format!("user u{batch}")
    }

    fn step_options(&self) -> StepOptions {
        StepOptions { accumulation_steps: self.accumulation_steps, ..Default::default() }
    }

    fn validates_initial_weights(&self) -> bool {
        self.validates_initial_weights
    }

    fn validate(&mut self) -> Result<Option<Validation>> {
        self.validated.push(self.weight.double_value(&[0]));
        let loss = self.valid.get(self.validated.len() - 1).copied();
        Ok(loss.map(|loss| Validation { loss, figures: vec![("auc_valid_purchase", 1.0 - loss)] }))
    }
}

fn settings(epochs_max: u32) -> FitSettings {
    FitSettings { epochs_max, patience_epochs: 2, learning_rate: 0.5, weight_decay: 0.0, seed: 1 }
}

#[test]
fn without_a_validation_set_the_training_loss_decides() {
    let (mut task, mut store) = OneWeight::new(0, &[]);
    let summary = fit(
        &mut task,
        &mut store,
        &FitSettings { patience_epochs: 50, ..settings(20) },
        &mut Journal::disabled(),
        &ProgressBar::hidden(),
    )
    .unwrap();
    assert!((task.weight.double_value(&[0]) - 3.0).abs() < 0.1, "{summary:?}");
}

#[test]
fn early_stopping_restores_the_weights_of_the_best_epoch() {
    let (mut task, mut store) = OneWeight::new(0, &[1.0, 0.5, 0.7, 0.6, 0.1]);
    let summary = fit(&mut task, &mut store, &settings(20), &mut Journal::disabled(), &ProgressBar::hidden()).unwrap();
    assert_eq!((summary.epochs, summary.steps, summary.loss), (4, 20, 0.5));
    assert_eq!(task.weight.double_value(&[0]), task.validated[1]);
    assert_ne!(task.validated[1], task.validated[3]);
}

#[test]
fn initial_weights_stay_where_no_epoch_is_better() {
    // Validation losses before the first epoch, and after each of three. Patience: two.
    for (valid, best, epochs) in [([0.5, 0.7, 0.6, 0.1], 0, 2), ([0.5, 0.7, 0.4, 0.6], 2, 3)] {
        let (task, mut store) = OneWeight::new(0, &valid);
        let (mut task, settings) = (OneWeight { validates_initial_weights: true, ..task }, settings(3));
        let summary = fit(&mut task, &mut store, &settings, &mut Journal::disabled(), &ProgressBar::hidden()).unwrap();
        assert_eq!((summary.loss, task.weight.double_value(&[0])), (valid[best], task.validated[best]), "{summary:?}");
        assert_eq!(summary.epochs, epochs);
    }
    let (task, mut store) = OneWeight::new(0, &[0.5]);
    let mut task = OneWeight { validates_initial_weights: true, ..task };
    let summary = fit(&mut task, &mut store, &settings(0), &mut Journal::disabled(), &ProgressBar::hidden()).unwrap();
    assert_eq!((summary.epochs, summary.steps, summary.loss, task.steps), (0, 0, 0.5, 0));
}

#[test]
fn the_progress_bar_shows_the_figures_of_the_last_epoch() {
    let (mut task, mut store) = OneWeight::new(0, &[0.5, 0.25]);
    let bar = ProgressBar::hidden();
    fit(&mut task, &mut store, &settings(2), &mut Journal::disabled(), &bar).unwrap();
    let shown = bar.message();
    assert!(shown.starts_with("one: epoch 2: auc_valid_purchase 0.7500, "), "{shown}");
    assert!(shown.contains("loss_train ") && shown.contains("loss_valid 0.2500"), "{shown}");
    assert_eq!((bar.position(), bar.length()), (30, Some(30)), "two epochs of all samples");
}

#[test]
fn a_nan_loss_stops_the_training_and_names_step_and_batch() {
    let (mut task, mut store) = OneWeight::new(8, &[]);
    let failure =
        fit(&mut task, &mut store, &settings(20), &mut Journal::disabled(), &ProgressBar::hidden()).unwrap_err();
    assert_eq!(failure.kind.exit_code(), 6);
    assert!(
        failure.message.contains("step 8 (epoch 2, batch 3): the loss is NaN; the batch holds user u"),
        "{failure}"
    );
    assert!(task.weight.double_value(&[0]).is_finite(), "the step was taken");
}

#[test]
fn an_infinite_gradient_never_reaches_the_weights() {
    let (mut task, mut store) = OneWeight::new(0, &[]);
    task.infinite_gradient = true;
    let failure =
        fit(&mut task, &mut store, &settings(1), &mut Journal::disabled(), &ProgressBar::hidden()).unwrap_err();
    assert!(failure.message.contains("step 1 (epoch 1, batch 1): the norm of the gradients is"), "{failure}");
    assert_eq!(task.weight.double_value(&[0]), 0.0);
}

#[test]
fn a_validation_loss_that_is_always_nan_is_an_error() {
    let (mut task, mut store) = OneWeight::new(0, &[f64::NAN; 9]);
    let failure =
        fit(&mut task, &mut store, &settings(9), &mut Journal::disabled(), &ProgressBar::hidden()).unwrap_err();
    assert!(failure.message.contains("was not a number after any of 2 epochs"), "{failure}");
}

#[test]
fn an_epoch_ends_with_a_step_on_its_last_gradients() {
    let (task, mut store) = OneWeight::new(0, &[]);
    let mut task = OneWeight { accumulation_steps: 2, ..task };
    let summary = fit(&mut task, &mut store, &settings(1), &mut Journal::disabled(), &ProgressBar::hidden()).unwrap();
    assert_eq!(summary.steps, 5);
    // Five batches, two a step: three steps. With gradients of one sign, a step of AdamW is about its learning rate.
    let by_hand: f64 = [0.4, 0.8, 1.0].map(|share| Schedule::Cosine.rate(0.5, share)).iter().sum();
    let weight = task.weight.double_value(&[0]);
    assert!((weight - by_hand).abs() < 0.02, "{weight} {by_hand}");
}

#[test]
fn a_record_holds_the_throughput_by_name() {
    let mut meter = ThroughputMeter::new(|| Duration::from_secs(12));
    meter.add_samples(600);
    meter.stop();
    let (settings, (_, mut store)) = (settings(4), OneWeight::new(0, &[]));
    let values = Trainer::new(&mut store, &settings, StepOptions::default()).record("one", 0.5, None, &meter).values;
    assert_eq!((values["samples_per_second"], values["waiting_share"]), (50.0, 0.0));
}

/// A journal below `uri` with a checkpoint after every step.
fn every_step(runtime: &tokio::runtime::Runtime, uri: &str) -> (Journal, Location) {
    let output = Location::open(uri, &S3Config::default()).unwrap();
    let location = JournalLocation::new(&output, "print", "run", runtime.handle().clone());
    let train = TrainConfig { checkpoint_steps: 1, checkpoint_seconds: 0, ..Default::default() };
    (Journal::new(Some(location), &train, serde_json::Value::Null), output)
}

/// Bits of the weight and of the loss, with epochs and steps.
fn outcome(task: &OneWeight, summary: &FitSummary) -> (u64, u32, u64, u64) {
    (task.weight.double_value(&[0]).to_bits(), summary.epochs, summary.steps, summary.loss.to_bits())
}

#[test]
fn a_training_killed_at_any_step_resumes_to_the_same_bits() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // No validation set: the mean training loss decides, whose sum has to survive too. With this learning rate
    // some epochs are worse than the one before.
    let settings = FitSettings { epochs_max: 6, patience_epochs: 2, weight_decay: 0.3, ..settings(6) };
    let noisy = || {
        let (task, store) = OneWeight::new(0, &[]);
        (OneWeight { noisy: true, ..task }, store)
    };
    let (mut whole, mut store) = noisy();
    let summary = fit(&mut whole, &mut store, &settings, &mut Journal::disabled(), &ProgressBar::hidden()).unwrap();
    for fails_at in 1..=summary.steps as usize {
        let uri = format!("memory://fit-killed-{fails_at}");
        let (task, mut store) = noisy();
        let (mut journal, _) = every_step(&runtime, &uri);
        let mut task = OneWeight { fails_at, ..task };
        let killed = fit(&mut task, &mut store, &settings, &mut journal, &ProgressBar::hidden()).unwrap_err();
        assert_eq!(killed.message, "killed");
        let (mut task, mut store) = noisy();
        let (mut journal, output) = every_step(&runtime, &uri);
        let resumed = fit(&mut task, &mut store, &settings, &mut journal, &ProgressBar::hidden()).unwrap();
        assert_eq!(outcome(&task, &resumed), outcome(&whole, &summary), "killed in step {fails_at}");
        assert_eq!(task.steps as u64, summary.steps - fails_at as u64 + 1, "only the remaining steps are taken");
        let checkpoints = runtime.block_on(output.folder("state/training/print").list()).unwrap();
        assert_eq!(checkpoints.len(), 2.min(summary.steps as usize + 1));
        // Run again: it is finished already.
        let (mut task, mut store) = noisy();
        let resumed = fit(&mut task, &mut store, &settings, &mut every_step(&runtime, &uri).0, &ProgressBar::hidden());
        assert_eq!((outcome(&task, &resumed.unwrap()), task.steps), (outcome(&whole, &summary), 0));
    }
}

#[test]
fn a_damaged_checkpoint_is_ignored_for_the_one_before() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut journal, output) = every_step(&runtime, "memory://fit-damaged");
    let (task, mut store) = OneWeight::new(0, &[]);
    let mut task = OneWeight { fails_at: 9, ..task };
    fit(&mut task, &mut store, &settings(4), &mut journal, &ProgressBar::hidden()).unwrap_err();
    let folder = output.folder("state/training/print");
    let damage = |name: &str| {
        let bytes = runtime.block_on(folder.read(name)).unwrap();
        runtime.block_on(folder.write(name, bytes.slice(..bytes.len() / 2))).unwrap();
    };
    damage("one-0000000008.checkpoint");
    let steps_of_a_new_process = || {
        let (mut task, mut store) = OneWeight::new(0, &[]);
        let mut journal = every_step(&runtime, "memory://fit-damaged").0;
        let summary = fit(
            &mut task,
            &mut store,
            &FitSettings { patience_epochs: 9, ..settings(4) },
            &mut journal,
            &ProgressBar::hidden(),
        );
        (task.steps, summary.unwrap().steps)
    };
    assert_eq!(steps_of_a_new_process(), (13, 20), "from step 7 on");
    for name in runtime.block_on(folder.list()).unwrap() {
        damage(name.location.filename().unwrap());
    }
    assert_eq!(steps_of_a_new_process(), (20, 20), "from the start");
}
