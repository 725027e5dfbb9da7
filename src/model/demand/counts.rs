//! Quantiles of the negative binomial, in whole units, for items that rarely sell.

/// Returns the quantiles of ascending `levels` of the negative binomial with this mean and variance mean + mean² / size. Each
/// is the smallest count whose distribution function reaches the level, so they ascend too. All are zero if the mean is zero.
pub(crate) fn quantiles<const N: usize>(mean: f64, size: f64, levels: &[f64; N]) -> [f64; N] {
    if mean <= 0.0 || !mean.is_finite() || size <= 0.0 {
        return [0.0; N];
    }
    let mut walk = CountWalk::new(mean, size);
    let last = mean + 100.0 * (mean + mean * mean / size).sqrt() + 100.0;
    levels.map(|level| {
        // The sum can end a rounding error below 1; the second bound stops the loop then.
        while walk.cumulative < level && walk.count < last {
            walk.step();
        }
        walk.count
    })
}

/// Returns P(demand < `count`) and P(demand <= `count`) of the same distribution.
pub(crate) fn cumulative_bounds(mean: f64, size: f64, count: f64) -> (f64, f64) {
    if mean <= 0.0 || !mean.is_finite() || size <= 0.0 {
        return (f64::from(u8::from(count > 0.0)), 1.0);
    }
    let mut walk = CountWalk::new(mean, size);
    if count < walk.count {
        return (0.0, 0.0);
    }
    while walk.count < count {
        walk.step();
    }
    ((walk.cumulative - walk.density).max(0.0), walk.cumulative.min(1.0))
}

/// The distribution function, evaluated from one count to the next.
struct CountWalk {
    size: f64,
    failure: f64,
    count: f64,
    density: f64,
    cumulative: f64,
}

impl CountWalk {
    fn new(mean: f64, size: f64) -> Self {
        let failure = mean / (mean + size);
        let deviation = (mean + mean * mean / size).sqrt();
        // Ten deviations below the mean, the densities are too small to change a sum of doubles.
        let count = (mean - 10.0 * deviation).max(0.0).floor();
        let start = ln_gamma(count + size) - ln_gamma(size) - ln_gamma(count + 1.0);
        let density = (start + size * (size / (size + mean)).ln() + count * failure.ln()).exp();
        Self { size, failure, count, density, cumulative: density }
    }

    fn step(&mut self) {
        self.density *= (self.count + self.size) / (self.count + 1.0) * self.failure;
        self.count += 1.0;
        self.cumulative += self.density;
    }
}

/// Returns ln Γ(x) for x > 0: Stirling's series after shifting the argument up (Abramowitz and Stegun 6.1.41), to about 1e-13.
/// `statrs` has one too; this one keeps published quantiles equal to the bit.
pub(crate) fn ln_gamma(x: f64) -> f64 {
    let mut y = x;
    let mut shift = 0.0;
    while y < 15.0 {
        shift -= y.ln();
        y += 1.0;
    }
    let square = 1.0 / (y * y);
    let series = (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0))) / y;
    (y - 0.5) * y.ln() - y + 0.5 * std::f64::consts::TAU.ln() + series + shift
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ln_gamma_of_known_values() {
        let mut factorial = 0.0;
        for n in 1..40 {
            assert!((ln_gamma(f64::from(n)) - factorial).abs() < 1e-11 * f64::max(factorial, 1.0), "{n}");
            factorial += f64::from(n).ln();
        }
        assert!((ln_gamma(0.5) - 0.5 * std::f64::consts::PI.ln()).abs() < 1e-12);
    }

    #[test]
    fn a_large_size_is_a_poisson_distribution() {
        // Poisson of mean 2: P(0) 0.135, P(≤1) 0.406, P(≤2) 0.677, P(≤3) 0.857, P(≤4) 0.947, P(≤5) 0.983.
        assert_eq!(quantiles(2.0, 1e9, &[0.1, 0.14, 0.5, 0.7, 0.9, 0.95]), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    }

    #[test]
    fn a_size_of_one_is_a_geometric_distribution() {
        // P(≤k) = 1 - (m / (1 + m))^(k + 1).
        let levels = [0.05, 0.25, 0.5, 0.9, 0.99];
        let mean: f64 = 3.0;
        let wanted = levels.map(|l: f64| ((1.0 - l).ln() / (mean / (1.0 + mean)).ln() - 1.0).ceil().max(0.0));
        assert_eq!(quantiles(mean, 1.0, &levels), wanted);
    }

    proptest! {
        #[test]
        fn a_quantile_is_the_first_count_that_reaches_its_level(mean in 0.01f64..50.0, size in 0.1f64..20.0) {
            let levels = [0.05, 0.5, 0.95];
            for (level, quantile) in levels.iter().zip(quantiles(mean, size, &levels)) {
                let (below, with) = cumulative_bounds(mean, size, quantile);
                prop_assert!(below <= level + 1e-9 && level - 1e-9 <= with, "{below} {level} {with}");
            }
        }

        #[test]
        fn quantiles_are_whole_ordered_and_near_the_mean(mean in 0.001f64..1e5, size in 0.01f64..1e4) {
            let q = quantiles(mean, size, &[0.05, 0.25, 0.5, 0.75, 0.95]);
            prop_assert!(q.windows(2).all(|w| w[0] <= w[1]) && q.iter().all(|k| *k >= 0.0 && k.fract() == 0.0));
            // Cantelli: a 95 % quantile is within 4.4 deviations of the mean, a 5 % quantile below the mean + 0.23.
            let deviation = (mean + mean * mean / size).sqrt();
            prop_assert!(q[4] <= mean + 4.5 * deviation + 1.0 && q[0] <= mean + 0.25 * deviation + 1.0, "{q:?}");
        }
    }
}
