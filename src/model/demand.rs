//! The demand network: one GRU over every item's daily history, quantiles for each day ahead and for the lead time.
//!
//! Quantiles are a first value plus cumulative softplus increments, so they cannot cross or be negative. Lead-time demand
//! has a head of its own: the quantile of a sum is not the sum of quantiles. Days out of stock say nothing about demand;
//! they are flagged in the input and left out of the loss.

use arrow::array::{Array, ArrayRef, AsArray, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Float64Type, Int64Type};
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;
use tch::nn::{self, Module, RNN};
use tch::{Device, Kind, Tensor};

use crate::failure::{Failure, Result};

pub const LEVELS: [f64; 7] = [0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95];
/// Inputs of one day: log and scaled units, log views and carts, price ratio, promotion, stock, weekday.
const DAY_INPUTS: i64 = 14;
/// Mean, then the quantiles of [`LEVELS`].
pub const OUTPUTS: i64 = 8;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DemandShape {
    pub width: i64,
    pub horizon_days: i64,
    pub history_days: i64,
    /// Items seen for fewer days get the fallback.
    pub history_days_min: i64,
}

/// One item's dense daily history, oldest first, ending the day before the run date.
#[derive(Debug, Clone, Default)]
pub struct ItemHistory {
    pub item_id: String,
    /// Weekday of the first day, Monday = 0.
    pub first_weekday: i64,
    pub units: Vec<f64>,
    pub price: Vec<f64>,
    pub promoted: Vec<bool>,
    pub in_stock: Vec<bool>,
    pub views: Vec<f64>,
    pub carts: Vec<f64>,
    /// One flag a day of the horizon; empty where no promotion is planned.
    pub promoted_future: Vec<bool>,
    pub days_since_first_seen: i64,
    pub lead_time_days: i64,
    /// The network's inputs, made once: training asks for them every epoch.
    prepared: OnceLock<Vec<f32>>,
}

/// One forecast: the mean and seven quantiles.
pub type Forecast = [f64; OUTPUTS as usize];

impl ItemHistory {
    /// Reads `history` structs as `item_history` packs them.
    pub fn read(histories: &StructArray) -> Result<Vec<Self>> {
        let column = |name: &str| {
            let found = histories.column_by_name(name);
            found.ok_or_else(|| Failure::model(format!("forecast_demand: the history lacks {name}")))
        };
        let number = |name: &str| -> Result<ArrayRef> { Ok(cast(column(name)?, &DataType::Int64)?) };
        let item_ids = cast(column("item_id")?, &DataType::Utf8)?;
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
                    // 1970-01-01 was a Thursday.
                    first_weekday: (i64::from(first.as_primitive::<Date32Type>().value(row)) + 3).rem_euclid(7),
                    units: numbers("units", row)?,
                    price: numbers("price", row)?,
                    promoted: flags("promoted", row)?,
                    in_stock: flags("in_stock", row)?,
                    views: numbers("views", row)?,
                    carts: numbers("carts", row)?,
                    promoted_future: flags("promoted_future", row)?,
                    days_since_first_seen: of(&first_seen, row, 0),
                    lead_time_days: of(&lead_time, row, 7).max(1),
                    prepared: OnceLock::new(),
                })
            })
            .collect()
    }

    /// Mean units of the days in stock, over all of them and with one pseudo-unit a month: the item's scale.
    pub fn scale(&self) -> f64 {
        let (sum, days) = self.in_stock_units().fold((0.0, 0.0), |(s, n), u| (s + u, n + 1.0));
        (sum + 1.0 / 30.0) / (days + 1.0)
    }

    fn in_stock_units(&self) -> impl Iterator<Item = f64> {
        self.units.iter().zip(&self.in_stock).filter(|(_, stocked)| **stocked).map(|(u, _)| *u)
    }

    /// The stated fallback for short histories: negative binomial quantiles around the mean of the days in stock, with
    /// the variance of a Poisson whose rate is itself uncertain (gamma, as many pseudo-days as observed). All zeros for
    /// an item that never sold.
    pub fn fallback(&self, days: i64) -> Forecast {
        let (sold, seen) = self.in_stock_units().fold((0.0, 0.0f64), |(s, n), u| (s + u, n + 1.0));
        if sold <= 0.0 {
            return [0.0; OUTPUTS as usize];
        }
        let seen = seen.max(1.0);
        let mean = sold / seen * days as f64;
        // Gamma(sold, seen) rate → negative binomial with r = sold, p = seen / (seen + days).
        let p = seen / (seen + days as f64);
        let mut forecast = [mean; OUTPUTS as usize];
        let (mut k, mut density) = (0.0f64, (sold * p.ln()).exp());
        let mut cumulative = density;
        for (at, level) in LEVELS.iter().enumerate() {
            while cumulative < *level && k < 1e6 {
                density *= (k + sold) / (k + 1.0) * (1.0 - p);
                k += 1.0;
                cumulative += density;
                if density == 0.0 && k > mean {
                    break;
                }
            }
            forecast[at + 1] = k;
        }
        forecast
    }

    fn inputs(&self, history_days: usize) -> Vec<f32> {
        let n = self.units.len();
        let skip = n.saturating_sub(history_days);
        let scale = self.scale();
        let known: Vec<f64> = self.price.iter().copied().filter(|p| p.is_finite()).collect();
        let usual = known.iter().sum::<f64>() / known.len().max(1) as f64;
        let mut flat = vec![0f32; (history_days - (n - skip)) * DAY_INPUTS as usize];
        for day in skip..n {
            let ratio = if self.price[day].is_finite() && usual > 0.0 { self.price[day] / usual - 1.0 } else { 0.0 };
            let mut weekday = [0f32; 7];
            weekday[(self.first_weekday + day as i64).rem_euclid(7) as usize] = 1.0;
            flat.extend([
                self.units[day].ln_1p() as f32,
                (self.units[day] / scale).min(20.0) as f32 / 4.0,
                self.views[day].ln_1p() as f32 / 3.0,
                self.carts[day].ln_1p() as f32 / 2.0,
                ratio.clamp(-1.0, 3.0) as f32,
                f32::from(u8::from(self.promoted[day])),
                f32::from(u8::from(self.in_stock[day])),
            ]);
            flat.extend(weekday);
        }
        flat
    }

    fn target_weekday(&self, step: i64) -> i64 {
        (self.first_weekday + self.units.len() as i64 + step).rem_euclid(7)
    }

    fn promoted_on(&self, step: i64) -> bool {
        self.promoted_future.get(step as usize).copied().unwrap_or(false)
    }
}

#[derive(Debug)]
pub struct DemandNetwork {
    pub shape: DemandShape,
    gru: nn::GRU,
    day: nn::Sequential,
    lead: nn::Sequential,
}

impl DemandNetwork {
    pub fn new(path: &nn::Path, shape: &DemandShape) -> Self {
        let d = shape.width;
        let head = |name: &str, inputs: i64| {
            nn::seq()
                .add(nn::linear(path / format!("{name}1"), d + inputs, 64, Default::default()))
                .add_fn(|x| x.gelu("none"))
                .add(nn::linear(path / format!("{name}2"), 64, OUTPUTS, Default::default()))
        };
        Self {
            shape: shape.clone(),
            gru: nn::gru(path / "gru", DAY_INPUTS, d, Default::default()),
            day: head("day", 10),
            lead: head("lead", 4),
        }
    }

    /// Daily forecasts [items, horizon, 8] and lead-time forecasts [items, 8], float32, in units of demand.
    /// `lead_days`: the lead time of each item.
    pub fn forward(&self, items: &[&ItemHistory], lead_days: &[i64], device: Device) -> Result<(Tensor, Tensor)> {
        let (b, n, h) = (items.len() as i64, self.shape.history_days, self.shape.horizon_days);
        let mut flat: Vec<f32> = Vec::with_capacity(items.len() * (n * DAY_INPUTS) as usize);
        for item in items {
            flat.extend_from_slice(item.prepared.get_or_init(|| item.inputs(n as usize)));
        }
        let x = Tensor::f_from_slice(&flat)?.f_view([b, n, DAY_INPUTS])?.f_to_device(device)?;
        let (_, state) = self.gru.seq(&x);
        let state = state.0.squeeze_dim(0);
        let scale: Vec<f32> = items.iter().map(|i| i.scale() as f32).collect();
        let scale = Tensor::f_from_slice(&scale)?.f_to_device(device)?;

        let mut days = Vec::with_capacity(items.len() * h as usize * 10);
        for item in items {
            for step in 0..h {
                let mut weekday = [0f32; 7];
                weekday[item.target_weekday(step) as usize] = 1.0;
                days.extend(weekday);
                days.extend([
                    f32::from(u8::from(item.promoted_on(step))),
                    step as f32 / h as f32,
                    (item.scale() as f32).ln_1p(),
                ]);
            }
        }
        let days = Tensor::f_from_slice(&days)?.f_view([b, h, 10])?.f_to_device(device)?;
        let wide = state.unsqueeze(1).expand([b, h, self.shape.width], false);
        let daily = monotone(&self.day.forward(&Tensor::f_cat(&[&wide, &days], -1)?)) * scale.view([b, 1, 1]);

        let mut lead = Vec::with_capacity(items.len() * 4);
        for (item, &days) in items.iter().zip(lead_days) {
            let promoted = (0..days.min(h)).filter(|&s| item.promoted_on(s)).count() as f32 / days.max(1) as f32;
            let weekend = (0..days).filter(|&s| item.target_weekday(s) >= 5).count() as f32 / days.max(1) as f32;
            lead.extend([(days as f32).ln_1p() / 3.0, promoted, weekend, (item.scale() as f32).ln_1p()]);
        }
        let lead = Tensor::f_from_slice(&lead)?.f_view([b, 4])?.f_to_device(device)?;
        let span: Vec<f32> = lead_days.iter().map(|&d| d as f32).collect();
        let span = Tensor::f_from_slice(&span)?.f_to_device(device)? * &scale;
        let total = monotone(&self.lead.forward(&Tensor::f_cat(&[&state, &lead], -1)?)) * span.unsqueeze(-1);
        Ok((daily, total))
    }
}

/// Raw [.., 8] → mean and quantiles: softplus mean; first quantile softplus, the next ones by softplus increments.
fn monotone(raw: &Tensor) -> Tensor {
    let mean = raw.narrow(-1, 0, 1).softplus();
    let quantiles = raw.narrow(-1, 1, OUTPUTS - 1);
    // Shifted down, so that fresh networks start with narrow, low quantiles rather than seven times ln 2.
    let quantiles = (quantiles - 1.0).softplus().cumsum(-1, Kind::Float);
    Tensor::cat(&[mean, quantiles], -1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(units: &[f64]) -> ItemHistory {
        let n = units.len();
        ItemHistory {
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
    fn forecasts_never_cross_and_are_never_negative() {
        let vs = nn::VarStore::new(Device::Cpu);
        let shape = DemandShape { width: 8, horizon_days: 5, history_days: 28, history_days_min: 14 };
        let network = DemandNetwork::new(&vs.root(), &shape);
        let (a, b) = (item(&[3.0; 20]), item(&[]));
        let (daily, lead) = network.forward(&[&a, &b], &[7, 3], Device::Cpu).unwrap();
        assert_eq!((daily.size(), lead.size()), (vec![2, 5, 8], vec![2, 8]));
        let quantiles = daily.narrow(2, 1, 7);
        let steps = quantiles.narrow(2, 1, 6) - quantiles.narrow(2, 0, 6);
        assert!(steps.min().double_value(&[]) >= 0.0 && quantiles.min().double_value(&[]) >= 0.0);
        assert!(daily.isfinite().all().double_value(&[]) == 1.0);
    }

    #[test]
    fn the_fallback_of_an_item_that_never_sold_is_zero_and_others_are_ordered() {
        assert_eq!(item(&[0.0, 0.0]).fallback(7), [0.0; 8]);
        assert_eq!(item(&[]).fallback(7), [0.0; 8]);
        let forecast = item(&[2.0, 1.0, 3.0]).fallback(7);
        assert!((forecast[0] - 14.0).abs() < 1e-9);
        assert!(
            forecast[1..].windows(2).all(|w| w[0] <= w[1]) && forecast[4] >= 11.0 && forecast[4] <= 15.0,
            "{forecast:?}"
        );
    }
}
