//! One implementation of each figure: training, evaluation and the nightly look-back all call these.

pub mod binary;
pub mod clustered;
pub mod coverage;
pub mod drift;
pub mod moments;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

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

/// Average precision: precision at each distinct score, weighed by the recall that it adds; what is ranked by chance
/// has the share of positives. `None` when there is no positive.
pub fn average_precision(scores: &[f64], labels: &[bool]) -> Option<f64> {
    let mut order: Vec<usize> = (0..scores.len().min(labels.len())).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let positives = labels.iter().filter(|&&l| l).count() as f64;
    if positives == 0.0 {
        return None;
    }
    let (mut start, mut found, mut sum) = (0, 0.0, 0.0);
    while start < order.len() {
        // Ties share one threshold, so that their order in the input cannot matter.
        let tied = order[start..].partition_point(|&i| scores[i] >= scores[order[start]]);
        let hits = order[start..start + tied].iter().filter(|&&i| labels[i]).count() as f64;
        start += tied;
        found += hits;
        sum += hits * found / start as f64;
    }
    Some(sum / positives)
}

/// A 95 % percentile interval of a figure over users drawn with replacement (Efron 1979). Draws without a value (one
/// class missing) are left out; `None` where more than half are.
pub fn bootstrap_interval(
    scores: &[f64],
    labels: &[bool],
    figure: impl Fn(&[f64], &[bool]) -> Option<f64>,
    rounds: usize,
    seed: u64,
) -> Option<(f64, f64)> {
    interval_over(scores.len().min(labels.len()), rounds, seed, |drawn| {
        let scores: Vec<f64> = drawn.iter().map(|&i| scores[i]).collect();
        let labels: Vec<bool> = drawn.iter().map(|&i| labels[i]).collect();
        figure(&scores, &labels)
    })
}

/// The same of a figure of any `n` things, by the places of those that were drawn.
pub fn interval_over(
    n: usize,
    rounds: usize,
    seed: u64,
    figure: impl Fn(&[usize]) -> Option<f64>,
) -> Option<(f64, f64)> {
    if n == 0 {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut values: Vec<f64> = (0..rounds)
        .filter_map(|_| {
            let drawn: Vec<usize> = (0..n).map(|_| rng.random_range(0..n)).collect();
            figure(&drawn)
        })
        .collect();
    if values.len() * 2 <= rounds {
        return None;
    }
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    Some((at(0.025), at(0.975)))
}

/// The share of labels that `scores` above `threshold` tell rightly.
pub fn accuracy(scores: &[f64], labels: &[bool], threshold: f64) -> f64 {
    let right = scores.iter().zip(labels).filter(|(s, l)| (**s > threshold) == **l).count();
    right as f64 / labels.len().max(1) as f64
}

/// Harmonic mean of precision and recall of `scores` above `threshold`; 0 where nothing is found.
pub fn f1(scores: &[f64], labels: &[bool], threshold: f64) -> f64 {
    let found = scores.iter().zip(labels).filter(|(s, l)| **s > threshold && **l).count();
    let (chosen, positives) =
        (scores.iter().filter(|s| **s > threshold).count(), labels.iter().filter(|l| **l).count());
    2.0 * found as f64 / (chosen + positives).max(1) as f64
}

pub fn mean_absolute_error(forecasts: &[f64], actual: &[f64]) -> f64 {
    forecasts.iter().zip(actual).map(|(f, a)| (f - a).abs()).sum::<f64>() / actual.len().max(1) as f64
}

pub fn root_mean_squared_error(forecasts: &[f64], actual: &[f64]) -> f64 {
    let sum: f64 = forecasts.iter().zip(actual).map(|(f, a)| (f - a) * (f - a)).sum();
    (sum / actual.len().max(1) as f64).sqrt()
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
    use rand::Rng;

    #[test]
    fn auc_of_known_orders() {
        assert_eq!(auc(&[0.1, 0.2, 0.8, 0.9], &[false, false, true, true]), Some(1.0));
        assert_eq!(auc(&[0.5; 4], &[false, true, false, true]), Some(0.5));
        assert_eq!(auc(&[0.5], &[true]), None);
    }

    #[test]
    fn average_precision_of_known_orders() {
        assert_eq!(average_precision(&[0.9, 0.8, 0.2, 0.1], &[true, true, false, false]), Some(1.0));
        // Hits at ranks 1 and 3: (1/1 + 2/3) / 2.
        let got = average_precision(&[0.9, 0.8, 0.7, 0.6], &[true, false, true, false]).unwrap();
        assert!((got - 5.0 / 6.0).abs() < 1e-12);
        assert_eq!(average_precision(&[0.5; 4], &[false, true, false, false]), Some(0.25));
        assert_eq!(average_precision(&[0.5], &[false]), None);
    }

    #[test]
    fn accuracy_and_f1_of_a_known_table() {
        // One hit, one false alarm, one miss, three rightly left out.
        let (scores, labels) = ([0.9, 0.8, 0.4, 0.1, 0.2, 0.5], [true, false, true, false, false, false]);
        assert!((accuracy(&scores, &labels, 0.5) - 4.0 / 6.0).abs() < 1e-12);
        assert!((f1(&scores, &labels, 0.5) - 0.5).abs() < 1e-12);
        assert_eq!((f1(&[0.1], &[false], 0.5), f1(&[0.9], &[true], 0.5)), (0.0, 1.0));
    }

    #[test]
    fn errors_of_known_forecasts() {
        assert_eq!(mean_absolute_error(&[1.0, 5.0], &[2.0, 2.0]), 2.0);
        assert!((root_mean_squared_error(&[1.0, 5.0], &[2.0, 2.0]) - 5f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn the_bootstrap_interval_covers_the_truth_about_as_often_as_it_says() {
        // Positives score N(1, 1), negatives N(0, 1): the AUC is Φ(1/√2) = 0.7602.
        let mut rng = ChaCha8Rng::seed_from_u64(17);
        let mut covered = 0;
        for seed in 0..100 {
            let labels: Vec<bool> = (0..200).map(|i| i % 3 == 0).collect();
            let mut normal =
                |mean: f64| -> f64 { mean + (0..12).map(|_| rng.random_range(0.0..1.0)).sum::<f64>() - 6.0 };
            let scores: Vec<f64> = labels.iter().map(|&l| normal(f64::from(u8::from(l)))).collect();
            let (low, high) = bootstrap_interval(&scores, &labels, auc, 200, seed).unwrap();
            assert!(low < high && high - low < 0.25);
            covered += usize::from((low..=high).contains(&0.7602));
        }
        assert!((88..=99).contains(&covered), "{covered} of 100");
    }

    #[test]
    fn the_bootstrap_needs_both_classes() {
        assert_eq!(bootstrap_interval(&[], &[], auc, 50, 1), None);
        assert_eq!(bootstrap_interval(&[0.1, 0.2], &[true, true], auc, 50, 1), None);
        assert_eq!(
            bootstrap_interval(&[0.1, 0.9], &[false, true], average_precision, 50, 1),
            bootstrap_interval(&[0.1, 0.9], &[false, true], average_precision, 50, 1)
        );
    }

    proptest! {
        #[test]
        fn average_precision_is_the_area_under_the_steps_whatever_the_order(
            pairs in prop::collection::vec((0u8..6, any::<bool>()), 1..40)
        ) {
            let scores: Vec<f64> = pairs.iter().map(|p| p.0.into()).collect();
            let labels: Vec<bool> = pairs.iter().map(|p| p.1).collect();
            let positives = labels.iter().filter(|l| **l).count() as f64;
            let (mut area, mut recall) = (0.0, 0.0);
            for threshold in (0..6).rev().map(f64::from) {
                let above = (0..scores.len()).filter(|&i| scores[i] >= threshold);
                let chosen: Vec<bool> = above.map(|i| labels[i]).collect();
                let hits = chosen.iter().filter(|l| **l).count() as f64;
                if !chosen.is_empty() && positives > 0.0 {
                    area += (hits / positives - recall) * hits / chosen.len() as f64;
                    recall = hits / positives;
                }
            }
            let turned: (Vec<f64>, Vec<bool>) = pairs.iter().rev().map(|p| (f64::from(p.0), p.1)).unzip();
            match average_precision(&scores, &labels) {
                None => prop_assert_eq!(positives, 0.0),
                Some(got) => {
                    prop_assert!((got - area).abs() < 1e-9 && got > 0.0 && got <= 1.0);
                    prop_assert_eq!(Some(got), average_precision(&turned.0, &turned.1));
                }
            }
        }

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
