//! What fine-tuning adds beside frozen weights: low-rank differences (LoRA), adapters, prefixes. Each starts as a network
//! that gives what the folder's gives, but a prefix, and its variables lie in a store of their own: the caller freezes the
//! network's store and trains the other.

use tch::{Tensor, nn};

use super::attention::Prefix;
use super::config::TextShape;
use super::layers::Activation;
use super::network::TextNetwork;
use crate::failure::Result;

/// A difference to a linear map through a few dimensions (Hu et al. 2021): scale · up · down.
#[derive(Debug)]
pub struct LowRank {
    /// [rank, inputs]
    down: Tensor,
    /// [outputs, rank], zeros at first.
    up: Tensor,
    scale: f64,
}

impl LowRank {
    pub fn new(path: &nn::Path<'_>, sizes: (i64, i64), settings: LowRankSettings) -> Result<Self> {
        let (inputs, outputs) = sizes;
        let down = path.f_randn("down", &[settings.rank, inputs], 0.0, 1.0 / (inputs as f64).sqrt())?;
        let up = path.f_zeros("up", &[outputs, settings.rank])?;
        Ok(Self { down, up, scale: settings.alpha / settings.rank as f64 })
    }

    /// What is added to the map's output, [.., inputs] → [.., outputs].
    pub fn difference(&self, x: &Tensor) -> Result<Tensor> {
        let none = None::<&Tensor>;
        Ok(x.f_linear(&self.down, none)?.f_linear(&self.up, none)?.f_mul_scalar(self.scale)?)
    }

    /// What is added to the map's weight, [outputs, inputs].
    pub fn weight(&self) -> Result<Tensor> {
        Ok(self.up.f_matmul(&self.down)?.f_mul_scalar(self.scale)?)
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LowRankSettings {
    /// At least 1.
    pub rank: i64,
    /// The difference counts alpha / rank times.
    pub alpha: f64,
}

/// A bottleneck with a residual behind a layer (Houlsby et al. 2019): x + up(gelu(down(x))).
#[derive(Debug)]
pub struct Adapter {
    down: nn::Linear,
    up: nn::Linear,
}

impl Adapter {
    fn new(path: &nn::Path<'_>, width: i64, bottleneck: i64) -> Self {
        let zeros = nn::LinearConfig { ws_init: nn::Init::Const(0.0), bs_init: Some(nn::Init::Const(0.0)), bias: true };
        Self {
            down: nn::linear(path / "down", width, bottleneck, Default::default()),
            up: nn::linear(path / "up", bottleneck, width, zeros),
        }
    }

    pub fn adapted(&self, x: &Tensor) -> Result<Tensor> {
        let narrow = Activation::Gelu.apply(&x.f_linear(&self.down.ws, self.down.bs.as_ref())?)?;
        Ok(x.f_add(&narrow.f_linear(&self.up.ws, self.up.bs.as_ref())?)?)
    }
}

impl Prefix {
    fn new(path: &nn::Path<'_>, shape: &TextShape, length: i64) -> Result<Self> {
        let size = [shape.heads, length, shape.width / shape.heads];
        Ok(Self { keys: path.f_randn("keys", &size, 0.0, 0.02)?, values: path.f_randn("values", &size, 0.0, 0.02)? })
    }
}

impl TextNetwork {
    /// Low-rank differences for the queries and values of every block (for GPT-2, the keys too: they are one map).
    pub fn add_low_rank(&mut self, path: &nn::Path<'_>, settings: LowRankSettings) -> Result<()> {
        for (i, block) in self.blocks.iter_mut().enumerate() {
            for (name, map) in block.attention.low_rank_maps() {
                map.add_low_rank(&(path / format!("block{i}") / name), settings)?;
            }
        }
        Ok(())
    }

    /// Adds every low-rank difference to the weight that it stands beside: the network is as fast as before.
    pub fn merge_low_rank(&mut self) -> Result<()> {
        for block in &mut self.blocks {
            for (_, map) in block.attention.low_rank_maps() {
                map.merge_low_rank()?;
            }
        }
        Ok(())
    }

    /// Adapters behind both layers of every block.
    pub fn add_adapters(&mut self, path: &nn::Path<'_>, bottleneck: i64) {
        for (i, block) in self.blocks.iter_mut().enumerate() {
            let path = path / format!("block{i}");
            let adapter = |name: &str| Some(Adapter::new(&(&path / name), self.shape.width, bottleneck));
            (block.adapter_attention, block.adapter_feed) = (adapter("attention"), adapter("feed"));
        }
    }

    /// Keys and values in front of every text, in every block (Li and Liang 2021).
    pub fn add_prefixes(&mut self, path: &nn::Path<'_>, length: i64) -> Result<()> {
        for (i, block) in self.blocks.iter_mut().enumerate() {
            block.attention.prefix = Some(Prefix::new(&(path / format!("block{i}")), &self.shape, length)?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Config;
    use crate::lake::stores::Location;
    use crate::model::bundle::parameters;
    use crate::model::text::folder::TextFolder;
    use crate::model::weights;
    use tch::nn::OptimizerConfig;
    use tch::{Device, Kind};

    /// A frozen network of a folder, and one batch for it.
    struct Tuned {
        frozen: nn::VarStore,
        added: nn::VarStore,
        network: TextNetwork,
        ids: Tensor,
        real: Tensor,
    }

    impl Tuned {
        async fn new(name: &str) -> Self {
            let at = format!("{}/tests/fixtures/text/{name}", env!("CARGO_MANIFEST_DIR"));
            let folder = TextFolder::read(&Location::open(&at, &S3Config::default()).unwrap(), None).await.unwrap();
            let mut frozen = nn::VarStore::new(Device::Cpu);
            let network = folder.network(&frozen.root()).unwrap();
            frozen.freeze();
            tch::manual_seed(5);
            let ids = Tensor::randint(200, [3, 7], (Kind::Int64, Device::Cpu)) + 5;
            let real = Tensor::from_slice(&[7i64, 4, 1])
                .unsqueeze(1)
                .gt_tensor(&Tensor::arange(7, (Kind::Int64, Device::Cpu)));
            Self { frozen, added: nn::VarStore::new(Device::Cpu), network, ids, real }
        }

        /// States of the texts, those of padding as zeros.
        fn states(&self) -> Tensor {
            self.network.states(&self.ids, &self.real, false).unwrap() * self.real.unsqueeze(-1)
        }

        /// Trains the added variables for a few steps towards states of one; before and after.
        fn trained(&self) -> (f64, f64) {
            let aim = self.real.unsqueeze(-1).to_kind(Kind::Float);
            let loss = || (self.states() - &aim).square().mean(Kind::Float);
            let before = loss().double_value(&[]);
            let mut optimizer = nn::Adam::default().build(&self.added, 0.02).unwrap();
            for _ in 0..10 {
                optimizer.backward_step(&loss());
            }
            (before, loss().double_value(&[]))
        }

        fn weights(&self) -> Vec<Tensor> {
            let mut named: Vec<_> = self.frozen.variables().into_iter().collect();
            named.sort_by(|a, b| a.0.cmp(&b.0));
            named.into_iter().map(|(_, tensor)| tensor.copy()).collect()
        }
    }

    fn difference(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    #[tokio::test]
    async fn a_fresh_low_rank_difference_is_none_and_a_trained_one_merges() {
        for (name, maps, added) in [("bert", 4, 4 * 3 * 48), ("distilbert", 4, 4 * 3 * 48), ("gpt2", 2, 2 * 3 * 96)] {
            let mut tuned = Tuned::new(name).await;
            let (before, weights) = (tuned.states(), tuned.weights());
            let settings = LowRankSettings { rank: 3, alpha: 6.0 };
            tuned.network.add_low_rank(&tuned.added.root(), settings).unwrap();
            assert_eq!((tuned.added.len(), parameters(&tuned.added)), (2 * maps, added), "{name}");
            assert_eq!(difference(&before, &tuned.states()), 0.0, "{name}");
            let (loss_before, loss_after) = tuned.trained();
            assert!(loss_after < loss_before, "{name}: {loss_before} {loss_after}");
            assert!(weights.iter().zip(tuned.weights()).all(|(a, b)| a.equal(&b)), "{name}: frozen weights moved");
            let beside = tuned.states();
            tuned.network.merge_low_rank().unwrap();
            let merged = difference(&beside, &tuned.states());
            assert!(merged < 1e-5 && difference(&before, &beside) > 1e-3, "{name}: {merged}");
            // What was learnt is saved under the folder's names, and read again like a folder's weights.
            let saved = weights::tensors_from_bytes(&weights::to_bytes(&[&tuned.frozen]).unwrap()).unwrap();
            let again = nn::VarStore::new(Device::Cpu);
            let merged = tuned.states();
            tuned.network = TextNetwork::open(&again.root(), &tuned.network.shape, saved).unwrap();
            assert_eq!(difference(&merged, &tuned.states()), 0.0, "{name}");
        }
    }

    #[tokio::test]
    async fn fresh_adapters_change_nothing_and_learn() {
        for name in ["roberta", "gpt2"] {
            let mut tuned = Tuned::new(name).await;
            let before = tuned.states();
            tuned.network.add_adapters(&tuned.added.root(), 4);
            assert_eq!(difference(&before, &tuned.states()), 0.0, "{name}");
            let (loss_before, loss_after) = tuned.trained();
            assert!(loss_after < loss_before, "{name}: {loss_before} {loss_after}");
        }
    }

    #[tokio::test]
    async fn prefixes_are_seen_and_learn() {
        for name in ["bert", "gpt2"] {
            let mut tuned = Tuned::new(name).await;
            let before = tuned.states();
            tuned.network.add_prefixes(&tuned.added.root(), 3).unwrap();
            assert!(difference(&before, &tuned.states()) > 1e-3, "{name}");
            let (loss_before, loss_after) = tuned.trained();
            assert!(loss_after < loss_before, "{name}: {loss_before} {loss_after}");
        }
    }
}
