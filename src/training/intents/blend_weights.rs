//! Learns the weights of the network and of the trees, and the calibration, on validation users: they are held out from the
//! weights and splits of both, but have chosen the numbers of epochs and of trees.

use std::collections::BTreeMap;

use crate::model::blend::{CLASSES, TargetBlend, sigmoid};

/// Pull of a target's weight towards one half, in nats at a distance of one: some hundred users with the label overcome it.
const EQUAL_PULL: f64 = 10.0;
/// Pull of a class's weight towards that of all users.
const CLASS_PULL: f64 = 20.0;
/// Pull of the calibration towards leaving the log-odds as they are.
const SLOPE_PULL: f64 = 20.0;
const INTERCEPT_PULL: f64 = 5.0;
/// Steps of the search for a weight; each leaves 62 % of the interval.
const SEARCH_STEPS: usize = 24;
const NEWTON_STEPS: usize = 25;
/// With fewer rows of either class no member is left out: one that scores low looks better where hardly anyone did it.
const CLASS_USERS_MIN: usize = 10;
/// Standard errors by which a member has to be better than the blend to replace it.
const BETTER_ERRORS: f64 = 1.96;

/// A user of the validation split as the members score it.
#[derive(Debug, Clone, Copy)]
pub(super) struct MemberScores<'a> {
    pub(super) user_id: &'a str,
    /// Class of activity.
    pub(super) class: usize,
    /// Log-odds.
    pub(super) network: f64,
    pub(super) trees: f64,
    pub(super) label: bool,
}

impl MemberScores<'_> {
    fn combined(&self, network_weight: f64) -> f64 {
        TargetBlend::combined(network_weight, self.network, self.trees)
    }
}

/// Fits the blend of one target: a weight for all users, from it one for each class, and the calibration. If one member alone is
/// better beyond the 95 % interval of the paired difference, it gets all the weight.
pub(super) fn fit(users: &[MemberScores<'_>]) -> TargetBlend {
    let overall = best_weight(users.iter(), 0.5, EQUAL_PULL);
    let mut network_weights: [f64; CLASSES] =
        std::array::from_fn(|class| best_weight(users.iter().filter(|user| user.class == class), overall, CLASS_PULL));
    let positives = users.iter().filter(|user| user.label).count();
    let both_classes = positives.min(users.len() - positives) >= CLASS_USERS_MIN;
    for alone in [0.0, 1.0] {
        if both_classes && is_better(users, alone, &network_weights) {
            network_weights = [alone; CLASSES];
        }
    }
    let (slope, intercept) = calibration(users, &network_weights);
    TargetBlend { network_weights, slope, intercept }
}

/// Cross-entropy of a label in nats, from log-odds.
fn loss(log_odds: f64, label: bool) -> f64 {
    let wrong = if label { -log_odds } else { log_odds };
    wrong.max(0.0) + (-wrong.abs()).exp().ln_1p()
}

/// The network's weight with the lowest loss, pulled towards `prior`. The loss is convex in the weight, so a golden section
/// search finds it.
fn best_weight<'a>(users: impl Iterator<Item = &'a MemberScores<'a>> + Clone, prior: f64, pull: f64) -> f64 {
    let cost = |weight: f64| {
        let losses: f64 = users.clone().map(|user| loss(user.combined(weight), user.label)).sum();
        losses + pull * (weight - prior).powi(2)
    };
    let golden = (5f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..SEARCH_STEPS {
        let (left, right) = (high - golden * (high - low), low + golden * (high - low));
        match cost(left) <= cost(right) {
            true => high = right,
            false => low = left,
        }
    }
    (low + high) / 2.0
}

/// Returns whether a member alone has a lower loss than the blend beyond chance. Rows of one user at several dates are one draw.
fn is_better(users: &[MemberScores<'_>], alone: f64, network_weights: &[f64; CLASSES]) -> bool {
    // Ordered, so that sums are the same to the bit.
    let mut by_user: BTreeMap<&str, f64> = BTreeMap::new();
    for user in users {
        let blended = loss(user.combined(network_weights[user.class]), user.label);
        *by_user.entry(user.user_id).or_default() += blended - loss(user.combined(alone), user.label);
    }
    let count = by_user.len() as f64;
    let mean = by_user.values().sum::<f64>() / count;
    let variance = by_user.values().map(|difference| (difference - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    mean > BETTER_ERRORS * (variance / count).sqrt() && mean > 0.0
}

/// Slope and intercept of a logistic regression of the label on the combined log-odds, pulled towards 1 and 0; Newton's method.
fn calibration(users: &[MemberScores<'_>], network_weights: &[f64; CLASSES]) -> (f64, f64) {
    let (mut slope, mut intercept) = (1.0f64, 0.0f64);
    for _ in 0..NEWTON_STEPS {
        let mut gradient = [2.0 * SLOPE_PULL * (slope - 1.0), 2.0 * INTERCEPT_PULL * intercept];
        let mut curvature = [2.0 * SLOPE_PULL, 0.0, 2.0 * INTERCEPT_PULL];
        for user in users {
            let log_odds = user.combined(network_weights[user.class]);
            let probability = sigmoid(slope * log_odds + intercept);
            let error = probability - f64::from(u8::from(user.label));
            let weight = probability * (1.0 - probability);
            gradient[0] += error * log_odds;
            gradient[1] += error;
            curvature[0] += weight * log_odds * log_odds;
            curvature[1] += weight * log_odds;
            curvature[2] += weight;
        }
        let determinant = curvature[0] * curvature[2] - curvature[1] * curvature[1];
        let step = [
            (curvature[2] * gradient[0] - curvature[1] * gradient[1]) / determinant,
            (curvature[0] * gradient[1] - curvature[1] * gradient[0]) / determinant,
        ];
        if !step.iter().all(|part| part.is_finite()) {
            return (1.0, 0.0);
        }
        // Far from the minimum a full step may overshoot.
        slope = (slope - step[0].clamp(-0.5, 0.5)).max(0.05);
        intercept -= step[1].clamp(-1.0, 1.0);
        if step.iter().all(|part| part.abs() < 1e-9) {
            break;
        }
    }
    (slope, intercept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Users whose label follows `truth` of the members' log-odds; class 1.
    fn users(count: usize, ids: &[String], truth: impl Fn(f64, f64) -> f64) -> Vec<MemberScores<'_>> {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        (0..count)
            .map(|at| {
                let (network, trees) = (rng.random_range(-3.0..1.0), rng.random_range(-3.0..1.0));
                let label = rng.random_bool(sigmoid(truth(network, trees)));
                MemberScores { user_id: &ids[at], class: 1, network, trees, label }
            })
            .collect()
    }

    fn ids(count: usize) -> Vec<String> {
        (0..count).map(|at| format!("u{at}")).collect()
    }

    #[test]
    fn weights_and_calibration_of_many_users_are_those_of_the_truth() {
        let ids = ids(20_000);
        let blend = fit(&users(20_000, &ids, |network, trees| 0.7 * (0.3 * network + 0.7 * trees) - 0.2));
        assert!((blend.network_weights[1] - 0.3).abs() < 0.1, "{blend:?}");
        assert!((blend.slope - 0.7).abs() < 0.1 && (blend.intercept + 0.2).abs() < 0.1, "{blend:?}");
        // A class without users takes the weight of all.
        assert!((blend.network_weights[2] - blend.network_weights[1]).abs() < 0.05, "{blend:?}");
    }

    #[test]
    fn few_users_leave_equal_weights() {
        let ids = ids(12);
        let blend = fit(&users(12, &ids, |network, _| network));
        assert!((blend.network_weights[1] - 0.5).abs() < 0.2, "{blend:?}");
        assert!((blend.slope - 1.0).abs() < 0.2 && blend.intercept.abs() < 0.5, "{blend:?}");
    }

    #[test]
    fn a_member_without_information_is_left_out() {
        let ids = ids(5_000);
        let blend = fit(&users(5_000, &ids, |_, trees| trees));
        assert!(blend.network_weights[1] < 0.1, "{blend:?}");
    }

    #[test]
    fn no_users_and_one_class_leave_finite_numbers() {
        let ids = ids(3);
        for blend in [fit(&[]), fit(&users(3, &ids, |_, _| 30.0))] {
            let numbers = blend.network_weights.iter().chain([&blend.slope, &blend.intercept]);
            assert!(numbers.clone().all(|number| number.is_finite()), "{blend:?}");
            assert!(blend.slope > 0.0);
            assert!(blend.network_weights.iter().all(|weight| (0.2..0.8).contains(weight)), "{blend:?}");
        }
    }
}
