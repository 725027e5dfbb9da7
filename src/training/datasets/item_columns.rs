//! Items with the days that followed as Arrow columns: the rows of blocks, from which demand batches are built by index.

use arrow::array::{ArrayRef, ArrowPrimitiveType, AsArray, Float32Array, Float64Array, Int32Array, ListArray};
use arrow::array::{PrimitiveArray, RecordBatch, StringArray, UInt8Array};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Int32Type, Schema, SchemaRef, UInt8Type};
use std::sync::Arc;
use tch::{Kind, Tensor};

use super::block_rows::{BlockRows, element, flat, matrix, numbers};
use super::blocks::Blocks;
use super::labelled_items::LabelledItems;
use crate::config::DemandConfig;
use crate::failure::{Failure, Result};
use crate::model::demand::input_sizes::{FUTURE_DAY_VALUES, INTENT_INPUTS, INTENTS_AT, PAST_DAY_VALUES};
use crate::model::demand::inputs::{DemandColumns, DemandRows};
use crate::model::demand::{DemandPattern, ItemFacts};

/// Memory of a row's id, sums and offsets, without its days.
const ROW_BYTES: usize = 120;
/// Memory of a content vector of the usual length.
const CONTENT_BYTES: usize = 512;

/// Items as of past dates, one row per item and date.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemColumns(RecordBatch);

pub type ItemBlocks = Blocks<ItemColumns>;

/// Days of histories.
pub(crate) struct HistoryDays {
    pub(crate) all: f64,
    /// Days for which a night had published purchase intents.
    pub(crate) with_intents: f64,
    /// Days on which the shop was closed.
    pub(crate) closed: f64,
}

/// Indices of the columns after the id.
#[derive(Clone, Copy)]
enum Column {
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
    WeekdayUnits,
    FutureUnits,
    FutureInStock,
}

impl BlockRows for ItemColumns {
    const KIND: &'static str = "items";

    fn batch(&self) -> &RecordBatch {
        &self.0
    }

    fn from_trusted_batch(batch: RecordBatch) -> Self {
        Self(batch)
    }

    fn bytes(&self) -> u64 {
        let future = 2 * self.matrix(Column::FutureUnits).len();
        let days = self.matrix(Column::Past).len() + self.matrix(Column::Future).len() + future;
        let offsets = self.list(Column::Content).value_offsets();
        let content = offsets.last().zip(offsets.first()).map_or(0, |(last, first)| (last - first) as usize);
        (self.len() * ROW_BYTES + (days + content) * 4) as u64
    }
}

impl ItemColumns {
    pub(crate) fn schema(demand: &DemandConfig) -> SchemaRef {
        let field = |name: &str, data_type: DataType| Field::new(name, data_type, false);
        let history = demand.history_days as usize;
        let horizon = demand.horizon_days as usize;
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
            field("weekday_units", numbers(7)),
            field("future_units", numbers(horizon)),
            field("future_in_stock", numbers(horizon)),
        ]))
    }

    /// Encodes items; refuses horizons of another length than is configured.
    pub fn from_items(labelled: &LabelledItems, demand: &DemandConfig) -> Result<Self> {
        let history = demand.history_days as usize;
        let horizon = demand.horizon_days as usize;
        let mut lengths = labelled.units.iter().map(Vec::len).chain(labelled.in_stock.iter().map(Vec::len));
        if let Some(days) = lengths.find(|&days| days != horizon) {
            return Err(Failure::input(format!("demand_labels: expected {horizon} days of each item, got {days}"))
                .hint("labels/demand_labels.sql has a row for each of demand_horizon_days() days"));
        }
        let inputs = DemandColumns::from_histories(&labelled.items, history, horizon, demand.history_days_min.into());
        let content = ListArray::try_new(
            element(DataType::Float32),
            OffsetBuffer::new(ScalarBuffer::from(inputs.content_offsets)),
            Arc::new(Float32Array::from(inputs.content)),
            None,
        )?;
        let weekday_units =
            labelled.items.iter().flat_map(|item| item.last_units_by_weekday()).map(|units| units as f32).collect();
        let units = labelled.units.iter().flatten().map(|&units| units as f32).collect();
        let in_stock = labelled.in_stock.iter().flatten().map(|&stocked| f32::from(u8::from(stocked))).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(labelled.items.iter().map(|item| &item.item_id))),
            Arc::new(Int32Array::from(inputs.as_of_day)),
            matrix(inputs.past, history * PAST_DAY_VALUES)?,
            Arc::new(Int32Array::from(inputs.past_days)),
            Arc::new(Int32Array::from(inputs.category)),
            Arc::new(content),
            matrix(inputs.future, horizon * FUTURE_DAY_VALUES)?,
            Arc::new(Float32Array::from(inputs.later_price_ratio)),
            Arc::new(Float64Array::from(inputs.units)),
            Arc::new(Float64Array::from(inputs.days_in_stock)),
            Arc::new(UInt8Array::from(inputs.pattern)),
            Arc::new(Int32Array::from(inputs.lead_time_days)),
            matrix(weekday_units, 7)?,
            matrix(units, horizon)?,
            matrix(in_stock, horizon)?,
        ];
        Ok(Self(RecordBatch::try_new(Self::schema(demand), columns)?))
    }

    /// Estimates the memory of `items` rows.
    pub(crate) fn estimate_bytes(items: usize, demand: &DemandConfig) -> u64 {
        let history = demand.history_days as usize;
        let horizon = demand.horizon_days as usize;
        let numbers = history * PAST_DAY_VALUES + horizon * (FUTURE_DAY_VALUES + 2);
        (items * (ROW_BYTES + CONTENT_BYTES + numbers * 4)) as u64
    }

    /// The columns that the inputs of the network are made from.
    pub(crate) fn item_rows(&self) -> DemandRows<'_> {
        let content = self.list(Column::Content);
        DemandRows {
            past: self.matrix(Column::Past),
            past_days: self.values::<Int32Type>(Column::PastDays),
            as_of_day: self.values::<Int32Type>(Column::AsOfDay),
            category: self.values::<Int32Type>(Column::Category),
            content: content.values().as_primitive::<Float32Type>().values(),
            content_offsets: content.value_offsets(),
            future: self.matrix(Column::Future),
            later_price_ratio: self.values::<Float32Type>(Column::LaterPriceRatio),
            units: self.values::<Float64Type>(Column::Units),
            days_in_stock: self.values::<Float64Type>(Column::DaysInStock),
            pattern: self.values::<UInt8Type>(Column::Pattern),
            lead_time_days: self.values::<Int32Type>(Column::LeadTimeDays),
        }
    }

    pub(crate) fn facts(&self, row: usize) -> ItemFacts {
        self.item_rows().facts(row)
    }

    pub(crate) fn as_of_day(&self, row: usize) -> i64 {
        self.values::<Int32Type>(Column::AsOfDay)[row].into()
    }

    /// Rows of the items with a wanted demand pattern.
    pub fn rows_with_pattern(&self, wanted: impl Fn(DemandPattern) -> bool) -> Vec<usize> {
        let item_rows = self.item_rows();
        (0..self.len()).filter(|&row| wanted(item_rows.facts(row).pattern)).collect()
    }

    /// Seasonal naive forecast of a day of the horizon: the units sold on the same weekday of the last week that was in
    /// stock then.
    pub(crate) fn seasonal_naive(&self, row: usize, day: usize) -> f64 {
        self.matrix(Column::WeekdayUnits)[row * 7 + day % 7].into()
    }

    /// Day and units of each day of the horizon on which the item was in stock.
    pub(crate) fn days_in_stock(&self, row: usize) -> impl Iterator<Item = (usize, f64)> {
        let days =
            self.future(Column::FutureUnits, row).iter().zip(self.future(Column::FutureInStock, row)).enumerate();
        days.filter(|(_, (_, stocked))| **stocked > 0.5).map(|(day, (units, _))| (day, f64::from(*units)))
    }

    /// Demand over the item's lead time; `None` where it was out of stock on a day of it, or the horizon is shorter.
    pub(crate) fn lead_time_units(&self, row: usize) -> Option<f64> {
        self.units_of_first_days(row, usize::try_from(self.item_rows().lead_time_days[row]).ok()?)
    }

    /// Demand over the first `days` of the horizon; `None` where the item was out of stock on one of them, or the horizon is shorter.
    pub(crate) fn units_of_first_days(&self, row: usize, days: usize) -> Option<f64> {
        let stocked = self.future(Column::FutureInStock, row).get(..days)?.iter().all(|&stocked| stocked > 0.5);
        stocked.then(|| self.future(Column::FutureUnits, row)[..days].iter().map(|&units| f64::from(units)).sum())
    }

    /// Units on each day of the horizon, and 1 where the item was in stock; float32 [items, horizon_days] both.
    pub(crate) fn outcome_tensors(&self) -> Result<[Tensor; 2]> {
        let tensor = |column: Column| -> Result<Tensor> {
            Ok(Tensor::f_from_slice(self.matrix(column))?.f_view([self.len() as i64, -1])?.to_kind(Kind::Float))
        };
        Ok([tensor(Column::FutureUnits)?, tensor(Column::FutureInStock)?])
    }

    /// Length of a row's content vector; 0 without one.
    pub(crate) fn content_dims(&self, row: usize) -> usize {
        self.list(Column::Content).value_length(row) as usize
    }

    pub(crate) fn history_days(&self) -> HistoryDays {
        let all = self.item_rows().past_days.iter().map(|&days| f64::from(days)).sum();
        let count = |at: usize| -> f64 {
            let flags = self.matrix(Column::Past).iter().skip(at).step_by(PAST_DAY_VALUES);
            flags.map(|&flag| f64::from(flag)).sum()
        };
        let intents_end = INTENTS_AT + INTENT_INPUTS;
        HistoryDays { all, with_intents: count(intents_end - 1), closed: count(intents_end) }
    }

    fn future(&self, column: Column, row: usize) -> &[f32] {
        let values = self.matrix(column);
        let days = values.len() / self.len();
        &values[row * days..(row + 1) * days]
    }

    fn matrix(&self, column: Column) -> &[f32] {
        flat(self.0.column(column as usize).as_fixed_size_list())
    }

    fn list(&self, column: Column) -> &ListArray {
        self.0.column(column as usize).as_list()
    }

    fn values<T: ArrowPrimitiveType>(&self, column: Column) -> &[T::Native] {
        let values: &PrimitiveArray<T> = self.0.column(column as usize).as_primitive();
        values.values()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::model::demand::history::tests::item;

    /// Settings with histories of four weeks.
    pub(crate) fn demand(horizon_days: usize) -> DemandConfig {
        DemandConfig {
            horizon_days: horizon_days as u32,
            history_days: 28,
            history_days_min: 14,
            ..DemandConfig::default()
        }
    }

    /// Encodes items with the settings of [`demand`].
    pub(crate) fn columns(set: &LabelledItems) -> ItemColumns {
        ItemColumns::from_items(set, &demand(set.units.first().map_or(0, Vec::len))).unwrap()
    }

    fn set() -> LabelledItems {
        let mut set = LabelledItems::default();
        for number in 0..9u8 {
            let mut item = item(&(0..20 + number).map(f64::from).collect::<Vec<_>>());
            item.item_id = format!("i{number}");
            item.days_since_first_seen = if number == 3 { 5 } else { 20 };
            item.content = vec![0.5; usize::from(number % 3)];
            item.lead_time_days = 1 + i64::from(number);
            item.intent_units = vec![1.0; usize::from(number)];
            item.closed_dates = vec![item.first_day + i64::from(number)];
            set.items.push(item);
            set.units.push((1..=8).map(f64::from).collect());
            set.in_stock.push((0..8).map(|day| day != 6 || number % 2 == 0).collect());
        }
        set
    }

    #[test]
    fn rows_give_the_inputs_of_their_histories() {
        let (set, demand) = (set(), demand(8));
        let columns = ItemColumns::from_items(&set, &demand).unwrap();
        let order = [7, 2, 5, 0, 3];
        let histories: Vec<_> = order.iter().map(|&row| set.items[row].clone()).collect();
        let wanted = format!("{:?}", DemandColumns::from_histories(&histories[1..4], 28, 8, 14));
        let sliced = columns.take(&order).unwrap().chunks(4).next().unwrap();
        let part = ItemColumns(sliced.0.slice(1, 3));
        let numbers = part.item_rows();
        let first = numbers.content_offsets[0];
        let inputs = DemandColumns {
            past: numbers.past.to_vec(),
            past_days: numbers.past_days.to_vec(),
            as_of_day: numbers.as_of_day.to_vec(),
            category: numbers.category.to_vec(),
            content: numbers.content[first as usize..numbers.content_offsets[3] as usize].to_vec(),
            content_offsets: numbers.content_offsets.iter().map(|at| at - first).collect(),
            future: numbers.future.to_vec(),
            later_price_ratio: numbers.later_price_ratio.to_vec(),
            units: numbers.units.to_vec(),
            days_in_stock: numbers.days_in_stock.to_vec(),
            pattern: numbers.pattern.to_vec(),
            lead_time_days: numbers.lead_time_days.to_vec(),
        };
        assert_eq!(format!("{inputs:?}"), wanted);
        assert_eq!(part.sorted().unwrap().id(0), "i0");
        assert_eq!(columns.rows_with_pattern(|pattern| pattern == DemandPattern::New), [3]);
        let days = columns.take(&[4, 5]).unwrap().history_days();
        assert_eq!((days.all, days.with_intents, days.closed), (24.0 + 25.0, 9.0, 2.0));
        assert_eq!((columns.content_dims(4), columns.content_dims(5)), (1, 2));
    }

    #[test]
    fn lead_time_units_need_a_known_lead_time_in_stock() {
        let columns = columns(&set());
        let units: Vec<_> = (0..9).map(|row| columns.lead_time_units(row)).collect();
        // Two have a lead time over the seventh day, which is out of stock, or beyond the horizon.
        assert_eq!(units[4..], [Some(15.0), Some(21.0), Some(28.0), None, None]);
        assert_eq!(columns.days_in_stock(1).map(|(day, _)| day).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 7]);
    }

    #[test]
    fn a_horizon_of_another_length_is_refused() {
        let failure = ItemColumns::from_items(&set(), &demand(9)).unwrap_err();
        assert_eq!(failure.message, "demand_labels: expected 9 days of each item, got 8");
    }
}
