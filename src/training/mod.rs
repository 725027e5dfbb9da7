//! `intentcast train`: past dates through the night's own SQL, both networks, figures, one bundle.
//!
//! [`gather`] reads, [`fit`] learns, [`run`] does both and writes. A training that fails at any point has written no
//! card, so the champion and every other version stay as they were. One that was killed goes on from its checkpoints.

mod adamw;
mod augment;
mod base_rates;
pub mod baseline;
pub mod blocks;
mod calibration;
mod checkpoint;
pub mod columns;
pub mod demand;
mod evaluation;
pub mod fit;
pub mod image;
pub mod intent;
pub mod item_columns;
mod item_dates;
pub mod item_sets;
pub mod journal;
pub mod labelled;
mod loader;
pub mod objective;
pub mod popularity;
mod pretrain;
mod ranking;
mod run;
pub mod sets;
mod survey;
pub mod sweep;
pub mod table;
mod tensorboard;
pub mod text;
mod unlabelled;
mod unmet;
pub mod user_columns;
mod user_dates;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::features::contract::FeatureContract;
use crate::ids::RunDate;
use crate::lake::stores::Location;
use crate::model::bundle::{
    BundleCard, BundleParts, FORMAT, IMAGE_FOLDER, IndexedItem, Networks, Registry, TEXT_FOLDER,
};
use crate::model::contents::Contents;
use crate::model::demand::{Calibration, DemandShape, RatePrior};
use crate::model::shape::IntentShape;
use crate::progress;
use crate::score::devices;
use crate::score::models::Models;
use crate::workspace::{Access, Workspace};
use blocks::BlockWriter;
use intent::Users;
use item_sets::{ItemSets, ItemSurvey};
use journal::Journal;
use run::{Fingerprint, Run};
use sets::{Encoders, ItemPlaces, Known, Past};
use survey::Survey;
use sweep::{Sweep, Trial};
use user_columns::{UserBlocks, UserColumns};
use user_dates::UserDate;

/// Intents of earlier nights are an input once this share of the histories' days has them.
const INTENTS_KNOWN_MIN: f64 = 0.1;

/// The newest date is read for a `train.rows_max` over this of users.
const NEWEST_OF_ROWS: usize = 4;

/// Everything that is learnt from, as of several past dates.
#[derive(Debug, Clone)]
pub struct TrainingSets {
    /// Nothing on or after this date was read.
    pub labels_end: RunDate,
    pub as_of_dates: Vec<RunDate>,
    pub contract: FeatureContract,
    /// Users of the training split at the earlier dates.
    pub users: Arc<UserBlocks>,
    /// Users of the validation split at all dates, of the test split at the newest where a label is known.
    pub held_out_users: Arc<UserBlocks>,
    pub items: ItemSets,
    /// Items that can be recommended.
    pub index: Vec<IndexedItem>,
    /// What the catalogue's pictures and videos say.
    pub contents: Arc<Contents>,
    /// What reads texts and pictures.
    pub encoders: Encoders,
    pub sql_fingerprint: String,
    pub input_fingerprint: String,
}

impl TrainingSets {
    fn fingerprint(&self, config: &Config) -> Result<Fingerprint> {
        // Rows may be the same with more events to a user; the network is not.
        let more = (FORMAT, &config.demand, &config.intents, config.features.last_events, &self.contract, &self.index);
        let mut fingerprint = Fingerprint::of(config, &more)?;
        fingerprint.bytes(self.users.fingerprint().as_bytes());
        fingerprint.bytes(self.contents.fingerprint().as_bytes());
        fingerprint.bytes(self.held_out_users.fingerprint().as_bytes());
        self.items.each().iter().for_each(|items| fingerprint.bytes(items.fingerprint().as_bytes()));
        Ok(fingerprint)
    }
}

/// Trains on what happened before `date` and writes a bundle; it becomes champion only where there is none yet. With a
/// sweep, by the settings that win it; its trials are returned too.
pub async fn run(config: &Config, date: RunDate, sweep: Option<&Sweep>) -> Result<(BundleCard, Vec<Trial>)> {
    let sets = gather(config, date).await?;
    let output = Location::open(&config.output.uri, &config.s3)?;
    let day = date.to_string().replace('-', "");
    let (config, trials) = match sweep {
        Some(sweep) => {
            let kind = format!("sweep-{day}");
            let trial = async |config: &Config| {
                let mut run = Run::begin(config, &kind, sets.fingerprint(config)?, settings(config)?).await?;
                let (card, _) = run.train(|journal| fit(config, &sets, journal))?;
                run.end(None, &card.figures).await?;
                Ok(card.figures)
            };
            sweep.search(config, &sweep.kept(config, &sets, &output)?, trial).await?
        }
        None => (config.clone(), Vec::new()),
    };
    let config = &config;
    let registry = Registry(output.folder("models"));
    let mut run = Run::begin(config, &day, sets.fingerprint(config)?, settings(config)?).await?;
    let (card, networks) = run.train(|journal| fit(config, &sets, journal))?;
    let text = card.text.as_ref().map(|text| (TEXT_FOLDER, text.source.as_str()));
    let image = card.image.as_ref().map(|image| (IMAGE_FOLDER, image.source.as_str()));
    let encoders = text.into_iter().chain(image);
    let encoders: Vec<(&str, Location)> =
        encoders.map(|(name, uri)| Ok((name, Location::open(uri, &config.s3)?))).collect::<Result<_>>()?;
    let parts = BundleParts { networks: &networks, items: &sets.index, contents: &sets.contents, encoders: &encoders };
    let card = registry.write(card, parts).await?;
    if registry.champion().await?.is_none() {
        registry.promote(&card.version).await?;
    }
    run.end(Some(&card.version), &card.figures).await?;
    Ok((card, trials))
}

/// Reads the training sets through the night's own SQL.
pub async fn gather(config: &Config, date: RunDate) -> Result<TrainingSets> {
    let models = Arc::new(Models::new(config)?);
    let workspace = Workspace::open(config, models, Access::ReadWrite).await?;
    let rollups = workspace.rollups(date).await?;
    let past = Past { workspace: &workspace, rollups: &rollups, labels_end: date };

    let newest = user_dates::newest(date, config);
    let seen = past.users_seen(newest).await?;
    let user_dates = user_dates::of(date, seen.first_day, config);
    let as_of_dates: Vec<RunDate> = user_dates.iter().map(|date| date.as_of).collect();
    let index = past.item_index(date).await?;
    let contract = past.contract(newest).await?;
    let (contents, encoders) = past.contents(date, &as_of_dates).await?;
    let (users, held_out_users) = gather_users(&past, (&user_dates, seen.ids), &contract, (&index, &contents)).await?;

    let items = ItemSets::gather(&past, date).await?;
    Ok(TrainingSets {
        labels_end: date,
        as_of_dates,
        contract,
        users: Arc::new(users),
        held_out_users: Arc::new(held_out_users),
        items,
        index,
        contents: Arc::new(contents),
        encoders,
        sql_fingerprint: workspace.sql.fingerprint(&["rollups", "state", "features", "labels"]),
        input_fingerprint: rollups.input_fingerprint(),
    })
}

/// Users at past dates, newest first, of which the newest had some `seen`: those that are learnt from, and those that are not.
async fn gather_users(
    past: &Past<'_>,
    (dates, seen): (&[UserDate], u64),
    contract: &FeatureContract,
    (index, contents): (&[IndexedItem], &Contents),
) -> Result<(UserBlocks, UserBlocks)> {
    let config = &past.workspace.config;
    let places: ItemPlaces = index.iter().zip(0..).map(|(item, place)| (item.item_id.clone(), place)).collect();
    let rows_max = config.train.rows_max as usize;
    let (users_max, seen) = (rows_max / dates.len(), seen.max(1) as usize);
    // Of the newest date a fifth is kept: more of it, or figures of many dates would rest on few users.
    let newest_max = users_max.max(rows_max / NEWEST_OF_ROWS);
    let (features, events_max) = (contract.0.len(), config.features.last_events as usize);
    let bytes_of = |users: usize| UserColumns::bytes_of(users, users * events_max, features);
    let date_bytes = bytes_of(seen.min(users_max));
    let mut users = BlockWriter::new(config, UserColumns::schema(features), date_bytes * (dates.len() as u64 - 1))?;
    // At the newest date and at that of churn both splits, at the others one.
    let held_out_bytes = bytes_of(seen.min(newest_max)) / 5 + date_bytes * dates.len() as u64 / 10;
    let mut held_out = BlockWriter::new(config, UserColumns::schema(features), held_out_bytes)?;
    let mut found = 0;
    for (k, date) in dates.iter().enumerate() {
        let clock = std::time::Instant::now();
        let known = Known { places: &places, contents };
        let users_max = if k == 0 { newest_max } else { users_max };
        let share = users_max as f64 / seen as f64;
        let [learnt, unseen] = past.users(date, share, known, [&mut users, &mut held_out]).await?;
        found += learnt;
        let as_of = date.as_of;
        tracing::info!("as of {as_of}: {learnt} users, {unseen} held out, {:.1} s", clock.elapsed().as_secs_f64());
    }
    sets::enough("users with events in the training split", found, 40)?;
    Ok((users.finish()?, held_out.finish()?))
}

/// Trains both networks on gathered sets; the card lacks what only writing knows. Must not run on a thread of the
/// journal's runtime that may not wait.
pub fn fit(config: &Config, sets: &TrainingSets, journal: &mut Journal) -> Result<(BundleCard, Networks)> {
    let train = &config.train;
    tch::manual_seed(train.seed as i64);
    let item_survey = ItemSurvey::of(&sets.items.learnt)?;
    let (intent_shape, demand_shape) = shapes(config, sets, &item_survey);
    let mut networks = Networks::new(&intent_shape, &demand_shape, devices::choose(&config.score)?);
    let survey = Survey::of(&sets.users, sets.contract.0.len(), sets.index.len(), train.labels_share)?;
    // All that can be refused is, before anything is trained.
    sets::enough("users in the training split", survey.labelled, 20)?;
    objective::check_labels(&survey, config.intents.horizon_days)?;
    demand::enough(&item_survey, &config.demand)?;
    popularity::start_at_popularity(&networks.intent_store, &sets.index, intent_shape.item_buckets, &survey.met)?;

    let bar = progress::bar("intents", 1);
    let users = Users {
        train: &sets.users,
        survey: &survey,
        held_out: &sets.held_out_users,
        items: &sets.index,
        contents: &sets.contents,
    };
    let mut figures = intent::train(&networks.intent, &mut networks.intent_store, users, config, journal, &bar)?;
    bar.finish_and_clear();
    if let Some(auc) = baseline::recency_frequency_auc(&survey, &sets.held_out_users, &sets.contract)? {
        figures.insert("auc_test_purchase_recency_frequency".into(), auc);
    }
    let bar = progress::bar("demand", 1);
    let (network, store) = (&mut networks.demand, &mut networks.demand_store);
    figures.extend(demand::train(network, store, (&sets.items, &item_survey), train, journal, &bar)?);
    bar.finish_and_clear();
    journal.confess(&mut figures);

    let card = BundleCard {
        format: FORMAT,
        version: String::new(),
        trained_at: chrono::Utc::now().to_rfc3339(),
        labels_end: sets.labels_end.to_string(),
        as_of_dates: sets.as_of_dates.iter().map(ToString::to_string).collect(),
        intent: intent_shape,
        scaling: survey.scaling.clone(),
        text: sets.encoders.text.clone(),
        image: sets.encoders.image.clone(),
        demand: networks.demand.shape.clone(),
        features_fingerprint: sets.contract.fingerprint(),
        feature_deciles: survey.deciles(&sets.contract),
        features: sets.contract.clone(),
        horizon_days: config.intents.horizon_days,
        churn_days: config.intents.churn_days,
        sql_fingerprint: sets.sql_fingerprint.clone(),
        input_fingerprint: sets.input_fingerprint.clone(),
        weights_hash: String::new(),
        items: 0,
        figures,
        settings: settings(config)?,
    };
    Ok((card, networks))
}

fn shapes(config: &Config, sets: &TrainingSets, items: &ItemSurvey) -> (IntentShape, DemandShape) {
    let intent = IntentShape {
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
    };
    let demand = DemandShape {
        network: config.demand.network,
        width: config.demand.width.into(),
        layers: config.demand.layers.into(),
        horizon_days: config.demand.horizon_days.into(),
        history_days: config.demand.history_days.into(),
        history_days_min: config.demand.history_days_min.into(),
        slow_units_per_day: config.demand.slow_units_per_day,
        // Weights of an input that training never saw would be chance, and a night may see it.
        intents: config.demand.intent_inputs && items.intents_known >= INTENTS_KNOWN_MIN,
        content_dims: if config.demand.content_inputs { items.content_dims as i64 } else { 0 },
        prior: RatePrior::default(),
        dormant_prior: RatePrior::default(),
        calibration: Calibration::default(),
    };
    (intent, demand)
}

/// The sections that shaped the training, as the card keeps them.
fn settings(config: &Config) -> Result<serde_json::Value> {
    let value = serde_json::to_value(BTreeMap::from([
        ("model", serde_json::to_value(&config.model).map_err(Failure::bug)?),
        ("demand", serde_json::to_value(&config.demand).map_err(Failure::bug)?),
        ("train", serde_json::to_value(&config.train).map_err(Failure::bug)?),
    ]));
    value.map_err(Failure::bug)
}
