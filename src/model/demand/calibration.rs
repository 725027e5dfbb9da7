//! How a bundle corrects what its demand network says, by how items sell: learnt on weeks that the network never saw, kept
//! in the bundle, applied to every forecast of a day and of a lead time.
//!
//! Quantiles of the network are shifted by conformal scores (Romano, Patterson and Candès 2019, "Conformalized quantile
//! regression", each level on its own as in their theorem 2), in units of the item's scale. Quantiles of counts are
//! taken at other levels (Chernozhukov, Wüthrich and Zhu 2021, "Distributional conformal prediction"): they stay whole. Means
//! are multiplied by what was sold for each unit that they promised.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::{Forecast, LEVELS, counts};

/// How an item sells; [`super::ItemHistory::speed`] decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speed {
    /// Seen for fewer days than `demand.history_days_min`.
    New,
    /// Without a sale in all of its history.
    Dormant,
    Fast,
    /// Seldom, about as much each time.
    Slow,
    /// Seldom, now little and now much.
    Lumpy,
}

impl Speed {
    pub const ALL: [Speed; 5] = [Self::New, Self::Dormant, Self::Fast, Self::Slow, Self::Lumpy];

    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Dormant => "dormant",
            Self::Fast => "fast",
            Self::Slow => "slow",
            Self::Lumpy => "lumpy",
        }
    }
}

/// Corrections of the quantiles of [`LEVELS`], by how items sell.
pub type Corrections = BTreeMap<Speed, [f64; LEVELS.len()]>;

/// Corrections of both kinds of forecasts; none for a speed of which too few items were seen.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Calibration {
    /// Added to the network's quantiles of a day, in units of the item's scale.
    #[serde(default)]
    pub shifts: Corrections,
    /// The levels, ascending, at which quantiles of counts of a day are taken.
    #[serde(default)]
    pub levels: Corrections,
    /// Added to the network's quantiles of a lead time, in units of what the item's scale makes of its days.
    #[serde(default)]
    pub lead_shifts: Corrections,
    #[serde(default)]
    pub lead_levels: Corrections,
    #[serde(default)]
    pub means: MeanFactors,
    #[serde(default)]
    pub lead_means: MeanFactors,
}

/// What means are multiplied by, by how items sell; those of the network's quantiles and those of counts come from heads
/// of their own.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct MeanFactors {
    #[serde(default)]
    pub of_network: BTreeMap<Speed, f64>,
    #[serde(default)]
    pub of_counts: BTreeMap<Speed, f64>,
}

/// What a forecast is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Span {
    Day,
    LeadTime,
}

impl Calibration {
    /// The corrections of forecasts of this span: shifts, levels of counts, and factors of means.
    fn of(&self, span: Span) -> (&Corrections, &Corrections, &MeanFactors) {
        match span {
            Span::Day => (&self.shifts, &self.levels, &self.means),
            Span::LeadTime => (&self.lead_shifts, &self.lead_levels, &self.lead_means),
        }
    }
}

/// What is known of the rate of an item's sales before it is seen: a Gamma distribution, as if it had sold `units` in
/// `days`. Zero says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct RatePrior {
    pub units: f64,
    pub days: f64,
    /// How far days of one item differ beyond Poisson sales: their variance is mean + mean² × this. Zero in bundles of
    /// before it was learnt.
    #[serde(default)]
    pub spread: f64,
}

impl RatePrior {
    /// What an item sells over `days` that sold `sold` in `seen` days in stock: Gamma and Poisson give a negative binomial
    /// (Gelman et al., "Bayesian Data Analysis", 3rd ed., 2.6); without a prior it is zero for an item that never sold.
    /// Where days differ by more than Poisson sales would, the rate is known less well by as much, and the day to come
    /// differs too: the negative binomial of the same mean and variance.
    pub fn after(self, sold: f64, seen: f64, days: i64) -> Raw {
        let (units, seen) = (self.units + f64::max(sold, 0.0), self.days + seen);
        if units <= 0.0 || seen <= 0.0 {
            return Raw::Counts { mean: 0.0, size: 0.0 };
        }
        // Per day: the rate's variance is (rate + spread × rate²) / seen, the day's own spread × rate²; over days the
        // latter averages. Both in units of rate², as 1 / size counts them.
        let days = days as f64;
        let size = 1.0 / (1.0 / units + self.spread * (1.0 / seen + 1.0 / days.max(1.0)));
        Raw::Counts { mean: units / seen * days, size }
    }
}

/// A forecast before calibration.
#[derive(Debug, Clone, PartialEq)]
pub enum Raw {
    /// Mean and quantiles of the network.
    Quantiles(Forecast),
    /// A negative binomial.
    Counts { mean: f64, size: f64 },
}

impl Raw {
    pub fn mean(&self) -> f64 {
        match self {
            Raw::Quantiles(forecast) => forecast[0],
            Raw::Counts { mean, .. } => *mean,
        }
    }

    /// The forecast, corrected for an item of this `speed` and `scale` (units in the span) where a calibration is given.
    pub fn forecast(&self, calibration: Option<(&Calibration, Span, Speed)>, scale: f64) -> Forecast {
        let corrections = calibration.map(|(calibration, span, speed)| (calibration.of(span), speed));
        let (mut forecast, factor) = match self {
            Raw::Quantiles(forecast) => {
                let moved = match corrections.and_then(|((shifts, ..), speed)| shifts.get(&speed)) {
                    Some(shifts) => shifted(forecast, shifts, scale),
                    None => *forecast,
                };
                (moved, corrections.and_then(|((.., means), speed)| means.of_network.get(&speed)))
            }
            Raw::Counts { mean, size } => {
                let levels = corrections.and_then(|((_, levels, _), speed)| levels.get(&speed)).unwrap_or(&LEVELS);
                let mut forecast = [*mean; super::OUTPUTS];
                forecast[1..].copy_from_slice(&counts::quantiles(*mean, *size, levels));
                (forecast, corrections.and_then(|((.., means), speed)| means.of_counts.get(&speed)))
            }
        };
        forecast[0] *= factor.unwrap_or(&1.0);
        forecast
    }
}

/// Shifts may cross or fall below zero where the network's quantiles lie close; the nearest forecast that does not is the
/// running maximum.
fn shifted(forecast: &Forecast, shifts: &[f64; LEVELS.len()], scale: f64) -> Forecast {
    let mut moved = *forecast;
    let mut floor = 0.0;
    for (quantile, shift) in moved[1..].iter_mut().zip(shifts) {
        *quantile = f64::max(*quantile + shift * scale, floor);
        floor = *quantile;
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn corrections_are_those_of_the_speed_and_the_source() {
        let calibration = Calibration {
            shifts: BTreeMap::from([(Speed::Fast, [-9.0, 0.0, 0.0, 0.0, 0.5, 0.0, 1.0])]),
            levels: BTreeMap::from([(Speed::Slow, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])]),
            lead_shifts: BTreeMap::from([(Speed::Fast, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])]),
            means: MeanFactors { of_network: BTreeMap::from([(Speed::Fast, 1.5)]), ..Default::default() },
            lead_means: MeanFactors { of_counts: BTreeMap::from([(Speed::Slow, 0.5)]), ..Default::default() },
            ..Default::default()
        };
        use Span::{Day, LeadTime};
        let network = Raw::Quantiles([3.0, 1.0, 2.0, 3.0, 4.0, 5.0, 5.5, 6.0]);
        assert_eq!(network.forecast(Some((&calibration, Day, Speed::Slow)), 2.0), network.forecast(None, 2.0));
        let moved = network.forecast(Some((&calibration, Day, Speed::Fast)), 2.0);
        assert_eq!(moved, [4.5, 0.0, 2.0, 3.0, 4.0, 6.0, 6.0, 8.0], "never negative, never crossing");
        let moved = network.forecast(Some((&calibration, LeadTime, Speed::Fast)), 14.0);
        assert_eq!(moved, [3.0, 1.0, 2.0, 3.0, 4.0, 5.0, 5.5, 20.0]);
        let counts = Raw::Counts { mean: 3.0, size: 2.0 };
        let moved = counts.forecast(Some((&calibration, Day, Speed::Slow)), 1.0);
        assert_eq!(moved[1..], counts::quantiles(3.0, 2.0, &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]));
        assert_eq!(moved[0], 3.0, "the factor of days is the network's");
        let moved = counts.forecast(Some((&calibration, LeadTime, Speed::Slow)), 1.0);
        assert_eq!((moved[0], &moved[1..]), (1.5, &counts.forecast(None, 1.0)[1..]));
        assert_eq!(counts.forecast(Some((&calibration, Day, Speed::New)), 1.0), counts.forecast(None, 1.0));
    }

    proptest! {
        #[test]
        fn no_shift_makes_quantiles_cross_or_negative(
            steps in prop::array::uniform7(0.0f64..10.0), shifts in prop::array::uniform7(-5.0f64..5.0), scale in 0.0f64..50.0
        ) {
            let mut sum = 0.0;
            let mut forecast = [1.0; 8];
            for (q, step) in forecast[1..].iter_mut().zip(steps) {
                sum += step;
                *q = sum;
            }
            let moved = shifted(&forecast, &shifts, scale);
            prop_assert!(moved[1] >= 0.0 && moved[1..].windows(2).all(|w| w[0] <= w[1]), "{moved:?}");
        }
    }
}
