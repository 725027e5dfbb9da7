//! Calibration of demand forecasts by demand pattern. It is learnt on weeks that no member of the model had seen, stored in the bundle,
//! and applied to every forecast of a day and of a lead time.
//!
//! - Quantiles of network and trees are shifted by conformal scores (Romano, Patterson and Candès 2019, "Conformalized quantile
//!   regression", each level separately as in their theorem 2), in units of the item's scale.
//! - Quantiles of counts are read at other levels (Chernozhukov, Wüthrich and Zhu 2021, "Distributional conformal
//!   prediction"), so they stay whole units.
//! - Means are multiplied by the units sold per unit forecast.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::forecast::{Forecast, QUANTILE_LEVELS, RawForecast, counts_forecast};
use super::pattern::DemandPattern;

/// One number per level of [`QUANTILE_LEVELS`], by demand pattern.
pub(crate) type Corrections = BTreeMap<DemandPattern, [f64; QUANTILE_LEVELS.len()]>;

/// Corrections of daily and lead-time forecasts. A pattern with too few items in the calibration weeks has none.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Calibration {
    /// Added to the network's quantiles of a day, in units of the item's scale.
    #[serde(default)]
    pub(crate) shifts: Corrections,
    /// The levels, ascending, at which quantiles of a day's counts are read.
    #[serde(default)]
    pub(crate) levels: Corrections,
    /// Added to the network's quantiles of a lead time, in units of the item's scale over the lead time.
    #[serde(default)]
    pub(crate) lead_shifts: Corrections,
    /// The levels, ascending, at which quantiles of a lead time's counts are read.
    #[serde(default)]
    pub(crate) lead_levels: Corrections,
    #[serde(default)]
    pub(crate) means: MeanFactors,
    #[serde(default)]
    pub(crate) lead_means: MeanFactors,
}

/// Factors of means by demand pattern. Network quantiles and counts have separate factors, because separate heads predict
/// their means.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct MeanFactors {
    #[serde(default)]
    pub(crate) of_network: BTreeMap<DemandPattern, f64>,
    #[serde(default)]
    pub(crate) of_counts: BTreeMap<DemandPattern, f64>,
}

/// The days that a forecast covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ForecastSpan {
    Day,
    LeadTime,
}

impl Calibration {
    /// Returns the calibrated forecast of an item with this pattern and scale (units over the span).
    pub(crate) fn apply(&self, raw: &RawForecast, span: ForecastSpan, pattern: DemandPattern, scale: f64) -> Forecast {
        let (shifts, levels, means) = match span {
            ForecastSpan::Day => (&self.shifts, &self.levels, &self.means),
            ForecastSpan::LeadTime => (&self.lead_shifts, &self.lead_levels, &self.lead_means),
        };
        let (mut forecast, factors) = match raw {
            RawForecast::Quantiles(forecast) => {
                let calibrated = match shifts.get(&pattern) {
                    Some(shifts) => shift_quantiles(forecast, shifts, scale),
                    None => *forecast,
                };
                (calibrated, &means.of_network)
            }
            RawForecast::Counts { mean, size } => {
                let levels = levels.get(&pattern).unwrap_or(&QUANTILE_LEVELS);
                (counts_forecast(*mean, *size, levels), &means.of_counts)
            }
        };
        forecast[0] *= factors.get(&pattern).unwrap_or(&1.0);
        forecast
    }
}

/// Shifts quantiles. Shifts can make close quantiles cross or fall below zero; the running maximum, at least zero, is the
/// nearest forecast that does not.
fn shift_quantiles(forecast: &Forecast, shifts: &[f64; QUANTILE_LEVELS.len()], scale: f64) -> Forecast {
    let mut shifted = *forecast;
    let mut floor = 0.0;
    for (quantile, shift) in shifted[1..].iter_mut().zip(shifts) {
        *quantile = f64::max(*quantile + shift * scale, floor);
        floor = *quantile;
    }
    shifted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::demand::counts;
    use proptest::prelude::*;

    #[test]
    fn corrections_depend_on_pattern_span_and_kind_of_forecast() {
        let calibration = Calibration {
            shifts: BTreeMap::from([(DemandPattern::Fast, [-9.0, 0.0, 0.0, 0.0, 0.5, 0.0, 1.0])]),
            levels: BTreeMap::from([(DemandPattern::Slow, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])]),
            lead_shifts: BTreeMap::from([(DemandPattern::Fast, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])]),
            means: MeanFactors { of_network: BTreeMap::from([(DemandPattern::Fast, 1.5)]), ..Default::default() },
            lead_means: MeanFactors { of_counts: BTreeMap::from([(DemandPattern::Slow, 0.5)]), ..Default::default() },
            ..Default::default()
        };
        use DemandPattern::{Fast, New, Slow};
        use ForecastSpan::{Day, LeadTime};
        let network = RawForecast::Quantiles([3.0, 1.0, 2.0, 3.0, 4.0, 5.0, 5.5, 6.0]);
        assert_eq!(calibration.apply(&network, Day, Slow, 2.0), network.uncalibrated());
        let shifted = calibration.apply(&network, Day, Fast, 2.0);
        assert_eq!(shifted, [4.5, 0.0, 2.0, 3.0, 4.0, 6.0, 6.0, 8.0], "never negative, never crossing");
        let shifted = calibration.apply(&network, LeadTime, Fast, 14.0);
        assert_eq!(shifted, [3.0, 1.0, 2.0, 3.0, 4.0, 5.0, 5.5, 20.0]);
        let counts = RawForecast::Counts { mean: 3.0, size: 2.0 };
        let calibrated = calibration.apply(&counts, Day, Slow, 1.0);
        assert_eq!(calibrated[1..], counts::quantiles(3.0, 2.0, &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]));
        assert_eq!(calibrated[0], 3.0, "the factor of days belongs to the network");
        let calibrated = calibration.apply(&counts, LeadTime, Slow, 1.0);
        assert_eq!((calibrated[0], &calibrated[1..]), (1.5, &counts.uncalibrated()[1..]));
        assert_eq!(calibration.apply(&counts, Day, New, 1.0), counts.uncalibrated());
    }

    proptest! {
        #[test]
        fn shifted_quantiles_never_cross_or_turn_negative(
            steps in prop::array::uniform7(0.0f64..10.0), shifts in prop::array::uniform7(-5.0f64..5.0), scale in 0.0f64..50.0
        ) {
            let mut sum = 0.0;
            let mut forecast = [1.0; 8];
            for (q, step) in forecast[1..].iter_mut().zip(steps) {
                sum += step;
                *q = sum;
            }
            let shifted = shift_quantiles(&forecast, &shifts, scale);
            prop_assert!(shifted[1] >= 0.0 && shifted[1..].windows(2).all(|w| w[0] <= w[1]), "{shifted:?}");
        }
    }
}
