//! Accuracy figures of demand forecasts on the test date: mean pinball loss next to that of a seasonal naive forecast and
//! of no sales at all, and coverage of the quantiles; over all items and by demand pattern.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tch::Device;

use crate::failure::Result;
use crate::metrics;
use crate::metrics::coverage::{Coverage, Share};
use crate::model::demand::{
    BATCH_ITEMS_MAX, DemandBlend, DemandNetwork, DemandPattern, Forecast, Q90, RawForecast, mean_pinball,
};
use crate::model::trees::FORECAST_NUMBERS;
use crate::training::datasets::{BlockRows, ItemBlocks, ItemColumns};

/// Index of the 10 % quantile in a forecast, whose first number is the mean.
const Q10: usize = 2;
/// Draws of items for an interval.
const BOOTSTRAP_ROUNDS: usize = 400;

/// The network's weights of which each leaves one member: the network, the trees.
const NETWORK_WEIGHTS: [f64; 2] = [1.0, 0.0];

/// Figures of the forecasts as they would be published, over days in stock. The pinball loss of all items comes with an
/// interval over items drawn with replacement; lead times have coverage only. Seasonal naive repeats the sales of the
/// same weekday of the last week in stock. The members alone are not calibrated, and items without trees have the published forecast.
pub(crate) fn figures(
    network: &DemandNetwork,
    test: &ItemBlocks,
    device: Device,
    seed: u64,
) -> Result<BTreeMap<String, f64>> {
    let mut all = Totals::default();
    let mut by_pattern: BTreeMap<DemandPattern, Totals> = BTreeMap::new();
    let mut member_losses = [0.0; NETWORK_WEIGHTS.len()];
    let mut forecasts = 0;
    let mut elapsed = Duration::ZERO;
    for window in test.each_window() {
        for items in window?.chunks(BATCH_ITEMS_MAX) {
            let clock = Instant::now();
            let of_items = network.member_forecasts(&items.item_rows(), device)?;
            forecasts += of_items.len();
            elapsed += clock.elapsed();
            for (row, members) in of_items.into_iter().enumerate() {
                let as_of_day = items.as_of_day(row);
                let facts = items.facts(row);
                let alone = members.trees.is_some().then(|| {
                    NETWORK_WEIGHTS
                        .map(|weight| network.blended(&DemandBlend::uniform(weight), facts.pattern, members.clone()))
                });
                let raw = network.blended(&network.shape.blend, facts.pattern, members);
                let forecast = network.calibrated(&facts, &raw);
                for (day, units) in items.days_in_stock(row) {
                    for (member, loss) in member_losses.iter_mut().enumerate() {
                        let of_member = match alone.as_ref().map(|members| &members[member].daily[day]) {
                            Some(RawForecast::Quantiles(quantiles)) => quantiles,
                            _ => &forecast.daily[day],
                        };
                        *loss += mean_pinball(of_member, units);
                    }
                }
                let days: Vec<ForecastDay> = items
                    .days_in_stock(row)
                    .map(|(day, units)| ForecastDay {
                        day: as_of_day + day as i64,
                        units,
                        forecast: forecast.daily[day],
                        naive: items.seasonal_naive(row, day),
                    })
                    .collect();
                let factor = network.mean_factor(&facts);
                let of_pattern = by_pattern.entry(facts.pattern).or_default();
                for totals in [&mut all, of_pattern] {
                    totals.add(&days, factor);
                    let units = items.lead_time_units(row);
                    totals.lead_time.add(units.map(|units| (as_of_day, units, &forecast.lead_time)));
                }
            }
        }
    }
    let covered = all.daily.q90.within().map_or(0.0, |share| share.value);
    let mut figures = BTreeMap::from([("coverage_test_q90".to_string(), covered)]);
    all.write_losses("", &mut figures);
    if let Some((low, high)) = all.pinball_interval(seed) {
        figures.extend([("pinball_test_low".to_string(), low), ("pinball_test_high".to_string(), high)]);
    }
    if network.trees.is_some() {
        for (member, loss) in ["network", "trees"].into_iter().zip(member_losses) {
            figures.insert(format!("pinball_test_{member}"), loss / all.days.max(1.0));
        }
    }
    if forecasts > 0 {
        let seconds = elapsed.as_secs_f64().max(1e-9);
        figures.insert("items_forecast_per_second".into(), forecasts as f64 / seconds);
    }
    for (pattern, totals) in by_pattern {
        let suffix = format!("_{}", pattern.name());
        totals.write_losses(&suffix, &mut figures);
        figures.insert(format!("items_test{suffix}"), totals.daily.q90.items() as f64);
        figures.insert(format!("item_days_test{suffix}"), totals.daily.q90.days());
        totals.daily.write("", &suffix, &mut figures);
        totals.lead_time.write("lead_time_", &suffix, &mut figures);
    }
    Ok(figures)
}

/// The mean pinball loss of all levels over days in stock; sweeps compare by that of the validation set. `None` without a
/// day in stock.
pub(crate) fn pinball_of(network: &DemandNetwork, items: &ItemColumns, device: Device) -> Result<Option<f64>> {
    let mut sum = 0.0;
    let mut days = 0;
    for chunk in items.chunks(BATCH_ITEMS_MAX) {
        for (row, forecast) in network.forecast_rows(&chunk.item_rows(), device)?.iter().enumerate() {
            for (day, units) in chunk.days_in_stock(row) {
                sum += mean_pinball(&forecast.daily[day], units);
                days += 1;
            }
        }
    }
    Ok((days > 0).then(|| sum / f64::from(days)))
}

/// One day in stock of one item.
struct ForecastDay {
    day: i64,
    /// Units sold.
    units: f64,
    forecast: Forecast,
    /// The seasonal naive forecast.
    naive: f64,
}

/// Sums over days in stock.
#[derive(Default)]
struct Totals {
    /// Pinball loss of the forecasts.
    loss: f64,
    /// Pinball loss of the seasonal naive forecast.
    naive_loss: f64,
    /// Pinball loss of a forecast of no sales.
    zero_loss: f64,
    days: f64,
    /// `loss` and `days` of each item.
    by_item: Vec<(f64, f64)>,
    /// Sum of the forecast means.
    forecast: f64,
    /// Sum of the forecast means before their calibration factors.
    uncalibrated: f64,
    sold: f64,
    daily: IntervalCoverage,
    lead_time: IntervalCoverage,
}

impl Totals {
    /// Adds the days of one item, whose means were multiplied by `factor`.
    fn add(&mut self, days: &[ForecastDay], factor: f64) {
        let loss_before = self.loss;
        let days_before = self.days;
        for day in days {
            self.loss += mean_pinball(&day.forecast, day.units);
            self.naive_loss += mean_pinball(&[day.naive; FORECAST_NUMBERS], day.units);
            self.zero_loss += mean_pinball(&[0.0; FORECAST_NUMBERS], day.units);
            self.days += 1.0;
            self.forecast += day.forecast[0];
            self.uncalibrated += day.forecast[0] / factor;
            self.sold += day.units;
        }
        self.by_item.push((self.loss - loss_before, self.days - days_before));
        self.daily.add(days.iter().map(|day| (day.day, day.units, &day.forecast)));
    }

    fn pinball_interval(&self, seed: u64) -> Option<(f64, f64)> {
        metrics::bootstrap_interval_over_indices(self.by_item.len(), BOOTSTRAP_ROUNDS, seed, |drawn| {
            let items = drawn.iter().map(|&item| self.by_item[item]);
            let (loss, days) = items.fold((0.0, 0.0), |(loss, days), item| (loss + item.0, days + item.1));
            (days > 0.0).then(|| loss / days)
        })
    }

    fn write_losses(&self, suffix: &str, figures: &mut BTreeMap<String, f64>) {
        figures.insert(format!("pinball_test{suffix}"), self.loss / self.days.max(1.0));
        figures.insert(format!("pinball_test_seasonal_naive{suffix}"), self.naive_loss / self.days.max(1.0));
        figures.insert(format!("pinball_test_zero{suffix}"), self.zero_loss / self.days.max(1.0));
        if self.sold > 0.0 {
            figures.insert(format!("forecast_to_sold_test{suffix}"), self.forecast / self.sold);
            figures.insert(format!("uncorrected_to_sold_test{suffix}"), self.uncalibrated / self.sold);
        }
    }
}

/// Share of outcomes of at most the 90 % quantile, and share between the 10 % and the 90 % quantile.
#[derive(Default)]
struct IntervalCoverage {
    q90: Coverage,
    q10_q90: Coverage,
}

impl IntervalCoverage {
    /// Adds the days (or the lead time) of one item: day, units and forecast.
    fn add<'a>(&mut self, of_item: impl IntoIterator<Item = (i64, f64, &'a Forecast), IntoIter: Clone>) {
        let days = of_item.into_iter();
        self.q90.add(days.clone().map(|(day, units, f)| (day, units < f[Q90], units <= f[Q90])));
        self.q10_q90.add(days.map(|(day, units, f)| {
            let low = f[Q10];
            let high = f[Q90];
            (day, low < units && units < high, low <= units && units <= high)
        }));
    }

    /// Writes the coverage with and without ties, with intervals. Where the quantiles are right, the level is between the
    /// two.
    fn write(&self, span: &str, suffix: &str, figures: &mut BTreeMap<String, f64>) {
        for (name, coverage) in [("q90", &self.q90), ("q10_q90", &self.q10_q90)] {
            let shares = [("coverage", coverage.within()), ("coverage_without_ties", coverage.inside())];
            for (figure, share) in shares {
                let Some(Share { value, low, high }) = share else { continue };
                for (bound, number) in [("", value), ("_low", low), ("_high", high)] {
                    figures.insert(format!("{figure}_test_{span}{name}{suffix}{bound}"), number);
                }
            }
        }
    }
}
