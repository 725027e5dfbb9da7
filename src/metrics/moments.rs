//! Mean and standard deviation of a stream of numbers in one pass (Welford 1962; Knuth, volume 2, section 4.2.2).

/// Running moments. NaN is null and is ignored.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Moments {
    count: u64,
    mean: f64,
    /// Σ (value - mean)².
    squares: f64,
}

impl Moments {
    pub(crate) fn add(&mut self, value: f64) {
        if value.is_nan() {
            return;
        }
        self.count += 1;
        let difference = value - self.mean;
        self.mean += difference / self.count as f64;
        self.squares += difference * (value - self.mean);
    }

    /// Returns the mean; 0 without values.
    pub(crate) fn mean(&self) -> f64 {
        self.mean
    }

    /// Returns the standard deviation of the population; 0 without values.
    pub(crate) fn deviation(&self) -> f64 {
        (self.squares / self.count.max(1) as f64).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn moments_equal_those_of_two_passes(values in prop::collection::vec(-1e6f64..1e6, 0..50)) {
            let mut moments = Moments::default();
            values.iter().for_each(|&v| moments.add(v));
            moments.add(f64::NAN);
            let n = values.len().max(1) as f64;
            let mean = values.iter().sum::<f64>() / n;
            let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
            prop_assert!((moments.mean() - mean).abs() <= 1e-6);
            prop_assert!((moments.deviation() - variance.sqrt()).abs() <= 1e-6 * variance.sqrt().max(1.0));
        }
    }

    #[test]
    fn a_constant_has_zero_deviation() {
        let mut moments = Moments::default();
        (0..1000).for_each(|_| moments.add(0.1 + 1e5));
        assert_eq!(moments.deviation(), 0.0);
    }
}
