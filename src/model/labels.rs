//! The head of every classifier: one linear map from the vector of a text or picture to its labels, and how these hang
//! together. `text` and `vision` bring the vectors, `training::labelled` teaches it, `score` calls it.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, nn};

use super::heads::{self, IntentHead};
use crate::config::networks::HeadName;
use crate::failure::Result;

/// How the labels of a row hang together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Labels {
    /// A row has exactly one: probabilities add up to one.
    Single,
    /// Each on its own.
    Multi,
    /// Zeros and ones in a chain, each with the one before it.
    Chain,
}

/// From the vector of a text or picture to its labels.
#[derive(Debug)]
pub struct LabelHead {
    pub labels: Labels,
    map: nn::Linear,
    chain: Box<dyn IntentHead>,
}

impl LabelHead {
    pub fn new(path: &nn::Path<'_>, labels: Labels, sizes: (i64, usize)) -> Self {
        let (width, count) = sizes;
        let name = match labels {
            Labels::Single | Labels::Multi => HeadName::Sigmoid,
            Labels::Chain => HeadName::Crf,
        };
        Self {
            labels,
            map: nn::linear(path / "map", width, count as i64, Default::default()),
            chain: heads::build_for(&(path / "chain"), name, count),
        }
    }

    /// Numbers of a vector, and labels.
    pub fn sizes(&self) -> (i64, usize) {
        let size = self.map.ws.size();
        (size[1], size[0] as usize)
    }

    /// Vectors, float32 [rows, width] → raw scores, float32 [rows, labels]. There is no dropout: most of a vector is what
    /// all rows share, which the bias takes away again, and a part of it missing would drown what tells them apart.
    pub fn raw(&self, vectors: &Tensor) -> Result<Tensor> {
        Ok(vectors.f_linear(&self.map.ws, self.map.bs.as_ref())?)
    }

    /// Raw scores → the probability of each label, the same shape.
    pub fn probabilities(&self, raw: &Tensor) -> Tensor {
        match self.labels {
            Labels::Single => raw.softmax(-1, Kind::Float),
            Labels::Multi | Labels::Chain => self.chain.probabilities(raw),
        }
    }

    /// Raw scores → the most probable labels as zeros and ones, the same shape.
    pub fn decode(&self, raw: &Tensor) -> Tensor {
        match self.labels {
            Labels::Single => raw.zeros_like().scatter_value(1, &raw.argmax(1, true), 1.0),
            Labels::Multi | Labels::Chain => self.chain.decode(raw),
        }
    }

    /// Negative log-likelihood of label vectors, float [rows]; not of single labels.
    pub fn surprise(&self, raw: &Tensor, labels: &Tensor) -> Tensor {
        self.chain.surprise(raw, labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn the_most_probable_single_label_is_one_and_the_others_none() {
        let store = nn::VarStore::new(Device::Cpu);
        let head = LabelHead::new(&store.root(), Labels::Single, (4, 3));
        let raw = Tensor::from_slice(&[0f32, 2.0, 1.0, 5.0, -1.0, 3.0]).view([2, 3]);
        let decoded = Vec::<Vec<f32>>::try_from(head.decode(&raw)).unwrap();
        assert_eq!(decoded, [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]);
    }
}
