//! Forecasts of one item, before and after calibration.

use super::counts;
use crate::metrics::pinball;
use crate::model::trees::FORECAST_NUMBERS;

/// Levels of the forecast quantiles, ascending.
pub(crate) const QUANTILE_LEVELS: [f64; 7] = [0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95];
/// One forecast in units: the mean, then the quantiles of [`QUANTILE_LEVELS`].
pub(crate) type Forecast = [f64; FORECAST_NUMBERS];

/// Place of the median in a forecast.
pub(crate) const Q50: usize = 4;
/// Place of the 90 % quantile in a forecast.
pub(crate) const Q90: usize = 6;

/// Returns the pinball loss of a forecast, the mean over its quantiles.
pub(crate) fn mean_pinball(forecast: &Forecast, units: f64) -> f64 {
    let levels = QUANTILE_LEVELS.iter().zip(&forecast[1..]);
    levels.map(|(&level, &quantile)| pinball(level, quantile, units)).sum::<f64>() / QUANTILE_LEVELS.len() as f64
}

/// The calibrated forecasts of one item.
#[derive(Debug, Clone)]
pub struct ItemForecast {
    /// One forecast per day of the horizon.
    pub daily: Vec<Forecast>,
    /// The forecast of the total over the lead time.
    pub(crate) lead_time: Forecast,
}

/// One forecast before calibration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RawForecast {
    /// Mean and quantiles of the network.
    Quantiles(Forecast),
    /// A negative binomial with variance mean + mean² / size.
    Counts { mean: f64, size: f64 },
}

impl RawForecast {
    pub(crate) fn mean(&self) -> f64 {
        match self {
            RawForecast::Quantiles(forecast) => forecast[0],
            RawForecast::Counts { mean, .. } => *mean,
        }
    }

    /// Returns mean and quantiles without calibration, which tests compare with.
    #[cfg(test)]
    pub(crate) fn uncalibrated(&self) -> Forecast {
        match self {
            RawForecast::Quantiles(forecast) => *forecast,
            RawForecast::Counts { mean, size } => counts_forecast(*mean, *size, &QUANTILE_LEVELS),
        }
    }
}

/// Returns the mean of a negative binomial and its quantiles of `levels`.
pub(super) fn counts_forecast(mean: f64, size: f64, levels: &[f64; QUANTILE_LEVELS.len()]) -> Forecast {
    let mut forecast = [mean; FORECAST_NUMBERS];
    forecast[1..].copy_from_slice(&counts::quantiles(mean, size, levels));
    forecast
}

/// The forecasts of one item before calibration.
#[derive(Debug, Clone)]
pub(crate) struct RawItemForecast {
    pub(crate) daily: Vec<RawForecast>,
    pub(crate) lead_time: RawForecast,
}
