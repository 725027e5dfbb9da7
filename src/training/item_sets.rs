//! Items as of the dates of a training, in blocks: read through the night's own SQL, a date at a time, and thinned to what
//! each end may have.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::blocks::BlockWriter;
use super::columns::Rows;
use super::item_columns::{ItemBlocks, ItemColumns};
use super::item_dates::{self, Ends};
use super::sets::{Past, Split, is_labelled};
use crate::config::Config;
use crate::failure::Result;
use crate::ids::RunDate;
use crate::model::demand::DemandPattern;

/// New items among all of a date, as far as the number of blocks is concerned.
const NEW_SHARE: f64 = 0.1;

/// As [`Ends`] says what each is for.
#[derive(Debug, Clone)]
pub struct ItemSets {
    pub learnt: Arc<ItemBlocks>,
    pub earlier: Arc<ItemBlocks>,
    pub held_out: Arc<ItemBlocks>,
    pub new_before: Arc<ItemBlocks>,
    pub new_newest: Arc<ItemBlocks>,
}

impl ItemSets {
    /// Nothing on or after `end` is read.
    pub async fn gather(past: &Past<'_>, end: RunDate) -> Result<Self> {
        let config = &past.workspace.config;
        let demand = &config.demand;
        let newest = end.plus_days(-i64::from(demand.horizon_days));
        let seen = past.items_seen(newest).await?;
        // Without an item no date reaches back far enough.
        let dates = item_dates::of(end, seen.first_day.unwrap_or(end), config);
        let mut writers = Writers::new(config, &dates, seen.ids.max(1) as f64)?;
        // Newest first, so that a lake too young fails early.
        for (&as_of, &ends) in dates.iter().rev() {
            let clock = std::time::Instant::now();
            let items = past.items(as_of, seen.ids, |items| writers.add(items, ends)).await?;
            tracing::info!("as of {as_of}: {items} items, {:.1} s", clock.elapsed().as_secs_f64());
        }
        writers.finish()
    }

    pub fn each(&self) -> [&ItemBlocks; 5] {
        [&self.learnt, &self.earlier, &self.held_out, &self.new_before, &self.new_newest].map(Arc::as_ref)
    }

    /// Sets whose new items are learnt from before those of the newest date are tested on, and after. No network learns
    /// from them, so the dates of the training are as good as others.
    pub fn of_new<'a>(&'a self) -> [Vec<&'a ItemBlocks>; 2] {
        let of = |set: &'a ItemBlocks, others: &[&'a ItemBlocks]| match set.is_empty() {
            true => others.to_vec(),
            false => vec![set],
        };
        let [learnt, earlier, held_out, before, newest] = self.each();
        [of(before, &[learnt, earlier]), of(newest, &[learnt, earlier, held_out])]
    }
}

/// Where items go.
struct Writers {
    /// In the order of [`ItemSets::each`].
    of_ends: [BlockWriter<ItemColumns>; 5],
    /// About how many items a date has.
    items: f64,
}

impl Writers {
    fn new(config: &Config, dates: &BTreeMap<RunDate, Ends>, items: f64) -> Result<Self> {
        let schema = ItemColumns::schema(&config.demand);
        let writer = |end: usize| {
            let of_date = |ends: &Ends| match ends.each()[end] {
                (most, false) => f64::from(most).min(items),
                (most, true) => f64::from(most).min(items * NEW_SHARE),
            };
            let expected: f64 = dates.values().map(of_date).sum();
            BlockWriter::new(config, Arc::clone(&schema), ItemColumns::bytes_of(expected as usize, &config.demand))
        };
        Ok(Self { of_ends: [writer(0)?, writer(1)?, writer(2)?, writer(3)?, writer(4)?], items })
    }

    fn add(&mut self, items: &ItemColumns, ends: Ends) -> Result<()> {
        let of_items = items.rows();
        for (writer, (most, new_only)) in self.of_ends.iter_mut().zip(ends.each()) {
            if most == 0 {
                continue;
            }
            // An item is on one side at every date.
            let share = f64::from(most) / self.items;
            let is_for_it = |row: usize| !new_only || of_items.facts(row).pattern == DemandPattern::New;
            let wanted = |&row: &usize| is_for_it(row) && is_labelled(items.id(row), share);
            let rows: Vec<usize> = (0..items.len()).filter(wanted).collect();
            if !rows.is_empty() {
                writer.add(&items.take(&rows)?)?;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<ItemSets> {
        let [learnt, earlier, held_out, new_before, new_newest] = self.of_ends;
        let finished = |writer: BlockWriter<ItemColumns>| -> Result<Arc<ItemBlocks>> { Ok(Arc::new(writer.finish()?)) };
        Ok(ItemSets {
            learnt: finished(learnt)?,
            earlier: finished(earlier)?,
            held_out: finished(held_out)?,
            new_before: finished(new_before)?,
            new_newest: finished(new_newest)?,
        })
    }
}

/// Whether the network forecasts such items; others have a prior of their own.
pub fn is_forecast(speed: DemandPattern) -> bool {
    !matches!(speed, DemandPattern::New | DemandPattern::Dormant)
}

/// Rows that the network learns from; the others that it forecasts are validated on.
pub fn learnable(items: &ItemColumns) -> Vec<usize> {
    let [learnt, other] = [Split::Train, Split::Test].map(|of| items.rows_of(of));
    let mut rows: Vec<usize> = learnt.into_iter().chain(other).collect();
    let of_items = items.rows();
    rows.retain(|&row| is_forecast(of_items.facts(row).pattern));
    rows
}

/// What shapes a network that learns from some items.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemSurvey {
    /// Rows that are learnt from.
    pub learnable: usize,
    /// The length of most items' content vectors (the smallest of several such); 0 where most have none.
    pub content_dims: usize,
    /// The share of the histories' days for which a night had published purchase intents.
    pub intents_known: f64,
}

impl ItemSurvey {
    pub fn of(items: &ItemBlocks) -> Result<Self> {
        let (mut rows, mut days, mut known) = (0, 0.0, 0.0);
        let mut dims: BTreeMap<usize, usize> = BTreeMap::new();
        for window in items.each() {
            let window = window?;
            rows += learnable(&window).len();
            (0..window.len()).for_each(|row| *dims.entry(window.content_dims(row)).or_default() += 1);
            let [of_window, with_intents] = window.days_with_intents();
            (days, known) = (days + of_window, known + with_intents);
        }
        let content_dims = dims.into_iter().rev().max_by_key(|&(_, items)| items).map_or(0, |(dims, _)| dims);
        Ok(Self { learnable: rows, content_dims, intents_known: known / f64::max(days, 1.0) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::item_columns::tests::{columns, demand};
    use super::super::sets::ItemSet;
    use super::*;
    use crate::model::demand::history::tests::item;

    /// So many items, every fourth of them new, with vectors of these lengths in turn.
    fn items(count: usize, content_dims: &[usize]) -> ItemColumns {
        let mut set = ItemSet::default();
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
    fn each_end_gets_its_share_the_same_items_at_every_date_and_new_ones_where_it_is_for_them() {
        let config = Config { demand: demand(7), ..Config::default() };
        let ends = Ends { learnt: 100, held_out: 4000, new_newest: 4000, ..Ends::default() };
        let other = Ends { learnt: 100, ..Ends::default() };
        let day: RunDate = "2026-03-02".parse().unwrap();
        let dates = BTreeMap::from([(day, ends), (day.plus_days(-7), other)]);
        let mut writers = Writers::new(&config, &dates, 400.0).unwrap();
        let items = items(400, &[2]);
        items.chunks(90).for_each(|some| writers.add(&some, ends).unwrap());
        writers.add(&items, other).unwrap();
        let sets = writers.finish().unwrap();
        let [learnt, earlier, held_out, before, newest] = sets.each().map(|set| set.len());
        assert_eq!((earlier, held_out, before, newest), (0, 400, 0, 100));
        assert!((140..260).contains(&learnt) && learnt % 2 == 0, "a quarter of 400, twice: {learnt}");
        let learnt = sets.learnt.each().next().unwrap().unwrap();
        assert!((0..learnt.len()).step_by(2).all(|row| learnt.id(row) == learnt.id(row + 1)));
        let [of_before, of_newest] = sets.of_new().map(|sets| sets.len());
        assert_eq!((of_before, of_newest), (2, 1), "without new items of before, those of the training");
    }

    #[test]
    fn the_survey_counts_what_is_learnt_from_and_takes_the_length_of_most_vectors() {
        let survey = |items: ItemColumns| ItemSurvey::of(&ItemBlocks::held(items).unwrap()).unwrap();
        let found = survey(items(400, &[2, 2, 3]));
        assert_eq!((found.content_dims, found.intents_known), (2, 0.25));
        assert!((240..300).contains(&found.learnable), "nine tenths of three quarters: {}", found.learnable);
        assert_eq!(survey(items(40, &[3, 2])).content_dims, 2, "the smallest of several such");
        assert_eq!(survey(items(40, &[0, 0, 2])).content_dims, 0);
    }
}
