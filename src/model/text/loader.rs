//! Weights on their way from a folder into a network: read from one safetensors file or from shards, renamed to what the
//! families call them today, and handed out by name. Each must be there once, in the expected shape, with finite numbers;
//! what is left at the end must be something that is known to be of no use here.

use std::collections::{BTreeSet, HashMap};
use tch::{Device, Kind, Tensor, nn};

use super::names::Names;
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::model::weights;

/// One file of weights.
pub const WHOLE: &str = "model.safetensors";
/// Which shard holds which tensor, where there are several files.
pub const INDEX: &str = "model.safetensors.index.json";

/// The files of weights in the order of their names, with their bytes.
pub async fn read_files(folder: &Location) -> Result<Vec<(String, bytes::Bytes)>> {
    if let Some(whole) = folder.read_if_there(WHOLE).await? {
        return Ok(vec![(WHOLE.into(), whole)]);
    }
    let Some(index) = folder.read_if_there(INDEX).await? else {
        return Err(Failure::model(format!("{}: expected {WHOLE} or {INDEX}, found neither", folder.url))
            .hint("other formats are saved anew by save_pretrained(folder, safe_serialization=True)"));
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

/// The tensors of all files by the name that they have in the file.
pub fn tensors(files: &[(String, bytes::Bytes)]) -> Result<HashMap<String, Tensor>> {
    let mut all = HashMap::new();
    for (file, bytes) in files {
        for (name, tensor) in weights::tensors_from_bytes(bytes).map_err(|f| f.at(file))? {
            if all.insert(name.clone(), tensor).is_some() {
                return Err(Failure::model(format!("{file}: {name} is in another file too")));
            }
        }
    }
    Ok(all)
}

/// Hands out tensors as trainable variables of a store, below one path of it.
pub struct Loader<'a> {
    path: nn::Path<'a>,
    names: &'static Names,
    tensors: HashMap<String, Tensor>,
}

impl<'a> Loader<'a> {
    pub fn new(path: &nn::Path<'a>, names: &'static Names, tensors: HashMap<String, Tensor>) -> Result<Self> {
        let mut renamed = HashMap::new();
        for (name, tensor) in tensors {
            let today = names.today(&name);
            if renamed.insert(today.clone(), tensor).is_some() {
                return Err(Failure::model(format!("{today} is there twice, once as {name}")));
            }
        }
        Ok(Self { path: path.sub_all(""), names, tensors: renamed })
    }

    /// What the family calls its tensors.
    pub fn names(&self) -> &'static Names {
        self.names
    }

    /// Takes a tensor out, as float32.
    pub fn variable(&mut self, name: &str, shape: &[i64]) -> Result<Tensor> {
        let Some(tensor) = self.tensors.remove(name) else {
            return Err(Failure::model(format!("{name} is missing: expected the shape {shape:?}")));
        };
        if tensor.size() != shape {
            let got = tensor.size();
            return Err(Failure::model(format!("{name}: expected the shape {shape:?}, got {got:?}"))
                .hint("config.json and the weights are of two models"));
        }
        if !matches!(tensor.kind(), Kind::Float | Kind::Half | Kind::BFloat16 | Kind::Double) {
            let got = tensor.kind();
            return Err(Failure::model(format!("{name}: expected float32, float16 or bfloat16, got {got:?}")));
        }
        let tensor = tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?;
        if !weights::all_finite(&tensor)? {
            return Err(Failure::model(format!("{name} holds numbers that are not finite")));
        }
        let (below, last) = name.rsplit_once('.').unwrap_or(("", name));
        Ok(self.path.sub_all(below).f_var_copy(last, &tensor)?)
    }

    /// Refuses what nobody took, unless it is known to be of no use.
    pub fn finish(self) -> Result<()> {
        let left: BTreeSet<&String> = self.tensors.keys().filter(|name| !self.names.ignored(name)).collect();
        match left.first() {
            None => Ok(()),
            Some(name) => Err(Failure::model(format!(
                "{name} of the shape {:?} belongs to no layer that config.json names",
                self.tensors[*name].size()
            ))
            .hint("config.json and the weights are of two models, or the model has parts that are not built here")),
        }
    }
}

/// A path below another by a name with dots, which torch's own paths do not take.
trait SubAll<'a> {
    fn sub_all(&self, dotted: &str) -> nn::Path<'a>;
}

impl<'a> SubAll<'a> for nn::Path<'a> {
    fn sub_all(&self, dotted: &str) -> nn::Path<'a> {
        dotted.split('.').filter(|part| !part.is_empty()).fold(self.clone(), |path, part| path.sub(part))
    }
}
