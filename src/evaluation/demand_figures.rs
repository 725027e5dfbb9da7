//! Figures of demand forecasts against the demand that followed, and of the difference between two models.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::judged::Judged;
use crate::ids::RunDate;
use crate::metrics::clustered::ClusteredRatios;
use crate::metrics::{mean_absolute_change, mean_squared_change};
use crate::model::demand::{DemandPattern, ItemForecast, ItemHistory, Q50, Q90, mean_pinball};
use crate::model::trees::FORECAST_NUMBERS;

/// Categories with figures of their own: those that sold most.
const CATEGORIES_MAX: usize = 20;
/// Memory of an item's sums over a week.
const CELL_BYTES: u64 = 120;
/// Days of the season that the scaled error compares with.
const SEASON_DAYS: usize = 7;
/// Ranges between two quantiles, by their places in a forecast, and the share of outcomes that each should hold.
const RANGES: [(usize, usize); 3] = [(1, 7), (2, 6), (3, 5)];

/// Numerators of the sums by item and week; the denominator is the number of days.
const PINBALL: usize = 0;
const COVERED_Q90: usize = 1;

/// One forecast and the demand that followed.
#[derive(Debug, Clone, Copy)]
pub(super) struct ItemOutcome<'a> {
    pub(super) history: &'a ItemHistory,
    /// Empty for none.
    pub(super) category: &'a str,
    pub(super) pattern: DemandPattern,
    /// The seasonal naive forecast of each weekday.
    pub(super) naive: &'a [f64; 7],
    /// Units on each day of the horizon, and whether the item was in stock.
    pub(super) units: &'a [f64],
    pub(super) in_stock: &'a [bool],
    pub(super) forecast: &'a ItemForecast,
}

/// Sums of one model over items and dates, of all items, by demand pattern and, where asked for, by category.
#[derive(Debug)]
pub(super) struct DemandSums {
    /// Numbers of items, in order of appearance.
    items: HashMap<String, usize>,
    all: Sums,
    by_pattern: BTreeMap<DemandPattern, Sums>,
    by_category: Option<BTreeMap<String, Sums>>,
}

impl DemandSums {
    pub(super) fn new(by_category: bool) -> Self {
        Self {
            items: HashMap::new(),
            all: Sums::default(),
            by_pattern: BTreeMap::new(),
            by_category: by_category.then(BTreeMap::new),
        }
    }

    pub(super) fn add(&mut self, outcome: &ItemOutcome<'_>) {
        let next = self.items.len();
        let item = *self.items.entry(outcome.history.item_id.clone()).or_insert(next);
        self.all.add(item, outcome);
        self.by_pattern.entry(outcome.pattern).or_default().add(item, outcome);
        if let Some(by_category) = &mut self.by_category {
            match by_category.get_mut(outcome.category) {
                Some(sums) => sums.add(item, outcome),
                None => by_category.entry(outcome.category.into()).or_default().add(item, outcome),
            }
        }
    }

    /// An estimate of the memory in use.
    pub(super) fn bytes(&self) -> u64 {
        self.all.days.cells() as u64 * (2 + u64::from(self.by_category.is_some())) * CELL_BYTES
    }

    /// The pinball loss of all items.
    pub(super) fn pinball(&self) -> Option<f64> {
        Some(self.all.days.ratio(PINBALL)?.value)
    }

    /// Figures of all items, then of each demand pattern, then of the categories that sold most.
    pub(super) fn figures(&self, judged: Judged<'_>) -> Vec<DemandFigures> {
        let all = self.all.figures(judged, "all", "all");
        let patterns = self.by_pattern.iter().filter_map(|(pattern, sums)| sums.figures(judged, pattern.name(), "all"));
        let mut categories: Vec<(&String, &Sums)> = self.by_category.iter().flatten().collect();
        // Stable, so that categories which sold as much stay in the order of their names.
        categories.sort_by(|a, b| b.1.sold.total_cmp(&a.1.sold));
        categories.truncate(CATEGORIES_MAX);
        let categories = categories.into_iter().filter_map(|(name, sums)| sums.figures(judged, "all", name));
        all.into_iter().chain(patterns).chain(categories).collect()
    }

    /// This model's pinball loss minus that of another, on the same items and dates.
    pub(super) fn differences(&self, other: &Self) -> Vec<DemandDifference> {
        let pairs = std::iter::once(("all", &self.all, Some(&other.all)))
            .chain(self.by_pattern.iter().map(|(pattern, sums)| (pattern.name(), sums, other.by_pattern.get(pattern))));
        let mut differences = Vec::new();
        for (pattern, sums, other) in pairs {
            // Patterns differ only where two models have another smallest history.
            let Some(other) = other.filter(|other| other.count == sums.count) else { continue };
            let Some(ratio) = sums.days.minus(&other.days).ratio(PINBALL) else { continue };
            let half = ratio.half_width();
            let interval = (ratio.value - half, ratio.value + half);
            differences.push(DemandDifference { pattern, figure: "pinball", difference: ratio.value, interval });
        }
        differences
    }
}

/// Sums over days in stock.
#[derive(Debug, Default)]
struct Sums {
    /// By item and week.
    days: ClusteredRatios<2>,
    items: HashSet<usize>,
    count: f64,
    naive_pinball: f64,
    absolute_error: f64,
    squared_error: f64,
    sold: f64,
    forecast: f64,
    within: [f64; RANGES.len()],
    /// Sums over items with a history that changes, and their number.
    scaled_absolute: (f64, f64),
    scaled_squared: (f64, f64),
    lead_times: f64,
    lead_pinball: f64,
    lead_covered_q90: f64,
}

impl Sums {
    fn add(&mut self, item: usize, outcome: &ItemOutcome<'_>) {
        let as_of_day = outcome.history.as_of_day();
        let mut days = 0.0;
        let (mut absolute, mut squared) = (0.0, 0.0);
        for (day, forecast) in outcome.forecast.daily.iter().enumerate() {
            if outcome.in_stock.get(day) != Some(&true) {
                continue;
            }
            let units = outcome.units[day];
            let naive = outcome.naive[day % 7];
            let covered = f64::from(u8::from(units <= forecast[Q90]));
            self.days.add(item, as_of_day + day as i64, 1.0, [mean_pinball(forecast, units), covered]);
            self.naive_pinball += mean_pinball(&[naive; FORECAST_NUMBERS], units);
            absolute += (units - forecast[Q50]).abs();
            squared += (units - forecast[0]).powi(2);
            self.sold += units;
            self.forecast += forecast[0];
            for (within, (low, high)) in self.within.iter_mut().zip(RANGES) {
                *within += f64::from(u8::from(forecast[low] <= units && units <= forecast[high]));
            }
            days += 1.0;
        }
        if days == 0.0 {
            return;
        }
        self.items.insert(item);
        self.count += days;
        self.absolute_error += absolute;
        self.squared_error += squared;
        let history = &outcome.history.units;
        if let Some(change) = mean_absolute_change(history, SEASON_DAYS).filter(|&change| change > 0.0) {
            self.scaled_absolute.0 += absolute / days / change;
            self.scaled_absolute.1 += 1.0;
        }
        if let Some(change) = mean_squared_change(history).filter(|&change| change > 0.0) {
            self.scaled_squared.0 += (squared / days / change).sqrt();
            self.scaled_squared.1 += 1.0;
        }
        let lead_days = outcome.history.lead_time_days as usize;
        if outcome.in_stock.get(..lead_days).is_some_and(|days| days.iter().all(|&stocked| stocked)) {
            let units: f64 = outcome.units[..lead_days].iter().sum();
            let forecast = &outcome.forecast.lead_time;
            self.lead_times += 1.0;
            self.lead_pinball += mean_pinball(forecast, units);
            self.lead_covered_q90 += f64::from(u8::from(units <= forecast[Q90]));
        }
    }

    fn figures(&self, judged: Judged<'_>, pattern: &'static str, category: &str) -> Option<DemandFigures> {
        let (losses, covered) = (self.days.ratio(PINBALL)?, self.days.ratio(COVERED_Q90)?);
        let mean = |sum: f64| sum / self.count;
        let some_mean = |(sum, count): (f64, f64)| (count > 0.0).then(|| sum / count);
        Some(DemandFigures {
            run_date: judged.run_date,
            model_version: judged.model_version.into(),
            in_training: judged.in_training,
            pattern,
            category: category.into(),
            items: self.items.len() as u64,
            days: self.count as u64,
            units: self.sold,
            pinball: losses.value,
            pinball_interval: ((losses.value - losses.half_width()).max(0.0), losses.value + losses.half_width()),
            pinball_seasonal_naive: mean(self.naive_pinball),
            weighted_quantile_loss: (self.sold > 0.0).then(|| 2.0 * losses.value * self.count / self.sold),
            mae: mean(self.absolute_error),
            mse: mean(self.squared_error),
            mase: some_mean(self.scaled_absolute),
            rmsse: some_mean(self.scaled_squared),
            bias: (self.sold > 0.0).then(|| self.forecast / self.sold - 1.0),
            covered_q90: covered.value,
            covered_q90_interval: (
                (covered.value - covered.half_width()).max(0.0),
                (covered.value + covered.half_width()).min(1.0),
            ),
            within: self.within.map(mean),
            lead_times: self.lead_times as u64,
            lead_time_pinball: some_mean((self.lead_pinball, self.lead_times)),
            lead_time_covered_q90: some_mean((self.lead_covered_q90, self.lead_times)),
        })
    }
}

/// Figures of one model for the items of one demand pattern on one date, or on all, over days in stock.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DemandFigures {
    pub(crate) run_date: Option<RunDate>,
    pub(crate) model_version: String,
    pub(crate) in_training: bool,
    /// "all", or the name of a [`DemandPattern`].
    pub(crate) pattern: &'static str,
    /// "all", or the category of the items; empty for items without one.
    pub(crate) category: String,
    pub(crate) items: u64,
    pub(crate) days: u64,
    pub(crate) units: f64,
    /// Mean of all levels, in units.
    pub(crate) pinball: f64,
    /// 95 % interval with errors that items and weeks share, as that of the coverage.
    pub(crate) pinball_interval: (f64, f64),
    pub(crate) pinball_seasonal_naive: f64,
    /// Twice the pinball loss over the units sold.
    pub(crate) weighted_quantile_loss: Option<f64>,
    /// Absolute error of the median.
    pub(crate) mae: f64,
    /// Squared error of the mean.
    pub(crate) mse: f64,
    /// Mean over items of the absolute error over that of a seasonal naive forecast within the history (Hyndman and Koehler 2006).
    pub(crate) mase: Option<f64>,
    /// Mean over items of the root of the squared error over that of a naive forecast within the history (M5 competition).
    pub(crate) rmsse: Option<f64>,
    /// Sum of the means over the units sold, minus one.
    pub(crate) bias: Option<f64>,
    /// Share of days with at most the 90 % quantile.
    pub(crate) covered_q90: f64,
    pub(crate) covered_q90_interval: (f64, f64),
    /// Shares of days between q05 and q95, q10 and q90, q25 and q75, bounds included.
    pub(crate) within: [f64; RANGES.len()],
    /// Items whose whole lead time was in stock and within the horizon.
    pub(crate) lead_times: u64,
    pub(crate) lead_time_pinball: Option<f64>,
    pub(crate) lead_time_covered_q90: Option<f64>,
}

/// The first model's figure minus the second's.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DemandDifference {
    pub(crate) pattern: &'static str,
    pub(crate) figure: &'static str,
    pub(crate) difference: f64,
    /// 95 % interval, paired by item and week.
    pub(crate) interval: (f64, f64),
}
