//! Weights of the network and the trees, learnt from dates that neither was trained on; the trees' number was chosen on them.

use std::collections::BTreeMap;
use tch::Device;

use crate::failure::Result;
use crate::metrics::clustered::ClusteredRatios;
use crate::metrics::pinball;
use crate::model::demand::{
    BATCH_ITEMS_MAX, DemandBlend, DemandNetwork, DemandPattern, Forecast, ForecastSpan, QUANTILE_LEVELS, RawForecast,
};
use crate::model::trees::FORECAST_NUMBERS;
use crate::training::datasets::{BlockRows, ItemColumns};

/// With fewer items of a pattern the weights stay equal.
const ITEMS_MIN: usize = 20;
/// With fewer weeks too: all items of a week err together. A lead time counts to the week in which it begins.
const WEEKS_MIN: usize = 4;
/// Weights that are compared: tenths.
const WEIGHTS: usize = 11;
const EQUAL: usize = WEIGHTS / 2;

/// Finds, for each demand pattern and number, the network's weight with the lowest loss, moved towards equal weights by the sampling
/// error of what it gains (as the mean factors of the calibration: positive part of Stein's estimate). Weights stay equal where there are
/// too few items or weeks to estimate that error.
pub(super) fn fit(network: &DemandNetwork, items: &ItemColumns, device: Device) -> Result<DemandBlend> {
    let mut losses: BTreeMap<(ForecastSpan, DemandPattern), Losses> = BTreeMap::new();
    for chunk in items.chunks(BATCH_ITEMS_MAX) {
        for (row, members) in network.member_forecasts(&chunk.item_rows(), device)?.into_iter().enumerate() {
            let Some(trees) = members.trees else { continue };
            let facts = chunk.facts(row);
            let as_of_day = chunk.as_of_day(row);
            let mut add = |span: ForecastSpan, day: i64, network: &RawForecast, trees: &Forecast, units: f64, scale| {
                let RawForecast::Quantiles(network) = network else { return };
                let of_pattern = losses.entry((span, facts.pattern)).or_default();
                of_pattern.add(chunk.id(row), day, [network, trees], units, scale);
            };
            for (day, units) in chunk.days_in_stock(row) {
                let (network, trees) = (&members.network.daily[day], &trees.daily[day]);
                add(ForecastSpan::Day, as_of_day + day as i64, network, trees, units, facts.scale());
            }
            if let Some(units) = chunk.lead_time_units(row) {
                let network = &members.network.lead_time;
                add(ForecastSpan::LeadTime, as_of_day, network, &trees.lead_time, units, facts.lead_scale());
            }
        }
    }
    let mut blend = DemandBlend::default();
    for ((span, pattern), losses) in losses {
        let weights = match span {
            ForecastSpan::Day => &mut blend.days,
            ForecastSpan::LeadTime => &mut blend.lead_times,
        };
        if let Some(found) = losses.weights() {
            weights.insert(pattern, found);
        }
    }
    Ok(blend)
}

/// Losses with each weight, less those with equal weights.
#[derive(Default)]
struct Losses {
    /// Number of each item, in order of appearance.
    items: BTreeMap<String, usize>,
    /// Number after number.
    of_numbers: ClusteredRatios<{ WEIGHTS * FORECAST_NUMBERS }>,
}

impl Losses {
    fn add(&mut self, item_id: &str, day: i64, [network, trees]: [&Forecast; 2], units: f64, scale: f64) {
        let next = self.items.len();
        let item = match self.items.get(item_id) {
            Some(&item) => item,
            None => *self.items.entry(item_id.into()).or_insert(next),
        };
        let loss = |number: usize, at: usize| {
            let weight = at as f64 / (WEIGHTS - 1) as f64;
            let forecast = weight * network[number] + (1.0 - weight) * trees[number];
            match number {
                0 => (units - forecast).powi(2) / scale.powf(1.5),
                // As in training: errors in units, divided by the root of the scale.
                quantile => pinball(QUANTILE_LEVELS[quantile - 1], forecast, units) / scale.sqrt(),
            }
        };
        let equal: [f64; FORECAST_NUMBERS] = std::array::from_fn(|number| loss(number, EQUAL));
        let gains = std::array::from_fn(|cell| {
            let (number, at) = (cell / WEIGHTS, cell % WEIGHTS);
            loss(number, at) - equal[number]
        });
        self.of_numbers.add(item, day, 1.0, gains);
    }

    fn weights(&self) -> Option<[f64; FORECAST_NUMBERS]> {
        let enough = self.items.len() >= ITEMS_MIN && self.of_numbers.weeks() >= WEEKS_MIN;
        enough.then(|| std::array::from_fn(|number| self.weight(number)))
    }

    /// The network's weight in one number.
    fn weight(&self, number: usize) -> f64 {
        let gains = (0..WEIGHTS).filter(|&at| at != EQUAL);
        let gains = gains.filter_map(|at| Some((at, self.of_numbers.ratio(number * WEIGHTS + at)?)));
        let best = gains.min_by(|(_, a), (_, b)| a.value.total_cmp(&b.value));
        let Some((at, gain)) = best.filter(|(_, gain)| gain.value < 0.0) else { return 0.5 };
        let kept = (1.0 - (gain.error / gain.value).powi(2)).max(0.0);
        0.5 + (at as f64 / (WEIGHTS - 1) as f64 - 0.5) * kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Losses where the demand is the network's forecast times `share`, plus the trees' times the rest, plus noise.
    fn losses(items: usize, share: f64) -> Losses {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let mut losses = Losses::default();
        for item in 0..items {
            for day in 0..28 {
                let (network, trees) = (rng.random_range(1.0..9.0), rng.random_range(1.0..9.0));
                let noise = rng.random_range(-0.5..0.5);
                let units = share * network + (1.0 - share) * trees + noise;
                losses.add(&format!("i{item}"), day, [&[network; 8], &[trees; 8]], units, 4.0);
            }
        }
        losses
    }

    #[test]
    fn weights_are_those_of_the_truth() {
        for (share, expected) in [(0.0, 0.0), (0.3, 0.3), (1.0, 1.0)] {
            let weights = losses(200, share).weights().unwrap();
            // The mean and the median; the outer quantiles of a sum of two have other weights.
            assert!((weights[0] - expected).abs() < 0.06 && (weights[4] - expected).abs() < 0.06, "{weights:?}");
        }
    }

    #[test]
    fn weights_stay_equal_without_gain_and_with_few_items() {
        let equal = losses(200, 0.5).weights().unwrap();
        assert!((equal[4] - 0.5).abs() < 0.05, "{equal:?}");
        assert_eq!(losses(ITEMS_MIN - 1, 0.0).weights(), None);
        let mut week = Losses::default();
        (0..50).for_each(|item| week.add(&format!("i{item}"), 0, [&[1.0; 8], &[2.0; 8]], 1.0, 1.0));
        assert_eq!(week.weights(), None, "one week");
    }
}
