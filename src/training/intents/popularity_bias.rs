//! Starts the bias of each item at its popularity, so that training learns what differs between users.
//!
//! Against uniformly drawn candidates, the best ranking without personal taste scores an item by the log of its share of
//! interactions. From zero, the few hundred steps of a small lake would pass before the biases got there.

use tch::{Tensor, nn};

use crate::failure::Result;
use crate::model::bundle::IndexedItem;
use crate::model::weights;

/// The item biases among the weights, one for each bucket of item ids.
const BIASES: &str = "intent.item_bias.weight";

/// Sets the bias of each item to the centred log of one plus the number of its users (`next_item_users`, one per item).
pub(crate) fn start_at_popularity(
    store: &nn::VarStore,
    items: &[IndexedItem],
    item_buckets: u64,
    next_item_users: &[u64],
) -> Result<()> {
    let logs: Vec<f64> = next_item_users.iter().map(|&n| (n as f64).ln_1p()).collect();
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
