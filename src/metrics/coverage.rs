//! How often outcomes lie within what was forecast, with intervals that know that the days of one item hang together.
//!
//! Demand comes in whole units, so an outcome is often the quantile itself, and no quantile can be reached by exactly its
//! level. One at level p is right when P(demand < q) <= p <= P(demand <= q) (Czado, Gneiting and Held 2009, "Predictive
//! model assessment for count data"), a range of two quantiles likewise; without ties this is the usual coverage.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const ROUNDS: usize = 400;

/// Days of one item, and on how many of them the outcome lay within, ties left out and ties counted in.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Counts {
    days: f64,
    inside: f64,
    within: f64,
}

/// Coverage of one quantile, or of a range between two, over many items.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Coverage {
    items: Vec<Counts>,
}

/// A share with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

impl Coverage {
    /// One item's days: whether the outcome lay inside, and inside or on the bound.
    pub fn add(&mut self, days: impl IntoIterator<Item = (bool, bool)>) {
        let mut counts = Counts::default();
        for (inside, within) in days {
            counts.days += 1.0;
            counts.inside += f64::from(u8::from(inside));
            counts.within += f64::from(u8::from(within));
        }
        if counts.days > 0.0 {
            self.items.push(counts);
        }
    }

    pub fn items(&self) -> usize {
        self.items.len()
    }

    pub fn days(&self) -> f64 {
        self.items.iter().map(|i| i.days).sum()
    }

    /// The share of days inside, ties left out; `None` without a day.
    pub fn inside(&self, seed: u64) -> Option<Share> {
        self.share(seed, |i| i.inside)
    }

    /// The share of days inside or on the bound.
    pub fn within(&self, seed: u64) -> Option<Share> {
        self.share(seed, |i| i.within)
    }

    /// Whether `level` is what the outcomes say, within sampling error. `None` without a day.
    pub fn holds(&self, level: f64, seed: u64) -> Option<bool> {
        Some(self.inside(seed)?.low <= level && level <= self.within(seed)?.high)
    }

    /// Items drawn whole and with replacement, percentiles (Field and Welsh 2007, "Bootstrapping clustered data").
    fn share(&self, seed: u64, of: impl Fn(&Counts) -> f64) -> Option<Share> {
        let ratio = |drawn: &mut dyn Iterator<Item = &Counts>| {
            let (hits, days) = drawn.fold((0.0, 0.0), |(h, d), i| (h + of(i), d + i.days));
            hits / days
        };
        if self.items.is_empty() {
            return None;
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let n = self.items.len();
        let mut rounds: Vec<f64> =
            (0..ROUNDS).map(|_| ratio(&mut (0..n).map(|_| &self.items[rng.random_range(0..n)]))).collect();
        rounds.sort_by(f64::total_cmp);
        let at = |share: f64| rounds[((ROUNDS - 1) as f64 * share).round() as usize];
        Some(Share { value: ratio(&mut self.items.iter()), low: at(0.025), high: at(0.975) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_distr::{Distribution, Poisson};

    #[test]
    fn whole_units_are_right_when_the_level_lies_between_below_and_with() {
        let mut coverage = Coverage::default();
        assert_eq!((coverage.holds(0.9, 1), coverage.items()), (None, 0));
        for _ in 0..40 {
            coverage.add([0.0, 0.0, 1.0, 1.0, 2.0].map(|sold| (sold < 1.0, sold <= 1.0)));
        }
        assert_eq!((coverage.inside(1).unwrap().value, coverage.within(1).unwrap().value), (0.4, 0.8));
        assert_eq!([0.3, 0.4, 0.6, 0.8, 0.9].map(|l| coverage.holds(l, 1).unwrap()), [false, true, true, true, false]);
    }

    /// Items of which each has a rate of its own that its quantile does not know: days of one hang together.
    #[test]
    fn intervals_over_items_cover_where_days_taken_alone_would_not() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let (mut covered, mut narrow) = (0, 0);
        let truth = 0.5;
        for round in 0..100 {
            let mut coverage = Coverage::default();
            for _ in 0..60 {
                let mean: f64 = if rng.random_bool(truth) { 2.0 } else { 30.0 };
                let sold = Poisson::new(mean).unwrap();
                coverage.add((0..28).map(|_| sold.sample(&mut rng)).map(|sold: f64| (sold < 12.0, sold <= 12.0)));
            }
            let share = coverage.within(round).unwrap();
            covered += usize::from(share.low <= truth && truth <= share.high);
            let alone = 1.96 * (share.value * (1.0 - share.value) / coverage.days()).sqrt();
            narrow += usize::from((share.value - truth).abs() <= alone);
        }
        assert!((88..=99).contains(&covered) && narrow < 60, "{covered} and {narrow} of 100");
    }
}
