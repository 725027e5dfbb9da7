//! One implementation of each figure: training, evaluation and the nightly look-back all call these.

pub mod binary;
pub mod drift;

/// Area under the ROC curve by ranks; ties count half (Mann-Whitney). `None` when one class is empty.
pub fn auc(scores: &[f64], labels: &[bool]) -> Option<f64> {
    let mut order: Vec<usize> = (0..scores.len().min(labels.len())).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    auc_of_ties(order.chunk_by(|&a, &b| scores[a] >= scores[b]).map(|tied| {
        let positives = tied.iter().filter(|&&i| labels[i]).count() as u64;
        (positives, tied.len() as u64 - positives)
    }))
}

/// The same from (positives, negatives) of each distinct score, by rising score.
fn auc_of_ties(ties: impl Iterator<Item = (u64, u64)>) -> Option<f64> {
    let (mut positives, mut negatives, mut won) = (0.0, 0.0, 0.0);
    for (p, n) in ties {
        let (p, n) = (p as f64, n as f64);
        won += p * (negatives + n / 2.0);
        positives += p;
        negatives += n;
    }
    (positives > 0.0 && negatives > 0.0).then(|| won / (positives * negatives))
}

/// Mean negative log-likelihood of binary labels under probabilities.
pub fn log_loss(probabilities: &[f64], labels: &[bool]) -> f64 {
    let sum: f64 = probabilities.iter().zip(labels).map(|(&p, &y)| log_loss_of(p, y)).sum();
    sum / labels.len().max(1) as f64
}

/// Negative log-likelihood of one label.
fn log_loss_of(probability: f64, label: bool) -> f64 {
    -(if label { probability } else { 1.0 - probability }).max(1e-12).ln()
}

/// Pinball loss of one forecast `quantile` at level `tau` (Koenker and Bassett 1978).
pub fn pinball(tau: f64, quantile: f64, actual: f64) -> f64 {
    let miss = actual - quantile;
    (tau * miss).max((tau - 1.0) * miss)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn auc_of_known_orders() {
        assert_eq!(auc(&[0.1, 0.2, 0.8, 0.9], &[false, false, true, true]), Some(1.0));
        assert_eq!(auc(&[0.5; 4], &[false, true, false, true]), Some(0.5));
        assert_eq!(auc(&[0.5], &[true]), None);
    }

    proptest! {
        #[test]
        fn auc_is_the_share_of_ordered_pairs(pairs in prop::collection::vec((0u8..6, any::<bool>()), 2..40)) {
            let scores: Vec<f64> = pairs.iter().map(|p| p.0.into()).collect();
            let labels: Vec<bool> = pairs.iter().map(|p| p.1).collect();
            let (mut won, mut all) = (0.0, 0.0);
            for (i, _) in labels.iter().enumerate().filter(|(_, l)| **l) {
                for (j, _) in labels.iter().enumerate().filter(|(_, l)| !**l) {
                    all += 1.0;
                    won += if scores[i] > scores[j] { 1.0 } else if scores[i] == scores[j] { 0.5 } else { 0.0 };
                }
            }
            match auc(&scores, &labels) {
                None => prop_assert_eq!(all, 0.0),
                Some(got) => prop_assert!((got - won / all).abs() < 1e-9),
            }
        }

        #[test]
        fn pinball_is_least_at_the_truth(tau in 0.01f64..0.99, actual in 0.0f64..100.0, miss in -50.0f64..50.0) {
            prop_assert!(pinball(tau, actual + miss, actual) >= pinball(tau, actual, actual));
        }
    }
}
