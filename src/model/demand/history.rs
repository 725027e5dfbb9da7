//! One item's daily history: read from Arrow, classified, and turned into the numbers that the network's inputs consist of;
//! and the fallback for histories that are too short for the network.

use arrow::array::{Array, ArrayRef, AsArray, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Float64Type, Int32Type, Int64Type};

use super::forecast::RawForecast;
use super::input_sizes::{INTENT_INPUTS, PAST_DAY_VALUES};
use super::pattern::DemandPattern;
use super::rate_prior::RatePrior;
use crate::failure::{Failure, Result};
use crate::model::inputs::{CATEGORY_BUCKETS, hash_bucket};

/// One item's daily history, one entry per day, oldest first, up to the day before the run date.
#[derive(Debug, Clone, Default)]
pub struct ItemHistory {
    pub item_id: String,
    /// Hash bucket of the category, 0 for none.
    pub(crate) category: i64,
    /// Vector of the item's image or text, of length one; empty if there is none or it is not finite.
    pub(crate) content: Vec<f32>,
    /// The first day, in days since 1970-01-01.
    pub first_day: i64,
    pub units: Vec<f64>,
    pub price: Vec<f64>,
    pub promoted: Vec<bool>,
    pub in_stock: Vec<bool>,
    pub views: Vec<f64>,
    pub carts: Vec<f64>,
    /// Units that purchase intents forecast for each day, as published by the newest night before it; NaN without such a night,
    /// empty if the query does not supply them.
    pub intent_units: Vec<f64>,
    /// Days on which the shop was closed or, in the horizon, will be: days since 1970-01-01, ascending; empty if the query does
    /// not supply them.
    pub(crate) closed_dates: Vec<i64>,
    /// One flag per day of the horizon; empty if no promotion is planned.
    pub(crate) promoted_future: Vec<bool>,
    /// The promotion's price on each day of the horizon, NaN on days without one; empty if no promotion is planned.
    pub(crate) price_future: Vec<f64>,
    pub days_since_first_seen: i64,
    pub lead_time_days: i64,
}

/// The demand pattern and total sales of an item, which select and scale its forecast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ItemFacts {
    pub(crate) pattern: DemandPattern,
    /// Units sold on the days in stock.
    pub(crate) units: f64,
    pub(crate) days_in_stock: f64,
    pub(crate) lead_time_days: i64,
}

impl ItemFacts {
    /// Returns the item's scale in units per day: the mean over the days in stock, with a pseudo-count of 1/30 unit on one
    /// day.
    pub(crate) fn scale(&self) -> f64 {
        (self.units + 1.0 / 30.0) / (self.days_in_stock + 1.0)
    }

    /// Returns the scale of the total over the lead time, in units.
    pub(crate) fn lead_scale(&self) -> f64 {
        self.scale() * self.lead_time_days as f64
    }

    /// Returns the fallback for short histories: a sales rate estimated from the days in stock and the prior of new items.
    pub(crate) fn fallback(&self, prior: RatePrior, days: i64) -> RawForecast {
        prior.predictive(self.units, self.days_in_stock, days)
    }
}

impl ItemHistory {
    /// Reads `history` structs as `item_history` packs them.
    pub(crate) fn from_struct(histories: &StructArray) -> Result<Vec<Self>> {
        let column = |name: &str| {
            let found = histories.column_by_name(name);
            found.ok_or_else(|| Failure::model(format!("forecast_demand: the history lacks {name}")))
        };
        let number = |name: &str| -> Result<ArrayRef> { Ok(cast(column(name)?, &DataType::Int64)?) };
        let item_ids = cast(column("item_id")?, &DataType::Utf8)?;
        let category_column = cast(column("category")?, &DataType::Utf8)?;
        let categories = category_column.as_string::<i32>();
        let first_date = cast(column("first_date")?, &DataType::Date32)?;
        let first_seen = number("days_since_first_seen")?;
        let lead_time = number("lead_time_days")?;
        let numbers = |name: &str, row: usize| -> Result<Vec<f64>> {
            let list =
                column(name)?.as_list_opt::<i32>().ok_or_else(|| Failure::model(format!("{name}: not a list")))?;
            if list.is_null(row) {
                return Ok(Vec::new());
            }
            let values = cast(&list.value(row), &DataType::Float64)?;
            Ok(values.as_primitive::<Float64Type>().iter().map(|v| v.unwrap_or(f64::NAN)).collect())
        };
        let dates = |name: &str, row: usize| -> Result<Vec<i64>> {
            let list =
                column(name)?.as_list_opt::<i32>().ok_or_else(|| Failure::model(format!("{name}: not a list")))?;
            let days = cast(&cast(&list.value(row), &DataType::Date32)?, &DataType::Int32)?;
            Ok(days.as_primitive::<Int32Type>().iter().flatten().map(i64::from).collect())
        };
        // SQL of users, and SQL that predates these inputs, can omit them.
        let has = |name: &str| histories.column_by_name(name).is_some();
        let with_intents = has("intent_units");
        let with_content = has("content");
        let with_closed_dates = has("closed_dates");
        let flags = |name: &str, row: usize| -> Result<Vec<bool>> {
            Ok(numbers(name, row)?.iter().map(|&v| v > 0.5).collect())
        };
        let value_or = |column: &ArrayRef, row: usize, default: i64| {
            let values = column.as_primitive::<Int64Type>();
            if values.is_valid(row) { values.value(row) } else { default }
        };
        (0..histories.len())
            .map(|row| {
                Ok(Self {
                    item_id: item_ids.as_string::<i32>().value(row).into(),
                    category: match categories.is_valid(row) {
                        true => hash_bucket(categories.value(row), CATEGORY_BUCKETS),
                        false => 0,
                    },
                    content: if with_content { unit_length(&numbers("content", row)?) } else { Vec::new() },
                    first_day: first_date.as_primitive::<Date32Type>().value(row).into(),
                    units: numbers("units", row)?,
                    price: numbers("price", row)?,
                    promoted: flags("promoted", row)?,
                    in_stock: flags("in_stock", row)?,
                    views: numbers("views", row)?,
                    carts: numbers("carts", row)?,
                    intent_units: if with_intents { numbers("intent_units", row)? } else { Vec::new() },
                    closed_dates: if with_closed_dates { dates("closed_dates", row)? } else { Vec::new() },
                    promoted_future: flags("promoted_future", row)?,
                    price_future: numbers("price_future", row)?,
                    days_since_first_seen: value_or(&first_seen, row, 0),
                    lead_time_days: value_or(&lead_time, row, 7).max(1),
                })
            })
            .collect()
    }

    /// Classifies and sums up the item. An item first seen less than `history_days_min` days ago is new.
    pub(crate) fn facts(&self, history_days_min: i64) -> ItemFacts {
        let mut units = 0.0;
        let mut days_in_stock = 0.0;
        for sold in self.in_stock_units() {
            units += sold;
            days_in_stock += 1.0;
        }
        let pattern = self.pattern(history_days_min);
        ItemFacts { pattern, units, days_in_stock, lead_time_days: self.lead_time_days }
    }

    /// Returns the day after the history's last day, in days since 1970-01-01: the first day that is forecast.
    pub(crate) fn as_of_day(&self) -> i64 {
        self.first_day + self.units.len() as i64
    }

    /// Units of the days in stock.
    fn in_stock_units(&self) -> impl Iterator<Item = f64> {
        self.units.iter().zip(&self.in_stock).filter(|(_, stocked)| **stocked).map(|(u, _)| *u)
    }

    /// Classifies the days in stock by the mean interval between days with a sale (ADI, days) and the squared coefficient of
    /// variation of the units sold on those days, cut at 1.32 and 0.49 (Syntetos, Boylan and Croston 2005, "On the
    /// categorization of demand patterns"). Their smooth and erratic items are both fast here.
    fn pattern(&self, history_days_min: i64) -> DemandPattern {
        if self.days_since_first_seen < history_days_min {
            return DemandPattern::New;
        }
        let days = self.in_stock_units().count() as f64;
        let sold: Vec<f64> = self.in_stock_units().filter(|&u| u > 0.0).collect();
        let sales = sold.len() as f64;
        if sold.is_empty() {
            return DemandPattern::Dormant;
        }
        let mean = sold.iter().sum::<f64>() / sales;
        let squared_variation = sold.iter().map(|u| (u / mean - 1.0).powi(2)).sum::<f64>() / sales;
        match (days < 1.32 * sales, squared_variation < 0.49) {
            (true, _) => DemandPattern::Fast,
            (false, true) => DemandPattern::Slow,
            (false, false) => DemandPattern::Lumpy,
        }
    }

    /// Appends the numbers of the last days, row-major [history_days, PAST_DAY_VALUES], with zeros before the first day. `scale`
    /// is [`ItemFacts::scale`].
    pub(crate) fn append_past_days(&self, history_days: usize, scale: f64, to: &mut Vec<f32>) {
        let n = self.units.len();
        let skip = n.saturating_sub(history_days);
        let usual = self.usual_price();
        to.extend(std::iter::repeat_n(0.0, (history_days - (n - skip)) * PAST_DAY_VALUES));
        for day in skip..n {
            let scaled = |units: f64| (units / scale).min(20.0) as f32 / 4.0;
            to.extend([
                self.units[day].ln_1p() as f32,
                scaled(self.units[day]),
                self.views[day].ln_1p() as f32 / 3.0,
                self.carts[day].ln_1p() as f32 / 2.0,
                price_ratio(self.price[day], usual),
                f32::from(u8::from(self.promoted[day])),
                f32::from(u8::from(self.in_stock[day])),
            ]);
            to.extend(match self.intent_units.get(day) {
                Some(&units) if units.is_finite() => [scaled(units), 1.0],
                _ => [0.0; INTENT_INPUTS],
            });
            to.push(self.closed_on(self.first_day + day as i64));
        }
    }

    /// Appends the numbers of the future days, row-major [horizon_days, FUTURE_DAY_VALUES].
    pub(crate) fn append_future_days(&self, horizon_days: usize, to: &mut Vec<f32>) {
        let usual = self.usual_price();
        for step in 0..horizon_days {
            to.extend([
                f32::from(u8::from(self.promoted_on(step))),
                price_ratio(self.price_on(step), usual),
                self.closed_on(self.as_of_day() + step as i64),
            ]);
        }
    }

    /// Returns the price ratio of days after the horizon.
    pub(crate) fn later_price_ratio(&self) -> f32 {
        price_ratio(self.price_on(usize::MAX), self.usual_price())
    }

    /// Returns the units sold on the last day in stock of each weekday, starting with the weekday of the first forecast day;
    /// zero without such a day. This is the seasonal naive baseline.
    pub(crate) fn last_units_by_weekday(&self) -> [f64; 7] {
        let n = self.units.len();
        std::array::from_fn(|step| {
            let weeks_before = (0..(n + step) / 7).map(|week| n + step - 7 * (week + 1));
            let in_stock = weeks_before.into_iter().find(|&day| day < n && self.in_stock[day]);
            in_stock.map_or(0.0, |day| self.units[day])
        })
    }

    /// Returns 1 for a day on which the shop is closed, else 0.
    fn closed_on(&self, day: i64) -> f32 {
        f32::from(u8::from(self.closed_dates.binary_search(&day).is_ok()))
    }

    fn promoted_on(&self, step: usize) -> bool {
        self.promoted_future.get(step).copied().unwrap_or(false)
    }

    /// Returns the price of a future day: the promotion's price, else the last known price, else NaN.
    fn price_on(&self, step: usize) -> f64 {
        let planned = self.price_future.get(step).copied().filter(|p| p.is_finite());
        planned.or_else(|| self.price.iter().rev().copied().find(|p| p.is_finite())).unwrap_or(f64::NAN)
    }

    /// Returns the mean known price; zero without one.
    fn usual_price(&self) -> f64 {
        let mut sum = 0.0;
        let mut days: f64 = 0.0;
        for price in self.price.iter().filter(|price| price.is_finite()) {
            sum += price;
            days += 1.0;
        }
        sum / days.max(1.0)
    }
}

/// Scales a vector to length one; returns an empty vector if it is zero or not finite.
fn unit_length(vector: &[f64]) -> Vec<f32> {
    let length = vector.iter().map(|v| v * v).sum::<f64>().sqrt();
    match length.is_finite() && length > 0.0 {
        true => vector.iter().map(|v| (v / length) as f32).collect(),
        false => Vec::new(),
    }
}

/// Returns the relative difference from the usual price; zero if either is unknown.
fn price_ratio(price: f64, usual: f64) -> f32 {
    if price.is_finite() && usual > 0.0 { (price / usual - 1.0).clamp(-1.0, 3.0) as f32 } else { 0.0 }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Returns a history that is always in stock, at a constant price, and ends on Sunday 2026-03-01.
    pub(crate) fn item(units: &[f64]) -> ItemHistory {
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
    fn the_fallback_is_zero_without_sales_and_ordered_otherwise() {
        let fallback = |units: &[f64]| item(units).facts(0).fallback(RatePrior::default(), 7).uncalibrated();
        assert_eq!(fallback(&[0.0, 0.0]), [0.0; 8]);
        assert_eq!(fallback(&[]), [0.0; 8]);
        let forecast = fallback(&[2.0, 1.0, 3.0]);
        assert!((forecast[0] - 14.0).abs() < 1e-9);
        assert!(
            forecast[1..].windows(2).all(|w| w[0] <= w[1]) && forecast[4] >= 11.0 && forecast[4] <= 15.0,
            "{forecast:?}"
        );
        // The density of zero underflows here; the quantiles must not become equal.
        let large = fallback(&[3000.0; 5]);
        assert!(large[1] < 21_000.0 && large[7] > 21_000.0 && large[7] < 22_000.0, "{large:?}");
    }

    #[test]
    fn the_prior_of_new_items_replaces_missing_days() {
        let prior = RatePrior { units: 2.0, days: 4.0, spread: 0.0 };
        let mean = |units: &[f64]| item(units).facts(0).fallback(prior, 7).uncalibrated()[0];
        assert_eq!(mean(&[]), 3.5, "two units in four days");
        assert_eq!(mean(&[0.0; 4]), 1.75, "as many days without a sale");
        assert!((mean(&[3.0; 4000]) - 21.0).abs() < 0.02, "its own days outweigh the prior");
        // Days that vary more than Poisson sales widen the forecast of one day, and that of a week less.
        let size = |spread: f64, days: i64| match item(&[3.0; 6]).facts(0).fallback(RatePrior { spread, ..prior }, days)
        {
            RawForecast::Counts { size, .. } => size,
            RawForecast::Quantiles(_) => f64::NAN,
        };
        assert!((size(0.0, 1) - 20.0).abs() < 1e-9 && (size(0.0, 7) - 20.0).abs() < 1e-9);
        assert!(size(2.0, 1) < 0.5 && size(2.0, 1) < size(2.0, 7) && size(2.0, 7) < 20.0);
    }

    #[test]
    fn items_are_new_dormant_fast_slow_or_lumpy() {
        let pattern = |units: &[f64]| {
            let mut item = item(units);
            item.days_since_first_seen = units.len() as i64;
            item.pattern(14)
        };
        assert_eq!(pattern(&[5.0; 13]), DemandPattern::New);
        assert_eq!(pattern(&[1.0, 2.0, 9.0].repeat(6)), DemandPattern::Fast);
        assert_eq!(pattern(&[0.0; 20]), DemandPattern::Dormant);
        assert_eq!(pattern(&[1.0, 0.0].repeat(9)), DemandPattern::Slow);
        assert_eq!(pattern(&[1.0, 0.0, 0.0, 12.0].repeat(5)), DemandPattern::Lumpy);
        // Days out of stock do not count as days without a sale.
        let mut scarce = item(&[1.0, 0.0].repeat(9));
        scarce.days_since_first_seen = 18;
        scarce.in_stock = [true, false].repeat(9);
        assert_eq!(scarce.pattern(14), DemandPattern::Fast);
    }

    #[test]
    fn weekday_units_are_those_of_the_last_day_in_stock() {
        let mut item = item(&(0..17).map(f64::from).collect::<Vec<_>>());
        assert_eq!(item.last_units_by_weekday(), [10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0]);
        for day in [4, 10, 11] {
            item.in_stock[day] = false;
        }
        assert_eq!(item.last_units_by_weekday()[..3], [3.0, 0.0, 12.0]);
        assert_eq!(super::tests::item(&[5.0, 6.0]).last_units_by_weekday(), [0.0, 0.0, 0.0, 0.0, 0.0, 5.0, 6.0]);
    }

    #[test]
    fn vectors_are_scaled_to_length_one_or_dropped() {
        assert_eq!(unit_length(&[3.0, 0.0, -4.0]), [0.6, 0.0, -0.8]);
        for invalid in [&[][..], &[0.0, 0.0], &[1.0, f64::NAN], &[f64::INFINITY]] {
            assert!(unit_length(invalid).is_empty(), "{invalid:?}");
        }
    }
}
