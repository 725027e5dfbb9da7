//! Coverage of forecast quantiles, with intervals clustered by item and by week.
//!
//! Demand comes in whole units, so an outcome often equals the quantile, and no quantile has exactly its level below it. A
//! quantile q at level p is correct if P(demand < q) <= p <= P(demand <= q) (Czado, Gneiting and Held 2009, "Predictive model
//! assessment for count data"); the same holds for a range between two quantiles. Without ties this is the usual coverage.

use super::clustered::ClusteredRatios;

/// Indices of the two counts: without and with ties.
const INSIDE: usize = 0;
const WITHIN: usize = 1;

/// Coverage of one quantile, or of a range between two quantiles, over many items.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Coverage {
    /// Days, and on how many of them the outcome was inside and within.
    days: ClusteredRatios<2>,
    items: usize,
}

/// A share with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Share {
    pub(crate) value: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Coverage {
    /// Adds one item's outcomes: the day, counted from the same day for all items; whether the outcome is inside; and whether
    /// it is inside or on a bound.
    pub(crate) fn add(&mut self, days: impl IntoIterator<Item = (i64, bool, bool)>) {
        let mut any = false;
        for (day, inside, within) in days {
            self.days.add(self.items, day, 1.0, [inside, within].map(|hit| f64::from(u8::from(hit))));
            any = true;
        }
        self.items += usize::from(any);
    }

    /// Returns the number of items with at least one day.
    pub(crate) fn items(&self) -> usize {
        self.items
    }

    /// Returns the number of days over all items.
    pub(crate) fn days(&self) -> f64 {
        self.days.denominator()
    }

    /// Returns the share of days with an outcome inside, ties excluded; `None` without days.
    pub(crate) fn inside(&self) -> Option<Share> {
        self.share(INSIDE)
    }

    /// Returns the share of days with an outcome inside or on a bound; `None` without days.
    pub(crate) fn within(&self) -> Option<Share> {
        self.share(WITHIN)
    }

    fn share(&self, count: usize) -> Option<Share> {
        let ratio = self.days.ratio(count)?;
        let half_width = ratio.half_width();
        Some(Share {
            value: ratio.value,
            low: (ratio.value - half_width).max(0.0),
            high: (ratio.value + half_width).min(1.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, Normal, Poisson};

    #[test]
    fn ties_are_counted_within_but_not_inside() {
        let mut coverage = Coverage::default();
        assert_eq!((coverage.within(), coverage.items()), (None, 0));
        for _ in 0..40 {
            coverage.add([0.0, 0.0, 1.0, 1.0, 2.0].map(|sold| (3, sold < 1.0, sold <= 1.0)));
        }
        coverage.add([]);
        let (inside, within) = (coverage.inside().unwrap(), coverage.within().unwrap());
        assert!((inside.value - 0.4).abs() < 1e-9 && (within.value - 0.8).abs() < 1e-9, "{inside:?} {within:?}");
        assert_eq!((coverage.items(), coverage.days()), (40, 200.0));
    }

    /// Each item has its own sales rate, which its quantile ignores, so the days of one item are correlated.
    #[test]
    fn intervals_cover_when_days_of_an_item_are_correlated() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let (mut covered, mut narrow) = (0, 0);
        let truth = 0.5;
        for _ in 0..100 {
            let mut coverage = Coverage::default();
            for _ in 0..60 {
                let mean: f64 = if rng.random_bool(truth) { 2.0 } else { 30.0 };
                let sold = Poisson::new(mean).unwrap();
                let units = (0..28).map(|day| (day, sold.sample(&mut rng)));
                coverage.add(units.map(|(day, sold): (i64, f64)| (day, sold < 12.0, sold <= 12.0)));
            }
            let share = coverage.within().unwrap();
            covered += usize::from(share.low <= truth && truth <= share.high);
            let alone = 1.96 * (share.value * (1.0 - share.value) / coverage.days()).sqrt();
            narrow += usize::from((share.value - truth).abs() <= alone);
        }
        assert!((88..=100).contains(&covered) && narrow < 60, "{covered} and {narrow} of 100");
    }

    /// Each of four weeks moves all items, so the interval must be wide however many items there are.
    #[test]
    fn intervals_cover_when_weeks_move_all_items() {
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        let shock = Normal::new(0.0f64, 0.5).unwrap();
        // Shock and noise are normal with mean zero, so half of their sums are negative.
        let noise = Normal::new(0.0, 1.0).unwrap();
        let (mut covered, mut narrow) = (0, 0);
        for _ in 0..200 {
            let weeks: [f64; 4] = std::array::from_fn(|_| shock.sample(&mut rng));
            let mut coverage = Coverage::default();
            for _ in 0..80 {
                coverage.add((0..28).map(|day| {
                    let below = weeks[day as usize / 7] + noise.sample(&mut rng) < 0.0;
                    (day, below, below)
                }));
            }
            let share = coverage.within().unwrap();
            covered += usize::from(share.low <= 0.5 && 0.5 <= share.high);
            narrow += usize::from((share.value - 0.5).abs() <= 1.96 * 0.5 / coverage.days().sqrt());
        }
        assert!(covered >= 180 && narrow < 60, "{covered} and {narrow} of 200");
    }
}
