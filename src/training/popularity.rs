//! Where ranking begins: each item's bias starts at how often the item is met, so that training learns what differs.
//!
//! Against candidates drawn alike, the best ranking without any taste scores an item by the log of its share of
//! meetings. Started at zero, a small lake's few hundred steps would go by before the biases got there.

use tch::{Tensor, nn};

use crate::failure::Result;
use crate::model::bundle::IndexedItem;
use crate::model::weights;

/// The biases among the weights; one a bucket of item ids.
const BIASES: &str = "intent.item_bias.weight";

/// Sets the biases of `items` to the centred logs of one plus how often each was met (`met`, one an item).
pub fn start_at_popularity(store: &nn::VarStore, items: &[IndexedItem], item_buckets: u64, met: &[u64]) -> Result<()> {
    let logs: Vec<f64> = met.iter().map(|&n| (n as f64).ln_1p()).collect();
    let mean = logs.iter().sum::<f64>() / logs.len().max(1) as f64;
    weights::replace(store, BIASES, |biases| {
        let mut start = vec![0f32; biases.numel()];
        for (item, log) in items.iter().zip(&logs) {
            start[item.buckets(item_buckets).0 as usize] = (log - mean) as f32;
        }
        Ok(Tensor::f_from_slice(&start)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::networks::{BackboneName, HeadName};
    use crate::model::intent::IntentNetwork;
    use crate::model::shape::IntentShape;
    use tch::Device;

    #[test]
    fn an_untrained_network_ranks_by_popularity() {
        let shape = IntentShape::tiny(BackboneName::Gru, HeadName::Sigmoid);
        let store = nn::VarStore::new(Device::Cpu);
        let network = IntentNetwork::new(&(store.root() / "intent"), &shape);
        let items = ["a", "b", "c"].map(|id| IndexedItem {
            item_id: id.into(),
            category: None,
            contents: [None; 3],
            interactions_per_day: 0.0,
        });
        start_at_popularity(&store, &items, 1000, &[0, 3, 1]).unwrap();
        let buckets: Vec<i64> = items.iter().map(|i| i.buckets(1000).0).collect();
        let (_, bias) = tch::no_grad(|| {
            network.items(&Tensor::from_slice(&buckets), &Tensor::zeros_like(&Tensor::from_slice(&buckets)), &[])
        })
        .unwrap();
        let bias = Vec::<f32>::try_from(&bias).unwrap();
        assert!(bias[1] > bias[2] && bias[2] > bias[0] && bias.iter().sum::<f32>().abs() < 1e-5, "{bias:?}");
    }
}
