//! Which weights a strategy of fine-tuning trains, how fast each, and what it adds beside them.
//!
//! All variables lie in one store: the encoder's below `text`, what is added below `beside`, the head's below `head`.

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
use crate::training::labelled::parts::{HEAD, part};

pub const ENCODER: &str = "text";
pub const ADDED: &str = "beside";

/// Adds to the network what the strategy learns beside it, and lets only those weights be trained that it trains.
/// What stays beside the network for ever is returned.
pub fn prepare(config: &TextConfig, network: &mut TextNetwork, store: &nn::VarStore) -> Result<AddedModules> {
    let layers = network.shape.layers;
    if i64::from(config.frozen_layers) > layers {
        let asked = config.frozen_layers;
        return Err(Failure::usage(format!("text.frozen_layers: expected 0 to {layers}, the encoder's, got {asked}")));
    }
    let path = store.root() / ADDED;
    let beside = match config.strategy {
        TextStrategy::Adapters => AddedModules::Adapters { bottleneck: config.bottleneck.into() },
        TextStrategy::Prefix => AddedModules::Prefixes { length: config.prefix_length.into() },
        TextStrategy::All | TextStrategy::Frozen | TextStrategy::Lora => AddedModules::None,
    };
    beside.add_to(network, &path)?;
    if config.strategy == TextStrategy::Lora {
        network.add_low_rank(&path, LowRankSettings { rank: config.rank.into(), alpha: config.alpha })?;
    }
    for (name, weight) in store.variables() {
        let trained = match part(&name) {
            (ENCODER, own) => config.strategy == TextStrategy::All && is_trained(config, &network.shape, own),
            (ADDED, _) => true,
            _ => false,
        };
        let _ = weight.set_requires_grad(trained);
    }
    Ok(beside)
}

fn is_trained(config: &TextConfig, shape: &TextShape, name: &str) -> bool {
    config.frozen_layers == 0 || height(shape, name) > i64::from(config.frozen_layers)
}

/// What weights beside the network learn at where nothing is said: the fewer they are, the faster (Hu et al. 2021, Houlsby
/// et al. 2019, Li and Liang 2021 take rates of these sizes).
fn beside_rate(config: &TextConfig, strategy: TextStrategy) -> f64 {
    match strategy {
        _ if config.beside_learning_rate > 0.0 => config.beside_learning_rate,
        TextStrategy::Lora => 5e-4,
        TextStrategy::Prefix => 5e-3,
        TextStrategy::All | TextStrategy::Frozen | TextStrategy::Adapters => 1e-3,
    }
}

/// Steps of a lesson on this store: pretrained weights at the plan's rate, lower ones at less, others at their own.
pub fn step_options(config: &TextConfig, shape: &TextShape, store: &nn::VarStore) -> StepOptions {
    let rate = |name: &str| match part(name) {
        (ENCODER, own) => config.layer_decay.powi((shape.layers - height(shape, own)) as i32),
        (HEAD, _) => config.head_learning_rate / config.learning_rate,
        (ADDED, _) => beside_rate(config, config.strategy) / config.learning_rate,
        // What guesses hidden words starts fresh, too.
        _ => beside_rate(config, TextStrategy::All) / config.learning_rate,
    };
    let rate_factors: BTreeMap<String, f64> =
        store.variables().into_keys().map(|name| (name.clone(), rate(&name))).collect();
    StepOptions {
        schedule: Schedule::Linear { warmup_share: config.warmup_share },
        gradient_norm_max: config.gradient_norm_max,
        accumulation_steps: config.accumulation_steps,
        rate_factors,
    }
}

/// How high a weight of the encoder stands: 0 for embeddings, then the number of its block from 1; the last norm stands
/// with the last block.
fn height(shape: &TextShape, name: &str) -> i64 {
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
        let at = format!("{}/tests/fixtures/text/{name}", env!("CARGO_MANIFEST_DIR"));
        let folder = TextFolder::load(&Location::open(&at, &S3Config::default()).unwrap(), None).await.unwrap();
        let store = nn::VarStore::new(Device::Cpu);
        let mut network = folder.network(&(store.root() / ENCODER)).unwrap();
        prepare(config, &mut network, &store).unwrap();
        (store, network)
    }

    fn trained(store: &nn::VarStore) -> Vec<String> {
        let mut names: Vec<String> =
            store.variables().into_iter().filter(|(_, weight)| weight.requires_grad()).map(|(name, _)| name).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn the_first_layers_stay_and_embeddings_with_them() {
        for (name, block) in
            [("bert", "text.encoder.layer.1."), ("gpt2", "text.h.1."), ("distilbert", "text.transformer.layer.1.")]
        {
            let config = TextConfig { frozen_layers: 1, ..Default::default() };
            let names = trained(&prepared(name, &config).await.0);
            assert!(names.iter().all(|n| n.starts_with(block) || n.starts_with("text.ln_f.")), "{name}: {names:?}");
            assert!(names.len() >= 12, "{name}: {names:?}");
        }
    }

    #[tokio::test]
    async fn a_strategy_beside_the_weights_trains_none_of_them() {
        for strategy in [TextStrategy::Frozen, TextStrategy::Lora, TextStrategy::Adapters, TextStrategy::Prefix] {
            let names = trained(&prepared("bert", &TextConfig { strategy, ..Default::default() }).await.0);
            assert!(names.iter().all(|name| name.starts_with("beside.")), "{strategy:?}: {names:?}");
            assert_eq!(names.is_empty(), strategy == TextStrategy::Frozen);
        }
    }

    #[tokio::test]
    async fn lower_layers_learn_more_slowly_and_fresh_weights_at_their_own_rate() {
        let config =
            TextConfig { layer_decay: 0.5, learning_rate: 1e-4, head_learning_rate: 1e-2, ..Default::default() };
        let (store, network) = prepared("bert", &config).await;
        let _ = store.root().sub(HEAD).zeros("map", &[1]);
        let rate_factors = step_options(&config, &network.shape, &store).rate_factors;
        let rate =
            |name: &str| rate_factors.get(name).copied().unwrap_or_else(|| panic!("no {name} in {rate_factors:?}"));
        assert_eq!(rate("text.embeddings.word_embeddings.weight"), 0.25);
        assert_eq!(rate("text.encoder.layer.0.output.dense.weight"), 0.5);
        assert_eq!(rate("text.encoder.layer.1.output.dense.weight"), 1.0);
        assert!((rate("head.map") - 100.0).abs() < 1e-9);
        for (strategy, asked, expected) in
            [(TextStrategy::Lora, 0.0, 5.0), (TextStrategy::Adapters, 0.0, 10.0), (TextStrategy::Prefix, 0.01, 100.0)]
        {
            let config = TextConfig {
                strategy,
                layer_decay: 1.0,
                learning_rate: 1e-4,
                beside_learning_rate: asked,
                ..Default::default()
            };
            let (store, network) = prepared("bert", &config).await;
            let rate_factors = step_options(&config, &network.shape, &store).rate_factors;
            let beside: Vec<f64> =
                rate_factors.iter().filter(|(n, _)| n.starts_with("beside.")).map(|(_, r)| *r).collect();
            assert!(
                !beside.is_empty() && beside.iter().all(|r| (r - expected).abs() < 1e-9),
                "{strategy:?} {beside:?}"
            );
        }
    }
}
