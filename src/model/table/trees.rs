//! The trees of a table model's labels, next to its network, and their file.

use std::collections::BTreeMap;

use super::columns::TableInputs;
use crate::failure::{Failure, Result};
use crate::model::blend::{logit, sigmoid};
use crate::model::trees::{Ensemble, each_block};
use crate::model::weights::{tensors_from_bytes, tensors_to_bytes};

/// One ensemble for each label that has trees, by its place in the card.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct TableTrees(pub(crate) BTreeMap<usize, Ensemble>);

impl TableTrees {
    /// Returns the log-odds of a label for each row of [`rows_for_trees`]; `None` for a label without trees.
    pub(crate) fn log_odds(&self, rows: &[f32], width: usize, label: usize) -> Option<Vec<f64>> {
        let ensemble = self.0.get(&label)?;
        let mut all = vec![0.0; rows.len() / width.max(1)];
        each_block(rows, width, |first, count, columns| {
            all[first..first + count].copy_from_slice(&ensemble.score_block(columns)[..count]);
        });
        Some(all)
    }

    /// Returns a safetensors file with the tensors `trees.<place of the label>.<part>`.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut named = Vec::new();
        for (label, ensemble) in &self.0 {
            named.extend(ensemble.named_tensors(&format!("trees.{label}"))?);
        }
        tensors_to_bytes(&named)
    }

    /// Reads the file of [`Self::to_bytes`] for this many labels. Refuses trees that cannot be scored with rows of this width.
    pub(crate) fn from_bytes(bytes: &[u8], labels: usize, width: usize) -> Result<Self> {
        let mut tensors = tensors_from_bytes(bytes)?;
        let mut found = BTreeMap::new();
        for label in 0..labels {
            if let Some(ensemble) = Ensemble::take(&mut tensors, &format!("trees.{label}"), width)? {
                found.insert(label, ensemble);
            }
        }
        match tensors.keys().min() {
            None => Ok(Self(found)),
            Some(name) => Err(Failure::model(format!("{name}: expected trees of the labels only"))),
        }
    }
}

/// Returns the inputs of trees, row-major [rows, width], and the width: standardised numbers, null flags and indices of categories.
/// Trees read no vectors.
pub(crate) fn rows_for_trees(inputs: &TableInputs) -> (Vec<f32>, usize) {
    let per_row = |length: usize| length / inputs.rows.max(1);
    let (reals, categories) = (per_row(inputs.reals.len()), per_row(inputs.categories.len()));
    let mut rows = Vec::with_capacity(inputs.rows * (reals + categories));
    for row in 0..inputs.rows {
        rows.extend(&inputs.reals[row * reals..(row + 1) * reals]);
        rows.extend(inputs.categories[row * categories..(row + 1) * categories].iter().map(|&index| index as f32));
    }
    (rows, reals + categories)
}

/// Combines a network's probability and the trees' log-odds by the network's weight, on the logit scale.
pub(crate) fn blended(network_weight: f64, network: f64, trees: f64) -> f64 {
    sigmoid(network_weight * logit(network) + (1.0 - network_weight) * trees)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_hold_numbers_flags_and_categories() {
        let inputs =
            TableInputs { rows: 2, reals: vec![0.5, 0.0, 0.0, 1.0], categories: vec![3, 4, 0, 1], vectors: Vec::new() };
        assert_eq!(rows_for_trees(&inputs), (vec![0.5, 0.0, 3.0, 4.0, 0.0, 1.0, 0.0, 1.0], 4));
        assert_eq!(rows_for_trees(&TableInputs::default()), (Vec::new(), 0));
    }

    #[test]
    fn members_meet_on_the_logit_scale() {
        assert!((blended(1.0, 0.2, 3.0) - 0.2).abs() < 1e-12);
        assert!((blended(0.0, 0.2, 0.0) - 0.5).abs() < 1e-12);
        assert!((blended(0.5, 0.5, 2.0) - sigmoid(1.0)).abs() < 1e-12);
    }
}
