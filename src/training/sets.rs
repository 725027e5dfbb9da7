//! Point-in-time training sets: the night's own feature SQL at past dates, joined with what happened after.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches, sort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Float64Type, UInt64Type};
use datafusion::prelude::{DataFrame, SessionContext};
use std::collections::BTreeMap;

use crate::config::Config;
use crate::engine;
use crate::failure::{Failure, Result};
use crate::features::{self, Scope, contract::FeatureContract, parts::UserPart, rollups::Rollups};
use crate::ids::RunDate;
use crate::lake::{Lake, stores::Location};
use crate::metrics::drift::Deciles;
use crate::model::bundle::IndexedItem;
use crate::model::demand::ItemHistory;
use crate::model::inputs::UserInputs;
use crate::publish::{earlier::EarlierNights, runs::VisibleNight};
use crate::score::service::as_struct;
use crate::sql_files::SqlFiles;

/// Labels of one user, in the order of the network's outputs.
pub const LABELS: [&str; 9] =
    ["y_view", "y_search", "y_favorite", "y_cart", "y_purchase", "y_review", "y_churn", "y_units", "y_spend"];

/// Rows that are taken out of Arrow at once.
const BATCH_ROWS: usize = 8192;

/// Users at one as-of date.
#[derive(Debug, Clone, Default)]
pub struct UserSet {
    pub inputs: UserInputs,
    /// Row-major [users, 9].
    pub labels: Vec<f32>,
    /// Items met within the horizon, most engaged first; empty for most users.
    pub next_items: Vec<Vec<String>>,
}

impl UserSet {
    pub fn append(&mut self, other: UserSet) {
        self.inputs.append(other.inputs);
        self.labels.extend(other.labels);
        self.next_items.extend(other.next_items);
    }

    /// Whether a binary label of a user is 1.
    pub fn is(&self, label: usize, row: usize) -> bool {
        self.labels[row * LABELS.len() + label] > 0.5
    }

    /// A binary label of some users.
    pub fn column(&self, label: usize, rows: &[usize]) -> Vec<bool> {
        rows.iter().map(|&row| self.is(label, row)).collect()
    }

    /// How many of some users have a binary label.
    pub fn positives(&self, label: usize, rows: &[usize]) -> usize {
        rows.iter().filter(|&&row| self.is(label, row)).count()
    }

    /// Feeds every number and id to a hash.
    pub fn feed(&self, hasher: &mut blake3::Hasher) {
        let mut put = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        let floats = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
        for row in 0..self.inputs.len() {
            put(self.inputs.user_ids[row].as_bytes());
            put(&self.inputs.key(row).to_le_bytes());
            self.next_items[row].iter().for_each(|item| put(item.as_bytes()));
        }
        for values in [&self.labels, &self.inputs.tabular, &self.inputs.idle_log_hours] {
            put(&floats(values));
        }
    }

    /// How the values of each feature lie, by name.
    pub fn deciles(&self, contract: &FeatureContract) -> BTreeMap<String, Deciles> {
        let of = |f: usize| Deciles::of(self.inputs.tabular.iter().skip(f).step_by(contract.0.len()).copied());
        contract.0.iter().enumerate().map(|(f, column)| (column.name.clone(), of(f))).collect()
    }
}

/// Items at one as-of date, with the days that followed.
#[derive(Debug, Clone, Default)]
pub struct ItemSet {
    pub items: Vec<ItemHistory>,
    /// Units of each day of the horizon.
    pub units: Vec<Vec<f64>>,
    pub in_stock: Vec<Vec<bool>>,
}

impl ItemSet {
    pub fn append(&mut self, other: ItemSet) {
        self.items.extend(other.items);
        self.units.extend(other.units);
        self.in_stock.extend(other.in_stock);
    }

    /// The share of the histories' days for which a night had published purchase intents.
    pub fn intents_known(&self) -> f64 {
        let days: usize = self.items.iter().map(|item| item.units.len()).sum();
        let known = |item: &ItemHistory| item.intent_units.iter().filter(|units| units.is_finite()).count();
        self.items.iter().map(known).sum::<usize>() as f64 / days.max(1) as f64
    }
}

/// What a session at a past date needs.
pub struct Past<'a> {
    pub config: &'a Config,
    pub sql: &'a SqlFiles,
    pub lake: &'a Lake,
    pub rollups: &'a Rollups,
    /// Nothing on or after this date is read.
    pub labels_end: RunDate,
    /// Where nights are published, and the visible ones.
    pub output: &'a Location,
    pub nights: &'a [VisibleNight],
}

impl Past<'_> {
    async fn session(&self, as_of: RunDate, user_share: f64) -> Result<SessionContext> {
        let ctx = engine::session(self.config)?;
        EarlierNights::before(as_of, self.nights, self.config).register(&ctx, self.output).await?;
        let scope = Scope { run_date: as_of, labels_end: self.labels_end, users: UserPart::share(user_share) };
        features::register(&ctx, self.config, self.sql, self.lake, self.rollups, scope).await?;
        Ok(ctx)
    }

    /// How many user ids had events before `as_of`, by a sketch (HyperLogLog) of a percent or two.
    async fn user_count(&self, as_of: RunDate) -> Result<u64> {
        let ctx = self.session(as_of, 1.0).await?;
        let sql = "SELECT approx_distinct(user_id) AS users FROM unit_user_day WHERE event_day < run_date()";
        let counted = ctx.sql(sql).await?.collect().await?;
        Ok(counted.first().map_or(0, |batch| batch.column(0).as_primitive::<UInt64Type>().value(0)))
    }

    /// Users seen before `as_of`, about `rows_max` of them by hash, with features and labels.
    pub async fn users(&self, as_of: RunDate, rows_max: usize) -> Result<(UserSet, FeatureContract)> {
        let seen = self.user_count(as_of).await?;
        // Sampled where the events are read: features of a million users would be built to keep fifty thousand.
        let ctx = self.session(as_of, rows_max as f64 / seen.max(1) as f64).await?;
        let contract = features::contract::register_model_input(&ctx).await?;
        let rows = ctx
            .sql(
                "SELECT m.features, l.y_view, l.y_search, l.y_favorite, l.y_cart, l.y_purchase, l.y_review, \
                 CASE WHEN l.user_id IS NULL THEN 1 ELSE 0 END AS y_churn, l.y_units, l.y_spend, n.next_items, \
                 md5(m.user_id) AS place \
                 FROM model_input m LEFT JOIN intent_labels l ON m.user_id = l.user_id \
                 LEFT JOIN next_items n ON m.user_id = n.user_id \
                 WHERE m.events_lifetime > 0",
            )
            .await?;
        let mut set = UserSet::default();
        for batch in ordered(rows, "place").await? {
            let inputs =
                UserInputs::read(as_struct(batch.column(0))?, &contract, self.config.model.item_buckets.into())?;
            let columns: Vec<_> =
                (1..=LABELS.len()).map(|c| cast(batch.column(c), &DataType::Float64)).collect::<Result<_, _>>()?;
            let lists = batch.column(LABELS.len() + 1).as_list::<i32>();
            for row in 0..batch.num_rows() {
                for column in &columns {
                    let values = column.as_primitive::<Float64Type>();
                    set.labels.push(if values.is_valid(row) { values.value(row) as f32 } else { 0.0 });
                }
                let items = match lists.is_valid(row) {
                    true => cast(&lists.value(row), &DataType::Utf8)?
                        .as_string::<i32>()
                        .iter()
                        .flatten()
                        .map(String::from)
                        .collect(),
                    false => Vec::new(),
                };
                set.next_items.push(items);
            }
            set.inputs.append(inputs);
        }
        Ok((set, contract))
    }

    /// Items known before `as_of` with the horizon that followed.
    pub async fn items(&self, as_of: RunDate) -> Result<ItemSet> {
        let ctx = self.session(as_of, 1.0).await?;
        let rows = ctx
            .sql(
                "SELECT h.history, l.future_units, l.future_in_stock, h.item_id \
                 FROM item_history h JOIN demand_labels l ON h.item_id = l.item_id",
            )
            .await?;
        let mut set = ItemSet::default();
        for batch in ordered(rows, "item_id").await? {
            set.items.extend(ItemHistory::read(as_struct(batch.column(0))?)?);
            let units = batch.column(1).as_list::<i32>();
            let stock = batch.column(2).as_list::<i32>();
            for row in 0..batch.num_rows() {
                let day = cast(&units.value(row), &DataType::Float64)?;
                set.units.push(day.as_primitive::<Float64Type>().values().to_vec());
                let stocked = cast(&stock.value(row), &DataType::Float64)?;
                set.in_stock.push(stocked.as_primitive::<Float64Type>().values().iter().map(|&s| s > 0.0).collect());
            }
        }
        Ok(set)
    }

    /// Every item of the last 28 days, for the recommendation index, in id order.
    pub async fn item_index(&self, as_of: RunDate) -> Result<Vec<IndexedItem>> {
        let ctx = self.session(as_of, 1.0).await?;
        let sql = "SELECT d.item_id, c.category FROM item_day d LEFT JOIN item_category c ON d.item_id = c.item_id \
                   WHERE d.event_day >= run_date() - 28 GROUP BY d.item_id, c.category ORDER BY d.item_id";
        let mut items = Vec::new();
        for batch in ctx.sql(sql).await?.collect().await? {
            let (ids, categories) = (cast(batch.column(0), &DataType::Utf8)?, cast(batch.column(1), &DataType::Utf8)?);
            let (ids, categories) = (ids.as_string::<i32>(), categories.as_string::<i32>());
            for (id, category) in ids.iter().zip(categories) {
                items.extend(id.map(|id| IndexedItem { item_id: id.into(), category: category.map(String::from) }));
            }
        }
        Ok(items)
    }
}

/// The rows of a query in the order of a column. Sorted here, not in SQL: the rows hold lists that are slices of shared
/// buffers, and the engine's sort charges each slice for the whole of its buffer.
async fn ordered(rows: DataFrame, key: &str) -> Result<Vec<RecordBatch>> {
    let batches = rows.collect().await?;
    let Some(schema) = batches.first().map(RecordBatch::schema) else { return Ok(Vec::new()) };
    let all = concat_batches(&schema, &batches)?;
    drop(batches);
    let keys = all.column_by_name(key).ok_or_else(|| Failure::bug(format!("training: no column {key} to order by")))?;
    let order = sort_to_indices(keys, None, None)?;
    let starts = (0..all.num_rows()).step_by(BATCH_ROWS);
    let batch = |start: usize| take_record_batch(&all, &order.slice(start, BATCH_ROWS.min(all.num_rows() - start)));
    Ok(starts.map(batch).collect::<Result<_, _>>()?)
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    Train,
    Valid,
    Test,
}

/// Rows of a set that lie in a split.
pub fn rows_of(ids: impl Iterator<Item = impl AsRef<str>>, wanted: Split) -> Vec<usize> {
    ids.enumerate().filter(|(_, id)| split(id.as_ref()) == wanted).map(|(row, _)| row).collect()
}

/// Fails with what to do when a set is too small to learn from.
pub fn enough(what: &str, rows: usize, least: usize) -> Result<()> {
    match rows >= least {
        true => Ok(()),
        false => Err(Failure::input(format!("training: expected at least {least} {what}, got {rows}"))
            .hint("train on a later --date or a larger lake, or lower train.as_of_dates")),
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
