//! The recommendation index of a bundle: its items, their vectors and their popularity biases.

use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use tch::{Device, Kind, Tensor};

use crate::failure::{Failure, Result};
use crate::model::contents::{ContentKeys, ContentRows, Contents, rows_tensor};
use crate::model::inputs::{CATEGORY_BUCKETS, hash_bucket};
use crate::model::intent::IntentNetwork;
use crate::model::weights;

/// Items whose vectors are computed in one pass, since content vectors are much longer than item vectors.
const PASS_ITEMS_MAX: usize = 8192;

/// One item that the model can recommend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IndexedItem {
    pub item_id: String,
    pub category: Option<String>,
    /// Keys of its title, image and video.
    pub contents: ContentKeys,
    /// Recent interactions per day on which the item was in the catalogue.
    #[serde(rename = "met_per_day")]
    pub interactions_per_day: f64,
}

impl IndexedItem {
    /// Returns the buckets of the id and of the category (0 for none), as event inputs have them.
    pub(crate) fn buckets(&self, item_buckets: u64) -> (i64, i64) {
        (hash_bucket(&self.item_id, item_buckets), self.category_bucket())
    }

    fn category_bucket(&self) -> i64 {
        self.category.as_deref().map_or(0, |category| hash_bucket(category, CATEGORY_BUCKETS))
    }
}

/// Item vectors and biases that the network computes, on the CPU.
#[derive(Debug)]
pub(crate) struct ItemVectors {
    /// float32 [items, width].
    pub(crate) vectors: Tensor,
    /// float32 [items].
    pub(crate) bias: Tensor,
}

impl ItemVectors {
    /// Computes the vectors of items that were all part of the training.
    pub(crate) fn of_trained_items(
        network: &IntentNetwork,
        items: &[IndexedItem],
        contents: &Contents,
        device: Device,
    ) -> Result<Self> {
        let inputs: Vec<ItemInput> =
            items.iter().map(|item| ItemInput::with_id(item, network.shape.item_buckets, contents)).collect();
        Self::compute(network, &inputs, contents, device)
    }

    /// Computes the vectors of items that may be missing from the `trained` ones (cold start).
    ///
    /// The id bucket of a cold-start item may belong to a trained item, so it is masked, as training does at random. Its bias
    /// follows from its popularity.
    pub(super) fn of_catalogue(
        network: &IntentNetwork,
        trained: &[IndexedItem],
        items: &[IndexedItem],
        contents: &Contents,
        device: Device,
    ) -> Result<Self> {
        let trained_ids: HashSet<&str> = trained.iter().map(|item| item.item_id.as_str()).collect();
        let is_trained = |item: &IndexedItem| trained_ids.contains(item.item_id.as_str());
        let mut inputs = Vec::with_capacity(items.len());
        for item in items {
            inputs.push(match is_trained(item) {
                true => ItemInput::with_id(item, network.shape.item_buckets, contents),
                false => ItemInput::without_id(item, contents),
            });
        }
        let computed = Self::compute(network, &inputs, contents, device)?;
        let mut biases = Vec::<f32>::try_from(&computed.bias)?;
        let mut trained_biases = Vec::new();
        for (item, &bias) in items.iter().zip(&biases) {
            if is_trained(item) {
                trained_biases.push((item.interactions_per_day, f64::from(bias)));
            }
        }
        if let Some(line) = PopularityLine::fit(&trained_biases) {
            for (item, bias) in items.iter().zip(&mut biases) {
                if !is_trained(item) {
                    *bias = line.bias(item.interactions_per_day) as f32;
                }
            }
        }
        Ok(Self { vectors: computed.vectors, bias: Tensor::f_from_slice(&biases)? })
    }

    fn compute(network: &IntentNetwork, items: &[ItemInput], contents: &Contents, device: Device) -> Result<Self> {
        let to_device = |ids: &[i64]| -> Result<Tensor> { Ok(Tensor::f_from_slice(ids)?.f_to_device(device)?) };
        let _no_gradients = tch::no_grad_guard();
        // An empty catalogue has empty tensors of the same shape.
        let mut vectors = vec![Tensor::f_zeros([0, network.shape.width], (Kind::Float, Device::Cpu))?];
        let mut biases = vec![Tensor::f_zeros([0], (Kind::Float, Device::Cpu))?];
        for pass in items.chunks(PASS_ITEMS_MAX) {
            let ids: Vec<i64> = pass.iter().map(|item| item.bucket).collect();
            let categories: Vec<i64> = pass.iter().map(|item| item.category).collect();
            let rows: Vec<ContentRows> = pass.iter().map(|item| item.contents).collect();
            let gathered = contents.gather(&rows_tensor(&rows)?)?;
            let batches = gathered.iter().map(|batch| batch.to(device)).collect::<Result<Vec<_>>>()?;
            let (mapped, bias) = network.items(&to_device(&ids)?, &to_device(&categories)?, &batches)?;
            vectors.push(mapped.f_to_device(Device::Cpu)?);
            biases.push(bias.f_to_device(Device::Cpu)?);
        }
        Ok(Self { vectors: Tensor::f_cat(&vectors, 0)?, bias: Tensor::f_cat(&biases, 0)? })
    }

    /// Returns another handle to the same tensors.
    pub(super) fn share(&self) -> Self {
        Self { vectors: self.vectors.shallow_clone(), bias: self.bias.shallow_clone() }
    }

    /// Returns the safetensors file of the vectors.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        let named = [("vectors", &self.vectors), ("bias", &self.bias)];
        weights::tensors_to_bytes(&named.map(|(name, tensor)| (name.to_string(), tensor.shallow_clone())))
    }

    /// Reads the safetensors file of the vectors; refuses other shapes than those of `items` vectors of `width` numbers.
    pub(super) fn from_bytes(bytes: &[u8], items: usize, width: i64) -> Result<Self> {
        let mut named = weights::tensors_from_bytes(bytes)?;
        let mut take = |name: &str, shape: &[i64]| match named.remove(name) {
            Some(tensor) if tensor.size() == shape => Ok(tensor),
            other => {
                let got = other.map_or("none".into(), |tensor| format!("{:?}", tensor.size()));
                Err(Failure::model(format!("{name}: expected the shape {shape:?}, got {got}")))
            }
        };
        Ok(Self { vectors: take("vectors", &[items as i64, width])?, bias: take("bias", &[items as i64])? })
    }
}

/// One item as the network reads it.
struct ItemInput {
    /// 0 for a masked id.
    bucket: i64,
    category: i64,
    contents: ContentRows,
}

impl ItemInput {
    fn with_id(item: &IndexedItem, item_buckets: u64, contents: &Contents) -> Self {
        Self { bucket: hash_bucket(&item.item_id, item_buckets), ..Self::without_id(item, contents) }
    }

    fn without_id(item: &IndexedItem, contents: &Contents) -> Self {
        Self { bucket: 0, category: item.category_bucket(), contents: contents.rows(&item.contents) }
    }
}

/// The bias of trained items as a linear function of the log of their interactions per day. A cold-start item starts with
/// the bias of trained items that are as popular, as the best ranking without user preferences has it.
#[derive(Debug)]
struct PopularityLine {
    mean_bias: f64,
    mean_log: f64,
    slope: f64,
    /// The range of logs that the line was fitted on; others are clamped to it.
    log_min: f64,
    log_max: f64,
}

impl PopularityLine {
    /// Fits the line to pairs of interactions per day and bias by least squares. The slope is never negative. Returns `None`
    /// without pairs.
    fn fit(pairs: &[(f64, f64)]) -> Option<Self> {
        let logs: Vec<f64> = pairs.iter().map(|(interactions, _)| interactions.ln_1p()).collect();
        let n = pairs.len() as f64;
        let mean_log = logs.iter().sum::<f64>() / n;
        let mean_bias = pairs.iter().map(|(_, bias)| bias).sum::<f64>() / n;
        let covariance =
            logs.iter().zip(pairs).map(|(log, (_, bias))| (log - mean_log) * (bias - mean_bias)).sum::<f64>();
        let variance = logs.iter().map(|log| (log - mean_log).powi(2)).sum::<f64>();
        let slope = if variance > 0.0 { (covariance / variance).max(0.0) } else { 0.0 };
        let log_min = logs.iter().copied().reduce(f64::min)?;
        let log_max = logs.iter().copied().reduce(f64::max)?;
        Some(Self { mean_bias, mean_log, slope, log_min, log_max })
    }

    fn bias(&self, interactions_per_day: f64) -> f64 {
        let log = interactions_per_day.max(0.0).ln_1p().clamp(self.log_min, self.log_max);
        self.mean_bias + self.slope * (log - self.mean_log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_item_has_the_bias_of_items_that_are_as_popular() {
        let trained = [(0.0, -1.0), (f64::exp(1.0) - 1.0, 0.0), (f64::exp(2.0) - 1.0, 1.0)];
        let line = PopularityLine::fit(&trained).unwrap();
        for (interactions, bias) in trained {
            assert!((line.bias(interactions) - bias).abs() < 1e-9, "{line:?}");
        }
        assert!((line.bias(1e9) - 1.0).abs() < 1e-9 && (line.bias(-3.0) + 1.0).abs() < 1e-9, "{line:?}");
        assert!(PopularityLine::fit(&[]).is_none());
        assert_eq!(PopularityLine::fit(&[(2.0, 0.5), (2.0, 1.5)]).unwrap().bias(9.0), 1.0);
        assert_eq!(
            PopularityLine::fit(&[(1.0, 1.0), (2.0, 0.0)]).unwrap().bias(1.0),
            0.5,
            "popularity never lowers the bias"
        );
    }
}
