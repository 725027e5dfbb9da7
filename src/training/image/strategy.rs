//! Which weights of an image encoder are trained, and how fast each. The encoder's variables lie below `image` in the store.

use std::collections::BTreeMap;
use tch::nn;

use crate::config::ImageConfig;
use crate::config::networks::ImageStrategy;
use crate::failure::{Failure, Result};
use crate::model::vision::ImageEncoderCard;
use crate::training::fitting::{Schedule, StepOptions};
use crate::training::labelled::parts::{HEAD, part};

pub const ENCODER: &str = "image";
/// Of a ResNet, behind its stem.
const RESNET_STAGES: i64 = 4;
/// What suits weights that others trained, and random ones.
const RATE_TAUGHT: f64 = 1e-4;
const RATE_RANDOM: f64 = 1e-3;

/// Lets only those weights be trained that the strategy trains.
pub fn prepare(config: &ImageConfig, card: &ImageEncoderCard, store: &nn::VarStore) -> Result<()> {
    let (stages, frozen) = (stages(card), i64::from(config.frozen_stages));
    if frozen > stages {
        return Err(Failure::usage(format!(
            "image.frozen_stages: expected 0 to {stages}, the encoder's, got {frozen}"
        )));
    }
    for (name, weight) in store.variables() {
        // Running statistics are no weights: they have no gradient from the start.
        if let (ENCODER, own) = part(&name)
            && (config.strategy == ImageStrategy::Frozen || frozen > 0 && height(card, own) <= frozen)
        {
            let _ = weight.set_requires_grad(false);
        }
    }
    Ok(())
}

/// The learning rate of the encoder's topmost weights.
pub fn learning_rate(config: &ImageConfig, random: bool) -> f64 {
    match config.learning_rate {
        0.0 if random => RATE_RANDOM,
        0.0 => RATE_TAUGHT,
        rate => rate,
    }
}

/// Steps of a lesson on this store: the encoder's weights at the plan's rate, lower ones at less, the head's at its own.
pub fn step_options(
    config: &ImageConfig,
    card: &ImageEncoderCard,
    learning_rate: f64,
    store: &nn::VarStore,
) -> StepOptions {
    let rate = |name: &str| match part(name) {
        (HEAD, _) => config.head_learning_rate / learning_rate,
        (_, own) => config.stage_decay.powi((stages(card) - height(card, own)) as i32),
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

/// Parts of the network, each of which makes the picture smaller and its channels more.
fn stages(card: &ImageEncoderCard) -> i64 {
    match card.architecture.depth() {
        Some(_) => RESNET_STAGES,
        None => card.cnn_shape().channels.len() as i64,
    }
}

/// How high a weight stands: 0 for a ResNet's stem, then the number of its stage from 1; the small network's linear map
/// stands with its last block.
fn height(card: &ImageEncoderCard, name: &str) -> i64 {
    let number = |rest: &str| rest.split('.').next()?.parse::<i64>().ok();
    match card.architecture.depth() {
        Some(_) => name.strip_prefix("layer").and_then(number).unwrap_or(0),
        None => name.strip_prefix("blocks.").and_then(number).map_or(stages(card), |block| block + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::vision::{Architecture, ImageNetwork, Preprocess};
    use tch::Device;

    fn prepared(architecture: Architecture, config: &ImageConfig) -> (ImageEncoderCard, nn::VarStore) {
        let card = ImageEncoderCard::new(architecture, Preprocess::default());
        let store = nn::VarStore::new(Device::Cpu);
        ImageNetwork::new(&(store.root() / ENCODER), &card);
        prepare(config, &card, &store).unwrap();
        (card, store)
    }

    fn trained(store: &nn::VarStore) -> Vec<String> {
        let named = store.variables().into_iter().filter(|(_, weight)| weight.requires_grad());
        named.map(|(name, _)| name).collect()
    }

    #[test]
    fn the_stem_and_the_first_stages_stay() {
        for (architecture, first) in [(Architecture::ResNet18, "image.layer3."), (Architecture::Cnn, "image.blocks.2.")]
        {
            let (_, store) = prepared(architecture, &ImageConfig { frozen_stages: 2, ..Default::default() });
            let names = trained(&store);
            let above = |name: &&String| name.starts_with("image.layer4.") || name.starts_with("image.outputs.");
            assert!(names.iter().any(|name| name.starts_with(first)) && names.iter().any(|n| above(&n)), "{names:?}");
            assert!(names.iter().all(|name| name.starts_with(first) || above(&name)), "{names:?}");
            assert!(names.iter().all(|name| !name.contains("running")), "{names:?}");
            let frozen = ImageConfig { strategy: ImageStrategy::Frozen, ..Default::default() };
            assert!(trained(&prepared(architecture, &frozen).1).is_empty());
        }
        let card = ImageEncoderCard::new(Architecture::Cnn, Preprocess::default());
        let refused =
            prepare(&ImageConfig { frozen_stages: 4, ..Default::default() }, &card, &nn::VarStore::new(Device::Cpu));
        assert!(refused.unwrap_err().message.contains("expected 0 to 3, the encoder's, got 4"));
    }

    #[test]
    fn lower_stages_learn_more_slowly_and_the_head_at_its_own_rate() {
        let config = ImageConfig { stage_decay: 0.5, head_learning_rate: 1e-2, ..Default::default() };
        assert_eq!((learning_rate(&config, true), learning_rate(&config, false)), (1e-3, 1e-4));
        let (card, store) = prepared(Architecture::ResNet18, &config);
        let _ = store.root().sub(HEAD).zeros("map", &[1]);
        let rate_factors = step_options(&config, &card, 1e-3, &store).rate_factors;
        let rate =
            |name: &str| rate_factors.get(name).copied().unwrap_or_else(|| panic!("no {name} in {rate_factors:?}"));
        assert_eq!((rate("image.conv1.weight"), rate("image.layer3.0.conv1.weight")), (0.0625, 0.5));
        assert_eq!(rate("image.layer4.1.bn2.weight"), 1.0);
        assert!((rate("head.map") - 10.0).abs() < 1e-9);
    }
}
