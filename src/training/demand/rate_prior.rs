//! The prior for items whose own history is too short: the distribution of the daily rates of such items.

use crate::failure::Result;
use crate::model::demand::{DemandPattern, RatePrior};
use crate::training::datasets::{ItemBlocks, ItemColumns};

/// With fewer items there is no prior.
const ITEMS_MIN: usize = 10;
/// The most days that a prior may weigh.
const PRIOR_DAYS_MAX: f64 = 365.0;
/// The most that the days of one item may vary beyond Poisson sales.
const SPREAD_MAX: f64 = 50.0;

/// Sales of one item over the days that followed.
struct ItemSales {
    days: f64,
    /// Mean of its days.
    mean: f64,
    /// Variance of its days.
    variance: f64,
}

impl ItemSales {
    fn from_row(items: &ItemColumns, row: usize) -> Self {
        let units: Vec<f64> = items.days_in_stock(row).map(|(_, units)| units.max(0.0)).collect();
        let days = units.len() as f64;
        let mean = units.iter().sum::<f64>() / days;
        Self { days, mean, variance: units.iter().map(|u| (u - mean).powi(2)).sum::<f64>() / (days - 1.0).max(1.0) }
    }
}

/// Fits the Gamma distribution of the daily rates of items of this `pattern`, by moments: the variance of the rates is the
/// variance between items beyond that of their days (Bühlmann and Straub 1970, "Glaubwürdigkeit für Schadensätze", who
/// also weigh items by their days), and the spread is how far the days of one item vary beyond Poisson sales. Returns the
/// default, which has no effect, where there are too few such items.
pub(crate) fn fit_rate_prior(blocks: &[&ItemBlocks], pattern: DemandPattern) -> Result<RatePrior> {
    let mut sales: Vec<ItemSales> = Vec::new();
    for window in blocks.iter().flat_map(|items| items.each_window()) {
        let items = window?;
        let of_items =
            items.rows_with_pattern(|s| s == pattern).into_iter().map(|row| ItemSales::from_row(&items, row));
        sales.extend(of_items.filter(|item| item.days > 1.0));
    }
    let sum = |term: &dyn Fn(&ItemSales) -> f64| sales.iter().map(term).sum::<f64>();
    let days = sum(&|s| s.days);
    let units = sum(&|s| s.days * s.mean);
    if sales.len() < ITEMS_MIN || units <= 0.0 {
        return Ok(RatePrior::default());
    }
    // Pearson's statistic of each item, so that the largest items do not dominate.
    let beyond_poisson = |s: &ItemSales| if s.mean > 0.0 { s.days * (s.variance / s.mean - 1.0) } else { 0.0 };
    let squares = |s: &ItemSales| if s.mean > 0.0 { s.days * s.mean - s.variance / s.mean } else { 0.0 };
    let spread = (sum(&beyond_poisson) / sum(&squares).max(1e-9)).clamp(0.0, SPREAD_MAX);
    let rate = units / days;
    let within_items = sum(&|s| (s.days - 1.0) * s.variance) / sum(&|s| s.days - 1.0);
    let between_items = sum(&|s| s.days * (s.mean - rate).powi(2)) - within_items * (sales.len() - 1) as f64;
    let variance = between_items / (days - sum(&|s| s.days * s.days) / days).max(1.0);
    let prior_days = if variance > 0.0 { (within_items / variance).min(PRIOR_DAYS_MAX) } else { PRIOR_DAYS_MAX };
    Ok(RatePrior { units: rate * prior_days, days: prior_days, spread })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::demand::RawForecast;
    use crate::model::demand::history::tests::item;
    use crate::training::datasets::LabelledItems;
    use crate::training::datasets::item_columns::tests::columns;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, Gamma, Poisson};

    /// Items first seen five days ago, which then sell for `days` days at the given rates.
    fn new_items(rates: &[f64], days: usize, rng: &mut ChaCha8Rng) -> LabelledItems {
        let mut labelled = LabelledItems::default();
        for &rate in rates {
            let sold = Poisson::new(rate.max(1e-9)).unwrap();
            let mut item = item(&[0.0; 5]);
            item.days_since_first_seen = 5;
            labelled.items.push(item);
            labelled.units.push((0..days).map(|_| sold.sample(rng)).collect());
            labelled.in_stock.push(vec![true; days]);
        }
        labelled
    }

    fn prior(labelled: &LabelledItems, pattern: DemandPattern) -> RatePrior {
        fit_rate_prior(&[&ItemBlocks::in_memory(columns(labelled)).unwrap()], pattern).unwrap()
    }

    #[test]
    fn the_prior_of_new_items_is_the_distribution_of_their_rates() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        // Two units in five days: a mean of 0.4 a day.
        let rates: Vec<f64> = (0..4000).map(|_| Gamma::new(2.0, 0.2).unwrap().sample(&mut rng)).collect();
        let drawn = new_items(&rates, 28, &mut rng);
        let found = prior(&drawn, DemandPattern::New);
        assert!((found.units - 2.0).abs() < 0.3 && (found.days - 5.0).abs() < 0.8 && found.spread < 0.1, "{found:?}");
        assert_eq!(prior(&drawn, DemandPattern::Fast), RatePrior::default(), "all of them are new");
        // With equal rates an item's own days add nothing, so the prior weighs as much as it may.
        let mut prior_of = |rates: &[f64]| prior(&new_items(rates, 28, &mut rng), DemandPattern::New);
        assert!(prior_of(&[0.4; 4000]).days > 100.0);
        assert_eq!(prior_of(&[0.4; 9]), RatePrior::default());
    }

    #[test]
    fn spread_within_items_differs_from_spread_between_items() {
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let mut labelled = new_items(&[3.0; 2000], 28, &mut rng);
        // Each day draws its own rate: variance 3 + 2 × 9.
        let day = Gamma::new(0.5, 6.0).unwrap();
        let mut sold = || Poisson::new(f64::max(day.sample(&mut rng), 1e-9)).unwrap().sample(&mut rng);
        labelled.units.iter_mut().flatten().for_each(|units| *units = sold());
        let found = prior(&labelled, DemandPattern::New);
        assert!((found.spread - 2.0).abs() < 0.3 && found.days > 100.0, "{found:?}");
    }

    /// Dormant items sold nothing, and one in twenty sells again; new items do not change their prior.
    #[test]
    fn the_prior_of_dormant_items_ignores_other_items() {
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        let rates: Vec<f64> = (0..4000).map(|at| if at % 20 == 0 { 0.5 } else { 0.0 }).collect();
        let mut labelled = new_items(&rates, 28, &mut rng);
        labelled.items.iter_mut().for_each(|item| item.days_since_first_seen = 90);
        let others = new_items(&[3.0; 400], 28, &mut rng);
        labelled.items.extend(others.items);
        labelled.units.extend(others.units);
        labelled.in_stock.extend(others.in_stock);
        let found = prior(&labelled, DemandPattern::Dormant);
        let RawForecast::Counts { mean, size } = found.predictive(0.0, 0.0, 1) else { panic!("{found:?}") };
        assert!((mean - 0.025).abs() < 0.003 && size < 0.2, "{mean} {size} {found:?}");
    }
}
