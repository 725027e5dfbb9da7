//! Errors of point and quantile forecasts.

pub(crate) fn mean_absolute_error(forecasts: &[f64], actual: &[f64]) -> f64 {
    forecasts.iter().zip(actual).map(|(f, a)| (f - a).abs()).sum::<f64>() / actual.len().max(1) as f64
}

pub(crate) fn root_mean_squared_error(forecasts: &[f64], actual: &[f64]) -> f64 {
    let sum: f64 = forecasts.iter().zip(actual).map(|(f, a)| (f - a) * (f - a)).sum();
    (sum / actual.len().max(1) as f64).sqrt()
}

/// Returns the mean absolute change of a series from one season to the next, which scaled errors divide by (Hyndman and Koehler 2006,
/// "Another look at measures of forecast accuracy", section 2.3 with a season); `None` for a shorter series.
pub(crate) fn mean_absolute_change(series: &[f64], season: usize) -> Option<f64> {
    let changes = series.len().checked_sub(season).filter(|&changes| changes > 0)?;
    Some((season..series.len()).map(|at| (series[at] - series[at - season]).abs()).sum::<f64>() / changes as f64)
}

/// Returns the mean squared change of a series from one day to the next, from its first day that is not zero on: the scale of the root
/// mean squared scaled error (M5 competition, Makridakis, Spiliotis and Assimakopoulos 2022); `None` for a shorter series.
pub(crate) fn mean_squared_change(series: &[f64]) -> Option<f64> {
    let first = series.iter().position(|&value| value != 0.0)?;
    let series = &series[first..];
    let changes = series.windows(2).map(|days| (days[1] - days[0]).powi(2));
    (series.len() > 1).then(|| changes.sum::<f64>() / (series.len() - 1) as f64)
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

    #[test]
    fn scales_are_those_of_the_published_formulas() {
        let series = [0.0, 0.0, 2.0, 5.0, 1.0];
        assert_eq!(mean_absolute_change(&series, 2), Some((2.0 + 5.0 + 1.0) / 3.0));
        assert_eq!(mean_squared_change(&series), Some((9.0 + 16.0) / 2.0), "days before the first sale do not count");
        assert_eq!((mean_absolute_change(&series, 5), mean_squared_change(&[0.0; 9])), (None, None));
        assert_eq!(mean_squared_change(&[0.0, 3.0]), None);
    }

    proptest! {
        #[test]
        fn pinball_loss_is_smallest_at_the_actual_value(tau in 0.01f64..0.99, actual in 0.0f64..100.0, error in -50.0f64..50.0) {
            prop_assert!(pinball(tau, actual + error, actual) >= pinball(tau, actual, actual));
        }
    }
}
