//! `intentcast train`: past dates through the night's own SQL, both networks, figures, one bundle.

pub mod baseline;
pub mod demand;
pub mod intent;
pub mod popularity;
pub mod sets;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::config::Config;
use crate::engine;
use crate::failure::{Failure, Result};
use crate::features::rollups::Rollups;
use crate::ids::RunDate;
use crate::lake::{Lake, stores::Location};
use crate::model::bundle::{BundleCard, Registry, networks};
use crate::model::demand::DemandShape;
use crate::model::intent::{IntentShape, Scaling};
use crate::score::devices;
use crate::sql_files::SqlFiles;
use sets::{ItemSet, Past, UserSet, past_dates};

/// Trains on what happened before `date` and writes a bundle; it becomes champion only where there is none yet.
pub async fn run(config: &Config, date: RunDate) -> Result<BundleCard> {
    let sql = SqlFiles::load(config)?;
    let lake = Lake::open(config, &sql).await?;
    let ctx = engine::session(config)?;
    let rollups = Rollups::refresh(&ctx, config, &sql, &lake, date).await?;
    let past = Past { config, sql: &sql, lake: &lake, rollups: &rollups, labels_end: date };
    let train = &config.train;

    let label_days = config.intents.horizon_days.max(config.intents.churn_days);
    // The newest date is held out; the others start at least one horizon before it.
    let step = train.as_of_step_days.max(config.intents.horizon_days);
    let dates = past_dates(date, label_days, step, train.as_of_dates.max(2));
    let (mut held_out, mut users, mut contract) = (UserSet::default(), UserSet::default(), None);
    for (k, &as_of) in dates.iter().enumerate() {
        let clock = std::time::Instant::now();
        let (set, columns) = past.users(as_of, train.rows_max as usize / dates.len()).await?;
        tracing::info!("as of {as_of}: {} users, {:.1} s", set.inputs.len(), clock.elapsed().as_secs_f64());
        if k == 0 {
            held_out = set
        } else {
            users.append(set)
        };
        contract = Some(columns);
    }
    let contract = contract.ok_or_else(|| Failure::bug("no training dates"))?;
    sets::enough("users with events", users.inputs.len(), 50)?;

    let horizon = config.demand.horizon_days;
    let newest = date.plus_days(-i64::from(horizon));
    let test_items = past.items(newest).await?;
    let mut train_items = ItemSet::default();
    for as_of in past_dates(newest, horizon, train.as_of_step_days, train.as_of_dates) {
        let set = past.items(as_of).await?;
        train_items.items.extend(set.items);
        train_items.units.extend(set.units);
        train_items.in_stock.extend(set.in_stock);
    }
    let index = past.item_index(date).await?;

    tch::manual_seed(train.seed as i64);
    let intent_shape = IntentShape {
        width: config.model.width.into(),
        layers: config.model.layers.into(),
        heads: config.model.heads.into(),
        item_buckets: config.model.item_buckets.into(),
        events_max: config.features.last_events.into(),
        dropout: config.model.dropout,
        features: contract.0.len(),
    };
    let demand_shape = DemandShape {
        width: 48,
        horizon_days: horizon.into(),
        history_days: config.demand.history_days.into(),
        history_days_min: config.demand.history_days_min.into(),
    };
    let (mut store, intents, demand) = networks(&intent_shape, &demand_shape, devices::choose(&config.score)?);
    let met = users.next_items.iter().flatten();
    popularity::start_at_popularity(&store, &index, intent_shape.item_buckets, met)?;
    let mean_of_buyers = |label: usize| -> f64 {
        let amounts = users.labels.iter().skip(label).step_by(sets::LABELS.len());
        let (sum, buyers) = amounts.filter(|&&a| a > 0.0).fold((0.0, 0), |(s, n), &a| (s + f64::from(a), n + 1));
        sum / f64::from(buyers.max(1))
    };
    let scaling = Scaling::fit(&users.inputs, contract.0.len(), mean_of_buyers(7), mean_of_buyers(8));

    let rows = sets::rows_of(users.inputs.user_ids.iter(), sets::Split::Train).len();
    let steps = rows.div_ceil(train.batch_rows.max(1) as usize) as u64 * u64::from(train.epochs_max);
    let bar = progress(steps, "intents");
    let mut figures = intent::train(&intents, &mut store, (&users, &held_out), &index, &scaling, train, &bar)?;
    bar.finish_and_clear();
    if let Some(auc) = baseline::recency_frequency_auc(&users, &held_out, &contract)? {
        figures.insert("auc_test_purchase_recency_frequency".into(), auc);
    }
    let bar = progress(u64::from(train.epochs_max) * 3, "demand");
    figures.extend(demand::train(&demand, &mut store, &train_items, &test_items, train, &bar)?);
    bar.finish_and_clear();

    let card = BundleCard {
        format: 1,
        version: String::new(),
        trained_at: chrono::Utc::now().to_rfc3339(),
        labels_end: date.to_string(),
        as_of_dates: dates.iter().map(ToString::to_string).collect(),
        intent: intent_shape,
        scaling,
        demand: demand_shape,
        features_fingerprint: contract.fingerprint(),
        feature_deciles: users.deciles(&contract),
        features: contract,
        horizon_days: config.intents.horizon_days,
        churn_days: config.intents.churn_days,
        sql_fingerprint: sql.fingerprint(&["rollups", "state", "features", "labels"]),
        input_fingerprint: rollups.input_fingerprint(),
        weights_hash: String::new(),
        items: 0,
        figures,
    };
    let registry = Registry(Location::open(&config.output.uri, &config.s3)?.folder("models"));
    let card = registry.write(card, &store, &index).await?;
    if registry.champion().await?.is_none() {
        registry.promote(&card.version).await?;
    }
    Ok(card)
}

/// A bar on a terminal, nothing elsewhere (the log has a line an epoch).
fn progress(steps: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {elapsed} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(what.to_string());
    bar
}
