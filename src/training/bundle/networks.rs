//! Fits the intent network and the demand network on training sets, and describes them in the bundle's card.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::training_sets::TrainingSets;
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::model::bundle::{BundleCard, FORMAT, Networks};
use crate::model::demand::{Calibration, DemandBlend, DemandShape, RatePrior};
use crate::model::shape::IntentShape;
use crate::progress;
use crate::score::devices;
use crate::training::datasets::{ItemStatistics, UserStatistics, require_rows};
use crate::training::demand::{self, DemandData};
use crate::training::fitting::Journal;
use crate::training::intents::{self, IntentData};

/// Published intents become an input of the demand network if at least this share of the days of the histories has them.
const INTENT_DAYS_SHARE_MIN: f64 = 0.1;
/// Days between the oldest and the newest training date from which on the day of the year is an input.
const YEAR_DAYS: i64 = 365;
/// With fewer labelled users there is nothing to train on.
const LABELLED_USERS_MIN: usize = 20;

/// Trains both networks. The card still lacks what only writing it knows. Must run on a thread that may block, because the
/// journal waits for its store.
pub fn fit_networks(config: &Config, sets: &TrainingSets, journal: &mut Journal) -> Result<(BundleCard, Networks)> {
    let train = &config.train;
    tch::manual_seed(train.seed as i64);
    let items = ItemStatistics::from_blocks(&sets.items.train)?;
    let intent_shape = intent_shape(config, sets);
    let mut networks = Networks::new(&intent_shape, &demand_shape(config, &items), devices::choose(&config.score)?);
    let users = UserStatistics::from_blocks(&sets.users, sets.contract.0.len(), sets.index.len(), train.labels_share)?;
    // Everything that can be refused is refused before anything is trained.
    require_rows("users in the training split", users.labelled, LABELLED_USERS_MIN)?;
    intents::require_labels(&users, config.intents.horizon_days)?;
    if config.demand.enabled {
        demand::require_histories(&items, &config.demand)?;
    }
    for (feature, auc) in intents::suspicious_features(&users, &sets.contract) {
        tracing::warn!(
            "training: the feature {feature} alone predicts purchases with an AUC of {auc:.4}: its SQL probably reads days after the run \
             date (docs/howto/add-feature.md)"
        );
    }
    let item_buckets = intent_shape.item_buckets;
    intents::start_at_popularity(&networks.intent_store, &sets.index, item_buckets, &users.next_item_users)?;

    let intent_bar = progress::bar("intents", 1);
    let intent_data = IntentData {
        train: &sets.users,
        statistics: &users,
        held_out: &sets.held_out_users,
        newest: &sets.newest_users,
        items: &sets.index,
        contents: &sets.contents,
        contract: &sets.contract,
    };
    let intents =
        intents::train(&networks.intent, &mut networks.intent_store, intent_data, config, journal, &intent_bar)?;
    networks.trees = intents.trees.map(Arc::new);
    let mut figures = intents.figures;
    intent_bar.finish_and_clear();
    if let Some(auc) = intents::recency_frequency_auc(&users, &sets.held_out_users, &sets.contract)? {
        figures.insert("auc_test_purchase_recency_frequency".into(), auc);
    }

    if config.demand.enabled {
        let demand_bar = progress::bar("demand", 1);
        let demand_data = DemandData { items: &sets.items, statistics: &items };
        let network = &mut networks.demand;
        let store = &mut networks.demand_store;
        figures.extend(demand::train(network, store, demand_data, config, journal, &demand_bar)?);
        demand_bar.finish_and_clear();
    }
    journal.report_failures(&mut figures);

    let card = BundleCard {
        format: FORMAT,
        version: String::new(),
        trained_at: chrono::Utc::now().to_rfc3339(),
        labels_end: sets.labels_end.to_string(),
        as_of_dates: sets.as_of_dates.iter().map(ToString::to_string).collect(),
        intent: intent_shape,
        scaling: users.scaling.clone(),
        blend: intents.blend,
        latest_items: intents.latest_items,
        trees_hash: None,
        demand_trees_hash: None,
        text: sets.encoders.text.clone(),
        image: sets.encoders.image.clone(),
        demand: networks.demand.shape.clone(),
        features_fingerprint: sets.contract.fingerprint(),
        feature_deciles: users.deciles(&sets.contract),
        features: sets.contract.clone(),
        horizon_days: config.intents.horizon_days,
        churn_days: config.intents.churn_days,
        sql_fingerprint: sets.sql_fingerprint.clone(),
        input_fingerprint: sets.input_fingerprint.clone(),
        weights_hash: String::new(),
        items: 0,
        figures,
        settings: card_settings(config)?,
    };
    Ok((card, networks))
}

fn intent_shape(config: &Config, sets: &TrainingSets) -> IntentShape {
    IntentShape {
        backbone: config.model.backbone,
        head: config.model.head,
        width: config.model.width.into(),
        layers: config.model.layers.into(),
        heads: config.model.heads.into(),
        item_buckets: config.model.item_buckets.into(),
        events_max: config.features.last_events.into(),
        dropout: config.model.dropout,
        features: sets.contract.0.len(),
        content_dims: sets.contents.dims(),
        fusion: config.model.fusion,
    }
}

fn demand_shape(config: &Config, items: &ItemStatistics) -> DemandShape {
    let enough_intents = items.intent_days_share >= INTENT_DAYS_SHARE_MIN;
    DemandShape {
        trained: config.demand.enabled,
        network: config.demand.network,
        width: config.demand.width.into(),
        layers: config.demand.layers.into(),
        horizon_days: config.demand.horizon_days.into(),
        history_days: config.demand.history_days.into(),
        history_days_min: config.demand.history_days_min.into(),
        slow_units_per_day: config.demand.slow_units_per_day,
        // An input that training never saw would keep random weights, and a night may have it.
        intents: config.demand.intent_inputs && enough_intents,
        closed_days: items.closed_days,
        content_dims: if config.demand.content_inputs { items.content_dims as i64 } else { 0 },
        trees_read_day_of_year: items.as_of_days >= YEAR_DAYS,
        blend: DemandBlend::default(),
        prior: RatePrior::default(),
        dormant_prior: RatePrior::default(),
        calibration: Calibration::default(),
    }
}

/// The configuration sections that shape the training, for the card.
pub(super) fn card_settings(config: &Config) -> Result<serde_json::Value> {
    let value = serde_json::to_value(BTreeMap::from([
        ("features", serde_json::to_value(&config.features).map_err(Failure::bug)?),
        ("intents", serde_json::to_value(&config.intents).map_err(Failure::bug)?),
        ("model", serde_json::to_value(&config.model).map_err(Failure::bug)?),
        ("demand", serde_json::to_value(&config.demand).map_err(Failure::bug)?),
        ("train", serde_json::to_value(&config.train).map_err(Failure::bug)?),
    ]));
    value.map_err(Failure::bug)
}
