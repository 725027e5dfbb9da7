//! Trains what predicts the intents: the network and the trees, their blend, and figures on users and dates that training never
//! saw.
//!
//! In come blocks of users and their statistics ([`IntentData`]) and the untrained network; out go its weights, the trees, the
//! blend and the figures of the test users at the newest date. The heads start at the base rates and item biases at popularity; with
//! `train.pretraining`, the encoder is pretrained before. `bundle` calls [`require_labels`], [`start_at_popularity`],
//! [`train`] and [`recency_frequency_auc`].

mod base_rate_bias;
mod blend_weights;
mod cold_start;
mod intent_data;
mod intent_evaluation;
mod intent_task;
mod label_checks;
mod latest_items;
mod leaks;
mod next_item_loss;
mod objective;
mod popularity_bias;
mod recency_frequency_baseline;
mod semi_supervised;
mod tree_member;
mod user_batches;

pub(crate) use intent_data::IntentData;
pub(crate) use label_checks::require_labels;
pub(crate) use leaks::suspicious_features;
pub(crate) use popularity_bias::start_at_popularity;
pub(crate) use recency_frequency_baseline::recency_frequency_auc;

use indicatif::ProgressBar;
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::nn;

use crate::config::Config;
use crate::config::networks::{LossName, Pretraining};
use crate::failure::Result;
use crate::model::blend::Blend;
use crate::model::bundle::IndexedItem;
use crate::model::intent::IntentNetwork;
use crate::model::latest_items::LatestItems;
use crate::model::trees::IntentTrees;
use crate::model::weights::parameter_count;
use crate::training::datasets::{BlockRows, UserBlocks, mark_item_buckets};
use crate::training::fitting::{self, FitSettings, FitSummary, Journal};
use crate::training::pretraining::{HistoryData, PretrainingOptions, PretrainingTask};
use base_rate_bias::start_at_base_rates;
use intent_task::IntentTask;
use user_batches::is_trained_on;

/// Learning rate of the refit, as a factor of that of the training: the weights are good already.
const REFIT_RATE: f64 = 0.3;

/// Everything that a training of the intents makes besides the network's weights.
pub(crate) struct TrainedIntents {
    pub(crate) trees: Option<IntentTrees>,
    pub(crate) blend: Blend,
    pub(crate) latest_items: Option<LatestItems>,
    /// Figures of the test users at the newest date.
    pub(crate) figures: BTreeMap<String, f64>,
}

/// Trains the trees, then the network in place, then their blend and the weights of latest items.
pub(crate) fn train(
    network: &IntentNetwork,
    store: &mut nn::VarStore,
    data: IntentData<'_>,
    config: &Config,
    journal: &mut Journal,
    bar: &ProgressBar,
) -> Result<TrainedIntents> {
    // First, because what is wrong with the library or the rows shows within seconds.
    let (trees, tree_figures) = match config.intents.trees {
        true => tree_member::train(data, config).map(|(trees, figures)| (Some(trees), figures))?,
        false => (None, BTreeMap::new()),
    };
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
    let seen = seen_item_buckets(data.items, &data.statistics.item_buckets_seen, network.shape.item_buckets);
    cold_start::reset_unseen_items(store, &seen)?;
    let (blend, mut figures) = task.blend_and_figures(trees.as_ref().map(|trees| &trees.judged))?;
    figures.extend(tree_figures);
    // Before the refit, which learns the horizons that these are measured on.
    let (latest_items, of_latest_items) = task.latest_items()?;
    figures.extend(of_latest_items);
    if config.train.refit_epochs > 0 {
        let refit = refit(&mut task, store, data, config, journal, bar)?;
        figures.insert("train_seconds_intent_refit".into(), refit.seconds);
    }
    figures.insert("parameters_intent".into(), parameter_count(store) as f64);
    figures.insert("epochs_intent".into(), summary.epochs.into());
    figures.insert("train_seconds_intent".into(), summary.seconds);
    if let Some(pretrained) = pretrained {
        figures.insert("epochs_pretraining".into(), pretrained.epochs.into());
        figures.insert("loss_pretraining".into(), pretrained.loss);
        figures.insert("train_seconds_pretraining".into(), pretrained.seconds);
    }
    Ok(TrainedIntents { trees: trees.map(|trees| trees.published), blend, latest_items, figures })
}

/// Continues the training of the network on the users and dates that were held out, next to those it knows, once the figures are
/// known: the newest weeks say most about the next ones.
fn refit(
    task: &mut IntentTask<'_>,
    store: &mut nn::VarStore,
    data: IntentData<'_>,
    config: &Config,
    journal: &mut Journal,
    bar: &ProgressBar,
) -> Result<FitSummary> {
    let users = Arc::new(UserBlocks::union(&[data.train.as_ref(), data.held_out, data.newest])?);
    let settings = FitSettings {
        epochs_max: config.train.refit_epochs,
        patience_epochs: config.train.refit_epochs,
        learning_rate: config.train.learning_rate * REFIT_RATE,
        weight_decay: config.model.weight_decay,
        seed: config.train.seed ^ 0x7f,
    };
    let mut seen = data.statistics.item_buckets_seen.clone();
    let mut labelled = 0;
    for window in users.each_window() {
        let window = window?;
        (0..window.len()).for_each(|row| mark_item_buckets(&mut seen, window.event_items(row)));
        labelled += (0..window.len()).filter(|&row| is_trained_on(&window, row, config.train.labels_share)).count();
    }
    task.refit_on(users, labelled);
    let summary = fitting::fit(task, store, &settings, journal, bar)?;
    cold_start::reset_unseen_items(store, &seen_item_buckets(data.items, &seen, task.item_buckets()))?;
    Ok(summary)
}

/// Returns true for each bucket of item ids that an event (`events_seen`) or an item of the index has.
fn seen_item_buckets(items: &[IndexedItem], events_seen: &[bool], item_buckets: u64) -> Vec<bool> {
    let mut seen = events_seen.to_vec();
    seen.resize(item_buckets as usize + 1, false);
    for item in items {
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
