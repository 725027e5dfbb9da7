//! One item's daily history: read out of Arrow, turned into the numbers that the networks' inputs are made of, and the
//! fallback for histories that are too short for a network.

use arrow::array::{Array, ArrayRef, AsArray, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Float64Type, Int64Type};

use super::{RatePrior, Raw, Speed};
use crate::failure::{Failure, Result};
use crate::model::inputs::{CATEGORY_BUCKETS, bucket};

/// Numbers of one past day: log and scaled units, log views and carts, price ratio, promotion, stock, and what the purchase
/// intents of earlier nights said of it.
pub const DAY_NUMBERS: usize = 7 + INTENT_INPUTS;
/// Scaled intent units, and whether any night had forecast the day.
pub const INTENT_INPUTS: usize = 2;
/// Numbers of one day to come: promotion, price ratio.
pub const AHEAD_NUMBERS: usize = 2;

/// One item's dense daily history, oldest first, ending the day before the run date.
#[derive(Debug, Clone, Default)]
pub struct ItemHistory {
    pub item_id: String,
    /// Bucket of the category, 0 for none.
    pub category: i64,
    /// What a picture or a text of the item says, of length one; empty where nothing (or nothing finite) is known.
    pub content: Vec<f32>,
    /// The first day, in days since 1970-01-01.
    pub first_day: i64,
    pub units: Vec<f64>,
    pub price: Vec<f64>,
    pub promoted: Vec<bool>,
    pub in_stock: Vec<bool>,
    pub views: Vec<f64>,
    pub carts: Vec<f64>,
    /// Units that purchase intents promised for each day, as the newest night before it published them; NaN where there
    /// was no night, empty where nobody asked.
    pub intent_units: Vec<f64>,
    /// One flag a day of the horizon; empty where no promotion is planned.
    pub promoted_future: Vec<bool>,
    /// The promotion's price of each day of the horizon, NaN where there is none; empty where no promotion is planned.
    pub price_future: Vec<f64>,
    pub days_since_first_seen: i64,
    pub lead_time_days: i64,
}

/// How an item sells, and how much: what is known of it beside the network's inputs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ItemFacts {
    pub speed: Speed,
    /// Of the days in stock.
    pub units: f64,
    pub days_in_stock: f64,
    pub lead_time_days: i64,
}

impl ItemFacts {
    /// Mean units of the days in stock, over all of them and with one pseudo-unit a month: the item's scale.
    pub fn scale(&self) -> f64 {
        (self.units + 1.0 / 30.0) / (self.days_in_stock + 1.0)
    }

    /// What the scale makes of a lead time.
    pub fn lead_scale(&self) -> f64 {
        self.scale() * self.lead_time_days as f64
    }

    /// The stated fallback for short histories: sales that come at a rate of which only the days in stock and what other
    /// new items sold are known.
    pub fn fallback(&self, prior: RatePrior, days: i64) -> Raw {
        prior.after(self.units, self.days_in_stock, days)
    }
}

impl ItemHistory {
    /// Reads `history` structs as `item_history` packs them.
    pub fn read(histories: &StructArray) -> Result<Vec<Self>> {
        let column = |name: &str| {
            let found = histories.column_by_name(name);
            found.ok_or_else(|| Failure::model(format!("forecast_demand: the history lacks {name}")))
        };
        let number = |name: &str| -> Result<ArrayRef> { Ok(cast(column(name)?, &DataType::Int64)?) };
        let item_ids = cast(column("item_id")?, &DataType::Utf8)?;
        let categories = cast(column("category")?, &DataType::Utf8)?;
        let categories = categories.as_string::<i32>();
        let first = cast(column("first_date")?, &DataType::Date32)?;
        let (first_seen, lead_time) = (number("days_since_first_seen")?, number("lead_time_days")?);
        let numbers = |name: &str, row: usize| -> Result<Vec<f64>> {
            let list =
                column(name)?.as_list_opt::<i32>().ok_or_else(|| Failure::model(format!("{name}: not a list")))?;
            if list.is_null(row) {
                return Ok(Vec::new());
            }
            let values = cast(&list.value(row), &DataType::Float64)?;
            Ok(values.as_primitive::<Float64Type>().iter().map(|v| v.unwrap_or(f64::NAN)).collect())
        };
        // Histories of one's own SQL, and of before there were these inputs, need not have them.
        let has = |name: &str| histories.column_by_name(name).is_some();
        let (with_intents, with_content) = (has("intent_units"), has("content"));
        let flags = |name: &str, row: usize| -> Result<Vec<bool>> {
            Ok(numbers(name, row)?.iter().map(|&v| v > 0.5).collect())
        };
        let of = |a: &ArrayRef, row: usize, default: i64| {
            let a = a.as_primitive::<Int64Type>();
            if a.is_valid(row) { a.value(row) } else { default }
        };
        (0..histories.len())
            .map(|row| {
                Ok(Self {
                    item_id: item_ids.as_string::<i32>().value(row).into(),
                    category: match categories.is_valid(row) {
                        true => bucket(categories.value(row), CATEGORY_BUCKETS),
                        false => 0,
                    },
                    content: if with_content { unit_length(&numbers("content", row)?) } else { Vec::new() },
                    first_day: first.as_primitive::<Date32Type>().value(row).into(),
                    units: numbers("units", row)?,
                    price: numbers("price", row)?,
                    promoted: flags("promoted", row)?,
                    in_stock: flags("in_stock", row)?,
                    views: numbers("views", row)?,
                    carts: numbers("carts", row)?,
                    intent_units: if with_intents { numbers("intent_units", row)? } else { Vec::new() },
                    promoted_future: flags("promoted_future", row)?,
                    price_future: numbers("price_future", row)?,
                    days_since_first_seen: of(&first_seen, row, 0),
                    lead_time_days: of(&lead_time, row, 7).max(1),
                })
            })
            .collect()
    }

    /// Items seen for fewer days than `history_days_min` are new.
    pub fn facts(&self, history_days_min: i64) -> ItemFacts {
        let (units, days_in_stock) = self.in_stock_units().fold((0.0, 0.0), |(s, n), u| (s + u, n + 1.0));
        ItemFacts { speed: self.speed(history_days_min), units, days_in_stock, lead_time_days: self.lead_time_days }
    }

    /// The day after the history's last, in days since 1970-01-01: the date as of which it was read.
    pub fn as_of_day(&self) -> i64 {
        self.first_day + self.units.len() as i64
    }

    fn in_stock_units(&self) -> impl Iterator<Item = f64> {
        self.units.iter().zip(&self.in_stock).filter(|(_, stocked)| **stocked).map(|(u, _)| *u)
    }

    /// How the item sells, by the days in stock of its history: the mean interval between days with a sale (ADI, days)
    /// and the squared coefficient of variation of what those days sold, cut at 1.32 and 0.49 (Syntetos, Boylan and
    /// Croston 2005, "On the categorization of demand patterns"). Their smooth and erratic items are both fast here.
    fn speed(&self, history_days_min: i64) -> Speed {
        if self.days_since_first_seen < history_days_min {
            return Speed::New;
        }
        let days = self.in_stock_units().count() as f64;
        let sold: Vec<f64> = self.in_stock_units().filter(|&u| u > 0.0).collect();
        let sales = sold.len() as f64;
        if sold.is_empty() {
            return Speed::Dormant;
        }
        let mean = sold.iter().sum::<f64>() / sales;
        let squared_variation = sold.iter().map(|u| (u / mean - 1.0).powi(2)).sum::<f64>() / sales;
        match (days < 1.32 * sales, squared_variation < 0.49) {
            (true, _) => Speed::Fast,
            (false, true) => Speed::Slow,
            (false, false) => Speed::Lumpy,
        }
    }

    /// Adds the numbers of the last days, row-major [history_days, DAY_NUMBERS], zeros before the first. `scale`: of its facts.
    pub fn past(&self, history_days: usize, scale: f64, to: &mut Vec<f32>) {
        let n = self.units.len();
        let skip = n.saturating_sub(history_days);
        let usual = self.usual_price();
        to.extend(std::iter::repeat_n(0.0, (history_days - (n - skip)) * DAY_NUMBERS));
        for day in skip..n {
            let scaled = |units: f64| (units / scale).min(20.0) as f32 / 4.0;
            to.extend([
                self.units[day].ln_1p() as f32,
                scaled(self.units[day]),
                self.views[day].ln_1p() as f32 / 3.0,
                self.carts[day].ln_1p() as f32 / 2.0,
                ratio(self.price[day], usual),
                f32::from(u8::from(self.promoted[day])),
                f32::from(u8::from(self.in_stock[day])),
            ]);
            to.extend(match self.intent_units.get(day) {
                Some(&units) if units.is_finite() => [scaled(units), 1.0],
                _ => [0.0; INTENT_INPUTS],
            });
        }
    }

    /// Adds the numbers of the days to come, row-major [horizon_days, AHEAD_NUMBERS].
    pub fn ahead(&self, horizon_days: usize, to: &mut Vec<f32>) {
        let usual = self.usual_price();
        for step in 0..horizon_days {
            to.extend([f32::from(u8::from(self.promoted_on(step))), ratio(self.price_on(step), usual)]);
        }
    }

    /// The price ratio of days of which nothing is planned.
    pub fn ratio_after(&self) -> f32 {
        ratio(self.price_on(usize::MAX), self.usual_price())
    }

    /// Units of the last day in stock of each weekday, beginning with the day after the history's last; zero without one.
    pub fn of_weekdays(&self) -> [f64; 7] {
        let n = self.units.len();
        std::array::from_fn(|step| {
            let weeks_before = (0..(n + step) / 7).map(|week| n + step - 7 * (week + 1));
            let in_stock = weeks_before.into_iter().find(|&day| day < n && self.in_stock[day]);
            in_stock.map_or(0.0, |day| self.units[day])
        })
    }

    fn promoted_on(&self, step: usize) -> bool {
        self.promoted_future.get(step).copied().unwrap_or(false)
    }

    /// The price of a day to come: the promotion's, or the last one known.
    fn price_on(&self, step: usize) -> f64 {
        let planned = self.price_future.get(step).copied().filter(|p| p.is_finite());
        planned.or_else(|| self.price.iter().rev().copied().find(|p| p.is_finite())).unwrap_or(f64::NAN)
    }

    /// Mean known price, zero without one.
    fn usual_price(&self) -> f64 {
        let (sum, days) = self.price.iter().filter(|p| p.is_finite()).fold((0.0, 0.0f64), |(s, n), p| (s + p, n + 1.0));
        sum / days.max(1.0)
    }
}

/// The direction of a vector, since encoders differ in length alone; nothing of one that is not finite, or zero.
fn unit_length(vector: &[f64]) -> Vec<f32> {
    let length = vector.iter().map(|v| v * v).sum::<f64>().sqrt();
    match length.is_finite() && length > 0.0 {
        true => vector.iter().map(|v| (v / length) as f32).collect(),
        false => Vec::new(),
    }
}

/// How far a price lies above the usual one, as a share; zero where either is unknown.
fn ratio(price: f64, usual: f64) -> f32 {
    if price.is_finite() && usual > 0.0 { (price / usual - 1.0).clamp(-1.0, 3.0) as f32 } else { 0.0 }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A full history in stock, without price moves, that ends before 2026-03-02, a Monday.
    pub fn item(units: &[f64]) -> ItemHistory {
        let n = units.len();
        ItemHistory {
            first_day: 20_514 - n as i64,
            units: units.to_vec(),
            price: vec![1.0; n],
            promoted: vec![false; n],
            in_stock: vec![true; n],
            views: vec![0.0; n],
            carts: vec![0.0; n],
            lead_time_days: 7,
            ..Default::default()
        }
    }

    #[test]
    fn the_fallback_of_an_item_that_never_sold_is_zero_and_others_are_ordered() {
        let fallback = |units: &[f64]| item(units).facts(0).fallback(RatePrior::default(), 7).forecast(None, 1.0);
        assert_eq!(fallback(&[0.0, 0.0]), [0.0; 8]);
        assert_eq!(fallback(&[]), [0.0; 8]);
        let forecast = fallback(&[2.0, 1.0, 3.0]);
        assert!((forecast[0] - 14.0).abs() < 1e-9);
        assert!(
            forecast[1..].windows(2).all(|w| w[0] <= w[1]) && forecast[4] >= 11.0 && forecast[4] <= 15.0,
            "{forecast:?}"
        );
        // The density of zero underflows here; the quantiles must not collapse into one.
        let large = fallback(&[3000.0; 5]);
        assert!(large[1] < 21_000.0 && large[7] > 21_000.0 && large[7] < 22_000.0, "{large:?}");
    }

    #[test]
    fn what_other_new_items_sold_stands_in_for_days_that_are_missing() {
        let prior = RatePrior { units: 2.0, days: 4.0, spread: 0.0 };
        let mean = |units: &[f64]| item(units).facts(0).fallback(prior, 7).forecast(None, 1.0)[0];
        assert_eq!(mean(&[]), 3.5, "two units in four days");
        assert_eq!(mean(&[0.0; 4]), 1.75, "as many days without a sale");
        assert!((mean(&[3.0; 4000]) - 21.0).abs() < 0.02, "its own days outweigh the prior");
        // Days that differ more than Poisson sales widen a day, and a week of them less.
        let size = |spread: f64, days: i64| match item(&[3.0; 6]).facts(0).fallback(RatePrior { spread, ..prior }, days)
        {
            Raw::Counts { size, .. } => size,
            Raw::Quantiles(_) => f64::NAN,
        };
        assert!((size(0.0, 1) - 20.0).abs() < 1e-9 && (size(0.0, 7) - 20.0).abs() < 1e-9);
        assert!(size(2.0, 1) < 0.5 && size(2.0, 1) < size(2.0, 7) && size(2.0, 7) < 20.0);
    }

    #[test]
    fn items_sell_fast_slowly_in_lumps_or_are_new() {
        let speed = |units: &[f64]| {
            let mut item = item(units);
            item.days_since_first_seen = units.len() as i64;
            item.speed(14)
        };
        assert_eq!(speed(&[5.0; 13]), Speed::New);
        assert_eq!(speed(&[1.0, 2.0, 9.0].repeat(6)), Speed::Fast);
        assert_eq!(speed(&[0.0; 20]), Speed::Dormant);
        assert_eq!(speed(&[1.0, 0.0].repeat(9)), Speed::Slow);
        assert_eq!(speed(&[1.0, 0.0, 0.0, 12.0].repeat(5)), Speed::Lumpy);
        // A day without stock says nothing of how often the item would have sold.
        let mut scarce = item(&[1.0, 0.0].repeat(9));
        scarce.days_since_first_seen = 18;
        scarce.in_stock = [true, false].repeat(9);
        assert_eq!(scarce.speed(14), Speed::Fast);
    }

    #[test]
    fn of_each_weekday_the_last_day_in_stock_counts() {
        let mut item = item(&(0..17).map(f64::from).collect::<Vec<_>>());
        assert_eq!(item.of_weekdays(), [10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0]);
        (item.in_stock[10], item.in_stock[11], item.in_stock[4]) = (false, false, false);
        assert_eq!(item.of_weekdays()[..3], [3.0, 0.0, 12.0]);
        assert_eq!(super::tests::item(&[5.0, 6.0]).of_weekdays(), [0.0, 0.0, 0.0, 0.0, 0.0, 5.0, 6.0]);
    }

    #[test]
    fn of_a_vector_its_direction_counts_and_one_that_is_not_finite_says_nothing() {
        assert_eq!(unit_length(&[3.0, 0.0, -4.0]), [0.6, 0.0, -0.8]);
        for nothing in [&[][..], &[0.0, 0.0], &[1.0, f64::NAN], &[f64::INFINITY]] {
            assert!(unit_length(nothing).is_empty(), "{nothing:?}");
        }
    }
}
