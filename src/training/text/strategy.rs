//! Decides by the fine-tuning strategy which weights are trained, how fast, and which modules are added to the encoder.
//!
//! The store has the groups `text` (the encoder), `added` (the modules that a strategy adds) and `head`.

use std::collections::BTreeMap;
use tch::nn;

use crate::config::TextConfig;
use crate::config::networks::TextStrategy;
use crate::failure::{Failure, Result};
use crate::model::text::classifier::AddedModules;
use crate::model::text::low_rank::LowRankSettings;
use crate::model::text::network::TextNetwork;
use crate::model::text::shape::TextShape;
use crate::model::text::tensor_names::TensorNames;
use crate::training::fitting::{Schedule, StepOptions};
use crate::training::labelled::{HEAD, split_group};

pub(crate) const ENCODER: &str = "text";
pub(crate) const ADDED: &str = "added";

/// Adds the strategy's modules to the network, freezes all weights that the strategy does not train, and returns the
/// modules that remain after training.
pub(crate) fn prepare(config: &TextConfig, network: &mut TextNetwork, store: &nn::VarStore) -> Result<AddedModules> {
    let layers = network.shape.layers;
    if i64::from(config.frozen_layers) > layers {
        let got = config.frozen_layers;
        return Err(Failure::usage(format!(
            "text.frozen_layers: expected 0 to {layers}, the encoder's layers, got {got}"
        )));
    }
    let path = store.root() / ADDED;
    let added = match config.strategy {
        TextStrategy::Adapters => AddedModules::Adapters { bottleneck: config.bottleneck.into() },
        TextStrategy::Prefix => AddedModules::Prefixes { length: config.prefix_length.into() },
        TextStrategy::All | TextStrategy::Frozen | TextStrategy::Lora => AddedModules::None,
    };
    added.add_to(network, &path)?;
    if config.strategy == TextStrategy::Lora {
        network.add_low_rank(&path, LowRankSettings { rank: config.rank.into(), alpha: config.alpha })?;
    }
    for (name, weight) in store.variables() {
        let is_trained = match split_group(&name) {
            (ENCODER, name) => config.strategy == TextStrategy::All && is_above_frozen(config, &network.shape, name),
            (ADDED, _) => true,
            _ => false,
        };
        let _ = weight.set_requires_grad(is_trained);
    }
    Ok(added)
}

fn is_above_frozen(config: &TextConfig, shape: &TextShape, name: &str) -> bool {
    config.frozen_layers == 0 || layer(shape, name) > i64::from(config.frozen_layers)
}

/// Returns the learning rate of added modules: the configured one, or a default by strategy. The fewer weights, the
/// higher the rate, as in Hu et al. 2021, Houlsby et al. 2019, Li and Liang 2021.
fn added_learning_rate(config: &TextConfig, strategy: TextStrategy) -> f64 {
    match strategy {
        _ if config.beside_learning_rate > 0.0 => config.beside_learning_rate,
        TextStrategy::Lora => 5e-4,
        TextStrategy::Prefix => 5e-3,
        TextStrategy::All | TextStrategy::Frozen | TextStrategy::Adapters => 1e-3,
    }
}

/// Returns the step options of a training on this store. Pretrained weights have `text.learning_rate`, reduced in lower
/// layers; other groups have rates of their own.
pub(crate) fn step_options(config: &TextConfig, shape: &TextShape, store: &nn::VarStore) -> StepOptions {
    let factor = |name: &str| match split_group(name) {
        (ENCODER, name) => config.layer_decay.powi((shape.layers - layer(shape, name)) as i32),
        (HEAD, _) => config.head_learning_rate / config.learning_rate,
        (ADDED, _) => added_learning_rate(config, config.strategy) / config.learning_rate,
        // The head of masked words, which also starts from random weights.
        _ => added_learning_rate(config, TextStrategy::All) / config.learning_rate,
    };
    let rate_factors: BTreeMap<String, f64> =
        store.variables().into_keys().map(|name| (name.clone(), factor(&name))).collect();
    StepOptions {
        schedule: Schedule::Linear { warmup_share: config.warmup_share },
        gradient_norm_max: config.gradient_norm_max,
        accumulation_steps: config.accumulation_steps,
        rate_factors,
    }
}

/// Returns the layer of an encoder's weight: 0 for embeddings, then the number of its block from 1. The last norm
/// belongs to the last block.
fn layer(shape: &TextShape, name: &str) -> i64 {
    let names = TensorNames::for_family(shape.family);
    let number = |rest: &str| rest.strip_prefix('.')?.split('.').next()?.parse::<i64>().ok();
    let block = name.strip_prefix(names.blocks).and_then(number);
    match (block, names.norm_last) {
        (Some(block), _) => 1 + block,
        (None, Some(last)) if name.starts_with(last) => shape.layers,
        (None, _) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Config;
    use crate::lake::stores::Location;
    use crate::model::text::folder::TextFolder;
    use tch::Device;

    async fn prepared(name: &str, config: &TextConfig) -> (nn::VarStore, TextNetwork) {
        let path = format!("{}/tests/fixtures/text/{name}", env!("CARGO_MANIFEST_DIR"));
        let folder = TextFolder::load(&Location::open(&path, &S3Config::default()).unwrap(), None).await.unwrap();
        let store = nn::VarStore::new(Device::Cpu);
        let mut network = folder.network(&(store.root() / ENCODER)).unwrap();
        prepare(config, &mut network, &store).unwrap();
        (store, network)
    }

    fn trained_weights(store: &nn::VarStore) -> Vec<String> {
        let trained = store.variables().into_iter().filter(|(_, weight)| weight.requires_grad());
        let mut names: Vec<String> = trained.map(|(name, _)| name).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn frozen_layers_and_embeddings_are_not_trained() {
        for (name, block) in
            [("bert", "text.encoder.layer.1."), ("gpt2", "text.h.1."), ("distilbert", "text.transformer.layer.1.")]
        {
            let config = TextConfig { frozen_layers: 1, ..Default::default() };
            let names = trained_weights(&prepared(name, &config).await.0);
            assert!(names.iter().all(|n| n.starts_with(block) || n.starts_with("text.ln_f.")), "{name}: {names:?}");
            assert!(names.len() >= 12, "{name}: {names:?}");
        }
    }

    #[tokio::test]
    async fn strategies_that_add_modules_train_only_these() {
        for strategy in [TextStrategy::Frozen, TextStrategy::Lora, TextStrategy::Adapters, TextStrategy::Prefix] {
            let config = TextConfig { strategy, ..Default::default() };
            let names = trained_weights(&prepared("bert", &config).await.0);
            assert!(names.iter().all(|name| name.starts_with("added.")), "{strategy:?}: {names:?}");
            assert_eq!(names.is_empty(), strategy == TextStrategy::Frozen);
        }
    }

    #[tokio::test]
    async fn lower_layers_and_new_weights_have_their_own_rates() {
        let config =
            TextConfig { layer_decay: 0.5, learning_rate: 1e-4, head_learning_rate: 1e-2, ..Default::default() };
        let (store, network) = prepared("bert", &config).await;
        let _ = store.root().sub(HEAD).zeros("map", &[1]);
        let factors = step_options(&config, &network.shape, &store).rate_factors;
        let factor = |name: &str| factors.get(name).copied().unwrap_or_else(|| panic!("no {name} in {factors:?}"));
        assert_eq!(factor("text.embeddings.word_embeddings.weight"), 0.25);
        assert_eq!(factor("text.encoder.layer.0.output.dense.weight"), 0.5);
        assert_eq!(factor("text.encoder.layer.1.output.dense.weight"), 1.0);
        assert!((factor("head.map") - 100.0).abs() < 1e-9);
        for (strategy, configured, expected) in
            [(TextStrategy::Lora, 0.0, 5.0), (TextStrategy::Adapters, 0.0, 10.0), (TextStrategy::Prefix, 0.01, 100.0)]
        {
            let config = TextConfig {
                strategy,
                layer_decay: 1.0,
                learning_rate: 1e-4,
                beside_learning_rate: configured,
                ..Default::default()
            };
            let (store, network) = prepared("bert", &config).await;
            let factors = step_options(&config, &network.shape, &store).rate_factors;
            let added: Vec<f64> = factors.iter().filter(|(n, _)| n.starts_with("added.")).map(|(_, r)| *r).collect();
            let is_expected = added.iter().all(|factor| (factor - expected).abs() < 1e-9);
            assert!(!added.is_empty() && is_expected, "{strategy:?} {added:?}");
        }
    }
}
