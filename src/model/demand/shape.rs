//! The sizes, priors, blend and calibration of the demand model.

use serde::{Deserialize, Serialize};

use super::blend::DemandBlend;
use super::calibration::Calibration;
use super::input_sizes::{CLOSED_INPUTS, FUTURE_DAY_INPUTS, INTENT_INPUTS, LEAD_TIME_INPUTS, PAST_DAY_INPUTS};
use super::rate_prior::RatePrior;
use crate::config::networks::DemandNetworkName;

/// The sizes, priors, blend and calibration of the demand model; stored in the bundle's card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DemandShape {
    /// False if training left the demand out (`demand.enabled`): the weights are random, and nothing is forecast.
    #[serde(default = "always")]
    pub trained: bool,
    pub network: DemandNetworkName,
    /// Numbers of a history's state.
    pub width: i64,
    pub layers: i64,
    /// Days that are forecast.
    pub horizon_days: i64,
    /// Days of history that the network reads.
    pub history_days: i64,
    /// Items first seen less than this many days ago get the fallback for new items.
    pub history_days_min: i64,
    /// Items with a lower scale get the quantiles of the count distribution.
    pub slow_units_per_day: f64,
    /// True if the network reads the units that purchase intents of earlier nights predicted. Bundles that predate this input
    /// do not read it, and have no prior and no calibration.
    #[serde(default)]
    pub intents: bool,
    /// True if the network reads which days the shop is closed. Networks of lakes without closed days, and bundles that predate
    /// this input, do not.
    #[serde(default)]
    pub closed_days: bool,
    /// Dimension of the items' content vectors; 0 for a network that reads none, as in bundles that predate this input.
    #[serde(default)]
    pub content_dims: i64,
    /// True if the trees read the day of the year: training saw a whole year.
    #[serde(default)]
    pub trees_read_day_of_year: bool,
    /// Weights of network and trees, of a bundle with trees of the demand.
    #[serde(default)]
    pub blend: DemandBlend,
    /// The prior of new items.
    #[serde(default)]
    pub prior: RatePrior,
    /// The prior of items without a sale in their whole history. Bundles that predate it forecast zero for such items.
    #[serde(default)]
    pub dormant_prior: RatePrior,
    #[serde(default)]
    pub calibration: Calibration,
}

/// Bundles that predate the setting forecast demand.
fn always() -> bool {
    true
}

impl DemandShape {
    /// Returns the number of inputs of one past day.
    pub(super) fn past_day_inputs(&self) -> i64 {
        (PAST_DAY_INPUTS + if self.intents { INTENT_INPUTS } else { 0 }) as i64 + self.closed_inputs()
    }

    /// Returns the number of inputs of one future day.
    pub(super) fn future_day_inputs(&self) -> i64 {
        FUTURE_DAY_INPUTS as i64 + self.closed_inputs()
    }

    /// Returns the number of inputs of a lead time.
    pub(super) fn lead_time_inputs(&self) -> i64 {
        LEAD_TIME_INPUTS as i64 + self.closed_inputs()
    }

    fn closed_inputs(&self) -> i64 {
        if self.closed_days { CLOSED_INPUTS as i64 } else { 0 }
    }
}

#[cfg(test)]
impl DemandShape {
    /// Returns a small shape that tests adapt.
    pub(crate) fn tiny(network: DemandNetworkName) -> Self {
        Self {
            trained: true,
            network,
            width: 8,
            layers: 2,
            horizon_days: 5,
            history_days: 28,
            history_days_min: 14,
            slow_units_per_day: 0.5,
            intents: true,
            closed_days: true,
            content_dims: 3,
            trees_read_day_of_year: false,
            blend: DemandBlend::default(),
            prior: RatePrior::default(),
            dormant_prior: RatePrior { units: 0.02, days: 2.0, spread: 0.0 },
            calibration: Calibration::default(),
        }
    }
}
