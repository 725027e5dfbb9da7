//! Metrics of binary classifiers over all rows in memory; `binary` computes them in one pass.

/// Returns the area under the ROC curve by ranks; ties count half (Mann-Whitney). `None` if one class is empty.
pub fn auc(scores: &[f64], labels: &[bool]) -> Option<f64> {
    let mut order: Vec<usize> = (0..scores.len().min(labels.len())).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    auc_of_ties(order.chunk_by(|&a, &b| scores[a] >= scores[b]).map(|tied| {
        let positives = tied.iter().filter(|&&i| labels[i]).count() as u64;
        (positives, tied.len() as u64 - positives)
    }))
}

/// Returns the AUC from the positives and negatives of each distinct score, by ascending score.
pub(super) fn auc_of_ties(ties: impl Iterator<Item = (u64, u64)>) -> Option<f64> {
    let mut positives = 0.0;
    let mut negatives = 0.0;
    let mut ordered_pairs = 0.0;
    for (tied_positives, tied_negatives) in ties {
        ordered_pairs += tied_positives as f64 * (negatives + tied_negatives as f64 / 2.0);
        positives += tied_positives as f64;
        negatives += tied_negatives as f64;
    }
    (positives > 0.0 && negatives > 0.0).then(|| ordered_pairs / (positives * negatives))
}

/// Returns the average precision: precision at each distinct score, weighted by the recall that it adds. A random ranking has
/// the share of positives. `None` without positives.
pub(crate) fn average_precision(scores: &[f64], labels: &[bool]) -> Option<f64> {
    let mut order: Vec<usize> = (0..scores.len().min(labels.len())).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let positives = labels.iter().filter(|&&l| l).count() as f64;
    if positives == 0.0 {
        return None;
    }
    let mut start = 0;
    let mut found = 0.0;
    let mut sum = 0.0;
    while start < order.len() {
        // Ties share one threshold, so their order in the input does not matter.
        let tied = order[start..].partition_point(|&i| scores[i] >= scores[order[start]]);
        let hits = order[start..start + tied].iter().filter(|&&i| labels[i]).count() as f64;
        start += tied;
        found += hits;
        sum += hits * found / start as f64;
    }
    Some(sum / positives)
}

/// Returns the share of labels that `scores` above `threshold` predict correctly.
pub(crate) fn accuracy(scores: &[f64], labels: &[bool], threshold: f64) -> f64 {
    let correct = scores.iter().zip(labels).filter(|(s, l)| (**s > threshold) == **l).count();
    correct as f64 / labels.len().max(1) as f64
}

/// Returns the harmonic mean of precision and recall of `scores` above `threshold`; 0 without true positives.
pub(crate) fn f1(scores: &[f64], labels: &[bool], threshold: f64) -> f64 {
    let found = scores.iter().zip(labels).filter(|(s, l)| **s > threshold && **l).count();
    let chosen = scores.iter().filter(|s| **s > threshold).count();
    let positives = labels.iter().filter(|l| **l).count();
    2.0 * found as f64 / (chosen + positives).max(1) as f64
}

/// Returns the threshold above which scores have the highest F1, halfway between two scores; `None` without positives. Of equal
/// ones, the highest counts.
pub(crate) fn best_f1_threshold(scores: &[f64], labels: &[bool]) -> Option<f64> {
    let mut order: Vec<usize> = (0..scores.len().min(labels.len())).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let positives = labels.iter().filter(|&&label| label).count();
    let (mut found, mut best) = (0usize, None);
    for (place, &row) in order.iter().enumerate() {
        found += usize::from(labels[row]);
        let next = order.get(place + 1).map_or(0.0, |&next| scores[next]);
        // A threshold cannot part equal scores.
        if next < scores[row] {
            let f1 = 2.0 * found as f64 / (place + 1 + positives) as f64;
            if best.is_none_or(|(highest, _)| f1 > highest) {
                best = Some((f1, (scores[row] + next) / 2.0));
            }
        }
    }
    best.filter(|_| positives > 0).map(|(_, threshold)| threshold)
}

/// Returns the mean negative log-likelihood of binary labels.
pub(crate) fn log_loss(probabilities: &[f64], labels: &[bool]) -> f64 {
    let sum: f64 = probabilities.iter().zip(labels).map(|(&p, &y)| log_loss_of(p, y)).sum();
    sum / labels.len().max(1) as f64
}

/// Returns the negative log-likelihood of one label.
pub(super) fn log_loss_of(probability: f64, label: bool) -> f64 {
    -(if label { probability } else { 1.0 - probability }).max(1e-12).ln()
}

/// Returns the mean squared difference between probabilities and classes (Brier 1950).
pub(crate) fn brier_score(probabilities: &[f64], labels: &[bool]) -> f64 {
    let sum: f64 = probabilities.iter().zip(labels).map(|(&p, &y)| brier_of(p, y)).sum();
    sum / labels.len().max(1) as f64
}

/// Returns the squared difference of one probability and its class.
pub(super) fn brier_of(probability: f64, label: bool) -> f64 {
    (probability - f64::from(u8::from(label))).powi(2)
}

/// Returns the share of positives among the rows with the highest scores, a `share` of all rows and at least one, and the mean of
/// these scores: precision at the top, and what was promised there (arXiv 2205.09809). Of tied scores, the first
/// rows count.
pub(crate) fn share_at_top(scores: &[f64], labels: &[bool], share: f64) -> (f64, f64) {
    let mut order: Vec<usize> = (0..scores.len().min(labels.len())).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let count = ((order.len() as f64 * share).round() as usize).max(1).min(order.len());
    let top = &order[..count];
    let rows = count.max(1) as f64;
    let positives = top.iter().filter(|&&row| labels[row]).count() as f64;
    (positives / rows, top.iter().map(|&row| scores[row]).sum::<f64>() / rows)
}

/// Bins of the expected calibration error.
const CALIBRATION_BINS: usize = 10;

/// Returns the expected calibration error: over ten bins of equal width, the mean difference between the mean probability and the
/// share of positives of a bin, weighted by its rows (Naeini et al. 2015).
pub(crate) fn expected_calibration_error(probabilities: &[f64], labels: &[bool]) -> f64 {
    let mut bins = [(0.0, 0.0); CALIBRATION_BINS];
    for (&probability, &label) in probabilities.iter().zip(labels) {
        let bin = ((probability * CALIBRATION_BINS as f64) as usize).min(CALIBRATION_BINS - 1);
        bins[bin].0 += probability;
        bins[bin].1 += f64::from(u8::from(label));
    }
    // Rows × |mean probability − share| = |sum of probabilities − positives|.
    bins.iter().map(|(probability, positives)| (probability - positives).abs()).sum::<f64>()
        / labels.len().max(1) as f64
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
        // One true positive, one false positive, one false negative, three true negatives.
        let (scores, labels) = ([0.9, 0.8, 0.4, 0.1, 0.2, 0.5], [true, false, true, false, false, false]);
        assert!((accuracy(&scores, &labels, 0.5) - 4.0 / 6.0).abs() < 1e-12);
        assert!((f1(&scores, &labels, 0.5) - 0.5).abs() < 1e-12);
        assert_eq!((f1(&[0.1], &[false], 0.5), f1(&[0.9], &[true], 0.5)), (0.0, 1.0));
    }

    #[test]
    fn the_top_has_the_highest_scores() {
        let (scores, labels) = ([0.1, 0.9, 0.8, 0.2, 0.5], [true, true, false, false, true]);
        assert_eq!(share_at_top(&scores, &labels, 0.4), (0.5, (0.9 + 0.8) / 2.0));
        assert_eq!(share_at_top(&scores, &labels, 0.01), (1.0, 0.9), "one row at least");
        assert_eq!(share_at_top(&[], &[], 0.1), (0.0, 0.0));
    }

    #[test]
    fn calibration_of_known_scores() {
        let (scores, labels) = ([0.1, 0.3, 0.8, 0.9], [false, true, true, true]);
        // scikit-learn 1.7: brier_score_loss.
        assert!((brier_score(&scores, &labels) - 0.1375).abs() < 1e-12);
        // One row a bin: (0.1 + 0.7 + 0.2 + 0.1) / 4.
        assert!((expected_calibration_error(&scores, &labels) - 0.275).abs() < 1e-12);
        // Half of the rows of one bin are positive, as its mean says.
        assert!(expected_calibration_error(&[0.52, 0.58, 0.41, 0.49], &[true, false, false, true]) < 0.06);
        assert_eq!(expected_calibration_error(&[1.0, 0.0], &[true, false]), 0.0);
    }

    proptest! {
        #[test]
        fn the_best_threshold_has_the_highest_f1(pairs in prop::collection::vec((1u8..6, any::<bool>()), 1..40)) {
            let scores: Vec<f64> = pairs.iter().map(|p| f64::from(p.0) / 6.0).collect();
            let labels: Vec<bool> = pairs.iter().map(|p| p.1).collect();
            let highest = (0..6).map(|step| f1(&scores, &labels, (f64::from(step) + 0.5) / 6.0)).fold(0.0, f64::max);
            match best_f1_threshold(&scores, &labels) {
                None => prop_assert_eq!(highest, 0.0),
                Some(threshold) => prop_assert!((f1(&scores, &labels, threshold) - highest).abs() < 1e-12),
            }
        }

        #[test]
        fn average_precision_is_the_area_under_the_steps(
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
            let reversed: (Vec<f64>, Vec<bool>) = pairs.iter().rev().map(|p| (f64::from(p.0), p.1)).unzip();
            match average_precision(&scores, &labels) {
                None => prop_assert_eq!(positives, 0.0),
                Some(got) => {
                    prop_assert!((got - area).abs() < 1e-9 && got > 0.0 && got <= 1.0);
                    prop_assert_eq!(Some(got), average_precision(&reversed.0, &reversed.1));
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
    }
}
