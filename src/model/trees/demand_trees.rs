//! The trees of the demand, and their file in a bundle.

use super::ensemble::{Ensemble, each_block};
use crate::failure::{Failure, Result};
use crate::model::weights::{tensors_from_bytes, tensors_to_bytes};

/// Names of the numbers of a forecast.
const OUTPUTS: [&str; FORECAST_NUMBERS] = ["mean", "q05", "q10", "q25", "q50", "q75", "q90", "q95"];
/// The mean and seven quantiles.
pub(crate) const FORECAST_NUMBERS: usize = 8;

/// One ensemble for each number of a forecast. Quantiles are scores; the mean is the exponential of a score, as its loss has it
/// (Tweedie).
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SpanTrees(pub(crate) [Ensemble; FORECAST_NUMBERS]);

impl SpanTrees {
    /// Returns the mean and the quantiles of each row of `inputs`, row-major [rows, `features`] with NaN for null: no number is
    /// negative, and quantiles ascend.
    pub(crate) fn forecasts(&self, inputs: &[f32], features: usize) -> Vec<[f64; FORECAST_NUMBERS]> {
        let mut all = vec![[0.0; FORECAST_NUMBERS]; inputs.len() / features.max(1)];
        each_block(inputs, features, |first, count, columns| {
            for (number, ensemble) in self.0.iter().enumerate() {
                let scores = ensemble.score_block(columns);
                for (forecast, score) in all[first..first + count].iter_mut().zip(scores) {
                    forecast[number] = if number == 0 { score.exp() } else { score.max(0.0) };
                }
            }
        });
        all.iter_mut().for_each(|forecast| forecast[1..].sort_by(f64::total_cmp));
        all
    }
}

/// The trees of the days and of the lead times, which have other inputs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DemandTrees {
    pub(crate) days: SpanTrees,
    pub(crate) lead_times: SpanTrees,
}

impl DemandTrees {
    /// Returns a safetensors file with the tensors `trees.<span>.<number>.<part>`.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut named = Vec::new();
        for (span, trees) in [("day", &self.days), ("lead_time", &self.lead_times)] {
            for (output, ensemble) in OUTPUTS.iter().zip(&trees.0) {
                named.extend(ensemble.named_tensors(&format!("trees.{span}.{output}"))?);
            }
        }
        tensors_to_bytes(&named)
    }

    /// Reads the file of [`Self::to_bytes`]. Refuses trees that cannot be scored with these numbers of inputs of a day and of a lead
    /// time.
    pub(crate) fn from_bytes(bytes: &[u8], day_inputs: usize, lead_time_inputs: usize) -> Result<Self> {
        let mut tensors = tensors_from_bytes(bytes)?;
        let mut span = |span: &str, inputs: usize| -> Result<SpanTrees> {
            let mut trees = SpanTrees::default();
            for (output, ensemble) in OUTPUTS.iter().zip(&mut trees.0) {
                let name = format!("trees.{span}.{output}");
                let found = Ensemble::take(&mut tensors, &name, inputs)?;
                *ensemble = found.ok_or_else(|| Failure::model(format!("{name} is missing")))?;
            }
            Ok(trees)
        };
        let trees = Self { days: span("day", day_inputs)?, lead_times: span("lead_time", lead_time_inputs)? };
        match tensors.keys().min() {
            None => Ok(trees),
            Some(name) => Err(Failure::model(format!("{name}: expected trees of days and lead times only"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::perfect_tree::{NODES, PLACES, PerfectTree};
    use super::*;

    /// A tree that tests the second input at 0: `left` below, `right` above.
    fn step(left: f64, right: f64) -> Ensemble {
        let mut tree = PerfectTree {
            feature: [0; NODES],
            threshold: [f32::INFINITY; NODES],
            null_left: [true; NODES],
            value: [left; PLACES],
            cover: [1.0; PLACES],
        };
        tree.feature[0] = 1;
        tree.threshold[0] = 0.0;
        // The right half of each level.
        for level in 1..7 {
            let first = (1 << level) - 1;
            tree.value[first + (1 << (level - 1))..2 * first + 1].fill(right);
        }
        Ensemble::new(vec![tree])
    }

    fn trees() -> SpanTrees {
        let mut trees = SpanTrees::default();
        trees.0[0] = step(0.0, 2f64.ln());
        for (place, ensemble) in trees.0[1..].iter_mut().enumerate() {
            // Quantiles that cross below, and ascend above.
            *ensemble = step(2.0 - place as f64, place as f64);
        }
        trees
    }

    #[test]
    fn means_are_exponentials_and_quantiles_are_put_in_order() {
        let inputs: Vec<f32> = (0..150).flat_map(|row| [f32::NAN, if row % 2 == 0 { -1.0 } else { 1.0 }]).collect();
        let forecasts = trees().forecasts(&inputs, 2);
        assert_eq!(forecasts.len(), 150);
        assert_eq!(forecasts[148], [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0]);
        assert_eq!(forecasts[149][1..], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert!((forecasts[149][0] - 2.0).abs() < 1e-12);
    }

    #[test]
    fn trees_round_trip_through_their_file_and_other_inputs_are_refused() {
        let trees = DemandTrees { days: trees(), lead_times: trees() };
        let bytes = trees.to_bytes().unwrap();
        assert_eq!(DemandTrees::from_bytes(&bytes, 2, 2).unwrap(), trees);
        let failure = DemandTrees::from_bytes(&bytes, 2, 1).unwrap_err();
        assert!(failure.message.contains("trees.lead_time.mean: feature: expected 0 to 0, got 1"), "{failure}");
        assert!(DemandTrees::from_bytes(&bytes[..bytes.len() / 2], 2, 2).is_err());
    }
}
