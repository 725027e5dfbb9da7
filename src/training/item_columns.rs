//! Items with the days that followed as Arrow columns: what blocks hold, and what demand batches are cut from by index.

use arrow::array::{ArrayRef, ArrowPrimitiveType, AsArray, Float32Array, Float64Array, Int32Array, ListArray};
use arrow::array::{PrimitiveArray, RecordBatch, StringArray, UInt8Array};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Int32Type, Schema, SchemaRef, UInt8Type};
use std::sync::Arc;
use tch::{Kind, Tensor};

use super::blocks::Blocks;
use super::columns::{Rows, element, flat, matrix, numbers};
use super::sets::ItemSet;
use crate::config::DemandConfig;
use crate::failure::{Failure, Result};
use crate::model::demand::input_sizes::{FUTURE_DAY_VALUES, INTENT_INPUTS, PAST_DAY_VALUES};
use crate::model::demand::inputs::{DemandColumns, DemandRows};
use crate::model::demand::{DemandPattern, ItemFacts};

/// What a row takes besides its days: ids, sums, offsets.
const ROW_BYTES: usize = 120;
/// A content vector of the usual lengths.
const CONTENT_BYTES: usize = 512;

/// Rows of items at as-of dates, one an item and date.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemColumns(RecordBatch);

pub type ItemBlocks = Blocks<ItemColumns>;

/// Where a column stands.
#[derive(Clone, Copy)]
enum At {
    AsOfDay = 1,
    Past,
    PastDays,
    Category,
    Content,
    Future,
    LaterPriceRatio,
    Units,
    DaysInStock,
    Pattern,
    LeadTimeDays,
    OfWeekdays,
    FutureUnits,
    FutureInStock,
}

impl Rows for ItemColumns {
    const OF: &'static str = "items";

    fn batch(&self) -> &RecordBatch {
        &self.0
    }

    fn of_batch(batch: RecordBatch) -> Self {
        Self(batch)
    }

    fn bytes(&self) -> u64 {
        let days = self.matrix(At::Past).len() + self.matrix(At::Future).len() + 2 * self.matrix(At::FutureUnits).len();
        let content = self.list(At::Content);
        let offsets = content.value_offsets();
        let content = offsets.last().zip(offsets.first()).map_or(0, |(last, first)| (last - first) as usize);
        (self.len() * ROW_BYTES + (days + content) * 4) as u64
    }
}

impl ItemColumns {
    pub fn schema(demand: &DemandConfig) -> SchemaRef {
        let field = |name: &str, of: DataType| Field::new(name, of, false);
        let (history, horizon) = (demand.history_days as usize, demand.horizon_days as usize);
        Arc::new(Schema::new(vec![
            field("item_id", DataType::Utf8),
            field("as_of_day", DataType::Int32),
            field("past", numbers(history * PAST_DAY_VALUES)),
            field("past_days", DataType::Int32),
            field("category", DataType::Int32),
            field("content", DataType::List(element(DataType::Float32))),
            field("future", numbers(horizon * FUTURE_DAY_VALUES)),
            field("later_price_ratio", DataType::Float32),
            field("units", DataType::Float64),
            field("days_in_stock", DataType::Float64),
            field("pattern", DataType::UInt8),
            field("lead_time_days", DataType::Int32),
            field("of_weekdays", numbers(7)),
            field("future_units", numbers(horizon)),
            field("future_in_stock", numbers(horizon)),
        ]))
    }

    /// The items of a set; refused where a horizon has another number of days than is configured.
    pub fn of(set: &ItemSet, demand: &DemandConfig) -> Result<Self> {
        let (history, horizon) = (demand.history_days as usize, demand.horizon_days as usize);
        let lengths = set.units.iter().map(Vec::len).chain(set.in_stock.iter().map(Vec::len));
        if let Some(days) = lengths.into_iter().find(|&days| days != horizon) {
            return Err(Failure::input(format!("demand_labels: expected {horizon} days of each item, got {days}"))
                .hint("labels/demand_labels.sql has a row for each of demand_horizon_days() days"));
        }
        let of = DemandColumns::from_histories(&set.items, history, horizon, demand.history_days_min.into());
        let content = ListArray::try_new(
            element(DataType::Float32),
            OffsetBuffer::new(ScalarBuffer::from(of.content_offsets)),
            Arc::new(Float32Array::from(of.content)),
            None,
        )?;
        let of_weekdays =
            set.items.iter().flat_map(|item| item.last_units_by_weekday()).map(|units| units as f32).collect();
        let in_stock = set.in_stock.iter().flatten().map(|&stocked| f32::from(u8::from(stocked))).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(set.items.iter().map(|item| &item.item_id))),
            Arc::new(Int32Array::from(of.as_of_day)),
            matrix(of.past, history * PAST_DAY_VALUES)?,
            Arc::new(Int32Array::from(of.past_days)),
            Arc::new(Int32Array::from(of.category)),
            Arc::new(content),
            matrix(of.future, horizon * FUTURE_DAY_VALUES)?,
            Arc::new(Float32Array::from(of.later_price_ratio)),
            Arc::new(Float64Array::from(of.units)),
            Arc::new(Float64Array::from(of.days_in_stock)),
            Arc::new(UInt8Array::from(of.pattern)),
            Arc::new(Int32Array::from(of.lead_time_days)),
            matrix(of_weekdays, 7)?,
            matrix(set.units.iter().flatten().map(|&units| units as f32).collect(), horizon)?,
            matrix(in_stock, horizon)?,
        ];
        Ok(Self(RecordBatch::try_new(Self::schema(demand), columns)?))
    }

    /// What so many rows take in memory.
    pub fn bytes_of(items: usize, demand: &DemandConfig) -> u64 {
        let (history, horizon) = (demand.history_days as usize, demand.horizon_days as usize);
        let numbers = history * PAST_DAY_VALUES + horizon * (FUTURE_DAY_VALUES + 2);
        (items * (ROW_BYTES + CONTENT_BYTES + numbers * 4)) as u64
    }

    /// What the network's inputs are made of.
    pub fn rows(&self) -> DemandRows<'_> {
        let content = self.list(At::Content);
        DemandRows {
            past: self.matrix(At::Past),
            past_days: self.values::<Int32Type>(At::PastDays),
            as_of_day: self.values::<Int32Type>(At::AsOfDay),
            category: self.values::<Int32Type>(At::Category),
            content: content.values().as_primitive::<Float32Type>().values(),
            content_offsets: content.value_offsets(),
            future: self.matrix(At::Future),
            later_price_ratio: self.values::<Float32Type>(At::LaterPriceRatio),
            units: self.values::<Float64Type>(At::Units),
            days_in_stock: self.values::<Float64Type>(At::DaysInStock),
            pattern: self.values::<UInt8Type>(At::Pattern),
            lead_time_days: self.values::<Int32Type>(At::LeadTimeDays),
        }
    }

    pub fn facts(&self, row: usize) -> ItemFacts {
        self.rows().facts(row)
    }

    pub fn as_of_day(&self, row: usize) -> i64 {
        self.values::<Int32Type>(At::AsOfDay)[row].into()
    }

    /// Rows of the items that sell so.
    pub fn that_sell(&self, wanted: impl Fn(DemandPattern) -> bool) -> Vec<usize> {
        let rows = self.rows();
        (0..self.len()).filter(|&row| wanted(rows.facts(row).pattern)).collect()
    }

    /// What was sold on the same weekday of the last week whose day was in stock, by the `step`-th day to come.
    pub fn seasonal_naive(&self, row: usize, step: usize) -> f64 {
        self.matrix(At::OfWeekdays)[row * 7 + step % 7].into()
    }

    /// (step, units) of the days to come on which the item was in stock.
    pub fn days_in_stock(&self, row: usize) -> impl Iterator<Item = (usize, f64)> {
        let days = self.future(At::FutureUnits, row).iter().zip(self.future(At::FutureInStock, row)).enumerate();
        days.filter(|(_, (_, stocked))| **stocked > 0.5).map(|(day, (units, _))| (day, f64::from(*units)))
    }

    /// What the item asked for in its lead time; `None` where a day of it had no stock, or lies beyond what is known.
    pub fn lead_time_units(&self, row: usize) -> Option<f64> {
        let days = usize::try_from(self.rows().lead_time_days[row]).ok()?;
        let stocked = self.future(At::FutureInStock, row).get(..days)?.iter().all(|&stocked| stocked > 0.5);
        stocked.then(|| self.future(At::FutureUnits, row)[..days].iter().map(|&units| f64::from(units)).sum())
    }

    /// Units of the days to come, and whether each was in stock; float32 [items, horizon_days] both.
    pub fn outcomes(&self) -> Result<[Tensor; 2]> {
        let tensor = |at: At| -> Result<Tensor> {
            Ok(Tensor::f_from_slice(self.matrix(at))?.f_view([self.len() as i64, -1])?.to_kind(Kind::Float))
        };
        Ok([tensor(At::FutureUnits)?, tensor(At::FutureInStock)?])
    }

    /// Length of a row's content vector, 0 without one.
    pub fn content_dims(&self, row: usize) -> usize {
        self.list(At::Content).value_length(row) as usize
    }

    /// Days of all histories, and of how many a night had published purchase intents.
    pub fn days_with_intents(&self) -> [f64; 2] {
        let days = self.rows().past_days.iter().map(|&days| f64::from(days)).sum();
        let known = self.matrix(At::Past).iter().skip(PAST_DAY_VALUES - INTENT_INPUTS + 1).step_by(PAST_DAY_VALUES);
        [days, known.map(|&known| f64::from(known)).sum()]
    }

    fn future(&self, at: At, row: usize) -> &[f32] {
        let values = self.matrix(at);
        let days = values.len() / self.len();
        &values[row * days..(row + 1) * days]
    }

    fn matrix(&self, at: At) -> &[f32] {
        flat(self.0.column(at as usize).as_fixed_size_list())
    }

    fn list(&self, at: At) -> &ListArray {
        self.0.column(at as usize).as_list()
    }

    fn values<T: ArrowPrimitiveType>(&self, at: At) -> &[T::Native] {
        let values: &PrimitiveArray<T> = self.0.column(at as usize).as_primitive();
        values.values()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::model::demand::history::tests::item;

    /// Histories of four weeks and horizons of so many days.
    pub fn demand(horizon_days: usize) -> DemandConfig {
        DemandConfig {
            horizon_days: horizon_days as u32,
            history_days: 28,
            history_days_min: 14,
            ..DemandConfig::default()
        }
    }

    /// As [`ItemColumns::of`], of sets that tests make up.
    pub fn columns(set: &ItemSet) -> ItemColumns {
        ItemColumns::of(set, &demand(set.units.first().map_or(0, Vec::len))).unwrap()
    }

    fn set() -> ItemSet {
        let mut set = ItemSet::default();
        for number in 0..9u8 {
            let mut item = item(&(0..20 + number).map(f64::from).collect::<Vec<_>>());
            item.item_id = format!("i{number}");
            item.days_since_first_seen = if number == 3 { 5 } else { 20 };
            item.content = vec![0.5; usize::from(number % 3)];
            item.lead_time_days = 1 + i64::from(number);
            item.intent_units = vec![1.0; usize::from(number)];
            set.items.push(item);
            set.units.push((1..=8).map(f64::from).collect());
            set.in_stock.push((0..8).map(|day| day != 6 || number % 2 == 0).collect());
        }
        set
    }

    #[test]
    fn rows_that_are_taken_sliced_and_sorted_make_the_inputs_of_the_histories_themselves() {
        let (set, demand) = (set(), demand(8));
        let columns = ItemColumns::of(&set, &demand).unwrap();
        let order = [7, 2, 5, 0, 3];
        let histories: Vec<_> = order.iter().map(|&row| set.items[row].clone()).collect();
        let wanted = format!("{:?}", DemandColumns::from_histories(&histories[1..4], 28, 8, 14));
        let sliced = columns.take(&order).unwrap().chunks(4).next().unwrap();
        let part = ItemColumns(sliced.0.slice(1, 3));
        let numbers = part.rows();
        let begun = numbers.content_offsets[0];
        let of = DemandColumns {
            past: numbers.past.to_vec(),
            past_days: numbers.past_days.to_vec(),
            as_of_day: numbers.as_of_day.to_vec(),
            category: numbers.category.to_vec(),
            content: numbers.content[begun as usize..numbers.content_offsets[3] as usize].to_vec(),
            content_offsets: numbers.content_offsets.iter().map(|at| at - begun).collect(),
            future: numbers.future.to_vec(),
            later_price_ratio: numbers.later_price_ratio.to_vec(),
            units: numbers.units.to_vec(),
            days_in_stock: numbers.days_in_stock.to_vec(),
            pattern: numbers.pattern.to_vec(),
            lead_time_days: numbers.lead_time_days.to_vec(),
        };
        assert_eq!(format!("{of:?}"), wanted);
        assert_eq!(part.sorted().unwrap().id(0), "i0");
        assert_eq!(columns.that_sell(|speed| speed == DemandPattern::New), [3]);
        assert_eq!(columns.take(&[4, 5]).unwrap().days_with_intents(), [24.0 + 25.0, 9.0]);
        assert_eq!((columns.content_dims(4), columns.content_dims(5)), (1, 2));
    }

    #[test]
    fn a_lead_time_counts_where_all_of_it_is_known_and_in_stock() {
        let columns = columns(&set());
        let units: Vec<_> = (0..9).map(|row| columns.lead_time_units(row)).collect();
        // Out of stock on the seventh day, and beyond the horizon.
        assert_eq!(units[4..], [Some(15.0), Some(21.0), Some(28.0), None, None]);
        assert_eq!(columns.days_in_stock(1).map(|(day, _)| day).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 7]);
    }

    #[test]
    fn a_horizon_of_other_days_than_are_configured_is_refused() {
        let failure = ItemColumns::of(&set(), &demand(9)).unwrap_err();
        assert_eq!(failure.message, "demand_labels: expected 9 days of each item, got 8");
    }
}
