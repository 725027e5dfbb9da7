//! How often outcomes lie within what was forecast, with intervals that know that the days of one item hang together, and
//! all items in one week.
//!
//! Demand comes in whole units, so an outcome is often the quantile itself, and no quantile can be reached by exactly its
//! level. One at level p is right when P(demand < q) <= p <= P(demand <= q) (Czado, Gneiting and Held 2009, "Predictive
//! model assessment for count data"), a range of two quantiles likewise; without ties this is the usual coverage.

use super::clustered::Clustered;

/// Places of the two counts: ties left out, and counted in.
const INSIDE: usize = 0;
const WITHIN: usize = 1;

/// Coverage of one quantile, or of a range between two, over many items.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Coverage {
    /// Days, and on how many of them the outcome lay inside and within.
    days: Clustered<2>,
    items: usize,
}

/// A share with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

impl Coverage {
    /// One item's outcomes: the day of each (any count of days that is the same for all items), and whether the outcome
    /// lay inside, and inside or on the bound.
    pub fn add(&mut self, days: impl IntoIterator<Item = (i64, bool, bool)>) {
        let mut some = false;
        for (day, inside, within) in days {
            self.days.add(self.items, day, 1.0, [inside, within].map(|hit| f64::from(u8::from(hit))));
            some = true;
        }
        self.items += usize::from(some);
    }

    pub fn items(&self) -> usize {
        self.items
    }

    pub fn days(&self) -> f64 {
        self.days.whole()
    }

    /// The share of days inside, ties left out; `None` without a day.
    pub fn inside(&self) -> Option<Share> {
        self.share(INSIDE)
    }

    /// The share of days inside or on the bound.
    pub fn within(&self) -> Option<Share> {
        self.share(WITHIN)
    }

    fn share(&self, of: usize) -> Option<Share> {
        let ratio = self.days.ratio(of)?;
        let (value, half) = (ratio.value, ratio.half());
        Some(Share { value, low: (value - half).max(0.0), high: (value + half).min(1.0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, Normal, Poisson};

    #[test]
    fn whole_units_are_right_when_the_level_lies_between_below_and_with() {
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

    /// Items of which each has a rate of its own that its quantile does not know: days of one hang together.
    #[test]
    fn intervals_over_items_cover_where_days_taken_alone_would_not() {
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

    /// Four weeks, each of which moves all items: however many there are, the interval has to be wide.
    #[test]
    fn intervals_cover_where_a_week_moves_all_items() {
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        let shock = Normal::new(0.0f64, 0.5).unwrap();
        // Outcome and shock are normal: of a sum of variance 1.25, half lies below zero.
        let (mut covered, mut narrow, noise) = (0, 0, Normal::new(0.0, 1.0).unwrap());
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
