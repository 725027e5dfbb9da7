//! Items as of the dates of a training, in blocks by purpose: read through the night's own SQL one date at a time, and
//! sampled to the limit of each purpose.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::block_rows::BlockRows;
use super::blocks::BlockWriter;
use super::item_as_of_dates::{ItemLimit, ItemPurposes, item_as_of_dates};
use super::item_columns::{ItemBlocks, ItemColumns};
use super::split::{Split, is_in_share};
use super::training_context::TrainingContext;
use crate::config::Config;
use crate::failure::Result;
use crate::ids::RunDate;
use crate::model::demand::DemandPattern;

/// Share of new items that the number of blocks is sized for.
const NEW_SHARE: f64 = 0.1;

/// Items by purpose; [`ItemPurposes`] says what each is for.
#[derive(Debug, Clone)]
pub struct ItemDatasets {
    pub train: Arc<ItemBlocks>,
    pub calibration: Arc<ItemBlocks>,
    pub test: Arc<ItemBlocks>,
    pub new_before_test: Arc<ItemBlocks>,
    pub new_newest: Arc<ItemBlocks>,
}

/// Blocks with new items, from before the test date and from the newest dates.
pub(crate) struct NewItems<'a> {
    pub(crate) before_test: Vec<&'a ItemBlocks>,
    pub(crate) newest: Vec<&'a ItemBlocks>,
}

impl ItemDatasets {
    /// Reads the items; nothing on or after `end` is read.
    pub(crate) async fn gather(context: &TrainingContext<'_>, end: RunDate) -> Result<Self> {
        let config = context.config();
        let newest = end.plus_days(-i64::from(config.demand.horizon_days));
        let extent = context.item_extent(newest).await?;
        // Without an item no date reaches back far enough.
        let dates = item_as_of_dates(end, extent.first_day.unwrap_or(end), config);
        let mut writers = ItemWriters::new(config, &dates, extent.ids.max(1) as f64)?;
        // Newest first, so that a lake that is too young fails early.
        for (&as_of, &purposes) in dates.iter().rev() {
            let clock = std::time::Instant::now();
            let items = context.read_items(as_of, extent.ids, |items| writers.add(items, purposes)).await?;
            tracing::info!("as of {as_of}: {items} items, {:.1} s", clock.elapsed().as_secs_f64());
        }
        writers.finish()
    }

    /// All datasets, in the order of [`ItemPurposes::limits`].
    pub(crate) fn all(&self) -> [&ItemBlocks; 5] {
        [&self.train, &self.calibration, &self.test, &self.new_before_test, &self.new_newest].map(Arc::as_ref)
    }

    /// Blocks to look for new items in. Where a purpose has none, those of the other dates stand in: the network trains on
    /// no new items, so the training dates are as valid as others.
    pub(crate) fn new_items(&self) -> NewItems<'_> {
        let [train, calibration, test, before_test, newest] = self.all();
        NewItems {
            before_test: if before_test.is_empty() { vec![train, calibration] } else { vec![before_test] },
            newest: if newest.is_empty() { vec![train, calibration, test] } else { vec![newest] },
        }
    }
}

/// Writes items to the blocks of each purpose.
struct ItemWriters {
    /// Writers in the order of [`ItemPurposes::limits`].
    writers: [BlockWriter<ItemColumns>; 5],
    /// Estimated items of a date.
    items: f64,
}

impl ItemWriters {
    fn new(config: &Config, dates: &BTreeMap<RunDate, ItemPurposes>, items: f64) -> Result<Self> {
        let schema = ItemColumns::schema(&config.demand);
        let writer = |purpose: usize| {
            let of_date = |purposes: &ItemPurposes| {
                let ItemLimit { items_max, new_only } = purposes.limits()[purpose];
                f64::from(items_max).min(if new_only { items * NEW_SHARE } else { items })
            };
            let expected: f64 = dates.values().map(of_date).sum();
            let bytes = ItemColumns::estimate_bytes(expected as usize, &config.demand);
            BlockWriter::new(config, Arc::clone(&schema), bytes)
        };
        Ok(Self { writers: [writer(0)?, writer(1)?, writer(2)?, writer(3)?, writer(4)?], items })
    }

    fn add(&mut self, items: &ItemColumns, purposes: ItemPurposes) -> Result<()> {
        let item_rows = items.item_rows();
        for (writer, limit) in self.writers.iter_mut().zip(purposes.limits()) {
            if limit.items_max == 0 {
                continue;
            }
            // Sampled by id, so that an item is drawn at every date or at none.
            let share = f64::from(limit.items_max) / self.items;
            let serves = |row: usize| !limit.new_only || item_rows.facts(row).pattern == DemandPattern::New;
            let wanted = |&row: &usize| serves(row) && is_in_share(items.id(row), share);
            let rows: Vec<usize> = (0..items.len()).filter(wanted).collect();
            if !rows.is_empty() {
                writer.add(&items.take(&rows)?)?;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<ItemDatasets> {
        let [train, calibration, test, new_before_test, new_newest] = self.writers;
        Ok(ItemDatasets {
            train: Arc::new(train.finish()?),
            calibration: Arc::new(calibration.finish()?),
            test: Arc::new(test.finish()?),
            new_before_test: Arc::new(new_before_test.finish()?),
            new_newest: Arc::new(new_newest.finish()?),
        })
    }
}

/// Returns whether the network forecasts items of this demand pattern; the others follow a prior.
pub(crate) fn is_forecast_by_network(pattern: DemandPattern) -> bool {
    !matches!(pattern, DemandPattern::New | DemandPattern::Dormant)
}

/// Rows that the network trains on; the other rows that it forecasts are its validation set.
pub(crate) fn training_rows(items: &ItemColumns) -> Vec<usize> {
    let mut rows = items.rows_in(Split::Train);
    rows.extend(items.rows_in(Split::Test));
    let item_rows = items.item_rows();
    rows.retain(|&row| is_forecast_by_network(item_rows.facts(row).pattern));
    rows
}

/// Statistics of the training items, which shape the network.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemStatistics {
    /// Number of training rows.
    pub(crate) training_rows: usize,
    /// The most frequent length of the content vectors, the smallest of several; 0 where most items have none.
    pub content_dims: usize,
    /// Share of the days of the histories for which a night had published purchase intents.
    pub intent_days_share: f64,
    /// True if the shop was closed on a day of the histories.
    pub(crate) closed_days: bool,
    /// Days between the oldest and the newest date.
    pub(crate) as_of_days: i64,
}

impl ItemStatistics {
    pub fn from_blocks(items: &ItemBlocks) -> Result<Self> {
        let mut rows = 0;
        let mut days = 0.0;
        let mut days_with_intents = 0.0;
        let mut days_closed = 0.0;
        let (mut oldest, mut newest) = (i64::MAX, i64::MIN);
        let mut items_by_dims: BTreeMap<usize, usize> = BTreeMap::new();
        for window in items.each_window() {
            let window = window?;
            rows += training_rows(&window).len();
            for row in 0..window.len() {
                *items_by_dims.entry(window.content_dims(row)).or_default() += 1;
                let as_of_day = window.as_of_day(row);
                (oldest, newest) = (oldest.min(as_of_day), newest.max(as_of_day));
            }
            let window_days = window.history_days();
            days += window_days.all;
            days_with_intents += window_days.with_intents;
            days_closed += window_days.closed;
        }
        let most_frequent = items_by_dims.into_iter().rev().max_by_key(|&(_, items)| items);
        Ok(Self {
            training_rows: rows,
            content_dims: most_frequent.map_or(0, |(dims, _)| dims),
            intent_days_share: days_with_intents / f64::max(days, 1.0),
            closed_days: days_closed > 0.0,
            as_of_days: newest.saturating_sub(oldest).max(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::item_columns::tests::{columns, demand};
    use super::super::labelled_items::LabelledItems;
    use super::*;
    use crate::model::demand::history::tests::item;

    /// Items of which every fourth is new, with content vectors of these lengths in turn.
    fn items(count: usize, content_dims: &[usize]) -> ItemColumns {
        let mut set = LabelledItems::default();
        for number in 0..count {
            let mut item = item(&[1.0; 20]);
            item.item_id = format!("i{number}");
            item.days_since_first_seen = if number % 4 == 0 { 5 } else { 20 };
            item.content = vec![0.5; content_dims[number % content_dims.len()]];
            item.intent_units = if number % 2 == 0 { vec![1.0; 10] } else { Vec::new() };
            set.items.push(item);
            set.units.push(vec![1.0; 7]);
            set.in_stock.push(vec![true; 7]);
        }
        columns(&set)
    }

    #[test]
    fn each_purpose_gets_its_share_and_the_same_items_every_date() {
        let config = Config { demand: demand(7), ..Config::default() };
        let purposes = ItemPurposes { train: 100, test: 4000, new_newest: 4000, ..ItemPurposes::default() };
        let other = ItemPurposes { train: 100, ..ItemPurposes::default() };
        let day: RunDate = "2026-03-02".parse().unwrap();
        let dates = BTreeMap::from([(day, purposes), (day.plus_days(-7), other)]);
        let mut writers = ItemWriters::new(&config, &dates, 400.0).unwrap();
        let items = items(400, &[2]);
        items.chunks(90).for_each(|some| writers.add(&some, purposes).unwrap());
        writers.add(&items, other).unwrap();
        let sets = writers.finish().unwrap();
        let [train, calibration, test, before, newest] = sets.all().map(|set| set.len());
        assert_eq!((calibration, test, before, newest), (0, 400, 0, 100));
        assert!((140..260).contains(&train) && train % 2 == 0, "a quarter of 400, twice: {train}");
        let train = sets.train.each_window().next().unwrap().unwrap();
        assert!((0..train.len()).step_by(2).all(|row| train.id(row) == train.id(row + 1)));
        let new = sets.new_items();
        assert_eq!((new.before_test.len(), new.newest.len()), (2, 1), "train and calibration stand in before the test");
    }

    #[test]
    fn statistics_find_training_rows_and_the_usual_vector_length() {
        let statistics =
            |items: ItemColumns| ItemStatistics::from_blocks(&ItemBlocks::in_memory(items).unwrap()).unwrap();
        let found = statistics(items(400, &[2, 2, 3]));
        assert_eq!((found.content_dims, found.intent_days_share), (2, 0.25));
        assert!((240..300).contains(&found.training_rows), "nine tenths of three quarters: {}", found.training_rows);
        assert_eq!(statistics(items(40, &[3, 2])).content_dims, 2, "the smallest of several");
        assert_eq!(statistics(items(40, &[0, 0, 2])).content_dims, 0);
    }
}
