//! Fusion of an item's contents (text, image, video) with its id and category into one vector of the model's width.
//!
//! - `sum`: adds the vectors of all parts.
//! - `concat`: one linear map over the concatenated vectors; a learnt vector replaces a missing content.
//! - `gate`: adds each content times a gate per number, computed from all parts (gated multimodal unit, Arevalo et al. 2017,
//!   arXiv:1702.01992).
//! - `attention`: the item is the query, the item and its contents are keys and values: softmax(q·kᵀ / √width)·v (Vaswani et
//!   al. 2017, equation 1); missing contents are masked.
//! - `multilevel`: attention for each event, and the user's mean text, image and video next to the state of the sequence
//!   (fusion at several levels, after FusionNet, Huang et al. 2018, arXiv:1711.07341).
//!
//! A video's frames are pooled by attention first (vision/frames.rs). A missing content is masked, so that it is not read
//! as the map of a zero vector.

use tch::nn::{self, Module};
use tch::{Kind, Tensor};

use super::contents::{ContentBatch, MODALITIES, VIDEO};
use super::vision::{FramePooling, Frames};
use crate::config::networks::FusionName;
use crate::failure::Result;

/// Joins item vectors with the vectors of their contents.
#[derive(Debug)]
pub(crate) struct Fusion {
    width: i64,
    /// One map per modality; `None` for a modality that is not read.
    maps: [Option<ContentMap>; MODALITIES.len()],
    join: Join,
    /// Adds a second level: each user's mean contents.
    multilevel: bool,
}

/// A map from content vectors to the model's width.
#[derive(Debug)]
enum ContentMap {
    Linear(nn::Linear),
    /// Attention over a video's frames; for a single frame, a linear map.
    Pooled(FramePooling),
}

impl ContentMap {
    /// float32 [distinct, width].
    fn forward(&self, contents: &ContentBatch) -> Result<Tensor> {
        match self {
            Self::Linear(map) => Ok(map.forward(&contents.vectors.f_select(1, 0)?)),
            Self::Pooled(pooling) => {
                let x = contents.vectors.shallow_clone();
                let present = contents.present.shallow_clone();
                pooling.forward(&Frames { x, present })
            }
        }
    }
}

#[derive(Debug)]
enum Join {
    Sum,
    /// A map over the concatenated vectors, and the vectors of missing contents, [modalities, width].
    Concat(nn::Linear, Tensor),
    Gate(nn::Linear),
    Attention {
        query: nn::Linear,
        key: nn::Linear,
        value: nn::Linear,
    },
}

/// The mapped contents of one modality.
struct MappedContents {
    /// float32 [.., width]; zeros for a missing content.
    mapped: Tensor,
    /// float32 [.., 1]: 0 for a missing content, else 1.
    known: Tensor,
}

impl Fusion {
    /// Creates initial weights below `path`. `dims` are the numbers per vector of each modality; 0 for one that is not read.
    pub(crate) fn new(path: &nn::Path, name: FusionName, width: i64, dims: [i64; MODALITIES.len()]) -> Self {
        let maps = [0, 1, 2].map(|modality| {
            let path = path / format!("content_{}", MODALITIES[modality]);
            (dims[modality] > 0).then(|| match modality {
                VIDEO => ContentMap::Pooled(FramePooling::new(&path, dims[modality], width)),
                _ => ContentMap::Linear(nn::linear(path, dims[modality], width, Default::default())),
            })
        });
        let read = maps.iter().flatten().count() as i64;
        let linear = |name: &str, from: i64, to: i64| nn::linear(path / name, from, to, Default::default());
        let join = match name {
            _ if read == 0 => Join::Sum,
            FusionName::Sum => Join::Sum,
            FusionName::Concat => {
                Join::Concat(linear("fusion", (1 + read) * width, width), path.zeros("missing", &[read, width]))
            }
            FusionName::Gate => Join::Gate(linear("fusion", (1 + read) * width + read, read * width)),
            FusionName::Attention | FusionName::Multilevel => {
                let [query, key, value] = ["query", "key", "value"].map(|name| linear(name, width, width));
                Join::Attention { query, key, value }
            }
        };
        Self { width, maps, join, multilevel: name == FusionName::Multilevel }
    }

    /// Joins item vectors, float32 [.., width], with their contents; returns the same shape.
    pub(crate) fn forward(&self, items: &Tensor, contents: &[ContentBatch]) -> Result<Tensor> {
        let mapped = self.map_contents(items, contents)?;
        if mapped.is_empty() {
            return Ok(items.shallow_clone());
        }
        let concat = |parts: &[&Tensor]| -> Result<Tensor> { Ok(Tensor::f_cat(parts, -1)?) };
        match &self.join {
            Join::Sum => Ok(mapped.iter().fold(items.shallow_clone(), |sum, of| sum + &of.mapped)),
            Join::Concat(map, missing) => {
                let mut parts = vec![items.shallow_clone()];
                for (at, of) in (0..).zip(&mapped) {
                    parts.push(&of.mapped + missing.get(at) * (1.0 - &of.known));
                }
                Ok(map.forward(&concat(&parts.iter().collect::<Vec<_>>())?))
            }
            Join::Gate(map) => {
                let mut parts = vec![items];
                parts.extend(mapped.iter().map(|of| &of.mapped));
                parts.extend(mapped.iter().map(|of| &of.known));
                let gates = map.forward(&concat(&parts)?).sigmoid();
                let gate = |at: i64| gates.narrow(-1, at * self.width, self.width);
                Ok((0..).zip(&mapped).fold(items.shallow_clone(), |sum, (at, of)| sum + &of.mapped * gate(at)))
            }
            Join::Attention { query, key, value } => {
                let mut parts = vec![items];
                parts.extend(mapped.iter().map(|of| &of.mapped));
                // [.., 1 + modalities, width]
                let tokens = Tensor::f_stack(&parts, -2)?;
                let mut known = vec![Tensor::ones_like(&mapped[0].known)];
                known.extend(mapped.iter().map(|of| of.known.shallow_clone()));
                let missing = concat(&known.iter().collect::<Vec<_>>())?.f_eq(0.0)?;
                let products = key.forward(&tokens).f_matmul(&query.forward(items).unsqueeze(-1))?.squeeze_dim(-1);
                let logits = (products / (self.width as f64).sqrt()).f_masked_fill(&missing, f64::NEG_INFINITY)?;
                let weights = logits.f_softmax(-1, Kind::Float)?.unsqueeze(-2);
                Ok(items + weights.f_matmul(&value.forward(&tokens))?.squeeze_dim(-2))
            }
        }
    }

    /// Returns how many numbers [`Self::means`] gives per user; 0 for a fusion of one level.
    pub(crate) fn means_width(&self) -> i64 {
        if self.multilevel { self.maps.iter().flatten().count() as i64 * self.width } else { 0 }
    }

    /// Returns each user's mean of each modality over the events that have one, float32 [users, modalities × width]; `None`
    /// for a fusion of one level. `items`: float32 [users, events, width].
    pub(crate) fn means(&self, items: &Tensor, contents: &[ContentBatch]) -> Result<Option<Tensor>> {
        if self.means_width() == 0 {
            return Ok(None);
        }
        let mean = |contents: &MappedContents| {
            let sum = |of: &Tensor| of.sum_dim_intlist(1i64, false, Kind::Float);
            sum(&contents.mapped) / sum(&contents.known).clamp_min(1.0)
        };
        let means: Vec<Tensor> = self.map_contents(items, contents)?.iter().map(mean).collect();
        Ok(Some(Tensor::f_cat(&means, -1)?))
    }

    /// Maps the contents of each modality that is read. A modality that `contents` lacks is missing for every item.
    fn map_contents(&self, items: &Tensor, contents: &[ContentBatch]) -> Result<Vec<MappedContents>> {
        let size = items.size();
        let narrow = [&size[..size.len() - 1], &[1]].concat();
        let mut all = Vec::new();
        for (modality, map) in self.maps.iter().enumerate() {
            let Some(map) = map else { continue };
            all.push(match contents.iter().find(|of| of.modality == modality) {
                None => MappedContents {
                    mapped: items.f_zeros_like()?,
                    known: items.f_new_zeros(&narrow[..], (Kind::Float, items.device()))?,
                },
                Some(batch) => {
                    // Each distinct content is mapped once.
                    let mapped = map.forward(batch)? * &batch.known;
                    let at = batch.at.f_reshape([-1])?;
                    let spread = |distinct: &Tensor, size: &[i64]| -> Result<Tensor> {
                        Ok(distinct.f_index_select(0, &at)?.f_view(size)?)
                    };
                    MappedContents { mapped: spread(&mapped, &size)?, known: spread(&batch.known, &narrow)? }
                }
            });
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::contents::{Contents, rows_tensor};
    use tch::Device;

    fn contents() -> Contents {
        let mut contents = Contents::new([2, 3, 2]);
        assert!(contents.insert(0, 1, &[1.0, 2.0]) && contents.insert(0, 2, &[-2.0, 1.0]));
        assert!(contents.insert(2, 1, &[1.0, 2.0, 2.0, 1.0]) && contents.insert(2, 2, &[1.0, 2.0]));
        assert!(contents.insert(1, 1, &[0.5, -1.0, 2.0]) && contents.insert(1, 2, &[1.0, 1.0, 0.0]));
        contents
    }

    #[test]
    fn every_fusion_reads_each_content_and_batches_equal_members() {
        let _guard = tch::no_grad_guard();
        for name in FusionName::ALL {
            tch::manual_seed(3);
            let store = nn::VarStore::new(Device::Cpu);
            let fusion = Fusion::new(&store.root(), name, 8, [2, 3, 2]);
            let rows = [[1, 0, 0], [0, 2, 1], [2, 1, 2], [0, 0, 0]];
            let items = Tensor::randn([4, 8], (Kind::Float, Device::Cpu));
            let fuse = |items: &Tensor, rows: &[[u32; 3]]| {
                fusion.forward(items, &contents().gather(&rows_tensor(rows).unwrap()).unwrap()).unwrap()
            };
            let all = fuse(&items, &rows);
            let max_difference = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
            for row in 0..4 {
                let item = items.narrow(0, row, 1);
                let alone = fuse(&item, &rows[row as usize..row as usize + 1]);
                assert!(max_difference(&alone, &all.narrow(0, row, 1)) < 1e-5, "{name:?}");
                for other in [[2, 2, 0], [1, 2, 0], [2, 0, 0], [0, 0, 2], [0, 2, 2]] {
                    assert!(
                        max_difference(&fuse(&item, &[other]), &alone) > 1e-4,
                        "{name:?}: {other:?} equals {:?}",
                        rows[row as usize]
                    );
                }
            }
            // A batch without contents is one in which all are missing.
            assert!(max_difference(&fusion.forward(&items, &[]).unwrap().get(3), &all.get(3)) < 1e-6, "{name:?}");
        }
    }

    /// The map of a zero vector would be the map's bias.
    #[test]
    fn a_missing_content_is_masked_and_not_a_zero_vector() {
        let _guard = tch::no_grad_guard();
        for name in FusionName::ALL {
            let store = nn::VarStore::new(Device::Cpu);
            let fusion = Fusion::new(&store.root(), name, 8, [2, 3, 2]);
            let items = Tensor::randn([2, 8], (Kind::Float, Device::Cpu));
            // The first row has every content, the second has none.
            let gathered = contents().gather(&rows_tensor(&[[1, 1, 1], [0, 0, 0]]).unwrap()).unwrap();
            let before = fusion.forward(&items, &gathered).unwrap();
            let biases =
                store.variables().into_iter().filter(|(n, _)| n.starts_with("content_") && n.ends_with("bias"));
            assert!(biases.map(|(_, mut bias)| bias.fill_(3.0)).count() >= 2, "{name:?}");
            let difference = (fusion.forward(&items, &gathered).unwrap() - before).abs().amax([1i64].as_slice(), false);
            assert!(
                difference.double_value(&[0]) > 1e-3 && difference.double_value(&[1]) == 0.0,
                "{name:?}: {difference:?}"
            );
        }
    }

    #[test]
    fn attention_follows_its_formula_over_present_contents() {
        let _guard = tch::no_grad_guard();
        let store = nn::VarStore::new(Device::Cpu);
        let fusion = Fusion::new(&store.root(), FusionName::Attention, 4, [2, 3, 0]);
        let items = Tensor::randn([1, 4], (Kind::Float, Device::Cpu));
        let gathered = contents().gather(&rows_tensor(&[[0, 1, 0]]).unwrap()).unwrap();
        let Join::Attention { query, key, value } = &fusion.join else { panic!("{:?}", fusion.join) };
        let image = fusion.maps[1].as_ref().unwrap().forward(&gathered[1]).unwrap().narrow(0, -1, 1);
        let tokens = Tensor::cat(&[items.shallow_clone(), image], 0);
        let scores = key.forward(&tokens).matmul(&query.forward(&items).transpose(0, 1)) / 2.0;
        let expected =
            &items + (scores.softmax(0, Kind::Float) * value.forward(&tokens)).sum_dim_intlist(0i64, true, Kind::Float);
        assert!((fusion.forward(&items, &gathered).unwrap() - expected).abs().max().double_value(&[]) < 1e-6);
    }

    #[test]
    fn the_second_level_is_the_mean_over_events_with_contents() {
        let _guard = tch::no_grad_guard();
        let store = nn::VarStore::new(Device::Cpu);
        let fusion = Fusion::new(&store.root(), FusionName::Multilevel, 4, [2, 0, 0]);
        let items = Tensor::zeros([2, 3, 4], (Kind::Float, Device::Cpu));
        let rows = rows_tensor(&[[1, 0, 0], [0, 0, 0], [2, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]).unwrap();
        let gathered = contents().gather(&rows.view([3, 2, 3])).unwrap();
        let means = fusion.means(&items, &gathered).unwrap().unwrap();
        let map = fusion.maps[0].as_ref().unwrap();
        let both = map.forward(&gathered[0]).unwrap().narrow(0, 1, 2).mean_dim(0i64, false, Kind::Float);
        assert!((means.get(0) - both).abs().max().double_value(&[]) < 1e-6);
        assert_eq!(means.get(1).abs().max().double_value(&[]), 0.0);
        let one_level = Fusion::new(&(store.root() / "other"), FusionName::Gate, 4, [2, 0, 0]);
        assert!(one_level.means(&items, &gathered).unwrap().is_none() && one_level.means_width() == 0);
    }
}
