//! Training sets of the night's models: users and items as of past dates, read through the night's own SQL.

use std::sync::Arc;

use crate::config::Config;
use crate::failure::Result;
use crate::features::contract::FeatureContract;
use crate::ids::RunDate;
use crate::model::bundle::{FORMAT, IndexedItem};
use crate::model::contents::Contents;
use crate::score::models::Models;
use crate::training::datasets::{
    BlockWriter, ContentEncoderCards, ItemCatalogue, ItemDatasets, ItemPositions, LakeExtent, TrainingContext,
    UserAsOfDate, UserBlocks, UserColumns, UserWriters, newest_as_of_date, require_history, require_rows,
    user_as_of_dates,
};
use crate::training::fitting::TrainingFingerprint;
use crate::workspace::{Access, Workspace};

/// Folders of SQL files that decide what a training reads.
pub(super) const TRAINING_SQL: [&str; 4] = ["rollups", "state", "features", "labels"];

/// The newest date gets at least this fraction (one in so many) of `train.rows_max` users.
const NEWEST_FRACTION: usize = 4;
/// With fewer users in the training split there is nothing to train on.
const TRAINING_USERS_MIN: usize = 40;

/// Everything that the networks are trained on, as of several past dates.
#[derive(Debug, Clone)]
pub struct TrainingSets {
    /// Nothing on or after this date was read.
    pub(crate) labels_end: RunDate,
    pub as_of_dates: Vec<RunDate>,
    pub contract: FeatureContract,
    /// Users of the training split at the older dates.
    pub users: Arc<UserBlocks>,
    /// Users of the validation split at all dates, and of the test split at the newest date where a label is known.
    pub held_out_users: Arc<UserBlocks>,
    /// Users of the training split at the newest date where a label is known, with that label.
    pub newest_users: Arc<UserBlocks>,
    pub items: ItemDatasets,
    /// Items that can be recommended.
    pub index: Vec<IndexedItem>,
    /// Content vectors of the catalogue and of texts.
    pub contents: Arc<Contents>,
    pub(crate) encoders: ContentEncoderCards,
    pub(crate) sql_fingerprint: String,
    pub(crate) input_fingerprint: String,
}

impl TrainingSets {
    pub(super) fn fingerprint(&self, config: &Config) -> Result<TrainingFingerprint> {
        let mut intents = config.intents.clone();
        // Only nights read these; a training in progress survives their change.
        (intents.hold_out_share, intents.hold_out_salt) = (0.0, String::new());
        // `features.last_events` changes the network even where the rows stay the same.
        let more = (FORMAT, &config.demand, &intents, config.features.last_events, &self.contract, &self.index);
        let mut fingerprint = TrainingFingerprint::new(config, &more)?;
        fingerprint.add_bytes(self.users.fingerprint().as_bytes());
        fingerprint.add_bytes(self.contents.fingerprint().as_bytes());
        fingerprint.add_bytes(self.held_out_users.fingerprint().as_bytes());
        fingerprint.add_bytes(self.newest_users.fingerprint().as_bytes());
        for items in self.items.all() {
            fingerprint.add_bytes(items.fingerprint().as_bytes());
        }
        Ok(fingerprint)
    }
}

/// Reads the training sets through the night's own SQL.
pub async fn gather_training_sets(config: &Config, date: RunDate) -> Result<TrainingSets> {
    let models = Arc::new(Models::new(config)?);
    let workspace = Workspace::open(config, models, Access::ReadWrite).await?;
    let rollups = workspace.rollups(date).await?;
    let context = TrainingContext { workspace: &workspace, rollups: &rollups, labels_end: date };

    let newest = newest_as_of_date(date, config);
    let extent = context.user_extent(newest).await?;
    let user_dates = user_as_of_dates(date, extent.first_day, config);
    require_history(date, extent.first_day, &user_dates, config)?;
    let as_of_dates: Vec<RunDate> = user_dates.iter().map(|date| date.as_of).collect();
    let index = context.item_index(date).await?;
    let contract = context.contract(newest).await?;
    let (contents, encoders) = context.contents(date, &as_of_dates).await?;
    let positions: ItemPositions = index.iter().zip(0..).map(|(item, place)| (item.item_id.clone(), place)).collect();
    let catalogue = ItemCatalogue { positions: &positions, contents: &contents };
    let users = gather_users(&context, &user_dates, extent, contract.0.len(), catalogue).await?;
    let items = ItemDatasets::gather(&context, date).await?;
    Ok(TrainingSets {
        labels_end: date,
        as_of_dates,
        contract,
        users: Arc::new(users.train.finish()?),
        held_out_users: Arc::new(users.held_out.finish()?),
        newest_users: Arc::new(users.newest.finish()?),
        items,
        index,
        contents: Arc::new(contents),
        encoders,
        sql_fingerprint: workspace.sql.fingerprint(&TRAINING_SQL),
        input_fingerprint: rollups.input_fingerprint(),
    })
}

/// Writes users as of past dates, newest first. `extent` is that of the newest date.
async fn gather_users(
    context: &TrainingContext<'_>,
    dates: &[UserAsOfDate],
    extent: LakeExtent,
    features: usize,
    catalogue: ItemCatalogue<'_>,
) -> Result<UserWriters> {
    let config = context.config();
    let rows_max = config.train.rows_max as usize;
    let users_max = rows_max / dates.len();
    let users_seen = extent.ids.max(1) as usize;
    // A fifth of the newest date's users is held out; with fewer of them, figures over many dates would rest on few users.
    let newest_max = users_max.max(rows_max / NEWEST_FRACTION);
    let events_max = config.features.last_events as usize;
    let bytes_of = |users: usize| UserColumns::estimate_bytes(users, users * events_max, features);
    let date_bytes = bytes_of(users_seen.min(users_max));
    let train_bytes = date_bytes * (dates.len() as u64 - 1);
    // The newest date and that of churn hold out both splits, the others one.
    let held_out_bytes = bytes_of(users_seen.min(newest_max)) / 5 + date_bytes * dates.len() as u64 / 10;
    let newest_bytes = bytes_of(users_seen.min(newest_max)) + date_bytes;
    let mut writers = UserWriters {
        train: BlockWriter::new(config, UserColumns::schema(features), train_bytes)?,
        held_out: BlockWriter::new(config, UserColumns::schema(features), held_out_bytes)?,
        newest: BlockWriter::new(config, UserColumns::schema(features), newest_bytes)?,
    };
    let mut training_users = 0;
    for (place, date) in dates.iter().enumerate() {
        let clock = std::time::Instant::now();
        let date_max = if place == 0 { newest_max } else { users_max };
        let share = date_max as f64 / users_seen as f64;
        let counts = context.write_users(date, share, catalogue, &mut writers).await?;
        training_users += counts.train;
        let as_of = date.as_of;
        let seconds = clock.elapsed().as_secs_f64();
        tracing::info!("as of {as_of}: {} users, {} held out, {seconds:.1} s", counts.train, counts.held_out);
    }
    require_rows("users with events in the training split", training_users, TRAINING_USERS_MIN)?;
    Ok(writers)
}
