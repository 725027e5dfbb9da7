//! Calibration of demand forecasts: corrections of quantiles and means, from forecasts of weeks that the network was not
//! trained on.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use tch::Device;

use crate::failure::Result;
use crate::metrics::clustered::ClusteredRatios;
use crate::model::demand::calibration::Corrections;
use crate::model::demand::{
    BATCH_ITEMS_MAX, Calibration, DemandNetwork, DemandPattern, ForecastSpan, MeanFactors, QUANTILE_LEVELS,
    RawForecast, counts,
};
use crate::training::datasets::{BlockRows, ItemColumns};

/// With fewer items of a pattern there is no correction: it would be noise.
const ITEMS_MIN: usize = 20;
/// With fewer dates, the variance between them cannot be estimated.
const DATES_MIN: usize = 3;

/// Outcomes of one kind of forecast, with their items.
#[derive(Debug, Default)]
struct Scores<T> {
    /// Number of each item, in order of appearance.
    items: BTreeMap<String, usize>,
    scores: Vec<T>,
    /// Units sold over the sum of the means.
    sold: ClusteredRatios<1>,
    /// The same two sums by date of the forecasts.
    by_date: BTreeMap<i64, DateSums>,
}

/// Units sold and the sum of the means of the forecasts of one date.
#[derive(Debug, Clone, Copy, Default)]
struct DateSums {
    units: f64,
    mean: f64,
}

impl<T> Scores<T> {
    fn add(&mut self, outcome: &Outcome<'_>, mean: f64, score: T) {
        let item = match self.items.get(outcome.item_id) {
            Some(&number) => number,
            None => {
                let number = self.items.len();
                self.items.insert(outcome.item_id.into(), number);
                number
            }
        };
        self.scores.push(score);
        self.sold.add(item, outcome.day, mean, [outcome.units]);
        let of_date = self.by_date.entry(outcome.as_of_day).or_default();
        of_date.units += outcome.units;
        of_date.mean += mean;
    }

    fn has_enough_items(&self) -> bool {
        self.items.len() >= ITEMS_MIN
    }

    /// The factor on means: units sold over the sum of the means, shrunk towards 1 by its sampling error (the positive part
    /// of Stein's estimate; Morris 1983, "Parametric empirical Bayes inference"). The error is that between items and weeks, or that
    /// between dates where this is larger: what was missed in one month is not missed in the next where the season turns.
    fn mean_factor(&self) -> Option<f64> {
        if !self.has_enough_items() {
            return None;
        }
        let ratio = self.sold.ratio(0)?;
        let off = ratio.value - 1.0;
        let error = ratio.error.max(self.error_between_dates(ratio.value));
        // No sales at all give no usable factor.
        (ratio.value > 0.0).then(|| 1.0 + off * (1.0 - (error / off).powi(2)).max(0.0))
    }

    /// The standard error of the ratio if all forecasts of one date err together; 0 where there are too few dates to estimate it.
    fn error_between_dates(&self, ratio: f64) -> f64 {
        let dates = self.by_date.len() as f64;
        if self.by_date.len() < DATES_MIN {
            return 0.0;
        }
        let squares: f64 = self.by_date.values().map(|date| (date.units - ratio * date.mean).powi(2)).sum();
        let mean: f64 = self.by_date.values().map(|date| date.mean).sum();
        (squares * dates / (dates - 1.0)).sqrt() / mean
    }
}

impl Scores<[f32; QUANTILE_LEVELS.len()]> {
    /// The shift of each quantile.
    fn shifts(&self) -> Option<[f64; QUANTILE_LEVELS.len()]> {
        let shift =
            |k: usize| conformal_quantile(self.scores.iter().map(|s| f64::from(s[k])).collect(), QUANTILE_LEVELS[k]);
        self.has_enough_items().then(|| std::array::from_fn(shift))
    }
}

impl Scores<f64> {
    /// The level to ask the count distribution for, for each level.
    fn levels(&self) -> Option<[f64; QUANTILE_LEVELS.len()]> {
        let level = |level: f64| conformal_quantile(self.scores.clone(), level).clamp(1e-4, 1.0 - 1e-4);
        self.has_enough_items().then(|| QUANTILE_LEVELS.map(level))
    }
}

/// Demand that followed one forecast: of which item, as of which day, from which day on, in units.
struct Outcome<'a> {
    item_id: &'a str,
    as_of_day: i64,
    day: i64,
    units: f64,
}

/// Outcomes of forecasts, by the kind of forecast and the demand pattern of the item.
///
/// The dates are a horizon apart, so that their weeks do not overlap, and all dates weigh the same: the errors in weeks
/// that the network was not trained on stand for those in weeks to come, if weeks are exchangeable in blocks
/// (Chernozhukov, Wüthrich and Zhu 2018, "Exact and robust conformal inference methods for predictive machine learning
/// with dependent data"). There are several dates because all items of one week err together: the error of one date would
/// pass for that of the network.
#[derive(Debug, Default)]
pub(crate) struct ForecastOutcomes {
    /// Distance of the outcome above each quantile of the network, in units of the item's scale.
    of_network: BTreeMap<(ForecastSpan, DemandPattern), Scores<[f32; QUANTILE_LEVELS.len()]>>,
    /// Level of the outcome in the count distribution.
    of_counts: BTreeMap<(ForecastSpan, DemandPattern), Scores<f64>>,
}

impl ForecastOutcomes {
    /// Forecasts items and adds the outcomes.
    pub(crate) fn add(
        &mut self,
        network: &DemandNetwork,
        items: &ItemColumns,
        device: Device,
        rng: &mut ChaCha8Rng,
    ) -> Result<()> {
        for chunk in items.chunks(BATCH_ITEMS_MAX) {
            for (row, raw) in network.raw_forecasts(&chunk.item_rows(), device)?.iter().enumerate() {
                let item_id = chunk.id(row);
                let facts = chunk.facts(row);
                let as_of_day = chunk.as_of_day(row);
                for (day, units) in chunk.days_in_stock(row) {
                    let outcome = Outcome { item_id, as_of_day, day: as_of_day + day as i64, units };
                    self.add_one((ForecastSpan::Day, facts.pattern), &outcome, &raw.daily[day], facts.scale(), rng);
                }
                if let Some(units) = chunk.lead_time_units(row) {
                    let outcome = Outcome { item_id, as_of_day, day: as_of_day, units };
                    self.add_one(
                        (ForecastSpan::LeadTime, facts.pattern),
                        &outcome,
                        &raw.lead_time,
                        facts.lead_scale(),
                        rng,
                    );
                }
            }
        }
        Ok(())
    }

    fn add_one(
        &mut self,
        kind: (ForecastSpan, DemandPattern),
        outcome: &Outcome<'_>,
        raw: &RawForecast,
        scale: f64,
        rng: &mut ChaCha8Rng,
    ) {
        let units = outcome.units;
        match raw {
            RawForecast::Quantiles(forecast) => {
                let above = std::array::from_fn(|k| ((units - forecast[1 + k]) / scale) as f32);
                self.of_network.entry(kind).or_default().add(outcome, raw.mean(), above);
            }
            RawForecast::Counts { mean, size } => {
                // A count makes the distribution jump; chance decides the level within the jump (the randomised
                // probability integral transform).
                let (below, with) = counts::cumulative_bounds(*mean, *size, units.max(0.0));
                let level = below + rng.random::<f64>() * (with - below);
                self.of_counts.entry(kind).or_default().add(outcome, raw.mean(), level);
            }
        }
    }

    /// Removes the outcomes of items of one demand pattern.
    pub(crate) fn remove(&mut self, pattern: DemandPattern) {
        self.of_network.retain(|(_, of), _| *of != pattern);
        self.of_counts.retain(|(_, of), _| *of != pattern);
    }

    /// The corrections with which each level and each sum of means would have been right.
    pub(crate) fn calibration(&self) -> Calibration {
        let shifts = |span: ForecastSpan| -> Corrections { by_pattern(&self.of_network, span, Scores::shifts) };
        let levels = |span: ForecastSpan| -> Corrections { by_pattern(&self.of_counts, span, Scores::levels) };
        let means = |span: ForecastSpan| MeanFactors {
            of_network: by_pattern(&self.of_network, span, Scores::mean_factor),
            of_counts: by_pattern(&self.of_counts, span, Scores::mean_factor),
        };
        Calibration {
            shifts: shifts(ForecastSpan::Day),
            levels: levels(ForecastSpan::Day),
            lead_shifts: shifts(ForecastSpan::LeadTime),
            lead_levels: levels(ForecastSpan::LeadTime),
            means: means(ForecastSpan::Day),
            lead_means: means(ForecastSpan::LeadTime),
        }
    }
}

/// A correction of forecasts over one span, for each demand pattern that has one.
fn by_pattern<T, C>(
    scores: &BTreeMap<(ForecastSpan, DemandPattern), Scores<T>>,
    wanted: ForecastSpan,
    correction: impl Fn(&Scores<T>) -> Option<C>,
) -> BTreeMap<DemandPattern, C> {
    let of_span = scores.iter().filter(|((span, _), _)| *span == wanted);
    of_span.filter_map(|((_, pattern), scores)| Some((*pattern, correction(scores)?))).collect()
}

/// The ceil((n + 1) level)-th smallest of n scores: the next score, if exchangeable with them, is at most this with at
/// least that probability. Below the median it is the floor, so that the next score is below with at most that
/// probability: the range between two quantiles never narrows because there are few scores.
fn conformal_quantile(mut scores: Vec<f64>, level: f64) -> f64 {
    scores.sort_by(f64::total_cmp);
    let rank = (scores.len() + 1) as f64 * level;
    let place = if level < 0.5 { rank.floor() } else { rank.ceil() } as usize;
    scores.get(place.clamp(1, scores.len().max(1)) - 1).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_distr::{Distribution, Gamma, Poisson};

    #[test]
    fn calibrated_counts_cover_other_items_at_each_level() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        // As if all items sold at one rate: too narrow.
        let raw = RawForecast::Counts { mean: 1.5, size: 1e6 };
        let mut draw = || -> Vec<f64> {
            let of_item = |rng: &mut ChaCha8Rng| {
                let rate = Gamma::new(1.0, 1.5).unwrap().sample(rng);
                let sold = Poisson::new(f64::max(rate, 1e-9)).unwrap();
                (0..28).map(|_| sold.sample(rng)).collect::<Vec<f64>>()
            };
            (0..2000).flat_map(|_| of_item(&mut rng)).collect()
        };
        let seen = draw();
        let others = draw();
        let mut outcomes = ForecastOutcomes::default();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (place, units) in seen.into_iter().enumerate() {
            let outcome = Outcome { item_id: &format!("i{}", place / 28), as_of_day: 0, day: 0, units };
            outcomes.add_one((ForecastSpan::LeadTime, DemandPattern::Slow), &outcome, &raw, 1.5, &mut rng);
        }
        let calibration = outcomes.calibration();
        assert!(calibration.levels.is_empty() && calibration.lead_shifts.is_empty());
        let found = calibration.lead_levels[&DemandPattern::Slow];
        assert!(found[6] > 0.98, "{found:?}");
        for (k, level) in QUANTILE_LEVELS.iter().enumerate() {
            let quantile = counts::quantiles(1.5, 1e6, &found)[k];
            let share =
                |hit: &dyn Fn(f64) -> bool| others.iter().filter(|&&u| hit(u)).count() as f64 / others.len() as f64;
            let inside = share(&|u| u < quantile);
            let within = share(&|u| u <= quantile);
            assert!(inside - 0.03 <= *level && *level <= within + 0.03, "{level}: {inside} to {within}");
        }
    }

    #[test]
    fn shifts_move_quantiles_to_their_levels() {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let truth = |level: f64| 100.0 + 20.0 * level;
        let mut outcomes = |items: usize, quantile: &dyn Fn(f64) -> f64| {
            let mut forecast = [110.0; 8];
            forecast[1..].copy_from_slice(&QUANTILE_LEVELS.map(quantile));
            let raw = RawForecast::Quantiles(forecast);
            let mut outcomes = ForecastOutcomes::default();
            for place in 0..items * 28 {
                let units = truth(rng.random::<f64>());
                let outcome =
                    Outcome { item_id: &format!("i{}", place / 28), as_of_day: 0, day: (place % 28) as i64, units };
                outcomes.add_one((ForecastSpan::Day, DemandPattern::Fast), &outcome, &raw, 4.0, &mut rng);
            }
            outcomes.calibration().shifts
        };
        assert!(outcomes(ITEMS_MIN - 1, &truth).is_empty());
        let moved = outcomes(60, &truth)[&DemandPattern::Fast];
        assert!(moved.iter().all(|shift| shift.abs() < 0.25), "uniform demand, forecast as it is: {moved:?}");
        let narrow = outcomes(60, &|level| 105.0 + 10.0 * level);
        for (k, (shift, level)) in narrow[&DemandPattern::Fast].iter().zip(QUANTILE_LEVELS).enumerate() {
            let moved = 105.0 + 10.0 * level + shift * 4.0;
            assert!((moved - truth(level)).abs() < 1.0, "{k}: {moved} for {}", truth(level));
        }
    }

    /// The factor of items that sell `sold` units for each unit of their mean.
    fn factor(items: usize, sold: f64, outlier: f64, rng: &mut ChaCha8Rng) -> Option<f64> {
        let mut outcomes = ForecastOutcomes::default();
        for place in 0..items * 28 {
            let rate = 0.1 + 0.4 * (place / 28) as f64 / items as f64;
            let units = Poisson::new(rate * sold).unwrap().sample(rng) + if place == 0 { outlier } else { 0.0 };
            let outcome =
                Outcome { item_id: &format!("i{}", place / 28), as_of_day: 0, day: (place % 28) as i64, units };
            outcomes.add_one(
                (ForecastSpan::Day, DemandPattern::Slow),
                &outcome,
                &RawForecast::Counts { mean: rate, size: 5.0 },
                rate,
                rng,
            );
        }
        outcomes.calibration().means.of_counts.get(&DemandPattern::Slow).copied()
    }

    #[test]
    fn mean_factors_move_only_beyond_chance() {
        let mut rng = ChaCha8Rng::seed_from_u64(10);
        assert_eq!(factor(ITEMS_MIN - 1, 0.5, 0.0, &mut rng), None, "too few");
        let halved = factor(400, 0.5, 0.0, &mut rng).unwrap();
        assert!((halved - 0.5).abs() < 0.05, "{halved}");
        let right: Vec<f64> = (0..40).map(|_| factor(60, 1.0, 0.0, &mut rng).unwrap()).collect();
        let left = right.iter().filter(|&&factor| factor == 1.0).count();
        assert!(left >= 20 && right.iter().all(|factor| (factor - 1.0).abs() < 0.15), "{right:?}");
        let once = factor(60, 1.0, 1000.0, &mut rng).unwrap();
        assert!((once - 1.0).abs() < 0.1, "one sale of a thousand units does not change the other items: {once}");
        assert_eq!(factor(60, 1e-9, 0.0, &mut rng), None, "nothing sold");
    }

    #[test]
    fn a_factor_needs_more_than_one_season() {
        let mut scores = Scores::<f64>::default();
        let mut add = |date: i64, units: f64| {
            for item in 0..30 {
                (0..28).for_each(|day| {
                    let item_id = &format!("i{item}");
                    let outcome = Outcome { item_id, as_of_day: date, day: date + day, units };
                    scores.add(&outcome, 1.0, 0.5);
                });
            }
            scores.mean_factor().unwrap()
        };
        add(0, 0.8);
        let two = add(28, 0.8);
        assert!((two - 0.8).abs() < 0.02, "two dates of low sales: {two}");
        let turned = add(56, 1.3);
        assert_eq!(turned, 1.0, "the third was high");
        let mut same = Scores::<f64>::default();
        for date in [0, 28, 56] {
            (0..30 * 28).for_each(|at| {
                let item_id = &format!("i{}", at / 28);
                same.add(&Outcome { item_id, as_of_day: date, day: date + at % 28, units: 0.8 }, 1.0, 0.5);
            });
        }
        assert!((same.mean_factor().unwrap() - 0.8).abs() < 0.02, "low on all dates");
    }

    #[test]
    fn the_conformal_quantile_includes_the_next_score() {
        let scores = || (1..=9).map(f64::from).collect::<Vec<_>>();
        assert_eq!([0.05, 0.5, 0.9, 0.95].map(|level| conformal_quantile(scores(), level)), [1.0, 5.0, 9.0, 9.0]);
        let many = || (1..=44).map(f64::from).collect::<Vec<_>>();
        assert_eq!([0.05, 0.1, 0.9, 0.95].map(|level| conformal_quantile(many(), level)), [2.0, 4.0, 41.0, 43.0]);
        assert_eq!(conformal_quantile(Vec::new(), 0.5), 0.0);
    }
}
