//! How what an item shows (text, picture, video) joins what it is (its id and category): one vector of the model's width.
//!
//! - `sum`: what is known adds up.
//! - `concat`: one linear map over all of them side by side; a missing one is a learnt vector of its own.
//! - `gate`: each content comes in as far as a gate lets it, number by number, in the light of all (gated multimodal unit,
//!   Arevalo et al. 2017, arXiv:1702.01992).
//! - `attention`: the item asks, itself and its contents answer: softmax(q·kᵀ / √width)·v (Vaswani et al. 2017, equation 1);
//!   missing ones can not be asked.
//! - `multilevel`: attention for each event, and the user's mean text, picture and video once more beside the state of the
//!   sequence (fusion at several levels, after FusionNet, Huang et al. 2018, arXiv:1711.07341).
//!
//! A video's frames are pooled by attention first (vision/frames.rs). A content that is missing is masked: no mapped zeros are read as if something had been shown.

use tch::nn::{self, Module};
use tch::{Kind, Tensor};

use super::contents::{Gathered, MODALITIES, VIDEO};
use super::vision::{FramePooling, Frames};
use crate::config::networks::FusionName;
use crate::failure::Result;

#[derive(Debug)]
pub struct Fusion {
    width: i64,
    /// Of each modality; `None` for those that are not read.
    maps: [Option<Map>; MODALITIES.len()],
    join: Join,
    levels: bool,
}

/// From contents to the model's width.
#[derive(Debug)]
enum Map {
    One(nn::Linear),
    /// A video: attention over its frames. Of one with a single frame it is a linear map.
    Pooled(FramePooling),
}

impl Map {
    /// float32 [distinct, width].
    fn forward(&self, contents: &Gathered) -> Result<Tensor> {
        match self {
            Self::One(map) => Ok(map.forward(&contents.vectors.f_select(1, 0)?)),
            Self::Pooled(pooling) => {
                let (x, present) = (contents.vectors.shallow_clone(), contents.present.shallow_clone());
                pooling.forward(&Frames { x, present })
            }
        }
    }
}

#[derive(Debug)]
enum Join {
    Sum,
    /// Over all side by side, and what stands for a missing content, [modalities, width].
    Concat(nn::Linear, Tensor),
    Gate(nn::Linear),
    Attention {
        query: nn::Linear,
        key: nn::Linear,
        value: nn::Linear,
    },
}

/// One modality of some events or items.
struct Shown {
    /// float32 [.., width]; zeros where it is missing.
    mapped: Tensor,
    /// float32 [.., 1].
    known: Tensor,
}

impl Fusion {
    /// `dims`: numbers of a vector of each modality, 0 for those that are not read.
    pub fn new(path: &nn::Path, name: FusionName, width: i64, dims: [i64; MODALITIES.len()]) -> Self {
        let maps = [0, 1, 2].map(|modality| {
            let path = path / format!("content_{}", MODALITIES[modality]);
            (dims[modality] > 0).then(|| match modality {
                VIDEO => Map::Pooled(FramePooling::new(&path, dims[modality], width)),
                _ => Map::One(nn::linear(path, dims[modality], width, Default::default())),
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
        Self { width, maps, join, levels: name == FusionName::Multilevel }
    }

    /// `own`: what items are, float32 [.., width]. Gives the same shape.
    pub fn forward(&self, own: &Tensor, contents: &[Gathered]) -> Result<Tensor> {
        let shown = self.shown(own, contents)?;
        if shown.is_empty() {
            return Ok(own.shallow_clone());
        }
        let side_by_side = |first: &[&Tensor]| -> Result<Tensor> { Ok(Tensor::f_cat(first, -1)?) };
        match &self.join {
            Join::Sum => Ok(shown.iter().fold(own.shallow_clone(), |sum, of| sum + &of.mapped)),
            Join::Concat(map, missing) => {
                let filled = (0..).zip(&shown).map(|(at, of)| &of.mapped + missing.get(at) * (1.0 - &of.known));
                let all: Vec<Tensor> = [own.shallow_clone()].into_iter().chain(filled).collect();
                Ok(map.forward(&side_by_side(&all.iter().collect::<Vec<_>>())?))
            }
            Join::Gate(map) => {
                let mut all = vec![own];
                all.extend(shown.iter().map(|of| &of.mapped));
                all.extend(shown.iter().map(|of| &of.known));
                let gates = map.forward(&side_by_side(&all)?).sigmoid();
                let gates = (0..shown.len() as i64).map(|at| gates.narrow(-1, at * self.width, self.width));
                Ok(shown.iter().zip(gates).fold(own.shallow_clone(), |sum, (of, gate)| sum + &of.mapped * gate))
            }
            Join::Attention { query, key, value } => {
                let mut asked = vec![own];
                asked.extend(shown.iter().map(|of| &of.mapped));
                // [.., 1 + modalities, width]
                let asked = Tensor::f_stack(&asked, -2)?;
                let mut there = vec![Tensor::ones_like(&shown[0].known)];
                there.extend(shown.iter().map(|of| of.known.shallow_clone()));
                let missing = side_by_side(&there.iter().collect::<Vec<_>>())?.f_eq(0.0)?;
                let answers = key.forward(&asked).f_matmul(&query.forward(own).unsqueeze(-1))?.squeeze_dim(-1);
                let weights = (answers / (self.width as f64).sqrt()).f_masked_fill(&missing, f64::NEG_INFINITY)?;
                let weights = weights.f_softmax(-1, Kind::Float)?.unsqueeze(-2);
                Ok(own + weights.f_matmul(&value.forward(&asked))?.squeeze_dim(-2))
            }
        }
    }

    /// Numbers that [`Self::means`] gives a user.
    pub fn means_width(&self) -> i64 {
        if self.levels { self.maps.iter().flatten().count() as i64 * self.width } else { 0 }
    }

    /// Of each user the mean of each modality over the events that show one, float32 [users, modalities × width]; `None`
    /// for a fusion of one level. `things`: float32 [users, events, width].
    pub fn means(&self, things: &Tensor, contents: &[Gathered]) -> Result<Option<Tensor>> {
        if self.means_width() == 0 {
            return Ok(None);
        }
        let mean = |of: &Shown| {
            let over = |of: &Tensor| of.sum_dim_intlist(1i64, false, Kind::Float);
            over(&of.mapped) / over(&of.known).clamp_min(1.0)
        };
        let means: Vec<Tensor> = self.shown(things, contents)?.iter().map(mean).collect();
        Ok(Some(Tensor::f_cat(&means, -1)?))
    }

    /// Each modality that is read; missing everywhere where nothing of it was gathered.
    fn shown(&self, own: &Tensor, contents: &[Gathered]) -> Result<Vec<Shown>> {
        let size = own.size();
        let narrow = [&size[..size.len() - 1], &[1]].concat();
        let mut all = Vec::new();
        for (modality, map) in self.maps.iter().enumerate() {
            let Some(map) = map else { continue };
            all.push(match contents.iter().find(|of| of.modality == modality) {
                None => Shown {
                    mapped: own.f_zeros_like()?,
                    known: own.f_new_zeros(&narrow[..], (Kind::Float, own.device()))?,
                },
                Some(gathered) => {
                    // Each distinct content once.
                    let mapped = map.forward(gathered)? * &gathered.known;
                    let at = gathered.at.f_reshape([-1])?;
                    let of = |each: &Tensor, size: &[i64]| -> Result<Tensor> {
                        Ok(each.f_index_select(0, &at)?.f_view(size)?)
                    };
                    Shown { mapped: of(&mapped, &size)?, known: of(&gathered.known, &narrow)? }
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
    fn with_every_fusion_each_content_is_seen_and_a_batch_equals_its_members() {
        let _guard = tch::no_grad_guard();
        for name in FusionName::ALL {
            tch::manual_seed(3);
            let store = nn::VarStore::new(Device::Cpu);
            let fusion = Fusion::new(&store.root(), name, 8, [2, 3, 2]);
            let rows = [[1, 0, 0], [0, 2, 1], [2, 1, 2], [0, 0, 0]];
            let own = Tensor::randn([4, 8], (Kind::Float, Device::Cpu));
            let fused = |own: &Tensor, rows: &[[u32; 3]]| {
                fusion.forward(own, &contents().gather(&rows_tensor(rows).unwrap()).unwrap()).unwrap()
            };
            let all = fused(&own, &rows);
            let far = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
            for row in 0..4 {
                let mine = own.narrow(0, row, 1);
                let alone = fused(&mine, &rows[row as usize..row as usize + 1]);
                assert!(far(&alone, &all.narrow(0, row, 1)) < 1e-5, "{name:?}");
                for other in [[2, 2, 0], [1, 2, 0], [2, 0, 0], [0, 0, 2], [0, 2, 2]] {
                    assert!(
                        far(&fused(&mine, &[other]), &alone) > 1e-4,
                        "{name:?}: {other:?} is as {:?}",
                        rows[row as usize]
                    );
                }
            }
            // Nothing gathered is nothing shown.
            assert!(far(&fusion.forward(&own, &[]).unwrap().get(3), &all.get(3)) < 1e-6, "{name:?}");
        }
    }

    /// A mapped zero would be the map's bias.
    #[test]
    fn what_is_missing_is_masked_and_no_zero_vector() {
        let _guard = tch::no_grad_guard();
        for name in FusionName::ALL {
            let store = nn::VarStore::new(Device::Cpu);
            let fusion = Fusion::new(&store.root(), name, 8, [2, 3, 2]);
            let own = Tensor::randn([2, 8], (Kind::Float, Device::Cpu));
            // The first row shows everything, the second nothing.
            let gathered = contents().gather(&rows_tensor(&[[1, 1, 1], [0, 0, 0]]).unwrap()).unwrap();
            let before = fusion.forward(&own, &gathered).unwrap();
            let biases =
                store.variables().into_iter().filter(|(n, _)| n.starts_with("content_") && n.ends_with("bias"));
            assert!(biases.map(|(_, mut bias)| bias.fill_(3.0)).count() >= 2, "{name:?}");
            let apart = (fusion.forward(&own, &gathered).unwrap() - before).abs().amax([1i64].as_slice(), false);
            assert!(apart.double_value(&[0]) > 1e-3 && apart.double_value(&[1]) == 0.0, "{name:?}: {apart:?}");
        }
    }

    #[test]
    fn attention_is_the_formula_over_what_is_there() {
        let _guard = tch::no_grad_guard();
        let store = nn::VarStore::new(Device::Cpu);
        let fusion = Fusion::new(&store.root(), FusionName::Attention, 4, [2, 3, 0]);
        let own = Tensor::randn([1, 4], (Kind::Float, Device::Cpu));
        let gathered = contents().gather(&rows_tensor(&[[0, 1, 0]]).unwrap()).unwrap();
        let Join::Attention { query, key, value } = &fusion.join else { panic!("{:?}", fusion.join) };
        let picture = fusion.maps[1].as_ref().unwrap().forward(&gathered[1]).unwrap().narrow(0, -1, 1);
        let tokens = Tensor::cat(&[own.shallow_clone(), picture], 0);
        let scores = key.forward(&tokens).matmul(&query.forward(&own).transpose(0, 1)) / 2.0;
        let expected =
            &own + (scores.softmax(0, Kind::Float) * value.forward(&tokens)).sum_dim_intlist(0i64, true, Kind::Float);
        assert!((fusion.forward(&own, &gathered).unwrap() - expected).abs().max().double_value(&[]) < 1e-6);
    }

    #[test]
    fn the_second_level_is_the_mean_over_the_events_that_show_something() {
        let _guard = tch::no_grad_guard();
        let store = nn::VarStore::new(Device::Cpu);
        let fusion = Fusion::new(&store.root(), FusionName::Multilevel, 4, [2, 0, 0]);
        let things = Tensor::zeros([2, 3, 4], (Kind::Float, Device::Cpu));
        let rows = rows_tensor(&[[1, 0, 0], [0, 0, 0], [2, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]).unwrap();
        let gathered = contents().gather(&rows.view([3, 2, 3])).unwrap();
        let means = fusion.means(&things, &gathered).unwrap().unwrap();
        let map = fusion.maps[0].as_ref().unwrap();
        let both = map.forward(&gathered[0]).unwrap().narrow(0, 1, 2).mean_dim(0i64, false, Kind::Float);
        assert!((means.get(0) - both).abs().max().double_value(&[]) < 1e-6);
        assert_eq!(means.get(1).abs().max().double_value(&[]), 0.0);
        let one_level = Fusion::new(&(store.root() / "other"), FusionName::Gate, 4, [2, 0, 0]);
        assert!(one_level.means(&things, &gathered).unwrap().is_none() && one_level.means_width() == 0);
    }
}
