//! Loads a network's weights from one safetensors file or from shards, renames them to their canonical names and hands
//! them out by name. Each must exist once, in the expected shape, with finite numbers. Tensors that no layer takes must
//! be on the list of ignored ones.

use std::collections::{BTreeSet, HashMap};
use tch::{Device, Kind, Tensor, nn};

use super::tensor_names::TensorNames;
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::model::weights;

/// Holds all weights, if they are not in shards.
pub(crate) const SINGLE_FILE: &str = "model.safetensors";
/// Names the shard of each tensor.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// Returns the names and bytes of the weights files, ordered by name.
pub(crate) async fn read_files(folder: &Location) -> Result<Vec<(String, bytes::Bytes)>> {
    if let Some(bytes) = folder.read_if_there(SINGLE_FILE).await? {
        return Ok(vec![(SINGLE_FILE.into(), bytes)]);
    }
    let Some(index) = folder.read_if_there(INDEX).await? else {
        return Err(Failure::model(format!("{}: expected {SINGLE_FILE} or {INDEX}, found neither", folder.url))
            .hint("convert other formats with save_pretrained(folder, safe_serialization=True)"));
    };
    let mut files = Vec::new();
    for shard in shards(&index).map_err(|f| f.at(format!("{}{INDEX}", folder.url)))? {
        let Some(bytes) = folder.read_if_there(&shard).await? else {
            return Err(Failure::model(format!("{}{shard}: not found, though {INDEX} names it", folder.url)));
        };
        files.push((shard, bytes));
    }
    Ok(files)
}

fn shards(index: &[u8]) -> Result<BTreeSet<String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let index: Index = serde_json::from_slice(index).map_err(|e| Failure::model(e.to_string()))?;
    Ok(index.weight_map.into_values().collect())
}

/// Returns the tensors of all files by their names in the files.
pub(crate) fn tensors(files: &[(String, bytes::Bytes)]) -> Result<HashMap<String, Tensor>> {
    let mut all = HashMap::new();
    for (file, bytes) in files {
        for (name, tensor) in weights::tensors_from_bytes(bytes).map_err(|f| f.at(file))? {
            if all.insert(name.clone(), tensor).is_some() {
                return Err(Failure::model(format!("{file}: {name} is also in another file")));
            }
        }
    }
    Ok(all)
}

/// Hands out tensors as trainable variables below a path of a store.
pub(crate) struct WeightLoader<'a> {
    path: nn::Path<'a>,
    names: &'static TensorNames,
    tensors: HashMap<String, Tensor>,
}

impl<'a> WeightLoader<'a> {
    pub(crate) fn new(
        path: &nn::Path<'a>,
        names: &'static TensorNames,
        tensors: HashMap<String, Tensor>,
    ) -> Result<Self> {
        let mut renamed = HashMap::new();
        for (name, tensor) in tensors {
            let canonical = names.canonical(&name);
            if renamed.insert(canonical.clone(), tensor).is_some() {
                return Err(Failure::model(format!("{canonical} exists twice, once as {name}")));
            }
        }
        Ok(Self { path: path.sub_path(""), names, tensors: renamed })
    }

    pub(crate) fn names(&self) -> &'static TensorNames {
        self.names
    }

    /// Takes out a tensor and converts it to float32.
    pub(crate) fn variable(&mut self, name: &str, shape: &[i64]) -> Result<Tensor> {
        let Some(tensor) = self.tensors.remove(name) else {
            return Err(Failure::model(format!("{name} is missing: expected the shape {shape:?}")));
        };
        if tensor.size() != shape {
            let got = tensor.size();
            return Err(Failure::model(format!("{name}: expected the shape {shape:?}, got {got:?}"))
                .hint("config.json and the weights belong to different models"));
        }
        if !matches!(tensor.kind(), Kind::Float | Kind::Half | Kind::BFloat16 | Kind::Double) {
            let got = tensor.kind();
            return Err(Failure::model(format!("{name}: expected float32, float16 or bfloat16, got {got:?}")));
        }
        let tensor = tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?;
        if !weights::all_finite(&tensor)? {
            return Err(Failure::model(format!("{name}: expected finite numbers, got NaN or infinity")));
        }
        let (parent, last) = name.rsplit_once('.').unwrap_or(("", name));
        Ok(self.path.sub_path(parent).f_var_copy(last, &tensor)?)
    }

    /// Refuses tensors that no layer took, except those that are ignored.
    pub(crate) fn finish(self) -> Result<()> {
        let left: BTreeSet<&String> = self.tensors.keys().filter(|name| !self.names.is_ignored(name)).collect();
        match left.first() {
            None => Ok(()),
            Some(name) => Err(Failure::model(format!(
                "{name} of the shape {:?} belongs to no layer that config.json describes",
                self.tensors[*name].size()
            ))
            .hint("config.json and the weights belong to different models, or the model has unsupported parts")),
        }
    }
}

/// Descends a path by a name with dots, which torch's paths refuse.
trait SubPath<'a> {
    fn sub_path(&self, dotted: &str) -> nn::Path<'a>;
}

impl<'a> SubPath<'a> for nn::Path<'a> {
    fn sub_path(&self, dotted: &str) -> nn::Path<'a> {
        dotted.split('.').filter(|part| !part.is_empty()).fold(self.clone(), |path, part| path.sub(part))
    }
}
