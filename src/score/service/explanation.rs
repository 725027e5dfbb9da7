//! Says what an intent of a user rests on: shares of the blend's log-odds.

use crate::model::attributions::NetworkAttributions;
use crate::model::blend::{Combination, sigmoid};

/// Shares of the combined log-odds of one intent of one user, before calibration. With the baseline they add up to the log-odds,
/// up to `rest`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Explanation {
    /// The published probability.
    pub(crate) probability: f64,
    pub(crate) log_odds: f64,
    /// Log-odds of an average user whose events say nothing (network) and the mean of the training (trees), by the members' weights.
    pub(crate) baseline_log_odds: f64,
    /// The network's weight; the trees have the rest.
    pub(crate) network_weight: f64,
    /// Calibration: probability = sigmoid(slope · log-odds + intercept).
    pub(crate) slope: f64,
    pub(crate) intercept: f64,
    /// Share of each feature, in the order of the contract.
    pub(crate) features: Vec<f64>,
    /// Share of the time since the last event.
    pub(crate) idle: f64,
    /// Share of each event, oldest first.
    pub(crate) events: Vec<f64>,
    /// Share of the contents of all events, where the network reads their means.
    pub(crate) contents: f64,
    /// Rest that the numerical integral leaves over.
    pub(crate) rest: f64,
}

impl Explanation {
    /// Combines the members: `trees` are shares of each feature and their mean, `combination` is `None` where the network alone
    /// counts.
    pub(super) fn new(
        network: NetworkAttributions,
        trees: Option<(Vec<f64>, f64)>,
        combination: Option<Combination>,
    ) -> Self {
        let (trees, combination) = match (trees, combination) {
            (Some(trees), Some(combination)) => (trees, combination),
            _ => ((Vec::new(), 0.0), Combination::NETWORK),
        };
        let Combination { network_weight: weight, slope, intercept } = combination;
        // Values, their null flags, idle time and its null flag (`Scaling::head_inputs`).
        let features = network.head_inputs.len().saturating_sub(2) / 2;
        let input = |at: usize| network.head_inputs.get(at).copied().unwrap_or_default();
        let (tree_shares, tree_mean) = trees;
        let of_trees = |feature: usize| tree_shares.get(feature).copied().unwrap_or_default();
        let combined = |network: f64, trees: f64| weight * network + (1.0 - weight) * trees;
        let log_odds = combined(network.log_odds, tree_mean + tree_shares.iter().sum::<f64>());
        let mut found = Self {
            probability: sigmoid(slope * log_odds + intercept),
            log_odds,
            baseline_log_odds: combined(network.baseline_log_odds, tree_mean),
            network_weight: weight,
            slope,
            intercept,
            features: (0..features).map(|at| combined(input(at) + input(features + at), of_trees(at))).collect(),
            idle: weight * (input(2 * features) + input(2 * features + 1)),
            events: network.events.iter().map(|share| weight * share).collect(),
            contents: weight * network.contents,
            rest: 0.0,
        };
        let shares = found.features.iter().chain(&found.events).sum::<f64>() + found.idle + found.contents;
        found.rest = found.log_odds - found.baseline_log_odds - shares;
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> NetworkAttributions {
        NetworkAttributions {
            log_odds: 2.0,
            baseline_log_odds: -1.0,
            events: vec![0.5, 1.0],
            contents: 0.25,
            head_inputs: vec![0.5, 0.25, 0.0, -0.25, 0.5, 0.125],
        }
    }

    #[test]
    fn shares_of_both_members_add_up() {
        let combination = Combination { network_weight: 0.75, slope: 2.0, intercept: -1.0 };
        let found = Explanation::new(network(), Some((vec![1.0, -0.5], -0.5)), Some(combination));
        assert_eq!((found.log_odds, found.baseline_log_odds), (1.5, -0.875));
        assert_eq!(found.features, [0.75 * 0.5 + 0.25, -0.125]);
        assert_eq!((found.idle, found.contents), (0.75 * 0.625, 0.75 * 0.25));
        let shares = found.features.iter().chain(&found.events).sum::<f64>() + found.idle + found.contents;
        assert!((found.baseline_log_odds + shares + found.rest - found.log_odds).abs() < 1e-12);
        assert!((found.probability - sigmoid(2.0)).abs() < 1e-12);
    }

    #[test]
    fn without_trees_or_a_blend_the_network_alone_counts() {
        let found = Explanation::new(network(), None, None);
        assert_eq!((found.log_odds, found.network_weight), (2.0, 1.0));
        assert_eq!(Explanation::new(network(), Some((vec![1.0, 1.0], 3.0)), None).log_odds, 2.0);
    }
}
