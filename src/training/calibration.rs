//! What a bundle learns about its demand forecasts beside the weights: how items sell whose history says little, where
//! quantiles miss their level in weeks that the network was not trained on, and what was sold there for each unit promised.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use tch::Device;

use super::columns::Rows;
use super::item_columns::{ItemBlocks, ItemColumns};
use crate::failure::Result;
use crate::metrics::clustered::ClusteredRatios;
use crate::model::demand::calibration::Corrections;
use crate::model::demand::{
    BATCH_ITEMS_MAX, Calibration, DemandNetwork, DemandPattern, ForecastSpan, MeanFactors, QUANTILE_LEVELS, RatePrior,
    RawForecast, counts,
};

/// Fewer items say too little of their kind: what they ask for would be noise to the next ones.
const ITEMS_MIN: usize = 20;
/// Items behind a prior, the most days that a prior may count for, and the most that days may differ.
const PRIOR_ITEMS_MIN: usize = 10;
const PRIOR_DAYS_MAX: f64 = 365.0;
const SPREAD_MAX: f64 = 50.0;

/// What one item sold in the days that followed.
struct Sold {
    days: f64,
    mean: f64,
    /// Of its days.
    variance: f64,
}

impl Sold {
    fn of(items: &ItemColumns, row: usize) -> Self {
        let units: Vec<f64> = items.days_in_stock(row).map(|(_, units)| units.max(0.0)).collect();
        let days = units.len() as f64;
        let mean = units.iter().sum::<f64>() / days;
        Self { days, mean, variance: units.iter().map(|u| (u - mean).powi(2)).sum::<f64>() / (days - 1.0).max(1.0) }
    }
}

/// The Gamma distribution of the daily rates at which items of this `speed` sold in the days that followed, by moments: the
/// variance of the rates is what their spread has beyond that of their days (Bühlmann and Straub 1970, "Glaubwürdigkeit für
/// Schadensätze", weigh items by their days alike), and how far days of one item differ beyond Poisson sales. Says nothing
/// where there are too few such items.
pub fn prior(sets: &[&ItemBlocks], speed: DemandPattern) -> Result<RatePrior> {
    let mut sold: Vec<Sold> = Vec::new();
    for items in sets.iter().flat_map(|set| set.each()) {
        let items = items?;
        let of_items = items.that_sell(|s| s == speed).into_iter().map(|row| Sold::of(&items, row));
        sold.extend(of_items.filter(|sold| sold.days > 1.0));
    }
    let sum = |of: &dyn Fn(&Sold) -> f64| sold.iter().map(of).sum::<f64>();
    let (days, units) = (sum(&|s| s.days), sum(&|s| s.days * s.mean));
    if sold.len() < PRIOR_ITEMS_MIN || units <= 0.0 {
        return Ok(RatePrior::default());
    }
    // Pearson's statistic of each item, so that the largest do not speak for all.
    let beyond = |s: &Sold| if s.mean > 0.0 { s.days * (s.variance / s.mean - 1.0) } else { 0.0 };
    let squares = |s: &Sold| if s.mean > 0.0 { s.days * s.mean - s.variance / s.mean } else { 0.0 };
    let spread = (sum(&beyond) / sum(&squares).max(1e-9)).clamp(0.0, SPREAD_MAX);
    let rate = units / days;
    let of_days = sum(&|s| (s.days - 1.0) * s.variance) / sum(&|s| s.days - 1.0);
    let between = sum(&|s| s.days * (s.mean - rate).powi(2)) - of_days * (sold.len() - 1) as f64;
    let variance = between / (days - sum(&|s| s.days * s.days) / days).max(1.0);
    let days = if variance > 0.0 { (of_days / variance).min(PRIOR_DAYS_MAX) } else { PRIOR_DAYS_MAX };
    Ok(RatePrior { units: rate * days, days, spread })
}

/// Scores of one kind of forecasts, and whose they are.
#[derive(Debug, Default)]
struct Scores<T> {
    /// Numbered as they come.
    items: BTreeMap<String, usize>,
    scores: Vec<T>,
    /// What was sold, over the sum of the means.
    sold: ClusteredRatios<1>,
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
    }

    /// Enough items, and what is learnt of them.
    fn learnt<L>(&self, of: impl FnOnce(&Self) -> L) -> Option<L> {
        (self.items.len() >= ITEMS_MIN).then(|| of(self))
    }

    /// What means have to be multiplied by: what was sold over what they promised, as far from one as it is beyond chance (the
    /// positive part of Stein's estimate; Morris 1983, "Parametric empirical Bayes inference").
    fn mean_factor(&self) -> Option<f64> {
        let ratio = self.learnt(|scores| scores.sold.ratio(0)).flatten()?;
        let off = ratio.value - 1.0;
        // Nothing sold at all is no factor to go by.
        (ratio.value > 0.0).then(|| 1.0 + off * (1.0 - (ratio.error / off).powi(2)).max(0.0))
    }
}

/// What came of one forecast: of whose, from which day on, in units of demand.
struct Outcome<'a> {
    item_id: &'a str,
    day: i64,
    units: f64,
}

/// Where outcomes fell, by what was forecast and how items sell.
///
/// The dates lie a horizon apart, so that their weeks are no two the same, and all dates count alike: what the network did
/// in the weeks that it had not seen is what it will do in those to come, if weeks are exchangeable in blocks
/// (Chernozhukov, Wüthrich and Zhu 2018, "Exact and robust conformal inference methods for predictive machine learning with
/// dependent data"). Several of them, because all items of one week miss alike: one date's error would be taken for the
/// network's.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// Of the network's quantiles: how far the outcome lay above each, in units of the scale.
    of_network: BTreeMap<(ForecastSpan, DemandPattern), Scores<[f32; QUANTILE_LEVELS.len()]>>,
    /// Of counts: the level at which the outcome lay.
    of_counts: BTreeMap<(ForecastSpan, DemandPattern), Scores<f64>>,
}

impl Outcomes {
    /// Adds what came of forecasts of these items.
    pub fn add(
        &mut self,
        network: &DemandNetwork,
        items: &ItemColumns,
        device: Device,
        rng: &mut ChaCha8Rng,
    ) -> Result<()> {
        for items in items.chunks(BATCH_ITEMS_MAX) {
            for (row, raw) in network.raw_forecasts(&items.rows(), device)?.iter().enumerate() {
                let (item_id, facts, first) = (items.id(row), items.facts(row), items.as_of_day(row));
                for (day, units) in items.days_in_stock(row) {
                    let outcome = Outcome { item_id, day: first + day as i64, units };
                    self.add_one((ForecastSpan::Day, facts.pattern), &outcome, &raw.daily[day], facts.scale(), rng);
                }
                if let Some(units) = items.lead_time_units(row) {
                    let outcome = Outcome { item_id, day: first, units };
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
                // Within the jump that an outcome makes, chance decides where it lies (the randomised probability
                // integral transform).
                let (below, with) = counts::cumulative_bounds(*mean, *size, units.max(0.0));
                let reached = below + rng.random::<f64>() * (with - below);
                self.of_counts.entry(kind).or_default().add(outcome, raw.mean(), reached);
            }
        }
    }

    /// As if items of this speed had not been added.
    pub fn forget(&mut self, speed: DemandPattern) {
        self.of_network.retain(|(_, of), _| *of != speed);
        self.of_counts.retain(|(_, of), _| *of != speed);
    }

    /// The corrections with which each level and each sum of means would have been met.
    pub fn calibration(&self) -> Calibration {
        let shifts = |span: ForecastSpan| -> Corrections {
            let shift = |scores: &[[f32; QUANTILE_LEVELS.len()]], k: usize| {
                conformal(scores.iter().map(|above| f64::from(above[k])).collect(), QUANTILE_LEVELS[k])
            };
            let shifts = |s: &Scores<_>| s.learnt(|s| std::array::from_fn(|k| shift(&s.scores, k)));
            of_span(&self.of_network, span, shifts)
        };
        let levels = |span: ForecastSpan| -> Corrections {
            let level = |scores: &[f64], level: f64| conformal(scores.to_vec(), level).clamp(1e-4, 1.0 - 1e-4);
            let levels = |s: &Scores<_>| s.learnt(|s| QUANTILE_LEVELS.map(|l| level(&s.scores, l)));
            of_span(&self.of_counts, span, levels)
        };
        let means = |span: ForecastSpan| MeanFactors {
            of_network: of_span(&self.of_network, span, Scores::mean_factor),
            of_counts: of_span(&self.of_counts, span, Scores::mean_factor),
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

/// What is learnt of forecasts of one span, by how items sell.
fn of_span<T, L>(
    scores: &BTreeMap<(ForecastSpan, DemandPattern), Scores<T>>,
    span: ForecastSpan,
    learnt: impl Fn(&Scores<T>) -> Option<L>,
) -> BTreeMap<DemandPattern, L> {
    let of = scores.iter().filter(|((of, _), _)| *of == span);
    of.filter_map(|((_, speed), scores)| Some((*speed, learnt(scores)?))).collect()
}

/// The ceil((n + 1) level)-th smallest of n scores: the next one, were it exchangeable with them, lies at or below it
/// with at least this probability. Below the median the floor, so that it lies below with at most this probability: a
/// range of two quantiles is never the narrower for there being few scores.
fn conformal(mut scores: Vec<f64>, level: f64) -> f64 {
    scores.sort_by(f64::total_cmp);
    let rank = (scores.len() + 1) as f64 * level;
    let rank = if level < 0.5 { rank.floor() } else { rank.ceil() } as usize;
    scores.get(rank.clamp(1, scores.len().max(1)) - 1).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::super::item_columns::tests::columns;
    use super::super::sets::ItemSet;
    use super::*;
    use crate::model::demand::history::tests::item;
    use rand::SeedableRng;
    use rand_distr::{Distribution, Gamma, Poisson};

    /// Items first seen five days ago, with `days` days that followed, sold at the rates given.
    fn new_items(rates: &[f64], days: usize, rng: &mut ChaCha8Rng) -> ItemSet {
        let mut set = ItemSet::default();
        for &rate in rates {
            let sold = Poisson::new(rate.max(1e-9)).unwrap();
            let mut item = item(&[0.0; 5]);
            item.days_since_first_seen = 5;
            set.items.push(item);
            set.units.push((0..days).map(|_| sold.sample(rng)).collect());
            set.in_stock.push(vec![true; days]);
        }
        set
    }

    fn prior(set: &ItemSet, speed: DemandPattern) -> RatePrior {
        super::prior(&[&ItemBlocks::held(columns(set)).unwrap()], speed).unwrap()
    }

    #[test]
    fn the_prior_of_new_items_is_the_distribution_of_their_rates() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        // Two units in five days: a mean of 0.4 a day.
        let rates: Vec<f64> = (0..4000).map(|_| Gamma::new(2.0, 0.2).unwrap().sample(&mut rng)).collect();
        let drawn = new_items(&rates, 28, &mut rng);
        let found = prior(&drawn, DemandPattern::New);
        assert!((found.units - 2.0).abs() < 0.3 && (found.days - 5.0).abs() < 0.8 && found.spread < 0.1, "{found:?}");
        assert_eq!(prior(&drawn, DemandPattern::Fast), RatePrior::default(), "none of them is new");
        // Equal rates: nothing to learn from an item's own days, so the prior counts for as much as it may.
        let mut of = |rates: &[f64]| prior(&new_items(rates, 28, &mut rng), DemandPattern::New);
        assert!(of(&[0.4; 4000]).days > 100.0);
        assert_eq!(of(&[0.4; 9]), RatePrior::default());
    }

    #[test]
    fn days_that_differ_more_than_poisson_sales_are_told_from_rates_that_do() {
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let mut set = new_items(&[3.0; 2000], 28, &mut rng);
        // Each day's rate is drawn anew: variance 3 + 2 × 9.
        let day = Gamma::new(0.5, 6.0).unwrap();
        let mut sold = || Poisson::new(f64::max(day.sample(&mut rng), 1e-9)).unwrap().sample(&mut rng);
        set.units.iter_mut().flatten().for_each(|units| *units = sold());
        let found = prior(&set, DemandPattern::New);
        assert!((found.spread - 2.0).abs() < 0.3 && found.days > 100.0, "{found:?}");
    }

    /// They sold nothing, and one in twenty sells again: what comes of them is not what comes of new items.
    #[test]
    fn the_prior_of_dormant_items_is_of_them_alone() {
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        let rates: Vec<f64> = (0..4000).map(|at| if at % 20 == 0 { 0.5 } else { 0.0 }).collect();
        let mut set = new_items(&rates, 28, &mut rng);
        set.items.iter_mut().for_each(|item| item.days_since_first_seen = 90);
        let others = new_items(&[3.0; 400], 28, &mut rng);
        set.items.extend(others.items);
        set.units.extend(others.units);
        set.in_stock.extend(others.in_stock);
        let found = prior(&set, DemandPattern::Dormant);
        let RawForecast::Counts { mean, size } = found.predictive(0.0, 0.0, 1) else { panic!("{found:?}") };
        assert!((mean - 0.025).abs() < 0.003 && size < 0.2, "{mean} {size} {found:?}");
    }

    /// Calibrated on some items, counts that are too narrow cover others as they should.
    #[test]
    fn levels_of_counts_reach_on_other_items_what_they_are_asked_for() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        // Told as if every item sold alike.
        let raw = RawForecast::Counts { mean: 1.5, size: 1e6 };
        let mut draw = || -> Vec<f64> {
            let of_item = |rng: &mut ChaCha8Rng| {
                let rate = Gamma::new(1.0, 1.5).unwrap().sample(rng);
                let sold = Poisson::new(f64::max(rate, 1e-9)).unwrap();
                (0..28).map(|_| sold.sample(rng)).collect::<Vec<f64>>()
            };
            (0..2000).flat_map(|_| of_item(&mut rng)).collect()
        };
        let (seen, others) = (draw(), draw());
        let (mut outcomes, mut rng) = (Outcomes::default(), ChaCha8Rng::seed_from_u64(1));
        for (place, units) in seen.into_iter().enumerate() {
            let outcome = Outcome { item_id: &format!("i{}", place / 28), day: 0, units };
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
            let (inside, within) = (share(&|u| u < quantile), share(&|u| u <= quantile));
            assert!(inside - 0.03 <= *level && *level <= within + 0.03, "{level}: {inside} to {within}");
        }
    }

    #[test]
    fn shifts_bring_the_networks_quantiles_to_their_levels_and_few_items_ask_for_none() {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let truth = |level: f64| 100.0 + 20.0 * level;
        let mut outcomes = |items: usize, quantile: &dyn Fn(f64) -> f64| {
            let mut forecast = [110.0; 8];
            forecast[1..].copy_from_slice(&QUANTILE_LEVELS.map(quantile));
            let (raw, mut outcomes) = (RawForecast::Quantiles(forecast), Outcomes::default());
            for place in 0..items * 28 {
                let units = truth(rng.random::<f64>());
                let outcome = Outcome { item_id: &format!("i{}", place / 28), day: (place % 28) as i64, units };
                outcomes.add_one((ForecastSpan::Day, DemandPattern::Fast), &outcome, &raw, 4.0, &mut rng);
            }
            outcomes.calibration().shifts
        };
        assert!(outcomes(ITEMS_MIN - 1, &truth).is_empty());
        let moved = outcomes(60, &truth)[&DemandPattern::Fast];
        assert!(moved.iter().all(|shift| shift.abs() < 0.25), "uniform demand, told as it is: {moved:?}");
        let narrow = outcomes(60, &|level| 105.0 + 10.0 * level);
        for (k, (shift, level)) in narrow[&DemandPattern::Fast].iter().zip(QUANTILE_LEVELS).enumerate() {
            let moved = 105.0 + 10.0 * level + shift * 4.0;
            assert!((moved - truth(level)).abs() < 1.0, "{k}: {moved} for {}", truth(level));
        }
    }

    /// Of items that sell `sold` for each unit of their mean.
    fn factor(items: usize, sold: f64, outlier: f64, rng: &mut ChaCha8Rng) -> Option<f64> {
        let mut outcomes = Outcomes::default();
        for place in 0..items * 28 {
            let rate = 0.1 + 0.4 * (place / 28) as f64 / items as f64;
            let units = Poisson::new(rate * sold).unwrap().sample(rng) + if place == 0 { outlier } else { 0.0 };
            let outcome = Outcome { item_id: &format!("i{}", place / 28), day: (place % 28) as i64, units };
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
    fn means_become_what_was_sold_where_that_is_more_than_chance() {
        let mut rng = ChaCha8Rng::seed_from_u64(10);
        assert_eq!(factor(ITEMS_MIN - 1, 0.5, 0.0, &mut rng), None, "too few");
        let halved = factor(400, 0.5, 0.0, &mut rng).unwrap();
        assert!((halved - 0.5).abs() < 0.05, "{halved}");
        let right: Vec<f64> = (0..40).map(|_| factor(60, 1.0, 0.0, &mut rng).unwrap()).collect();
        let left = right.iter().filter(|&&factor| factor == 1.0).count();
        assert!(left >= 20 && right.iter().all(|factor| (factor - 1.0).abs() < 0.15), "{right:?}");
        let once = factor(60, 1.0, 1000.0, &mut rng).unwrap();
        assert!((once - 1.0).abs() < 0.1, "one sale of a thousand units says nothing of the other items: {once}");
        assert_eq!(factor(60, 1e-9, 0.0, &mut rng), None, "nothing sold");
    }

    #[test]
    fn the_conformal_quantile_counts_the_one_to_come() {
        let scores = || (1..=9).map(f64::from).collect::<Vec<_>>();
        assert_eq!([0.05, 0.5, 0.9, 0.95].map(|level| conformal(scores(), level)), [1.0, 5.0, 9.0, 9.0]);
        let many = || (1..=44).map(f64::from).collect::<Vec<_>>();
        assert_eq!([0.05, 0.1, 0.9, 0.95].map(|level| conformal(many(), level)), [2.0, 4.0, 41.0, 43.0]);
        assert_eq!(conformal(Vec::new(), 0.5), 0.0);
    }
}
