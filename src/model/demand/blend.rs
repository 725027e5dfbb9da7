//! Combination of the forecasts of the network and of the trees, number by number.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::calibration::ForecastSpan;
use super::forecast::Forecast;
use super::pattern::DemandPattern;
use crate::failure::{Failure, Result};
use crate::model::trees::FORECAST_NUMBERS;

/// The network's weight in each number of a forecast, 0 to 1, by demand pattern; the trees have the rest. A pattern without weights
/// has equal ones.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DemandBlend {
    #[serde(default)]
    pub(crate) days: NetworkWeights,
    #[serde(default)]
    pub(crate) lead_times: NetworkWeights,
}

pub(crate) type NetworkWeights = BTreeMap<DemandPattern, [f64; FORECAST_NUMBERS]>;

impl DemandBlend {
    /// Returns the weights of the network, the same for each pattern and number.
    pub(crate) fn uniform(network_weight: f64) -> Self {
        let weights: NetworkWeights =
            DemandPattern::ALL.iter().map(|&pattern| (pattern, [network_weight; FORECAST_NUMBERS])).collect();
        Self { days: weights.clone(), lead_times: weights }
    }

    /// Returns the combined forecast. Quantiles are put in order, since each has its own weight.
    pub(super) fn combine(
        &self,
        span: ForecastSpan,
        pattern: DemandPattern,
        network: &Forecast,
        trees: &Forecast,
    ) -> Forecast {
        let weights = match span {
            ForecastSpan::Day => &self.days,
            ForecastSpan::LeadTime => &self.lead_times,
        };
        let weights = weights.get(&pattern).unwrap_or(&[0.5; FORECAST_NUMBERS]);
        let mut combined: Forecast =
            std::array::from_fn(|at| weights[at] * network[at] + (1.0 - weights[at]) * trees[at]);
        combined[1..].sort_by(f64::total_cmp);
        combined
    }

    /// Refuses weights that no training writes.
    pub(crate) fn check(&self) -> Result<()> {
        let all = self.days.values().chain(self.lead_times.values()).flatten();
        match all.into_iter().find(|weight| !(0.0..=1.0).contains(*weight)) {
            Some(weight) => Err(Failure::model(format!("demand.blend: expected weights of 0 to 1, got {weight}"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_depend_on_span_and_pattern_and_quantiles_ascend() {
        let mut blend = DemandBlend::default();
        blend.days.insert(DemandPattern::Fast, [1.0, 0.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5]);
        let network = [10.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
        let trees = [20.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0];
        let combine = |span, pattern| blend.combine(span, pattern, &network, &trees);
        let days = combine(ForecastSpan::Day, DemandPattern::Fast);
        assert_eq!(days, [10.0, 2.0, 4.0, 4.5, 5.5, 6.5, 7.5, 8.5], "2 and 4 crossed");
        let equal = [15.0, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5];
        assert_eq!(combine(ForecastSpan::LeadTime, DemandPattern::Fast), equal);
        assert_eq!(combine(ForecastSpan::Day, DemandPattern::Lumpy), equal);
        assert_eq!(DemandBlend::uniform(1.0).combine(ForecastSpan::Day, DemandPattern::New, &network, &trees), network);
    }

    #[test]
    fn weights_that_no_training_writes_are_refused() {
        assert!(DemandBlend::uniform(0.0).check().is_ok());
        let failure = DemandBlend::uniform(f64::NAN).check().unwrap_err();
        assert!(failure.message.contains("expected weights of 0 to 1, got NaN"), "{failure}");
    }
}
