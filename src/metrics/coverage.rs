//! How often outcomes lie within what was forecast, with intervals that know that the days of one item hang together, and
//! all items in one week.
//!
//! Demand comes in whole units, so an outcome is often the quantile itself, and no quantile can be reached by exactly its
//! level. One at level p is right when P(demand < q) <= p <= P(demand <= q) (Czado, Gneiting and Held 2009, "Predictive
//! model assessment for count data"), a range of two quantiles likewise; without ties this is the usual coverage.
//!
//! A holiday or a campaign moves all items at once, so a thousand items in four weeks say less than their number. The
//! variance is that of ratios whose errors are shared by item and by calendar week (Cameron, Gelbach and Miller 2011,
//! "Robust inference with multiway clustering", eq. 2.11); how few weeks there are goes into the degrees of freedom
//! (Satterthwaite 1946, "An approximate distribution of estimates of variance components").

use std::collections::BTreeMap;

/// Fewer weeks cannot show how far weeks differ: the interval is then over items alone.
const WEEKS_MIN: usize = 4;
/// The normal distribution's 97.5 % quantile.
const Z: f64 = 1.959_964;

/// Days of one item in one week, and on how many of them the outcome lay within, ties left out and ties counted in.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Counts {
    days: f64,
    inside: f64,
    within: f64,
}

/// Coverage of one quantile, or of a range between two, over many items.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Coverage {
    /// By item and week.
    cells: BTreeMap<(usize, i64), Counts>,
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
        let before = self.cells.len();
        for (day, inside, within) in days {
            let counts = self.cells.entry((self.items, day.div_euclid(7))).or_default();
            counts.days += 1.0;
            counts.inside += f64::from(u8::from(inside));
            counts.within += f64::from(u8::from(within));
        }
        self.items += usize::from(self.cells.len() > before);
    }

    pub fn items(&self) -> usize {
        self.items
    }

    pub fn days(&self) -> f64 {
        self.cells.values().map(|c| c.days).sum()
    }

    /// The share of days inside, ties left out; `None` without a day.
    pub fn inside(&self) -> Option<Share> {
        self.share(|c| c.inside)
    }

    /// The share of days inside or on the bound.
    pub fn within(&self) -> Option<Share> {
        self.share(|c| c.within)
    }

    fn share(&self, of: impl Fn(&Counts) -> f64) -> Option<Share> {
        let days = self.days();
        if days <= 0.0 {
            return None;
        }
        let value = self.cells.values().map(&of).sum::<f64>() / days;
        let (mut items, mut weeks) = (BTreeMap::<usize, f64>::new(), BTreeMap::<i64, f64>::new());
        let mut of_cells = 0.0;
        for (&(item, week), counts) in &self.cells {
            let error = of(counts) - value * counts.days;
            *items.entry(item).or_default() += error;
            *weeks.entry(week).or_default() += error;
            of_cells += error * error;
        }
        let of_items = variance(items.values());
        // What weeks add beyond the errors that belong to one item in one week, which both sums hold.
        let of_weeks = match weeks.len() >= WEEKS_MIN {
            true => (variance(weeks.values()) - of_cells).max(0.0),
            false => 0.0,
        };
        let sum = of_items + of_weeks;
        let share_of = |part: f64, groups: usize| (part / sum).powi(2) / (groups as f64 - 1.0).max(1.0);
        let freedom = match sum > 0.0 {
            true => 1.0 / (share_of(of_items, items.len()) + share_of(of_weeks, weeks.len())),
            false => f64::INFINITY,
        };
        let half = student(freedom) * sum.sqrt() / days;
        Some(Share { value, low: (value - half).max(0.0), high: (value + half).min(1.0) })
    }
}

/// Of a sum of independent errors of mean zero.
fn variance<'a>(errors: impl ExactSizeIterator<Item = &'a f64>) -> f64 {
    let groups = errors.len() as f64;
    errors.map(|e| e * e).sum::<f64>() * groups / (groups - 1.0).max(1.0)
}

/// The 97.5 % quantile of Student's distribution (Abramowitz and Stegun 26.7.5), to a percent from three degrees of
/// freedom on.
fn student(freedom: f64) -> f64 {
    let (z, z3, z5, z7) = (Z, Z.powi(3), Z.powi(5), Z.powi(7));
    z + (z3 + z) / (4.0 * freedom)
        + (5.0 * z5 + 16.0 * z3 + 3.0 * z) / (96.0 * freedom.powi(2))
        + (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * z) / (384.0 * freedom.powi(3))
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

    #[test]
    fn student_of_known_values() {
        for (freedom, wanted) in [(3.0, 3.182), (5.0, 2.571), (15.0, 2.131), (1e9, 1.960)] {
            assert!((student(freedom) / wanted - 1.0).abs() < 0.01, "{freedom}: {}", student(freedom));
        }
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
