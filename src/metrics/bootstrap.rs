//! Bootstrap intervals of metrics.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Returns a 95 % percentile interval of a metric over rows drawn with replacement (Efron 1979). Draws without a value (one
/// class missing) are skipped; `None` if more than half are.
pub(crate) fn bootstrap_interval(
    scores: &[f64],
    labels: &[bool],
    metric: impl Fn(&[f64], &[bool]) -> Option<f64>,
    rounds: usize,
    seed: u64,
) -> Option<(f64, f64)> {
    bootstrap_interval_over_indices(scores.len().min(labels.len()), rounds, seed, |drawn| {
        let drawn_scores: Vec<f64> = drawn.iter().map(|&i| scores[i]).collect();
        let drawn_labels: Vec<bool> = drawn.iter().map(|&i| labels[i]).collect();
        metric(&drawn_scores, &drawn_labels)
    })
}

/// Returns the same interval of a metric of any `n` items; `metric` gets the indices of the drawn items.
pub(crate) fn bootstrap_interval_over_indices(
    n: usize,
    rounds: usize,
    seed: u64,
    metric: impl Fn(&[usize]) -> Option<f64>,
) -> Option<(f64, f64)> {
    if n == 0 {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut values: Vec<f64> = (0..rounds)
        .filter_map(|_| {
            let drawn: Vec<usize> = (0..n).map(|_| rng.random_range(0..n)).collect();
            metric(&drawn)
        })
        .collect();
    if values.len() * 2 <= rounds {
        return None;
    }
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    Some((at(0.025), at(0.975)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{auc, average_precision};

    #[test]
    fn the_bootstrap_interval_has_about_its_nominal_coverage() {
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
}
