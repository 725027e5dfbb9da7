//! A bundle of random weights and one feature, for tests and benchmarks that score without training.

use intentcast::config::networks::{BackboneName, DemandNetworkName, FusionName, HeadName};
use intentcast::features::contract::{FeatureColumn, FeatureContract};
use intentcast::model::bundle::{BundleCard, BundleParts, FORMAT, IndexedItem, Networks, Registry};
use intentcast::model::contents::Contents;
use intentcast::model::demand::{Calibration, DemandBlend, DemandShape, RatePrior};
use intentcast::model::scaling::Scaling;
use intentcast::model::shape::IntentShape;
use tch::Device;

/// Returns the shape of an intent network of one feature that reads no contents.
pub fn intent_shape(width: i64, layers: i64, heads: i64) -> IntentShape {
    IntentShape {
        backbone: BackboneName::Transformer,
        head: HeadName::Sigmoid,
        width,
        layers,
        heads,
        item_buckets: 50,
        events_max: 128,
        dropout: 0.1,
        features: 1,
        content_dims: [0; 3],
        fusion: FusionName::Sum,
    }
}

/// Returns the shape of a small demand network that reads neither intents nor closed days nor contents.
pub fn demand_shape() -> DemandShape {
    DemandShape {
        trained: true,
        network: DemandNetworkName::Gru,
        width: 8,
        layers: 1,
        horizon_days: 3,
        history_days: 28,
        history_days_min: 14,
        slow_units_per_day: 0.5,
        intents: false,
        closed_days: false,
        content_dims: 0,
        trees_read_day_of_year: false,
        blend: DemandBlend::default(),
        prior: RatePrior::default(),
        dormant_prior: RatePrior::default(),
        calibration: Calibration::default(),
    }
}

/// Returns the model's input columns.
pub fn features() -> FeatureContract {
    FeatureContract(vec![FeatureColumn { name: "events_7d".into(), dtype: "Int64".into() }])
}

/// Writes a random model of this shape, whose index holds `items`, and makes it the champion.
pub async fn write_champion(registry: &Registry, intent: IntentShape, items: &[IndexedItem]) {
    let demand = demand_shape();
    let networks = Networks::new(&intent, &demand, Device::Cpu);
    let (features, contents) = (features(), Contents::new(intent.content_dims));
    let card = BundleCard {
        format: FORMAT,
        version: String::new(),
        trained_at: String::new(),
        labels_end: "2026-03-01".into(),
        as_of_dates: vec![],
        intent,
        text: None,
        image: None,
        blend: Default::default(),
        latest_items: None,
        trees_hash: None,
        demand_trees_hash: None,
        scaling: Scaling { mean: vec![1.0], deviation: vec![1.0], spend: 10.0, units: 2.0 },
        demand,
        features_fingerprint: features.fingerprint(),
        feature_deciles: Default::default(),
        features,
        horizon_days: 7,
        churn_days: 28,
        sql_fingerprint: String::new(),
        input_fingerprint: String::new(),
        weights_hash: String::new(),
        items: 0,
        figures: Default::default(),
        settings: Default::default(),
    };
    let parts = BundleParts { networks: &networks, items, contents: &contents, encoders: &[] };
    let card = registry.write(card, parts).await.unwrap();
    registry.promote(&card.version).await.unwrap();
}
