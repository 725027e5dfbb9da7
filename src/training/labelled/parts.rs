//! All variables of a classifier lie in one store: the encoder's below a name of its task, the head's below `head`.

use tch::{Tensor, nn};

use crate::failure::Result;

pub const HEAD: &str = "head";

/// The weights of a part of the store by their own names, on the CPU.
pub fn taken(store: &nn::VarStore, wanted: &str) -> Result<Vec<(String, Tensor)>> {
    let mut named = Vec::new();
    for (name, weight) in store.variables() {
        if let (part, own) = part(&name)
            && part == wanted
        {
            named.push((own.to_string(), weight.detach().f_to_device(tch::Device::Cpu)?));
        }
    }
    named.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(named)
}

/// The part of the store and the name in it.
pub fn part(name: &str) -> (&str, &str) {
    name.split_once('.').unwrap_or((name, ""))
}
