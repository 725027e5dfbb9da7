//! Trains the intent network: labels and next items of users, and figures on users and dates that training never saw.
//!
//! In come blocks of users and their statistics ([`IntentData`]) and the untrained network; out go its weights and the
//! figures of the test users at the newest date. The heads start at the base rates and item biases at popularity; with
//! `train.pretraining`, the encoder is pretrained before. `bundle` calls [`require_labels`], [`start_at_popularity`],
//! [`train`] and [`recency_frequency_auc`].

mod base_rate_bias;
mod cold_start;
mod intent_data;
mod intent_evaluation;
mod intent_task;
mod label_checks;
mod next_item_loss;
mod objective;
mod popularity_bias;
mod recency_frequency_baseline;
mod semi_supervised;
mod user_batches;

pub(crate) use intent_data::IntentData;
pub(crate) use label_checks::require_labels;
pub(crate) use popularity_bias::start_at_popularity;
pub(crate) use recency_frequency_baseline::recency_frequency_auc;

use indicatif::ProgressBar;
use std::collections::BTreeMap;
use tch::nn;

use crate::config::Config;
use crate::config::networks::{LossName, Pretraining};
use crate::failure::Result;
use crate::model::intent::IntentNetwork;
use crate::model::weights::parameter_count;
use crate::training::fitting::{self, FitSettings, FitSummary, Journal};
use crate::training::pretraining::{HistoryData, PretrainingOptions, PretrainingTask};
use base_rate_bias::start_at_base_rates;
use intent_task::IntentTask;

/// Trains in place. Returns figures of the test users at the newest date.
pub(crate) fn train(
    network: &IntentNetwork,
    store: &mut nn::VarStore,
    data: IntentData<'_>,
    config: &Config,
    journal: &mut Journal,
    bar: &ProgressBar,
) -> Result<BTreeMap<String, f64>> {
    let pretrained = pretrain(network, store, data, config, journal, bar)?;
    match config.model.loss {
        LossName::Bce | LossName::Focal | LossName::Crf => start_at_base_rates(store, data.statistics)?,
        // The overlap has no gradient where a head predicts no for all users.
        LossName::Iou => {}
    }
    let mut task = IntentTask::new(network, store, data, config)?;
    let settings = FitSettings {
        epochs_max: config.train.epochs_max,
        patience_epochs: config.train.patience_epochs,
        learning_rate: config.train.learning_rate,
        weight_decay: config.model.weight_decay,
        seed: config.train.seed,
    };
    let summary = fitting::fit(&mut task, store, &settings, journal, bar)?;
    cold_start::reset_unseen_items(store, &seen_item_buckets(data, network.shape.item_buckets))?;
    let mut figures = task.figures()?;
    figures.insert("parameters_intent".into(), parameter_count(store) as f64);
    figures.insert("epochs_intent".into(), summary.epochs.into());
    figures.insert("train_seconds_intent".into(), summary.seconds);
    if let Some(pretrained) = pretrained {
        figures.insert("epochs_pretraining".into(), pretrained.epochs.into());
        figures.insert("loss_pretraining".into(), pretrained.loss);
        figures.insert("train_seconds_pretraining".into(), pretrained.seconds);
    }
    Ok(figures)
}

/// Returns true for each bucket of item ids that an event or an item of the index has.
fn seen_item_buckets(data: IntentData<'_>, item_buckets: u64) -> Vec<bool> {
    let mut seen = data.statistics.item_buckets_seen.clone();
    seen.resize(item_buckets as usize + 1, false);
    for item in data.items {
        seen[item.buckets(item_buckets).0 as usize] = true;
    }
    seen
}

/// Pretrains the encoder on the histories of all users of the training split, labelled or not, if configured.
fn pretrain(
    network: &IntentNetwork,
    store: &mut nn::VarStore,
    data: IntentData<'_>,
    config: &Config,
    journal: &mut Journal,
    bar: &ProgressBar,
) -> Result<Option<FitSummary>> {
    let train = &config.train;
    let histories = data.statistics.histories;
    if train.pretraining == Pretraining::None || histories == 0 {
        return Ok(None);
    }
    let history_data = HistoryData { users: data.train, histories, held_out: data.held_out, contents: data.contents };
    let options = PretrainingOptions {
        method: train.pretraining,
        batch_rows: train.batch_rows as usize,
        device: store.device(),
        seed: train.seed,
    };
    let mut task = PretrainingTask::new(network, history_data, options);
    let settings = FitSettings {
        epochs_max: train.pretraining_epochs,
        patience_epochs: train.patience_epochs,
        learning_rate: train.learning_rate,
        weight_decay: config.model.weight_decay,
        seed: train.seed ^ 0x9e,
    };
    fitting::fit(&mut task, store, &settings, journal, bar).map(Some)
}
