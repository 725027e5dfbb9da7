//! Cold start: an item id that training never saw gets the vector of a hidden id.
//!
//! The vector of a bucket that no event and no item of the index has is still random. It would drown what the category and
//! contents of a new item say, which is all that is known of it (DropoutNet, Volkovs et al. 2017). `train.item_dropout`
//! trains the network to do without ids.

use tch::{Tensor, nn};

use crate::failure::Result;
use crate::model::weights;

/// The vectors of item ids among the weights, one for each bucket; the first is that of no id.
const VECTORS: &str = "intent.item.weight";

/// Replaces the vectors of unseen buckets by that of no id. `seen` has one flag for each bucket.
pub(crate) fn reset_unseen_items(store: &nn::VarStore, seen: &[bool]) -> Result<()> {
    weights::replace(store, VECTORS, |vectors| {
        let seen = Tensor::f_from_slice(seen)?.f_to_device(vectors.device())?.f_unsqueeze(1)?;
        Ok(vectors.f_where_self(&seen, &vectors.f_narrow(0, 0, 1)?)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn unseen_buckets_get_the_vector_of_no_id() {
        let store = nn::VarStore::new(Device::Cpu);
        let mut vectors = (store.root() / "intent" / "item").var("weight", &[5, 3], nn::Init::Const(0.0));
        let numbers = Tensor::arange(15, (Kind::Float, Device::Cpu)).view([5, 3]);
        tch::no_grad(|| vectors.copy_(&numbers));
        reset_unseen_items(&store, &[false, false, true, false, true]).unwrap();
        let rows: Vec<Vec<f32>> = Vec::try_from(&vectors).unwrap();
        assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), [0.0, 0.0, 6.0, 0.0, 12.0]);
        assert!(reset_unseen_items(&nn::VarStore::new(Device::Cpu), &[]).is_err());
    }
}
