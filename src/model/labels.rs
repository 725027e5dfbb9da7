//! The head of every text and image classifier: one linear map from a vector to label scores, and a label structure on top.
//! `text` and `vision` supply the vectors, `training::labelled` trains the head, `score` calls it.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, nn};

use super::heads::{self, IntentHead};
use crate::config::networks::HeadName;
use crate::failure::Result;

/// Dependency between the labels of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LabelStructure {
    /// Exactly one label per row: probabilities sum to one.
    Single,
    /// Independent labels.
    Multi,
    /// Ordered binary labels, each of which depends on the previous one.
    Chain,
}

/// Sizes of a label head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadSizes {
    /// Numbers of a vector.
    pub(crate) width: i64,
    pub(crate) labels: usize,
}

/// Maps the vector of a text or image to its labels.
#[derive(Debug)]
pub(crate) struct LabelHead {
    pub(crate) labels: LabelStructure,
    map: nn::Linear,
    chain: Box<dyn IntentHead>,
}

impl LabelHead {
    /// Creates initial weights below `path`.
    pub(crate) fn new(path: &nn::Path<'_>, labels: LabelStructure, sizes: HeadSizes) -> Self {
        let name = match labels {
            LabelStructure::Single | LabelStructure::Multi => HeadName::Sigmoid,
            LabelStructure::Chain => HeadName::Crf,
        };
        Self {
            labels,
            map: nn::linear(path / "map", sizes.width, sizes.labels as i64, Default::default()),
            chain: heads::build_for(&(path / "chain"), name, sizes.labels),
        }
    }

    pub(crate) fn sizes(&self) -> HeadSizes {
        let size = self.map.ws.size();
        HeadSizes { width: size[1], labels: size[0] as usize }
    }

    /// Vectors, float32 [rows, width] → logits, float32 [rows, labels].
    ///
    /// There is no dropout: most of a vector is common to all rows, which the bias removes. Dropping parts of that common
    /// component would hide the differences between rows.
    pub(crate) fn logits(&self, vectors: &Tensor) -> Result<Tensor> {
        Ok(vectors.f_linear(&self.map.ws, self.map.bs.as_ref())?)
    }

    /// Logits → the probability of each label, the same shape.
    pub(crate) fn probabilities(&self, logits: &Tensor) -> Tensor {
        match self.labels {
            LabelStructure::Single => logits.softmax(-1, Kind::Float),
            LabelStructure::Multi | LabelStructure::Chain => self.chain.probabilities(logits),
        }
    }

    /// Logits → the most probable labels as zeros and ones, the same shape.
    pub(crate) fn decode(&self, logits: &Tensor) -> Tensor {
        match self.labels {
            LabelStructure::Single => logits.zeros_like().scatter_value(1, &logits.argmax(1, true), 1.0),
            LabelStructure::Multi | LabelStructure::Chain => self.chain.decode(logits),
        }
    }

    /// Returns the negative log-likelihood of label vectors, float [rows]. Not defined for [`LabelStructure::Single`].
    pub(crate) fn negative_log_likelihood(&self, logits: &Tensor, labels: &Tensor) -> Tensor {
        self.chain.negative_log_likelihood(logits, labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn decoding_sets_the_most_probable_single_label() {
        let store = nn::VarStore::new(Device::Cpu);
        let head = LabelHead::new(&store.root(), LabelStructure::Single, HeadSizes { width: 4, labels: 3 });
        let logits = Tensor::from_slice(&[0f32, 2.0, 1.0, 5.0, -1.0, 3.0]).view([2, 3]);
        let decoded = Vec::<Vec<f32>>::try_from(head.decode(&logits)).unwrap();
        assert_eq!(decoded, [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]);
    }
}
