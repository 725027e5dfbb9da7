//! Ratios of sums over many items' days, and how far chance moves them: days of one item hang together, and all items in one
//! week.
//!
//! A holiday or a campaign moves all items at once, so a thousand items in four weeks say less than their number. The
//! variance is that of ratios whose errors are shared by item and by calendar week (Cameron, Gelbach and Miller 2011,
//! "Robust inference with multiway clustering", eq. 2.11); how few weeks there are goes into the degrees of freedom
//! (Satterthwaite 1946, "An approximate distribution of estimates of variance components").

use std::collections::BTreeMap;

/// Fewer weeks cannot show how far weeks differ: the error is then over items alone.
const WEEKS_MIN: usize = 4;
/// The normal distribution's 97.5 % quantile.
const Z: f64 = 1.959_964;

/// `N` sums, each to be divided by the same other sum.
#[derive(Debug, Clone, PartialEq)]
pub struct Clustered<const N: usize> {
    /// By item and week: what is divided by, and what is divided.
    cells: BTreeMap<(usize, i64), (f64, [f64; N])>,
}

/// A ratio, its standard error, and how many degrees of freedom that has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    pub value: f64,
    pub error: f64,
    freedom: f64,
}

impl<const N: usize> Default for Clustered<N> {
    fn default() -> Self {
        Self { cells: BTreeMap::new() }
    }
}

impl<const N: usize> Clustered<N> {
    /// `day`: any count of days that is the same for all items.
    pub fn add(&mut self, item: usize, day: i64, of: f64, parts: [f64; N]) {
        let cell = self.cells.entry((item, day.div_euclid(7))).or_insert((0.0, [0.0; N]));
        cell.0 += of;
        cell.1.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part);
    }

    /// What is divided by.
    pub fn whole(&self) -> f64 {
        self.cells.values().map(|(of, _)| of).sum()
    }

    /// The ratio of one of the sums; `None` where there is nothing to divide by.
    pub fn ratio(&self, part: usize) -> Option<Ratio> {
        let whole = self.whole();
        if whole <= 0.0 {
            return None;
        }
        let value = self.cells.values().map(|(_, parts)| parts[part]).sum::<f64>() / whole;
        let (mut items, mut weeks) = (BTreeMap::<usize, f64>::new(), BTreeMap::<i64, f64>::new());
        let mut of_cells = 0.0;
        for (&(item, week), (of, parts)) in &self.cells {
            let error = parts[part] - value * of;
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
        Some(Ratio { value, error: sum.sqrt() / whole, freedom })
    }
}

impl Ratio {
    /// Half of the 95 % interval.
    pub fn half(&self) -> f64 {
        student(self.freedom) * self.error
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
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, Gamma, Poisson};

    #[test]
    fn student_of_known_values() {
        for (freedom, wanted) in [(3.0, 3.182), (5.0, 2.571), (15.0, 2.131), (1e9, 1.960)] {
            assert!((student(freedom) / wanted - 1.0).abs() < 0.01, "{freedom}: {}", student(freedom));
        }
    }

    /// Sums of unlike size: the ratio is that of the sums, not the mean of the items' ratios.
    #[test]
    fn what_was_sold_over_what_was_forecast_is_known_as_well_as_the_interval_says() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        assert_eq!(Clustered::<1>::default().ratio(0), None);
        let rates = Gamma::new(1.0, 2.0).unwrap();
        let mut covered = 0;
        for _ in 0..200 {
            let mut sums = Clustered::default();
            for item in 0..80 {
                let forecast = f64::max(rates.sample(&mut rng), 1e-3);
                let sold = Poisson::new(forecast * 0.7).unwrap();
                (0..28).for_each(|day| sums.add(item, day, forecast, [sold.sample(&mut rng)]));
            }
            let found = sums.ratio(0).unwrap();
            covered += usize::from((found.value - 0.7).abs() <= found.half());
        }
        assert!((180..=198).contains(&covered), "{covered} of 200");
    }
}
