//! Trees whose leaves are added up: the log-odds of one target, or a number of a forecast.

use std::collections::HashMap;
use tch::{Kind, Tensor};

use super::block_tree::{self, BLOCK_ROWS, BlockColumns, BlockTree};
use super::perfect_tree::{NODES, PLACES, PerfectTree};
use crate::failure::{Failure, Result};

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Ensemble {
    trees: Vec<PerfectTree>,
    /// The same trees as rows pass them.
    blocks: Vec<BlockTree>,
}

/// The parts of an ensemble in a file, each a tensor.
const PARTS: [&str; 5] = ["feature", "threshold", "null_left", "value", "cover"];

/// Splits rows, row-major [rows, `features`] with NaN for null, into blocks, and calls `score` with the first row of each, the number
/// of its rows, and its columns.
pub(crate) fn each_block(inputs: &[f32], features: usize, mut score: impl FnMut(usize, usize, &BlockColumns)) {
    let width = features.max(1);
    let mut columns = BlockColumns::new(width);
    for (block, rows) in inputs.chunks(width * BLOCK_ROWS).enumerate() {
        columns.fill(rows, width);
        score(block * BLOCK_ROWS, rows.len() / width, &columns);
    }
}

impl Ensemble {
    pub(crate) fn new(trees: Vec<PerfectTree>) -> Self {
        let blocks = trees.iter().map(BlockTree::new).collect();
        Self { trees, blocks }
    }

    pub(crate) fn trees(&self) -> &[PerfectTree] {
        &self.trees
    }

    /// Adds up the leaves of one block of rows, in f64.
    pub(crate) fn score_block(&self, columns: &BlockColumns) -> [f64; BLOCK_ROWS] {
        block_tree::score_block(&self.blocks, columns)
    }

    /// Returns the tensors of a file, whose names begin with `name`.
    pub(crate) fn named_tensors(&self, name: &str) -> Result<Vec<(String, Tensor)>> {
        Ok(PARTS.iter().zip(self.to_tensors()?).map(|(part, tensor)| (format!("{name}.{part}"), tensor)).collect())
    }

    /// Takes the tensors whose names begin with `name`, `None` where there are none. Refuses trees that cannot be scored with
    /// `features` features.
    pub(crate) fn take(tensors: &mut HashMap<String, Tensor>, name: &str, features: usize) -> Result<Option<Self>> {
        if !tensors.contains_key(&format!("{name}.{}", PARTS[0])) {
            return Ok(None);
        }
        let mut part = |part: &str| -> Result<Tensor> {
            let tensor = tensors.remove(&format!("{name}.{part}"));
            tensor.ok_or_else(|| Failure::model(format!("{name}.{part} is missing")))
        };
        let [feature, threshold, null_left, value, cover] = PARTS;
        let parts = [part(feature)?, part(threshold)?, part(null_left)?, part(value)?, part(cover)?];
        Self::from_tensors(parts, features).map(Some).map_err(|failure| failure.at(name))
    }

    /// Returns the tensors of [`PARTS`]: int32, float32 and bool [trees, nodes], float64 and float32 [trees, nodes + leaves].
    fn to_tensors(&self) -> Result<[Tensor; 5]> {
        let count = self.trees.len() as i64;
        let features: Vec<i32> = self.trees.iter().flat_map(|tree| tree.feature.map(i32::from)).collect();
        let thresholds: Vec<f32> = self.trees.iter().flat_map(|tree| tree.threshold).collect();
        let nulls: Vec<bool> = self.trees.iter().flat_map(|tree| tree.null_left).collect();
        let values: Vec<f64> = self.trees.iter().flat_map(|tree| tree.value).collect();
        let covers: Vec<f32> = self.trees.iter().flat_map(|tree| tree.cover).collect();
        let (nodes, places) = (NODES as i64, PLACES as i64);
        Ok([
            Tensor::f_from_slice(&features)?.f_view([count, nodes])?,
            Tensor::f_from_slice(&thresholds)?.f_view([count, nodes])?,
            Tensor::f_from_slice(&nulls)?.f_view([count, nodes])?,
            Tensor::f_from_slice(&values)?.f_view([count, places])?,
            Tensor::f_from_slice(&covers)?.f_view([count, places])?,
        ])
    }

    /// Reads the tensors of [`Self::to_tensors`]. Refuses other shapes, and trees that test a feature that there is not, have a
    /// threshold that is no number, or an output that is not finite.
    fn from_tensors(tensors: [Tensor; 5], features: usize) -> Result<Self> {
        let [feature, threshold, null_left, value, cover] = tensors;
        let count = feature.size().first().copied().unwrap_or_default();
        let shapes = [(&feature, NODES), (&threshold, NODES), (&null_left, NODES), (&value, PLACES), (&cover, PLACES)];
        for ((tensor, width), part) in shapes.into_iter().zip(PARTS) {
            let (expected, found) = ([count, width as i64], tensor.size());
            if found != expected {
                return Err(Failure::model(format!("{part}: expected the shape {expected:?}, got {found:?}")));
            }
        }
        let flat =
            |tensor: &Tensor, kind: Kind| Ok::<_, Failure>(tensor.f_to_kind(kind)?.f_contiguous()?.f_view([-1])?);
        let feature_numbers = Vec::<i64>::try_from(&flat(&feature, Kind::Int64)?)?;
        let thresholds = Vec::<f32>::try_from(&flat(&threshold, Kind::Float)?)?;
        let nulls = Vec::<bool>::try_from(&flat(&null_left, Kind::Bool)?)?;
        let values = Vec::<f64>::try_from(&flat(&value, Kind::Double)?)?;
        let covers = Vec::<f32>::try_from(&flat(&cover, Kind::Float)?)?;
        if let Some(unknown) = feature_numbers.iter().find(|&&number| number < 0 || number >= features as i64) {
            return Err(Failure::model(format!(
                "feature: expected 0 to {}, got {unknown}",
                features.saturating_sub(1)
            )));
        }
        if thresholds.iter().any(|threshold| threshold.is_nan()) {
            return Err(Failure::model("threshold: expected numbers, got NaN"));
        }
        if let Some(wrong) = values.iter().find(|value| !value.is_finite()) {
            return Err(Failure::model(format!("value: expected finite numbers, got {wrong}")));
        }
        let tree = |at: usize| PerfectTree {
            feature: std::array::from_fn(|node| feature_numbers[at * NODES + node] as u16),
            threshold: std::array::from_fn(|node| thresholds[at * NODES + node]),
            null_left: std::array::from_fn(|node| nulls[at * NODES + node]),
            value: std::array::from_fn(|place| values[at * PLACES + place]),
            cover: std::array::from_fn(|place| covers[at * PLACES + place]),
        };
        Ok(Self::new((0..count as usize).map(tree).collect()))
    }
}
