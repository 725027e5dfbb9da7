//! Ratios of sums over the days of many items, with standard errors clustered by item and by week.
//!
//! A holiday or a campaign moves all items at once, so a thousand items in four weeks are far fewer independent observations.
//! The variance allows for errors that are shared by item and by calendar week (Cameron, Gelbach and Miller 2011, "Robust
//! inference with multiway clustering", eq. 2.11); the number of weeks enters the degrees of freedom (Satterthwaite 1946, "An
//! approximate distribution of estimates of variance components").

use statrs::distribution::{ContinuousCDF, StudentsT};
use std::collections::{BTreeMap, BTreeSet};

/// With fewer weeks, the variance between weeks cannot be estimated, and the error covers items only.
const WEEKS_MIN: usize = 4;
/// Quantile of the bounds of a 95 % interval.
const UPPER_TAIL: f64 = 0.975;
/// The 97.5 % quantile of the normal distribution, which Student's t approaches.
const NORMAL_QUANTILE: f64 = 1.959_963_984_540_054;
/// From here on the two quantiles agree to six digits.
const FREEDOM_MAX: f64 = 1e6;

/// Sums over items and days: `N` numerators with one common denominator.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ClusteredRatios<const N: usize> {
    /// Sums by item and week.
    cells: BTreeMap<(usize, i64), Cell<N>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Cell<const N: usize> {
    denominator: f64,
    numerators: [f64; N],
}

/// A ratio with its standard error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ratio {
    pub(crate) value: f64,
    pub(crate) error: f64,
    /// Degrees of freedom of `error`.
    freedom: f64,
}

impl<const N: usize> Default for ClusteredRatios<N> {
    fn default() -> Self {
        Self { cells: BTreeMap::new() }
    }
}

impl<const N: usize> ClusteredRatios<N> {
    /// Adds one day of one item. Days count from the same day for all items.
    pub(crate) fn add(&mut self, item: usize, day: i64, denominator: f64, numerators: [f64; N]) {
        let empty = Cell { denominator: 0.0, numerators: [0.0; N] };
        let cell = self.cells.entry((item, day.div_euclid(7))).or_insert(empty);
        cell.denominator += denominator;
        for (sum, numerator) in cell.numerators.iter_mut().zip(numerators) {
            *sum += numerator;
        }
    }

    /// Returns the number of items and weeks with sums.
    pub(crate) fn cells(&self) -> usize {
        self.cells.len()
    }

    /// Returns the number of weeks with sums.
    pub(crate) fn weeks(&self) -> usize {
        self.cells.keys().map(|(_, week)| week).collect::<BTreeSet<_>>().len()
    }

    /// Returns the differences of the numerators from those of another, which has the same items, weeks and denominators.
    pub(crate) fn minus(&self, other: &Self) -> Self {
        let difference = |(key, cell): (&(usize, i64), &Cell<N>)| {
            let others = other.cells.get(key).map_or([0.0; N], |cell| cell.numerators);
            let numerators = std::array::from_fn(|at| cell.numerators[at] - others[at]);
            (*key, Cell { denominator: cell.denominator, numerators })
        };
        Self { cells: self.cells.iter().map(difference).collect() }
    }

    /// Returns the sum of all denominators.
    pub(crate) fn denominator(&self) -> f64 {
        self.cells.values().map(|cell| cell.denominator).sum()
    }

    /// Returns the ratio of one numerator, or `None` if the denominator is zero.
    pub(crate) fn ratio(&self, numerator: usize) -> Option<Ratio> {
        let denominator = self.denominator();
        if denominator <= 0.0 {
            return None;
        }
        let value = self.cells.values().map(|cell| cell.numerators[numerator]).sum::<f64>() / denominator;
        let mut items = BTreeMap::<usize, f64>::new();
        let mut weeks = BTreeMap::<i64, f64>::new();
        let mut within_cells = 0.0;
        for (&(item, week), cell) in &self.cells {
            let error = cell.numerators[numerator] - value * cell.denominator;
            *items.entry(item).or_default() += error;
            *weeks.entry(week).or_default() += error;
            within_cells += error * error;
        }
        let of_items = variance(items.values());
        // Both sums contain the errors of one item in one week, so they are subtracted once.
        let of_weeks = match weeks.len() >= WEEKS_MIN {
            true => (variance(weeks.values()) - within_cells).max(0.0),
            false => 0.0,
        };
        let sum = of_items + of_weeks;
        let share = |part: f64, groups: usize| (part / sum).powi(2) / (groups as f64 - 1.0).max(1.0);
        let freedom = match sum > 0.0 {
            true => 1.0 / (share(of_items, items.len()) + share(of_weeks, weeks.len())),
            false => f64::INFINITY,
        };
        Some(Ratio { value, error: sum.sqrt() / denominator, freedom })
    }
}

impl Ratio {
    /// Returns half the width of the 95 % interval.
    pub(crate) fn half_width(&self) -> f64 {
        student_quantile(self.freedom) * self.error
    }
}

/// Returns the variance of a sum of independent errors of mean zero.
fn variance<'a>(errors: impl ExactSizeIterator<Item = &'a f64>) -> f64 {
    let groups = errors.len() as f64;
    errors.map(|e| e * e).sum::<f64>() * groups / (groups - 1.0).max(1.0)
}

/// Returns the 97.5 % quantile of Student's t distribution with at least one degree of freedom.
fn student_quantile(freedom: f64) -> f64 {
    match StudentsT::new(0.0, 1.0, freedom) {
        Ok(distribution) if freedom < FREEDOM_MAX => distribution.inverse_cdf(UPPER_TAIL),
        _ => NORMAL_QUANTILE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, Gamma, Poisson};

    #[test]
    fn student_quantiles_of_known_degrees_of_freedom() {
        let expected = [
            (1.0, 12.7062),
            (2.0, 4.3027),
            (3.0, 3.1824),
            (5.0, 2.5706),
            (15.0, 2.1314),
            (1e9, 1.9600),
            (f64::INFINITY, 1.9600),
        ];
        for (freedom, quantile) in expected {
            let got = student_quantile(freedom);
            assert!((got / quantile - 1.0).abs() < 1e-4, "{freedom}: {got}");
        }
    }

    /// Items differ in size: the ratio is that of the sums, not the mean of the items' ratios.
    #[test]
    fn intervals_of_sales_over_forecasts_cover_the_true_ratio() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        assert_eq!(ClusteredRatios::<1>::default().ratio(0), None);
        let rates = Gamma::new(1.0, 2.0).unwrap();
        let mut covered = 0;
        for _ in 0..200 {
            let mut sums = ClusteredRatios::default();
            for item in 0..80 {
                let forecast = f64::max(rates.sample(&mut rng), 1e-3);
                let sold = Poisson::new(forecast * 0.7).unwrap();
                (0..28).for_each(|day| sums.add(item, day, forecast, [sold.sample(&mut rng)]));
            }
            let found = sums.ratio(0).unwrap();
            covered += usize::from((found.value - 0.7).abs() <= found.half_width());
        }
        assert!((180..=198).contains(&covered), "{covered} of 200");
    }
}
