//! Point-in-time training sets: the night's own feature SQL at past dates, joined with what happened after.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Float64Type, UInt64Type};
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use std::collections::{BTreeSet, HashMap};

use super::blocks::BlockWriter;
use super::columns::Rows;
use super::item_columns::ItemColumns;
use super::user_columns::UserColumns;
use super::user_dates::UserDate;
use crate::failure::{Failure, Result};
use crate::features::{self, Scope, contract::FeatureContract, parts::Part, rollups::Rollups};
use crate::ids::RunDate;
use crate::lake::stores::Location;
use crate::model::bundle::{BundledImageEncoder, BundledTextEncoder, IndexedItem};
use crate::model::contents::{Contents, IMAGE, TEXT};
use crate::model::demand::ItemHistory;
use crate::model::inputs::UserInputs;
use crate::model::intent::CHURN;
use crate::score::catalogue;
use crate::score::content_store::{self, ContentStore};
use crate::score::devices;
use crate::score::embedding::SharedEncoder;
use crate::score::pictures::SharedImageEncoder;
use crate::score::service::as_struct;
use crate::workspace::Workspace;

/// Labels of one user, in the order of the network's outputs.
pub const LABELS: [&str; 9] =
    ["y_view", "y_search", "y_favorite", "y_cart", "y_purchase", "y_review", "y_churn", "y_units", "y_spend"];

/// Items that are taken out of Arrow at once: their histories are long.
const ITEM_ROWS: usize = 1024;

/// Where the label of a purchase stands.
pub const PURCHASE: usize = 4;

/// Some users at one as-of date.
#[derive(Debug, Clone, Default)]
pub struct UserSet {
    pub inputs: UserInputs,
    /// Row-major [users, 9]; NaN where a label is not known or not to be looked at.
    pub labels: Vec<f32>,
    /// Places in the item index of what was met within the horizon, most engaged first; empty for most users.
    pub next_items: Vec<Vec<u32>>,
}

impl UserSet {
    /// Reads features, labels and the next items out of the rows of [`USERS_SQL`].
    fn read(rows: &RecordBatch, contract: &FeatureContract, item_buckets: u64, known: Known<'_>) -> Result<Self> {
        let inputs = UserInputs::from_struct(as_struct(rows.column(0))?, contract, item_buckets, known.contents)?;
        let mut set = Self { inputs, ..Self::default() };
        let columns: Vec<_> =
            (1..=LABELS.len()).map(|c| cast(rows.column(c), &DataType::Float64)).collect::<Result<_, _>>()?;
        let lists = rows.column(LABELS.len() + 1).as_list::<i32>();
        for row in 0..rows.num_rows() {
            for column in &columns {
                let values = column.as_primitive::<Float64Type>();
                set.labels.push(if values.is_valid(row) { values.value(row) as f32 } else { 0.0 });
            }
            set.next_items.push(match lists.is_valid(row) {
                true => {
                    let ids = cast(&lists.value(row), &DataType::Utf8)?;
                    ids.as_string::<i32>().iter().flatten().filter_map(|id| known.places.get(id).copied()).collect()
                }
                false => Vec::new(),
            });
        }
        Ok(set)
    }

    /// Takes away the labels that are not for the users' splits at the date.
    fn hide_labels(&mut self, date: &UserDate, splits: &[Split]) {
        for (&split, labels) in splits.iter().zip(self.labels.chunks_mut(LABELS.len())) {
            for (place, label) in labels.iter_mut().enumerate() {
                let used = if place == CHURN as usize { date.churn } else { date.intents };
                if !used.shows(split) {
                    *label = f32::NAN;
                }
            }
        }
    }
}

/// Where each item stands in the index.
pub type ItemPlaces = HashMap<String, u32>;

/// The catalogue, by which items and contents are told.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    pub places: &'a ItemPlaces,
    pub contents: &'a Contents,
}

/// Users with features, labels and the items that they met next.
const USERS_SQL: &str = "SELECT m.features, l.y_view, l.y_search, l.y_favorite, l.y_cart, l.y_purchase, l.y_review, \
     CASE WHEN l.user_id IS NULL THEN 1 ELSE 0 END AS y_churn, l.y_units, l.y_spend, n.next_items \
     FROM model_input m LEFT JOIN intent_labels l ON m.user_id = l.user_id \
     LEFT JOIN next_items n ON m.user_id = n.user_id \
     WHERE m.events_lifetime > 0";

/// Some items at one as-of date, with the days that followed.
#[derive(Debug, Clone, Default)]
pub struct ItemSet {
    pub items: Vec<ItemHistory>,
    /// Units of each day of the horizon.
    pub units: Vec<Vec<f64>>,
    pub in_stock: Vec<Vec<bool>>,
}

impl ItemSet {
    /// Reads the rows of [`ITEMS_SQL`].
    fn read(rows: &RecordBatch) -> Result<Self> {
        let mut set = Self { items: ItemHistory::from_struct(as_struct(rows.column(0))?)?, ..Self::default() };
        let (units, stock) = (rows.column(1).as_list::<i32>(), rows.column(2).as_list::<i32>());
        for row in 0..rows.num_rows() {
            let day = cast(&units.value(row), &DataType::Float64)?;
            set.units.push(day.as_primitive::<Float64Type>().values().to_vec());
            let stocked = cast(&stock.value(row), &DataType::Float64)?;
            set.in_stock.push(stocked.as_primitive::<Float64Type>().values().iter().map(|&s| s > 0.0).collect());
        }
        Ok(set)
    }
}

/// Items with their histories and the days that followed.
const ITEMS_SQL: &str = "SELECT h.history, l.future_units, l.future_in_stock \
     FROM item_history h JOIN demand_labels l ON h.item_id = l.item_id";

/// What reads contents that are no vectors.
#[derive(Debug, Clone, Default)]
pub struct Encoders {
    pub text: Option<BundledTextEncoder>,
    pub image: Option<BundledImageEncoder>,
}

/// What the lake held before a date, of users or items.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Those with events, by a sketch (HyperLogLog) of a percent or two.
    pub ids: u64,
    /// The day of the first event, where there is one.
    pub first_day: Option<RunDate>,
}

/// What a session at a past date needs.
pub struct Past<'a> {
    pub workspace: &'a Workspace,
    pub rollups: &'a Rollups,
    /// Nothing on or after this date is read.
    pub labels_end: RunDate,
}

impl Past<'_> {
    async fn session(&self, as_of: RunDate, users: Part, items: Part) -> Result<SessionContext> {
        let scope = Scope { run_date: as_of, labels_end: self.labels_end, users, items };
        self.workspace.session_as_of(self.rollups, scope).await
    }

    async fn whole_session(&self, as_of: RunDate) -> Result<SessionContext> {
        self.session(as_of, Part::ALL, Part::ALL).await
    }

    /// The features that the night's SQL makes.
    pub async fn contract(&self, as_of: RunDate) -> Result<FeatureContract> {
        features::contract::register_model_input(&self.whole_session(as_of).await?).await
    }

    pub async fn users_seen(&self, as_of: RunDate) -> Result<Seen> {
        let sql = "SELECT approx_distinct(user_id), min(event_day) FROM unit_user_day WHERE event_day < run_date()";
        self.seen(as_of, sql).await
    }

    pub async fn items_seen(&self, as_of: RunDate) -> Result<Seen> {
        self.seen(as_of, features::ITEMS_SEEN_SQL).await
    }

    /// What a query as of a date counts: ids, and their first day.
    async fn seen(&self, as_of: RunDate, sql: &str) -> Result<Seen> {
        let rows = self.whole_session(as_of).await?.sql(sql).await?.collect().await?;
        let Some(row) = rows.first().filter(|rows| rows.num_rows() == 1) else {
            return Err(Failure::bug("training: a count gave no row"));
        };
        let first_day = row.column(1).as_primitive::<Date32Type>();
        let first_day = first_day.is_valid(0).then(|| first_day.value_as_date(0)).flatten();
        Ok(Seen { ids: row.column(0).as_primitive::<UInt64Type>().value(0), first_day: first_day.map(RunDate) })
    }

    /// Writes the users seen before a date, about a share of them by hash: those of the training split to `learnt`, others to
    /// `held_out`, each only where a label of the date is for them. Returns how many went where.
    pub async fn users(
        &self,
        date: &UserDate,
        share: f64,
        known: Known<'_>,
        [learnt, held_out]: [&mut BlockWriter<UserColumns>; 2],
    ) -> Result<[usize; 2]> {
        let mut users = [0; 2];
        // Sampled where the events are read: features of a million users would be built to keep fifty thousand.
        for part in Part::of_share(&self.workspace.config, self.rollups, share) {
            let ctx = self.session(date.as_of, part, Part::ALL).await?;
            let contract = features::contract::register_model_input(&ctx).await?;
            let mut rows = ctx.sql(USERS_SQL).await?.execute_stream().await?;
            while let Some(batch) = rows.next().await {
                let mut set =
                    UserSet::read(&batch?, &contract, self.workspace.config.model.item_buckets.into(), known)?;
                let splits: Vec<Split> = set.inputs.user_ids.iter().map(|id| split(id)).collect();
                set.hide_labels(date, &splits);
                let columns = UserColumns::of(&set, contract.0.len(), date.as_of)?;
                let to = [(true, &mut *learnt), (false, &mut *held_out)];
                for ((learns, writer), users) in to.into_iter().zip(&mut users) {
                    let wanted = |split: Split| date.shows(split) && (split == Split::Train) == learns;
                    let rows: Vec<usize> = (0..columns.len()).filter(|&row| wanted(splits[row])).collect();
                    *users += rows.len();
                    writer.add(&columns.take(&rows)?)?;
                }
            }
        }
        Ok(users)
    }

    /// What the catalogue's pictures and videos say (it has no history: the present one's), and the texts of the dates, as
    /// the configured encoders read them.
    pub async fn contents(&self, end: RunDate, dates: &[RunDate]) -> Result<(Contents, Encoders)> {
        let model = &self.workspace.config.model;
        let mut contents = match model.content_inputs {
            true => content_store::of_catalogue(&self.whole_session(end).await?).await?,
            false => Contents::default(),
        };
        let mut encoders = Encoders::default();
        if !model.image_encoder.is_empty() {
            let (pictures, card) = self.pictures(end).await?;
            (contents, encoders.image) = (pictures(contents), Some(card));
        }
        if !model.text_encoder.is_empty() {
            let (texts, card) = self.texts(end, dates).await?;
            (contents, encoders.text) = (texts(contents), Some(card));
        }
        Ok((contents, encoders))
    }

    /// What puts the catalogue's pictures among other contents.
    async fn pictures(&self, end: RunDate) -> Result<(impl FnOnce(Contents) -> Contents, BundledImageEncoder)> {
        let source = self.workspace.config.model.image_encoder.clone();
        let folder = Location::open(&source, &self.workspace.config.s3)?;
        let score = &self.workspace.config.score;
        let encoder = SharedImageEncoder::open(&folder, devices::choose(score)?, score).await?;
        let hash = encoder.hash.clone();
        let store = ContentStore::of(self.workspace.output()?, [0, encoder.width as i64, 0], ["", &hash, ""])
            .ok_or_else(|| Failure::bug("no pictures to read"))?;
        let ctx = self.whole_session(end).await?;
        let (keys, _) = store.add_pictures(&ctx, &encoder, store.contents().await?.as_ref()).await?;
        let all = store.contents().await?;
        Ok((move |others: Contents| others.with(IMAGE, &all, keys), BundledImageEncoder { source, hash }))
    }

    /// What puts the texts of the dates among other contents.
    async fn texts(
        &self,
        end: RunDate,
        dates: &[RunDate],
    ) -> Result<(impl FnOnce(Contents) -> Contents, BundledTextEncoder)> {
        let model = &self.workspace.config.model;
        let folder = Location::open(&model.text_encoder, &self.workspace.config.s3)?;
        let device = devices::choose(&self.workspace.config.score)?;
        let encoder = SharedEncoder::open(&folder, model.text_tokens_max, &self.workspace.config, device).await?;
        let store = ContentStore::of(self.workspace.output()?, [encoder.width as i64, 0, 0], [&encoder.hash, "", ""])
            .ok_or_else(|| Failure::bug("no texts to read"))?;
        let mut keys = BTreeSet::new();
        for &as_of in dates.iter().chain([&end]) {
            let (ctx, known) = (self.whole_session(as_of).await?, store.contents().await?);
            keys.extend(store.add_texts(&ctx, &encoder, &known).await?.0);
        }
        // In the order of the keys, and no others, whatever else the store holds.
        let all = store.contents().await?;
        let (source, hash, tokens_max) = (model.text_encoder.clone(), encoder.hash.clone(), model.text_tokens_max);
        Ok((move |others: Contents| others.with(TEXT, &all, keys), BundledTextEncoder { source, hash, tokens_max }))
    }

    /// Hands over the items known before `as_of` with the horizon that followed, some at a time, in no order. `seen`: about how
    /// many there are. Returns how many there were.
    pub async fn items(
        &self,
        as_of: RunDate,
        seen: u64,
        mut take: impl FnMut(&ItemColumns) -> Result<()>,
    ) -> Result<usize> {
        let mut items = 0;
        for part in Part::of_items(&self.workspace.config, seen) {
            let ctx = self.session(as_of, Part::ALL, part).await?;
            let mut rows = ctx.sql(ITEMS_SQL).await?.execute_stream().await?;
            while let Some(batch) = rows.next().await {
                let batch = batch?;
                for start in (0..batch.num_rows()).step_by(ITEM_ROWS) {
                    let set = ItemSet::read(&batch.slice(start, ITEM_ROWS.min(batch.num_rows() - start)))?;
                    take(&ItemColumns::of(&set, &self.workspace.config.demand)?)?;
                    items += set.items.len();
                }
            }
        }
        Ok(items)
    }

    /// The items that can be recommended, in id order.
    pub async fn item_index(&self, as_of: RunDate) -> Result<Vec<IndexedItem>> {
        catalogue::of_session(&self.whole_session(as_of).await?).await
    }
}

/// Past dates, newest first, whose labels of `label_days` end before `end`.
pub fn past_dates(end: RunDate, label_days: u32, step_days: u32, count: u32) -> Vec<RunDate> {
    (0..i64::from(count)).map(|k| end.plus_days(-i64::from(label_days) - k * i64::from(step_days))).collect()
}

/// `train` (80 %), `valid` or `test` (10 % each) by a hash of the id.
pub fn split(id: &str) -> Split {
    match blake3::hash(id.as_bytes()).as_bytes()[0] {
        0..=25 => Split::Test,
        26..=51 => Split::Valid,
        _ => Split::Train,
    }
}

/// Whether a user's labels are among the share that is used; a user is on one side at every date.
pub fn is_labelled(user_id: &str, labels_share: f64) -> bool {
    // Other bytes than the split, the parts and the blocks look at.
    let hash = blake3::hash(user_id.as_bytes());
    let place = u32::from_le_bytes([16, 17, 18, 19].map(|byte| hash.as_bytes()[byte]));
    f64::from(place) < labels_share * 2f64.powi(32)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    Train,
    Valid,
    Test,
}

/// Fails with what to do when a set is too small to learn from.
pub fn enough(what: &str, rows: usize, least: usize) -> Result<()> {
    match rows >= least {
        true => Ok(()),
        false => Err(Failure::input(format!("training: expected at least {least} {what}, got {rows}"))
            .hint("train on a later --date or a larger lake, lower train.as_of_dates, or raise train.labels_share")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_dates_end_before_the_training_date() {
        let end: RunDate = "2026-03-01".parse().unwrap();
        let dates = past_dates(end, 28, 7, 3);
        assert_eq!(dates.iter().map(|d| d.to_string()).collect::<Vec<_>>(), ["2026-02-01", "2026-01-25", "2026-01-18"]);
        assert!(dates.iter().all(|d| d.plus_days(28) <= end));
    }

    #[test]
    fn the_split_is_eighty_ten_ten() {
        let of = |s: Split| (0..10_000).filter(|i| split(&format!("u{i}")) == s).count();
        assert!((7_800..8_200).contains(&of(Split::Train)) && (900..1_130).contains(&of(Split::Test)));
    }
}
