//! Drift of a feature since training: the population stability index over the deciles of the training set.

use serde::{Deserialize, Serialize};

/// A higher index means that the feature has drifted (Siddiqi 2006, section 6.3.1: below 0.10 no change, 0.10 to 0.25 a small
/// one).
pub(crate) const PSI_SHIFTED: f64 = 0.25;

/// Lower bound of a bin's share, so that the logarithm stays finite.
const SHARE_MIN: f64 = 1e-4;

/// The deciles of a feature's training values and the share of rows in each bin.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Deciles {
    /// Upper bounds of all bins but the last, ascending; fewer than nine if values repeat.
    pub(crate) edges: Vec<f32>,
    /// The share of rows per bin, then the share of nulls; they sum to one.
    pub(crate) shares: Vec<f64>,
}

impl Deciles {
    /// Computes the deciles; NaN is null.
    pub(crate) fn from_values(values: impl Iterator<Item = f32> + Clone) -> Self {
        let mut known: Vec<f32> = values.clone().filter(|v| !v.is_nan()).collect();
        known.sort_by(f32::total_cmp);
        let mut edges: Vec<f32> = match known.is_empty() {
            true => Vec::new(),
            false => (1..10).map(|tenth| known[(known.len() * tenth / 10).min(known.len() - 1)]).collect(),
        };
        edges.dedup();
        let mut counts = BinCounts::new(&edges);
        values.for_each(|v| counts.add(v));
        let shares = counts.shares();
        Self { edges, shares }
    }

    /// Returns Σ (actual - expected) · ln(actual / expected) over the bins: the symmetrised Kullback-Leibler divergence known as
    /// the population stability index (Siddiqi, "Credit Risk Scorecards", 2006, section 6.3.1). Nulls are a bin.
    pub(crate) fn population_stability_index(&self, now: &BinCounts) -> f64 {
        let mut index = 0.0;
        for (expected_share, actual_share) in self.shares.iter().zip(now.shares()) {
            let expected = expected_share.max(SHARE_MIN);
            let actual = actual_share.max(SHARE_MIN);
            index += (actual - expected) * (actual / expected).ln();
        }
        index
    }
}

/// The number of values per bin.
#[derive(Debug, Clone)]
pub(crate) struct BinCounts<'a> {
    edges: &'a [f32],
    counts: Vec<u64>,
}

impl<'a> BinCounts<'a> {
    pub(crate) fn new(edges: &'a [f32]) -> Self {
        Self { edges, counts: vec![0; edges.len() + 2] }
    }

    /// Counts a value; NaN is null.
    pub(crate) fn add(&mut self, value: f32) {
        let bin = match value.is_nan() {
            true => self.edges.len() + 1,
            false => self.edges.partition_point(|&edge| edge < value),
        };
        self.counts[bin] += 1;
    }

    fn shares(&self) -> Vec<f64> {
        let rows = self.counts.iter().sum::<u64>().max(1) as f64;
        self.counts.iter().map(|&n| n as f64 / rows).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values() -> impl Strategy<Value = Vec<f32>> {
        let value = prop_oneof![Just(0.0f32), Just(f32::NAN), 0f32..4.0, (0u8..5).prop_map(f32::from)];
        prop::collection::vec(value, 1..300)
    }

    /// Returns the index of `to` against `from`.
    fn index(from: &[f32], to: &[f32]) -> f64 {
        let deciles = Deciles::from_values(from.iter().copied());
        let mut counts = BinCounts::new(&deciles.edges);
        to.iter().for_each(|&v| counts.add(v));
        deciles.population_stability_index(&counts)
    }

    proptest! {
        #[test]
        fn the_same_values_in_any_order_do_not_drift(mut values in values()) {
            let before = values.clone();
            values.reverse();
            prop_assert!(index(&before, &values).abs() < 1e-12);
        }

        #[test]
        fn the_index_is_finite_and_never_negative(from in values(), to in values()) {
            let psi = index(&from, &to);
            prop_assert!(psi.is_finite() && psi >= 0.0, "{psi}");
        }

        #[test]
        fn every_row_is_in_a_bin(values in values()) {
            let deciles = Deciles::from_values(values.iter().copied());
            prop_assert!(deciles.edges.windows(2).all(|e| e[0] < e[1]) && deciles.edges.len() <= 9);
            prop_assert_eq!(deciles.shares.len(), deciles.edges.len() + 2);
            prop_assert!((deciles.shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn a_shift_by_one_decile_and_more_nulls_are_detected() {
        let before: Vec<f32> = (0..1000).map(|i| i as f32).collect();
        let later: Vec<f32> = before.iter().map(|v| v + 101.0).collect();
        // Nine bins stay the same, the first loses its rows, the last doubles: about 0.1 ln 1000 + 0.1 ln 2.
        let expected = 0.1 * 1000f64.ln() + 0.1 * 2f64.ln();
        assert!((index(&before, &later) - expected).abs() < 0.02, "{}", index(&before, &later));
        let half: Vec<f32> = (0..1000).map(|i| if i % 2 == 0 { f32::NAN } else { i as f32 }).collect();
        assert!(index(&before, &half) > PSI_SHIFTED);
    }
}
