//! The prior distribution of sales rates, for items with little history of their own.

use serde::{Deserialize, Serialize};

use super::forecast::RawForecast;

/// A Gamma prior of an item's sales rate, as if the item had sold `units` in `days`. Zeros mean no prior.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct RatePrior {
    pub units: f64,
    pub days: f64,
    /// Variation between days of one item beyond Poisson sales: their variance is mean + mean² × spread. Zero in bundles
    /// that predate this field.
    #[serde(default)]
    pub spread: f64,
}

impl RatePrior {
    /// Returns the distribution of sales over the next `days` of an item that sold `sold` units in `seen` days in stock.
    ///
    /// Gamma and Poisson give a negative binomial (Gelman et al., "Bayesian Data Analysis", 3rd ed., section 2.6). If days
    /// vary more than Poisson sales, both the estimate of the rate and the days ahead are more uncertain by that amount; the
    /// result is the negative binomial of the same mean and variance. Without a prior, an item that never sold gets zero.
    pub(crate) fn predictive(self, sold: f64, seen: f64, days: i64) -> RawForecast {
        let units = self.units + f64::max(sold, 0.0);
        let seen_days = self.days + seen;
        if units <= 0.0 || seen_days <= 0.0 {
            return RawForecast::Counts { mean: 0.0, size: 0.0 };
        }
        // Per day, the variance of the rate is (rate + spread × rate²) / seen_days and that of the day itself is
        // spread × rate², which averages out over `days`. Divided by rate², their sum is 1 / size.
        let span = days as f64;
        let size = 1.0 / (1.0 / units + self.spread * (1.0 / seen_days + 1.0 / span.max(1.0)));
        RawForecast::Counts { mean: units / seen_days * span, size }
    }
}
