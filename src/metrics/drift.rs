//! How far a feature has moved since training: the population stability index over the deciles of the training set.

use serde::{Deserialize, Serialize};

/// Above this the population has shifted (Siddiqi 2006, section 6.3.1: below 0.10 none, 0.10 to 0.25 some).
pub const SHIFTED: f64 = 0.25;

/// An empty bin counts as this share, so that the logarithm stays finite.
const SHARE_MIN: f64 = 1e-4;

/// The deciles of a feature's training values and what share of the rows fell where.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Deciles {
    /// Upper ends of all bins but the last, rising; fewer than nine where values repeat.
    pub edges: Vec<f32>,
    /// One a bin, then the share of nulls; they sum to one.
    pub shares: Vec<f64>,
}

impl Deciles {
    /// NaN is null.
    pub fn of(values: impl Iterator<Item = f32> + Clone) -> Self {
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

    /// Σ (actual - expected) · ln(actual / expected) over the bins: the symmetrised Kullback-Leibler divergence known as
    /// the population stability index (Siddiqi, "Credit Risk Scorecards", 2006, section 6.3.1). Nulls are a bin.
    pub fn stability(&self, now: &BinCounts) -> f64 {
        let pairs = self.shares.iter().zip(now.shares());
        pairs
            .map(|(&expected, actual)| {
                let (expected, actual) = (expected.max(SHARE_MIN), actual.max(SHARE_MIN));
                (actual - expected) * (actual / expected).ln()
            })
            .sum()
    }
}

/// Values counted by bin.
#[derive(Debug, Clone)]
pub struct BinCounts<'a> {
    edges: &'a [f32],
    counts: Vec<u64>,
}

impl<'a> BinCounts<'a> {
    pub fn new(edges: &'a [f32]) -> Self {
        Self { edges, counts: vec![0; edges.len() + 2] }
    }

    /// NaN is null.
    pub fn add(&mut self, value: f32) {
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

    fn moved(from: &[f32], to: &[f32]) -> f64 {
        let deciles = Deciles::of(from.iter().copied());
        let mut counts = BinCounts::new(&deciles.edges);
        to.iter().for_each(|&v| counts.add(v));
        deciles.stability(&counts)
    }

    proptest! {
        #[test]
        fn the_same_values_in_any_order_have_not_moved(mut values in values()) {
            let before = values.clone();
            values.reverse();
            prop_assert!(moved(&before, &values).abs() < 1e-12);
        }

        #[test]
        fn it_is_finite_and_never_negative(from in values(), to in values()) {
            let psi = moved(&from, &to);
            prop_assert!(psi.is_finite() && psi >= 0.0, "{psi}");
        }

        #[test]
        fn bins_hold_every_row(values in values()) {
            let deciles = Deciles::of(values.iter().copied());
            prop_assert!(deciles.edges.windows(2).all(|e| e[0] < e[1]) && deciles.edges.len() <= 9);
            prop_assert_eq!(deciles.shares.len(), deciles.edges.len() + 2);
            prop_assert!((deciles.shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn a_shift_by_one_decile_and_a_rush_of_nulls_are_seen() {
        let before: Vec<f32> = (0..1000).map(|i| i as f32).collect();
        let later: Vec<f32> = before.iter().map(|v| v + 101.0).collect();
        // Nine bins keep their tenth, the first empties, the last doubles: 0.1 ln 1000 + 0.1 ln 2, nearly.
        let expected = 0.1 * 1000f64.ln() + 0.1 * 2f64.ln();
        assert!((moved(&before, &later) - expected).abs() < 0.02, "{}", moved(&before, &later));
        let half: Vec<f32> = (0..1000).map(|i| if i % 2 == 0 { f32::NAN } else { i as f32 }).collect();
        assert!(moved(&before, &half) > SHIFTED);
    }
}
