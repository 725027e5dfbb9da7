//! Metrics of binary forecasts in one pass over any number of rows, in fixed memory.

use super::classification::{auc_of_ties, brier_of, log_loss_of};

/// Scores count as tied if their float32 agree in sign, exponent and the first 11 bits of the fraction (0.05 %).
const BITS_DROPPED: u32 = 12;
const BINS: usize = (1.0f32.to_bits() >> BITS_DROPPED) as usize + 1;

/// Running sums over pairs of probability and outcome.
#[derive(Debug)]
pub(crate) struct BinaryMetrics {
    rows: u64,
    log_loss: f64,
    brier: f64,
    predicted: f64,
    observed: u64,
    /// Positive and negative outcomes per bin of scores.
    bins: Vec<(u32, u32)>,
}

impl Default for BinaryMetrics {
    fn default() -> Self {
        Self { rows: 0, log_loss: 0.0, brier: 0.0, predicted: 0.0, observed: 0, bins: vec![(0, 0); BINS] }
    }
}

impl BinaryMetrics {
    /// Adds one row. `probability` is between 0 and 1.
    pub(crate) fn add(&mut self, probability: f64, outcome: bool) {
        self.rows += 1;
        self.log_loss += log_loss_of(probability, outcome);
        self.brier += brier_of(probability, outcome);
        self.predicted += probability;
        self.observed += u64::from(outcome);
        // Non-negative floats are ordered like their bits; `abs` removes the sign of a negative zero.
        let bin = (probability.abs().min(1.0) as f32).to_bits() >> BITS_DROPPED;
        let (positives, negatives) = &mut self.bins[bin as usize];
        *(if outcome { positives } else { negatives }) += 1;
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the area under the ROC curve, or `None` if one class is empty. Differs from [`super::auc`] only by pairs of scores
    /// within 0.05 % of each other.
    pub(crate) fn auc(&self) -> Option<f64> {
        auc_of_ties(self.bins.iter().map(|&(p, n)| (p.into(), n.into())))
    }

    pub(crate) fn log_loss(&self) -> f64 {
        self.log_loss / self.rows.max(1) as f64
    }

    /// Returns the mean squared difference of probability and outcome (Brier 1950).
    pub(crate) fn brier(&self) -> f64 {
        self.brier / self.rows.max(1) as f64
    }

    pub(crate) fn mean_predicted(&self) -> f64 {
        self.predicted / self.rows.max(1) as f64
    }

    pub(crate) fn share_observed(&self) -> f64 {
        self.observed as f64 / self.rows.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{auc, log_loss};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn one_pass_equals_the_metrics_over_all_rows(
            // Thousandths are further apart than scores that count as tied.
            rows in prop::collection::vec(((0u16..=1000).prop_map(|k| f64::from(k) / 1000.0), any::<bool>()), 1..200)
        ) {
            let (p, y): (Vec<f64>, Vec<bool>) = rows.iter().copied().unzip();
            let mut metrics = BinaryMetrics::default();
            rows.iter().for_each(|&(p, y)| metrics.add(p, y));
            prop_assert!((metrics.log_loss() - log_loss(&p, &y)).abs() < 1e-9);
            match (metrics.auc(), auc(&p, &y)) {
                (Some(one), Some(all)) => prop_assert!((one - all).abs() < 1e-9, "{one} {all}"),
                (one, all) => prop_assert_eq!(one, all),
            }
            let brier = rows.iter().map(|&(p, y)| (p - if y { 1.0 } else { 0.0 }).powi(2)).sum::<f64>();
            prop_assert!((metrics.brier() - brier / rows.len() as f64).abs() < 1e-9);
        }
    }

    #[test]
    fn zero_and_one_have_bins() {
        let mut metrics = BinaryMetrics::default();
        for (p, y) in [(0.0, false), (1.0, true), (-0.0, false)] {
            metrics.add(p, y);
        }
        assert_eq!((metrics.auc(), metrics.rows(), metrics.brier()), (Some(1.0), 3, 0.0));
    }
}
