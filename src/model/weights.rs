//! Weights as bytes: one safetensors file for the variables of several stores. Numbers that are not finite are refused.

use std::collections::HashMap;
use tch::{Device, Tensor, nn};

use crate::failure::{Failure, Result};

/// Returns the weights of all stores as a safetensors file; names are unique across stores. Refuses weights that are not
/// finite.
pub(crate) fn to_bytes(stores: &[&nn::VarStore]) -> Result<Vec<u8>> {
    let mut named = Vec::new();
    for store in stores {
        for (name, tensor) in store.variables() {
            if !all_finite(&tensor)? {
                return Err(Failure::model(format!("weights of {name} are not finite after training"))
                    .hint("lower train.learning_rate"));
            }
            named.push((name, tensor.f_to_device(Device::Cpu)?));
        }
    }
    tensors_to_bytes(&named)
}

/// Returns named tensors as the bytes of a safetensors file.
pub(crate) fn tensors_to_bytes(named: &[(String, Tensor)]) -> Result<Vec<u8>> {
    // libtorch's bindings read and write safetensors by path only, so the bytes pass through a temporary file.
    let path = temporary();
    let written = Tensor::write_safetensors(named, &path).map_err(|e| unusable(&path, e));
    let bytes = written.and_then(|()| std::fs::read(&path).map_err(|e| unusable(&path, e)));
    std::fs::remove_file(&path).unwrap_or_default();
    bytes
}

/// Returns the tensors of a safetensors file, by name.
pub(crate) fn tensors_from_bytes(bytes: &[u8]) -> Result<HashMap<String, Tensor>> {
    let path = temporary();
    let written = std::fs::write(&path, bytes).map_err(|e| unusable(&path, e));
    let read = written.map(|()| Tensor::read_safetensors(&path));
    std::fs::remove_file(&path).unwrap_or_default();
    let read = read?.map_err(|e| Failure::model(e.to_string().lines().next().unwrap_or_default()))?;
    Ok(read.into_iter().collect())
}

/// A failure of the folder for temporary files, which is full or cannot be written.
fn unusable(path: &std::path::Path, error: impl std::fmt::Display) -> Failure {
    Failure::transient(format!("{}: {error}", path.display()))
}

/// Returns how many numbers a store holds.
pub(crate) fn parameter_count(store: &nn::VarStore) -> i64 {
    store.variables().values().map(|variable| variable.numel() as i64).sum()
}

/// Replaces the numbers of one variable by those that `update` computes from the present ones: as many, on any device.
pub(crate) fn replace(store: &nn::VarStore, name: &str, update: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<()> {
    let Some(mut variable) = store.variables().remove(name) else {
        return Err(Failure::bug(format!("no weights are named {name}")));
    };
    tch::no_grad(|| {
        let numbers = update(&variable)?.f_view_as(&variable)?;
        variable.f_copy_(&numbers)?;
        Ok(())
    })
}

/// Copies weights into the variables of all stores. Names and shapes must match exactly, and all numbers must be finite.
pub(crate) fn from_bytes(stores: &mut [&mut nn::VarStore], bytes: &[u8]) -> Result<()> {
    from_tensors(stores, tensors_from_bytes(bytes)?)
}

/// Does the same as [`from_bytes`] for tensors.
pub(crate) fn from_tensors(stores: &mut [&mut nn::VarStore], mut weights: HashMap<String, Tensor>) -> Result<()> {
    for store in stores {
        for (name, mut variable) in store.variables() {
            let Some(saved) = weights.remove(&name) else {
                let wanted = variable.size();
                return Err(Failure::model(format!("{name} is missing: expected the shape {wanted:?}")));
            };
            if saved.size() != variable.size() {
                let wanted = variable.size();
                let got = saved.size();
                return Err(Failure::model(format!("{name}: expected the shape {wanted:?}, got {got:?}")));
            }
            if !all_finite(&saved)? {
                return Err(Failure::model(format!("{name} holds numbers that are not finite")));
            }
            tch::no_grad(|| variable.f_copy_(&saved))?;
        }
    }
    match weights.iter().min_by_key(|(name, _)| *name) {
        None => Ok(()),
        Some((name, left)) => {
            let got = left.size();
            Err(Failure::model(format!(
                "{name} belongs to no network of the card: expected none, got the shape {got:?}"
            )))
        }
    }
}

/// Returns whether no number of a tensor is NaN or infinite.
pub(crate) fn all_finite(tensor: &Tensor) -> Result<bool> {
    Ok(tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? == 1)
}

fn temporary() -> std::path::PathBuf {
    std::env::temp_dir().join(format!("intentcast-{}.safetensors", uuid::Uuid::new_v4()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(of: &[(&str, &[f32])]) -> nn::VarStore {
        let store = nn::VarStore::new(Device::Cpu);
        for (name, values) in of {
            let _ = store.root().var_copy(name, &Tensor::from_slice(values));
        }
        store
    }

    #[test]
    fn weights_of_two_stores_round_trip_to_the_bit() {
        let a = store(&[("a", &[0.1, -2.5e-30])]);
        let b = store(&[("b", &[f32::MAX])]);
        let bytes = to_bytes(&[&a, &b]).unwrap();
        let mut c = store(&[("a", &[0.0, 0.0])]);
        let mut d = store(&[("b", &[0.0])]);
        from_bytes(&mut [&mut c, &mut d], &bytes).unwrap();
        assert_eq!(to_bytes(&[&c, &d]).unwrap(), bytes);
    }

    #[test]
    fn weights_that_are_not_finite_are_refused() {
        let invalid = store(&[("a", &[1.0, f32::NAN])]);
        let failure = to_bytes(&[&invalid]).unwrap_err();
        assert_eq!((failure.kind.exit_code(), failure.message.contains(" a ")), (6, true), "{failure}");
        let path = temporary();
        Tensor::write_safetensors(&[("a", Tensor::from_slice(&[1f32, f32::INFINITY]))], &path).unwrap();
        let failure = from_bytes(&mut [&mut store(&[("a", &[0.0, 0.0])])], &std::fs::read(&path).unwrap()).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(failure.kind.exit_code(), 6);
        assert!(failure.message.contains("a holds numbers that are not finite"), "{failure}");
    }

    #[test]
    fn weights_of_another_network_are_refused_by_name_and_shape() {
        let bytes = to_bytes(&[&store(&[("a", &[1.0, 2.0])])]).unwrap();
        let refused = |of: &[(&str, &[f32])]| from_bytes(&mut [&mut store(of)], &bytes).unwrap_err().message;
        assert!(refused(&[("b", &[0.0])]).contains("b is missing: expected the shape [1]"));
        assert!(refused(&[("a", &[0.0])]).contains("a: expected the shape [1], got [2]"));
        assert!(refused(&[]).contains("a belongs to no network of the card: expected none, got the shape [2]"));
        assert_eq!(from_bytes(&mut [], b"no weights").unwrap_err().kind.exit_code(), 6);
    }
}
