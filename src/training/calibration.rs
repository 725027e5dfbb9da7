//! What a bundle learns about its demand forecasts beside the weights: how items sell that nobody has seen sell yet, and
//! where quantiles miss their level on items that the network was not trained on.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use tch::Device;

use super::sets::ItemSet;
use crate::failure::Result;
use crate::metrics::coverage::Coverage;
use crate::model::demand::{Calibration, DemandNetwork, ItemHistory, LEVELS, RatePrior, Raw, Speed, counts};

/// Fewer items say too little of their kind: what they ask for would be noise to the next ones.
const ITEMS_MIN: usize = 20;
/// New items behind a prior, and the most days that a prior may count for.
const NEW_ITEMS_MIN: usize = 10;
const PRIOR_DAYS_MAX: f64 = 365.0;

/// The Gamma distribution of the daily rates at which new items sold in the days that followed, by moments: the variance
/// of the rates is what their spread has beyond that of Poisson sales (Robinson 1991, "That BLUP is a good thing",
/// weighs items by their days alike). Says nothing where too few items were new.
pub fn prior(set: &ItemSet, history_days_min: i64) -> RatePrior {
    let new = (0..set.items.len()).filter(|&row| set.items[row].days_since_first_seen < history_days_min);
    let sold: Vec<(f64, f64)> = new
        .map(|row| days_in_stock(set, row).fold((0.0, 0.0), |(units, days), (_, u)| (units + u.max(0.0), days + 1.0)))
        .filter(|(_, days)| *days > 0.0)
        .collect();
    let (units, days) = sold.iter().fold((0.0, 0.0), |(u, d), (units, days)| (u + units, d + days));
    if sold.len() < NEW_ITEMS_MIN || units <= 0.0 {
        return RatePrior::default();
    }
    let rate = units / days;
    let spread: f64 =
        sold.iter().map(|(u, d)| d * (u / d - rate).powi(2)).sum::<f64>() - rate * (sold.len() - 1) as f64;
    let variance = spread / (days - sold.iter().map(|(_, d)| d * d).sum::<f64>() / days).max(1.0);
    let days = if variance > 0.0 { (rate / variance).min(PRIOR_DAYS_MAX) } else { PRIOR_DAYS_MAX };
    RatePrior { units: rate * days, days }
}

/// (step, units) of the days to come on which the item was in stock.
pub fn days_in_stock(set: &ItemSet, row: usize) -> impl Iterator<Item = (usize, f64)> {
    let days = set.units[row].iter().zip(&set.in_stock[row]).enumerate();
    days.filter(|(_, (_, stocked))| **stocked).map(|(day, (units, _))| (day, *units))
}

/// One day's forecast, the scale of its item, and what came.
struct Cell {
    raw: Raw,
    scale: f64,
    units: f64,
}

/// Cells by item.
type Cells<'a> = BTreeMap<&'a str, Vec<Cell>>;

/// Corrects the quantiles of those kinds of items whose coverage on `rows`, which the network was not trained on, lies
/// outside of sampling error at any level.
pub fn calibration(
    network: &DemandNetwork,
    set: &ItemSet,
    rows: &[usize],
    device: Device,
    seed: u64,
) -> Result<Calibration> {
    let items: Vec<ItemHistory> = rows.iter().map(|&row| set.items[row].clone()).collect();
    let (mut of_network, mut of_counts) = (BTreeMap::<Speed, Cells>::new(), BTreeMap::<Speed, Cells>::new());
    for ((&row, item), raw) in rows.iter().zip(&items).zip(network.raw(&items, device)?) {
        let (speed, scale) = (item.speed(network.shape.history_days_min), item.scale());
        for (day, units) in days_in_stock(set, row) {
            let raw = raw.daily[day].clone();
            let kinds = if matches!(raw, Raw::Quantiles(_)) { &mut of_network } else { &mut of_counts };
            let cells = kinds.entry(speed).or_default();
            cells.entry(item.item_id.as_str()).or_default().push(Cell { raw, scale, units });
        }
    }
    of_network.retain(|_, cells| misses(cells, seed));
    of_counts.retain(|_, cells| misses(cells, seed));
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Ok(Calibration {
        shifts: of_network.iter().map(|(speed, cells)| (*speed, shifts(cells))).collect(),
        levels: of_counts.iter().map(|(speed, cells)| (*speed, levels(cells, &mut rng))).collect(),
    })
}

/// Whether some quantile covers too seldom or too often for chance to explain it.
fn misses(cells: &Cells, seed: u64) -> bool {
    let holds = |k: usize| {
        let mut coverage = Coverage::default();
        for days in cells.values() {
            coverage.add(days.iter().map(|cell| {
                let quantile = cell.raw.forecast(None, cell.scale)[1 + k];
                (cell.units < quantile, cell.units <= quantile)
            }));
        }
        coverage.holds(LEVELS[k], seed).unwrap_or(true)
    };
    cells.len() >= ITEMS_MIN && !(0..LEVELS.len()).all(holds)
}

/// The conformal quantile of each level's misses, in units of the items' scales.
fn shifts(cells: &Cells) -> [f64; LEVELS.len()] {
    std::array::from_fn(|k| {
        let of = |cell: &Cell| (cell.units - cell.raw.forecast(None, cell.scale)[1 + k]) / cell.scale;
        conformal(cells.values().flatten().map(of).collect(), LEVELS[k])
    })
}

/// The levels at which the counts' distribution function has to be asked for the outcomes to reach [`LEVELS`]. Within the
/// jump that an outcome makes, chance decides where it lies (the randomised probability integral transform).
fn levels(cells: &Cells, rng: &mut ChaCha8Rng) -> [f64; LEVELS.len()] {
    let reached = cells.values().flatten().map(|cell| {
        let Raw::Counts { mean, size } = cell.raw else { return 0.5 };
        let (below, with) = counts::below_and_with(mean, size, cell.units.max(0.0));
        below + rng.random::<f64>() * (with - below)
    });
    let reached: Vec<f64> = reached.collect();
    LEVELS.map(|level| conformal(reached.clone(), level).clamp(1e-4, 1.0 - 1e-4))
}

/// The ceil((n + 1) level)-th smallest of n scores: the next one, were it exchangeable with them, lies at or below it
/// with at least this probability.
fn conformal(mut scores: Vec<f64>, level: f64) -> f64 {
    scores.sort_by(f64::total_cmp);
    let rank = ((scores.len() + 1) as f64 * level).ceil() as usize;
    scores.get(rank.clamp(1, scores.len().max(1)) - 1).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::demand::history::tests::item;
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

    #[test]
    fn the_prior_of_new_items_is_the_distribution_of_their_rates() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        // Two units in five days: a mean of 0.4 a day.
        let rates: Vec<f64> = (0..4000).map(|_| Gamma::new(2.0, 0.2).unwrap().sample(&mut rng)).collect();
        let found = prior(&new_items(&rates, 28, &mut rng), 14);
        assert!((found.units - 2.0).abs() < 0.3 && (found.days - 5.0).abs() < 0.8, "{found:?}");
        // Equal rates: nothing to learn from an item's own days, so the prior counts for as much as it may.
        assert!(prior(&new_items(&[0.4; 4000], 28, &mut rng), 14).days > 100.0);
        assert_eq!(prior(&new_items(&[0.4; 9], 28, &mut rng), 14), RatePrior::default());
        assert_eq!(prior(&new_items(&[0.4; 99], 28, &mut rng), 5), RatePrior::default(), "none of them is new");
    }

    /// Calibrated on some items, counts that are too narrow cover others as they should.
    #[test]
    fn levels_of_counts_reach_on_other_items_what_they_are_asked_for() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut draw = |items: usize| -> Vec<Vec<Cell>> {
            let of_item = |rng: &mut ChaCha8Rng| {
                let rate = Gamma::new(1.0, 1.5).unwrap().sample(rng);
                let sold = Poisson::new(f64::max(rate, 1e-9)).unwrap();
                // Told as if every item sold alike.
                let cell = |units: f64| Cell { raw: Raw::Counts { mean: 1.5, size: 1e6 }, scale: 1.5, units };
                (0..28).map(|_| cell(sold.sample(rng))).collect::<Vec<_>>()
            };
            (0..items).map(|_| of_item(&mut rng)).collect()
        };
        let (seen, others) = (draw(2000), draw(2000));
        let names: Vec<String> = (0..2000).map(|i| format!("i{i}")).collect();
        let cells: Cells = names.iter().map(String::as_str).zip(seen).collect();
        assert!(misses(&cells, 1));
        let found = levels(&cells, &mut ChaCha8Rng::seed_from_u64(1));
        assert!(found[6] > 0.98, "{found:?}");
        for (k, level) in LEVELS.iter().enumerate() {
            let quantile = counts::quantiles(1.5, 1e6, &found)[k];
            let units = || others.iter().flatten().map(|c| c.units);
            let share = |hit: &dyn Fn(f64) -> bool| units().filter(|&u| hit(u)).count() as f64 / units().count() as f64;
            let (inside, within) = (share(&|u| u < quantile), share(&|u| u <= quantile));
            assert!(inside - 0.03 <= *level && *level <= within + 0.03, "{level}: {inside} to {within}");
        }
    }

    #[test]
    fn shifts_bring_the_networks_quantiles_to_their_levels_and_what_covers_is_left_alone() {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let names: Vec<String> = (0..60).map(|i| format!("i{i}")).collect();
        let truth = |level: f64| 100.0 + 20.0 * level;
        let mut cells = |quantile: &dyn Fn(f64) -> f64| {
            let mut forecast = [110.0; 8];
            forecast[1..].copy_from_slice(&LEVELS.map(quantile));
            let mut day = || Cell { raw: Raw::Quantiles(forecast), scale: 4.0, units: truth(rng.random::<f64>()) };
            names.iter().map(|name| (name.as_str(), (0..28).map(|_| day()).collect())).collect::<Cells>()
        };
        assert!(!misses(&cells(&truth), 1), "uniform demand, told as it is");
        let narrow = cells(&|level| 105.0 + 10.0 * level);
        assert!(misses(&narrow, 1));
        for (k, (shift, level)) in shifts(&narrow).iter().zip(LEVELS).enumerate() {
            let moved = 105.0 + 10.0 * level + shift * 4.0;
            assert!((moved - truth(level)).abs() < 1.0, "{k}: {moved} for {}", truth(level));
        }
    }

    #[test]
    fn the_conformal_quantile_counts_the_one_to_come() {
        let scores = || (1..=9).map(f64::from).collect::<Vec<_>>();
        assert_eq!([0.05, 0.5, 0.9, 0.95].map(|level| conformal(scores(), level)), [1.0, 5.0, 9.0, 9.0]);
        assert_eq!(conformal(Vec::new(), 0.5), 0.0);
    }
}
