//! The published probability of an intent: the network's and the trees', combined on the logit scale and calibrated.
//!
//! logit p = slope · (w · logit p_network + (1 − w) · logit p_trees) + intercept, with a weight `w` by activity of the user.
//! Training learns all of these on validation users (`training::intents`).

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;

use crate::failure::{Failure, Result};
use crate::features::contract::FeatureContract;
use crate::model::inputs::signed_log;
use crate::model::targets::{BINARY, OUTPUTS, TARGETS};

/// The feature that decides how active a user is.
const ACTIVITY: &str = "events_28d";
/// A feature that is null for users without any event, whom training never saw.
const LAST_EVENT: &str = "recency_hours";
/// Users with at least so many events within 28 days are the most active class.
pub(crate) const ACTIVE_EVENTS: f64 = 10.0;
/// Classes of activity: no event within 28 days, few, many.
pub(crate) const CLASSES: usize = 3;
/// Probabilities closer to 0 or 1 than this count as this close, so that their logits are finite.
const PROBABILITY_MIN: f64 = 1e-7;

/// The members' weights and the calibration of each binary target that has trees, by the target's name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Blend(pub(crate) BTreeMap<String, TargetBlend>);

impl Blend {
    /// Refuses numbers that no training writes, and targets that have no trees.
    pub(crate) fn check(&self, has_trees: impl Fn(usize) -> bool) -> Result<()> {
        for (name, blend) in &self.0 {
            let refuse = |text: String| Err(Failure::model(format!("blend of {name}: {text}")));
            let target = TARGETS[..BINARY].iter().position(|target| target.name == name);
            if !target.is_some_and(&has_trees) {
                return refuse("expected a target that has trees".into());
            }
            if let Some(weight) = blend.network_weights.iter().find(|weight| !(0.0..=1.0).contains(*weight)) {
                return refuse(format!("network_weights: expected 0 to 1, got {weight}"));
            }
            if !(blend.slope > 0.0 && blend.slope.is_finite() && blend.intercept.is_finite()) {
                return refuse(format!(
                    "expected a positive slope and a finite intercept, got {} and {}",
                    blend.slope, blend.intercept
                ));
            }
        }
        Ok(())
    }
}

/// The members' weights and the calibration of one target.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct TargetBlend {
    /// The network's weight, 0 to 1, for users without an event within 28 days, with fewer than ten, with more. The trees have
    /// the rest.
    pub(crate) network_weights: [f64; CLASSES],
    /// Calibration: the factor of the combined log-odds.
    pub(crate) slope: f64,
    /// Calibration: what is added to them.
    pub(crate) intercept: f64,
}

impl TargetBlend {
    /// Returns the combined log-odds, before calibration.
    pub(crate) fn combined(network_weight: f64, network: f64, trees: f64) -> f64 {
        network_weight * network + (1.0 - network_weight) * trees
    }

    /// Returns the published probability from the members' log-odds.
    pub(crate) fn probability(&self, class: usize, network: f64, trees: f64) -> f64 {
        let combined = Self::combined(self.network_weights[class], network, trees);
        sigmoid(self.slope * combined + self.intercept)
    }
}

/// The probability of log-odds.
pub(crate) fn sigmoid(log_odds: f64) -> f64 {
    1.0 / (1.0 + (-log_odds).exp())
}

/// The logit of a probability.
pub(crate) fn logit(probability: f64) -> f64 {
    let inside = probability.clamp(PROBABILITY_MIN, 1.0 - PROBABILITY_MIN);
    (inside / (1.0 - inside)).ln()
}

/// Tells how active a user is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Activity {
    /// The position of [`ACTIVITY`] among the features; `None` where another feature set has no such column.
    column: Option<usize>,
    last_event: Option<usize>,
    active_from: f32,
}

impl Activity {
    pub(crate) fn new(features: &FeatureContract) -> Self {
        let position = |name: &str| features.0.iter().position(|column| column.name == name);
        Self { column: position(ACTIVITY), last_event: position(LAST_EVENT), active_from: signed_log(ACTIVE_EVENTS) }
    }

    /// Returns the class of a user by tabular features; `None` for a user without any event. All others are one class where the
    /// features don't count events.
    pub(crate) fn class(self, tabular: &[f32]) -> Option<usize> {
        if self.last_event.is_some_and(|column| tabular[column].is_nan()) {
            return None;
        }
        Some(match self.column.map(|column| tabular[column]) {
            None => 0,
            Some(events) if events >= self.active_from => 2,
            Some(events) if events > 0.0 => 1,
            Some(_) => 0,
        })
    }
}

/// Outputs of each member alone, row-major [rows, binary targets].
#[derive(Debug, Clone, Default)]
pub(crate) struct MemberOutputs {
    /// Probabilities.
    pub(crate) network: Vec<f32>,
    /// Log-odds; NaN for a target without trees. Empty for a bundle without trees.
    pub(crate) trees: Vec<f64>,
}

impl MemberOutputs {
    /// Returns those of some rows.
    pub(crate) fn rows(&self, rows: Range<usize>) -> Self {
        let places = rows.start * BINARY..rows.end * BINARY;
        Self {
            network: self.network.get(places.clone()).unwrap_or_default().to_vec(),
            trees: self.trees.get(places).unwrap_or_default().to_vec(),
        }
    }
}

/// Turns the members' log-odds of one target into a probability, for users of one class of activity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Combination {
    pub(crate) network_weight: f64,
    pub(crate) slope: f64,
    pub(crate) intercept: f64,
}

impl Combination {
    /// The network's own probability.
    pub(crate) const NETWORK: Self = Self { network_weight: 1.0, slope: 1.0, intercept: 0.0 };
}

/// Everything that turns members' outputs into published probabilities.
#[derive(Debug, Clone)]
pub(crate) struct Blender {
    targets: [Option<TargetBlend>; BINARY],
    activity: Activity,
}

impl Blender {
    pub(crate) fn new(blend: &Blend, features: &FeatureContract) -> Self {
        let targets = std::array::from_fn(|target| blend.0.get(TARGETS[target].name).copied());
        Self { targets, activity: Activity::new(features) }
    }

    /// Returns how a target's members are combined for a row; `None` where the network alone counts, as [`Self::blend`] has it.
    pub(crate) fn combination(&self, target: usize, tabular: &[f32]) -> Option<Combination> {
        let (blend, class) = (self.targets[target]?, self.activity.class(tabular)?);
        let TargetBlend { network_weights, slope, intercept } = blend;
        Some(Combination { network_weight: network_weights[class], slope, intercept })
    }

    /// Replaces the network's probabilities in `scores`, row-major [rows, targets], by the published ones. `trees` holds the
    /// trees' log-odds, row-major [rows, binary targets], and `tabular` the features of the rows. Returns what the members say.
    pub(crate) fn blend(&self, scores: &mut [f32], trees: Vec<f64>, tabular: &[f32]) -> MemberOutputs {
        let rows = scores.len() / OUTPUTS.len();
        let features = tabular.len() / rows.max(1);
        let network = scores.chunks(OUTPUTS.len()).flat_map(|row| &row[..BINARY]).copied().collect();
        for row in 0..rows {
            // Trees read a null where training had none as zero: as if the last event had just happened.
            let Some(class) = self.activity.class(&tabular[row * features..(row + 1) * features]) else { continue };
            for (target, blend) in self.targets.iter().enumerate() {
                let Some(blend) = blend else { continue };
                // A card may name a target whose trees the bundle lacks.
                let Some(log_odds) = trees.get(row * BINARY + target).filter(|odds| !odds.is_nan()) else { continue };
                let score = &mut scores[row * OUTPUTS.len() + target];
                let network = logit(f64::from(*score));
                *score = blend.probability(class, network, *log_odds) as f32;
            }
        }
        MemberOutputs { network, trees }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::contract::FeatureColumn;
    use crate::model::targets::PURCHASE;

    fn contract(names: &[&str]) -> FeatureContract {
        FeatureContract(names.iter().map(|&name| FeatureColumn { name: name.into(), dtype: "Int64".into() }).collect())
    }

    #[test]
    fn users_are_classed_by_their_events_of_28_days() {
        let activity = Activity::new(&contract(&["events_7d", "events_28d"]));
        let class = |events: f64| activity.class(&[signed_log(3.0), signed_log(events)]);
        assert_eq!([0.0, 1.0, 9.0, 10.0, 500.0].map(class), [0, 1, 1, 2, 2].map(Some));
        assert_eq!(activity.class(&[0.0, f32::NAN]), Some(0));
        assert_eq!(Activity::new(&contract(&["spend"])).class(&[5.0]), Some(0));
    }

    #[test]
    fn users_without_any_event_are_left_to_the_network() {
        let blend = TargetBlend { network_weights: [0.0; CLASSES], slope: 1.0, intercept: 0.0 };
        let blends = Blend(BTreeMap::from([("purchase".to_string(), blend)]));
        let blender = Blender::new(&blends, &contract(&["recency_hours"]));
        let mut scores = vec![0.2f32; 2 * OUTPUTS.len()];
        blender.blend(&mut scores, vec![logit(0.8); 2 * BINARY], &[signed_log(5.0), f32::NAN]);
        assert!((scores[PURCHASE] - 0.8).abs() < 1e-6);
        assert_eq!(scores[OUTPUTS.len() + PURCHASE], 0.2);
    }

    #[test]
    fn only_targets_with_a_blend_change_and_weights_of_the_class_count() {
        let blend = TargetBlend { network_weights: [1.0, 0.5, 0.0], slope: 1.0, intercept: 0.0 };
        let blends = Blend(BTreeMap::from([("purchase".to_string(), blend)]));
        let blender = Blender::new(&blends, &contract(&["events_28d"]));
        let published = |events: f64| {
            let mut scores = vec![0.2f32; OUTPUTS.len()];
            blender.blend(&mut scores, vec![logit(0.8); BINARY], &[signed_log(events)]);
            assert!(scores.iter().enumerate().all(|(target, &score)| target == PURCHASE || score == 0.2));
            f64::from(scores[PURCHASE])
        };
        for (events, expected) in [(0.0, 0.2), (5.0, 0.5), (20.0, 0.8)] {
            assert!((published(events) - expected).abs() < 1e-6, "{events} events: {}", published(events));
        }
    }

    #[test]
    fn numbers_that_no_training_writes_are_refused() {
        let good = TargetBlend { network_weights: [0.0, 0.5, 1.0], slope: 0.9, intercept: -0.1 };
        let refused = |name: &str, blend: TargetBlend| {
            let blends = Blend(BTreeMap::from([(name.to_string(), blend)]));
            blends.check(|target| target == PURCHASE).err().map(|failure| failure.message)
        };
        assert_eq!(refused("purchase", good), None);
        for (name, blend, part) in [
            ("purchase", TargetBlend { slope: -1.0, ..good }, "positive slope"),
            ("purchase", TargetBlend { network_weights: [0.0, 1.5, 0.0], ..good }, "expected 0 to 1, got 1.5"),
            ("cart", good, "blend of cart: expected a target that has trees"),
            ("purchse", good, "blend of purchse: expected a target"),
        ] {
            let message = refused(name, blend).unwrap();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn certain_probabilities_have_finite_logits() {
        assert!(logit(0.0).is_finite() && logit(1.0).is_finite());
        assert!((logit(0.0) + logit(1.0)).abs() < 1e-6);
        assert_eq!(logit(0.5), 0.0);
    }
}
