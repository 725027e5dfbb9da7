//! Errors of point and quantile forecasts.

pub(crate) fn mean_absolute_error(forecasts: &[f64], actual: &[f64]) -> f64 {
    forecasts.iter().zip(actual).map(|(f, a)| (f - a).abs()).sum::<f64>() / actual.len().max(1) as f64
}

pub(crate) fn root_mean_squared_error(forecasts: &[f64], actual: &[f64]) -> f64 {
    let sum: f64 = forecasts.iter().zip(actual).map(|(f, a)| (f - a) * (f - a)).sum();
    (sum / actual.len().max(1) as f64).sqrt()
}

/// Returns the pinball loss of one forecast `quantile` at level `tau` (Koenker and Bassett 1978).
pub fn pinball(tau: f64, quantile: f64, actual: f64) -> f64 {
    let error = actual - quantile;
    (tau * error).max((tau - 1.0) * error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn errors_of_known_forecasts() {
        assert_eq!(mean_absolute_error(&[1.0, 5.0], &[2.0, 2.0]), 2.0);
        assert!((root_mean_squared_error(&[1.0, 5.0], &[2.0, 2.0]) - 5f64.sqrt()).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn pinball_loss_is_smallest_at_the_actual_value(tau in 0.01f64..0.99, actual in 0.0f64..100.0, error in -50.0f64..50.0) {
            prop_assert!(pinball(tau, actual + error, actual) >= pinball(tau, actual, actual));
        }
    }
}
