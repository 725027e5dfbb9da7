//! Groups the variables of a classifier's store by the first part of their names: the encoder's, the head's, and others
//! that a task adds.

use tch::{Tensor, nn};

use crate::failure::Result;

/// The group of the head.
pub(crate) const HEAD: &str = "head";

/// Returns the weights of a group by their names in it, on the CPU.
pub(crate) fn weights_of_group(store: &nn::VarStore, wanted: &str) -> Result<Vec<(String, Tensor)>> {
    let mut weights = Vec::new();
    for (name, weight) in store.variables() {
        if let (group, name_in_group) = split_group(&name)
            && group == wanted
        {
            weights.push((name_in_group.to_string(), weight.detach().f_to_device(tch::Device::Cpu)?));
        }
    }
    weights.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(weights)
}

/// Splits a variable's name into its group and the name in it.
pub(crate) fn split_group(name: &str) -> (&str, &str) {
    name.split_once('.').unwrap_or((name, ""))
}
