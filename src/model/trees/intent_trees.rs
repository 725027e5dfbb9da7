//! The trees of the intents and of churn, and their file in a bundle.

use super::ensemble::{Ensemble, each_block};
use crate::failure::{Failure, Result};
use crate::model::targets::{BINARY, TARGETS};
use crate::model::weights::{tensors_from_bytes, tensors_to_bytes};

/// One ensemble for each binary target whose label had both classes in training.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct IntentTrees {
    features: usize,
    ensembles: [Option<Ensemble>; BINARY],
}

impl IntentTrees {
    /// `features` is the number of tabular features of a row.
    pub(crate) fn new(features: usize, ensembles: [Option<Ensemble>; BINARY]) -> Self {
        Self { features, ensembles }
    }

    /// Returns whether a binary target has trees.
    pub(crate) fn has(&self, target: usize) -> bool {
        self.ensembles[target].is_some()
    }

    /// Returns the log-odds of each row, row-major [rows, binary targets]; NaN for a target without trees. `tabular` is row-major
    /// [rows, features], NaN for null.
    pub(crate) fn log_odds(&self, tabular: &[f32]) -> Vec<f64> {
        let mut all = vec![f64::NAN; tabular.len() / self.features.max(1) * BINARY];
        each_block(tabular, self.features, |first, count, columns| {
            for (target, ensemble) in self.ensembles.iter().enumerate() {
                let Some(ensemble) = ensemble else { continue };
                let scores = ensemble.score_block(columns);
                for (row, score) in scores[..count].iter().enumerate() {
                    all[(first + row) * BINARY + target] = *score;
                }
            }
        });
        all
    }

    /// Returns the shares of each feature in a row's log-odds of a target, and the log-odds that they start from, the mean of the
    /// training; `None` for a target without trees.
    pub(crate) fn shares(&self, row: &[f32], target: usize) -> Option<(Vec<f64>, f64)> {
        let ensemble = self.ensembles[target].as_ref()?;
        let mut shares = vec![0.0; self.features];
        let mean = ensemble.trees().iter().map(|tree| tree.add_shares(row, &mut shares)).sum();
        Some((shares, mean))
    }

    /// Returns a safetensors file with the tensors `trees.<target>.<part>`.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut named = Vec::new();
        for (target, ensemble) in TARGETS.iter().zip(&self.ensembles) {
            let Some(ensemble) = ensemble else { continue };
            named.extend(ensemble.named_tensors(&format!("trees.{}", target.name))?);
        }
        tensors_to_bytes(&named)
    }

    /// Reads the file of [`Self::to_bytes`]. Refuses trees that cannot be scored with `features` features.
    pub(crate) fn from_bytes(bytes: &[u8], features: usize) -> Result<Self> {
        let mut tensors = tensors_from_bytes(bytes)?;
        let mut ensembles = [const { None }; BINARY];
        for (target, ensemble) in TARGETS.iter().zip(&mut ensembles) {
            *ensemble = Ensemble::take(&mut tensors, &format!("trees.{}", target.name), features)?;
        }
        match tensors.keys().min() {
            None => Ok(Self { features, ensembles }),
            Some(name) => Err(Failure::model(format!("{name}: expected trees of the targets only"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::perfect_tree::{DEPTH, NODES, PLACES, PerfectTree};
    use super::*;
    use crate::model::targets::PURCHASE;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn random_trees(features: usize) -> IntentTrees {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut tree = || PerfectTree {
            feature: std::array::from_fn(|_| rng.random_range(0..features) as u16),
            threshold: std::array::from_fn(|node| match node % 5 {
                0 => [0.0, -0.0, f32::INFINITY][node % 3],
                _ => rng.random_range(-1.0..1.0),
            }),
            null_left: std::array::from_fn(|_| rng.random()),
            value: std::array::from_fn(|_| rng.random_range(-1.0..1.0)),
            cover: std::array::from_fn(|_| rng.random_range(1.0..9.0)),
        };
        let mut ensembles = [const { None }; BINARY];
        ensembles[PURCHASE] = Some(Ensemble::new((0..3).map(|_| tree()).collect()));
        ensembles[0] = Some(Ensemble::new(vec![tree()]));
        IntentTrees::new(features, ensembles)
    }

    /// Follows one row through one tree, a test at a time.
    fn leaf(tree: &PerfectTree, row: &[f32]) -> f64 {
        let mut place = 0;
        for _ in 0..DEPTH {
            let value = row[usize::from(tree.feature[place])];
            let left = if value.is_nan() { tree.null_left[place] } else { value <= tree.threshold[place] };
            place = 2 * place + if left { 1 } else { 2 };
        }
        assert!((NODES..PLACES).contains(&place));
        tree.value[place]
    }

    #[test]
    fn blocks_of_rows_reach_the_leaves_that_single_rows_reach() {
        let trees = random_trees(5);
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let odd = [f32::NAN, -0.0, 0.0, f32::INFINITY, f32::NEG_INFINITY];
        let tabular: Vec<f32> = (0..150 * 5)
            .map(|at| if at % 3 == 0 { odd[rng.random_range(0..odd.len())] } else { rng.random_range(-1.5..1.5) })
            .collect();
        let all = trees.log_odds(&tabular);
        for (row, values) in tabular.chunks(5).enumerate() {
            let ensemble = trees.ensembles[PURCHASE].as_ref().unwrap();
            let expected: f64 = ensemble.trees().iter().map(|tree| leaf(tree, values)).sum();
            assert_eq!(all[row * BINARY + PURCHASE], expected, "row {row}");
            assert!(all[row * BINARY + 1].is_nan(), "a target without trees");
            let (shares, mean) = trees.shares(values, PURCHASE).unwrap();
            assert!((shares.iter().sum::<f64>() + mean - expected).abs() < 1e-12, "row {row}");
            assert!(trees.shares(values, 1).is_none());
        }
    }

    #[test]
    fn trees_round_trip_through_their_file_and_other_features_are_refused() {
        let trees = random_trees(5);
        let bytes = trees.to_bytes().unwrap();
        assert_eq!(IntentTrees::from_bytes(&bytes, 5).unwrap(), trees);
        let failure = IntentTrees::from_bytes(&bytes, 2).unwrap_err();
        assert_eq!(failure.kind.exit_code(), 6);
        assert!(failure.message.contains("feature: expected 0 to 1, got"), "{failure}");
        assert!(IntentTrees::from_bytes(&bytes[..bytes.len() / 2], 5).is_err());
    }
}
