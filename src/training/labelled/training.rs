//! The steps of a classifier's training: the head alone, all weights, evaluation.

use std::collections::BTreeMap;
use tch::nn;

use super::linear_probe::{HeadFit, fit_head};
use super::loss::ClassifierLoss;
use super::row_encoder::{RowEncoder, evaluate_logits};
use super::task::ClassifierTask;
use super::test_figures::{TestRows, test_figures};
use super::weight_groups::weights_of_group;
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::model::weights::parameter_count;
use crate::progress;
use crate::training::fitting::{self, FitSettings, Journal, StepOptions};

/// With fewer rows to train on, figures are meaningless.
const TRAIN_ROWS_MIN: usize = 20;

/// Plan for training a classifier.
pub(crate) struct ClassifierPlan<'a> {
    pub(crate) loss: &'a ClassifierLoss,
    /// The rows for training, validation and test.
    pub(crate) rows: &'a [Vec<usize>; 3],
    /// Limits the steps of the head alone, for each penalty; 0 leaves the head at random weights.
    pub(crate) head_epochs_max: u32,
    /// 0 trains only the head.
    pub(crate) epochs_max: u32,
    pub(crate) learning_rate: f64,
    pub(crate) step_options: StepOptions,
    /// Names figures over several labels.
    pub(crate) column: &'a str,
}

/// Fits the head, then trains the trainable weights of the store, and returns figures on the test rows.
pub(crate) fn train_classifier(
    config: &Config,
    encoder: &impl RowEncoder,
    store: &mut nn::VarStore,
    plan: ClassifierPlan<'_>,
    journal: &mut Journal,
) -> Result<BTreeMap<String, f64>> {
    let clock = std::time::Instant::now();
    let seed = config.train.seed;
    let loss = plan.loss;
    let [train, valid, test] = plan.rows;
    let mut figures = BTreeMap::new();
    if plan.head_epochs_max > 0 {
        let head_fit = HeadFit {
            loss,
            loss_name: config.model.loss,
            label_smoothing: config.train.label_smoothing,
            steps_max: plan.head_epochs_max,
            train,
            valid,
        };
        figures.extend(fit_head(encoder, store, head_fit)?);
    }
    let fit_settings = FitSettings {
        epochs_max: plan.epochs_max,
        patience_epochs: config.train.patience_epochs,
        learning_rate: plan.learning_rate,
        weight_decay: config.train.weight_decay,
        seed,
    };
    let mut task = ClassifierTask { encoder, loss, train, valid, config, step_options: plan.step_options };
    let bar = progress::bar(encoder.name(), 1);
    let fitted = fitting::fit(&mut task, store, &fit_settings, journal, &bar)?;
    bar.finish_and_clear();
    figures.insert("epochs".into(), fitted.epochs.into());
    figures.insert("steps".into(), fitted.steps as f64);
    figures.insert("loss_valid".into(), fitted.loss);
    // Includes the fit of the head.
    figures.insert("train_seconds".into(), clock.elapsed().as_secs_f64());
    let logits = evaluate_logits(encoder, test)?;
    let test_rows = TestRows { rows: test, targets: &loss.targets, column: plan.column };
    figures.extend(test_figures(encoder.head(), &logits, test_rows, seed)?);
    for (name, rows) in ["rows_train", "rows_valid", "rows_test"].iter().zip(plan.rows) {
        figures.insert((*name).into(), rows.len() as f64);
    }
    Ok(figures)
}

/// Returns how many weights a store has, and how many of them are trained. The weights of the group `discarded` are not
/// counted.
pub(crate) fn count_weights(store: &nn::VarStore, discarded: Option<&str>) -> Result<BTreeMap<String, f64>> {
    let trained: i64 = store.variables().values().filter(|w| w.requires_grad()).map(|w| w.numel() as i64).sum();
    let unused: i64 = match discarded {
        Some(group) => weights_of_group(store, group)?.iter().map(|(_, w)| w.numel() as i64).sum(),
        None => 0,
    };
    Ok(BTreeMap::from([
        ("parameters".to_string(), (parameter_count(store) - unused) as f64),
        ("parameters_trained".to_string(), trained as f64),
    ]))
}

/// Refuses too few rows for training, or none for validation or test. `ignored` says how many rows are ignored, and
/// why.
pub(crate) fn require_enough_rows([train, valid, test]: &[Vec<usize>; 3], ignored: &str) -> Result<()> {
    if train.len() >= TRAIN_ROWS_MIN && !valid.is_empty() && !test.is_empty() {
        return Ok(());
    }
    Err(Failure::input(format!(
        "training: expected at least {TRAIN_ROWS_MIN} rows to train on and some for validation and test, got {}, {} and {}; \
         {ignored}",
        train.len(),
        valid.len(),
        test.len(),
    ))
    .hint("add rows; a --time-column needs at least three different times"))
}
