//! Ids that training never met say nothing: an event about an item of after the training reads as one whose id is hidden.
//!
//! The vector of a bucket that no event and no item of the index led to is what chance put there. Left so, it would drown
//! what the item's category and contents say, and those alone are known of a new item (DropoutNet, Volkovs et al. 2017).
//! `train.item_dropout` teaches the network to do without ids.

use tch::{Tensor, nn};

use crate::failure::Result;
use crate::model::weights;

/// The vectors of ids among the weights; one a bucket, the first for no id.
const VECTORS: &str = "intent.item.weight";

/// Gives all buckets but those `met` (one flag a bucket) the vector of a hidden id.
pub fn hide(store: &nn::VarStore, met: &[bool]) -> Result<()> {
    weights::replace(store, VECTORS, |vectors| {
        let met = Tensor::f_from_slice(met)?.f_to_device(vectors.device())?.f_unsqueeze(1)?;
        Ok(vectors.f_where_self(&met, &vectors.f_narrow(0, 0, 1)?)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn buckets_that_were_met_keep_their_vectors_and_the_others_are_as_no_id() {
        let store = nn::VarStore::new(Device::Cpu);
        let mut vectors = (store.root() / "intent" / "item").var("weight", &[5, 3], nn::Init::Const(0.0));
        let numbers = Tensor::arange(15, (Kind::Float, Device::Cpu)).view([5, 3]);
        tch::no_grad(|| vectors.copy_(&numbers));
        hide(&store, &[false, false, true, false, true]).unwrap();
        let rows: Vec<Vec<f32>> = Vec::try_from(&vectors).unwrap();
        assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), [0.0, 0.0, 6.0, 0.0, 12.0]);
        assert!(hide(&nn::VarStore::new(Device::Cpu), &[]).is_err());
    }
}
