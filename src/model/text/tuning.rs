//! Adds trainable variables to a frozen network: low-rank differences (LoRA), adapters or prefixes.
//!
//! A fresh low-rank difference or adapter leaves the network's output unchanged; a fresh prefix does not. The variables
//! are in a path of their own, so that the caller can freeze the network's weights and train only these.

use tch::nn;

use super::adapter::Adapter;
use super::low_rank::LowRankSettings;
use super::network::TextNetwork;
use super::prefix::Prefix;
use crate::failure::Result;

impl TextNetwork {
    /// Adds low-rank differences to the queries and values of every block (in GPT-2 also to the keys: they share one
    /// map).
    pub(crate) fn add_low_rank(&mut self, path: &nn::Path<'_>, settings: LowRankSettings) -> Result<()> {
        for (i, block) in self.blocks.iter_mut().enumerate() {
            for (name, map) in block.attention.low_rank_maps() {
                map.add_low_rank(&(path / format!("block{i}") / name), settings)?;
            }
        }
        Ok(())
    }

    /// Adds every low-rank difference to its map's weight and drops it, so that the network is as fast as before
    /// tuning.
    pub(crate) fn merge_low_rank(&mut self) -> Result<()> {
        for block in &mut self.blocks {
            for (_, map) in block.attention.low_rank_maps() {
                map.merge_low_rank()?;
            }
        }
        Ok(())
    }

    /// Adds adapters after both layers of every block.
    pub(crate) fn add_adapters(&mut self, path: &nn::Path<'_>, bottleneck: i64) {
        for (i, block) in self.blocks.iter_mut().enumerate() {
            let path = path / format!("block{i}");
            let adapter = |name: &str| Some(Adapter::new(&(&path / name), self.shape.width, bottleneck));
            (block.adapter_attention, block.adapter_feed_forward) = (adapter("attention"), adapter("feed"));
        }
    }

    /// Adds trainable keys and values in front of every text, in every block.
    pub(crate) fn add_prefixes(&mut self, path: &nn::Path<'_>, length: i64) -> Result<()> {
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
    use crate::model::text::batching::PaddedTokens;
    use crate::model::text::folder::TextFolder;
    use crate::model::weights;
    use crate::model::weights::parameter_count;
    use tch::nn::OptimizerConfig;
    use tch::{Device, Kind, Tensor};

    /// A frozen network from a folder, and one batch for it.
    struct Tuned {
        frozen: nn::VarStore,
        added: nn::VarStore,
        network: TextNetwork,
        batch: PaddedTokens,
    }

    impl Tuned {
        async fn new(name: &str) -> Self {
            let at = format!("{}/tests/fixtures/text/{name}", env!("CARGO_MANIFEST_DIR"));
            let folder = TextFolder::load(&Location::open(&at, &S3Config::default()).unwrap(), None).await.unwrap();
            let mut frozen = nn::VarStore::new(Device::Cpu);
            let network = folder.network(&frozen.root()).unwrap();
            frozen.freeze();
            tch::manual_seed(5);
            let ids = Tensor::randint(200, [3, 7], (Kind::Int64, Device::Cpu)) + 5;
            let is_token = Tensor::from_slice(&[7i64, 4, 1])
                .unsqueeze(1)
                .gt_tensor(&Tensor::arange(7, (Kind::Int64, Device::Cpu)));
            let batch = PaddedTokens { ids, is_token };
            Self { frozen, added: nn::VarStore::new(Device::Cpu), network, batch }
        }

        /// Returns the states of the texts, zeros for padding.
        fn states(&self) -> Tensor {
            self.network.states(&self.batch, false).unwrap() * self.batch.is_token.unsqueeze(-1)
        }

        /// Trains the added variables for a few steps towards states of one; returns the loss before and after.
        fn train(&self) -> (f64, f64) {
            let aim = self.batch.is_token.unsqueeze(-1).to_kind(Kind::Float);
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
    async fn a_fresh_low_rank_difference_is_zero_and_a_trained_one_merges() {
        for (name, maps, added) in [("bert", 4, 4 * 3 * 48), ("distilbert", 4, 4 * 3 * 48), ("gpt2", 2, 2 * 3 * 96)] {
            let mut tuned = Tuned::new(name).await;
            let (before, weights) = (tuned.states(), tuned.weights());
            let settings = LowRankSettings { rank: 3, alpha: 6.0 };
            tuned.network.add_low_rank(&tuned.added.root(), settings).unwrap();
            assert_eq!((tuned.added.len(), parameter_count(&tuned.added)), (2 * maps, added), "{name}");
            assert_eq!(difference(&before, &tuned.states()), 0.0, "{name}");
            let (loss_before, loss_after) = tuned.train();
            assert!(loss_after < loss_before, "{name}: {loss_before} {loss_after}");
            assert!(weights.iter().zip(tuned.weights()).all(|(a, b)| a.equal(&b)), "{name}: frozen weights moved");
            let unmerged = tuned.states();
            tuned.network.merge_low_rank().unwrap();
            let merged = tuned.states();
            let change = difference(&unmerged, &merged);
            assert!(change < 1e-5 && difference(&before, &unmerged) > 1e-3, "{name}: {change}");
            // Merged weights are saved under the folder's names and load like a folder's weights.
            let saved = weights::tensors_from_bytes(&weights::to_bytes(&[&tuned.frozen]).unwrap()).unwrap();
            let store = nn::VarStore::new(Device::Cpu);
            tuned.network = TextNetwork::load(&store.root(), &tuned.network.shape, saved).unwrap();
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
            let (loss_before, loss_after) = tuned.train();
            assert!(loss_after < loss_before, "{name}: {loss_before} {loss_after}");
        }
    }

    #[tokio::test]
    async fn prefixes_change_the_states_and_learn() {
        for name in ["bert", "gpt2"] {
            let mut tuned = Tuned::new(name).await;
            let before = tuned.states();
            tuned.network.add_prefixes(&tuned.added.root(), 3).unwrap();
            assert!(difference(&before, &tuned.states()) > 1e-3, "{name}");
            let (loss_before, loss_after) = tuned.train();
            assert!(loss_after < loss_before, "{name}: {loss_before} {loss_after}");
        }
    }
}
