//! Decides by the fine-tuning strategy which weights of an image encoder are trained, and how fast.
//!
//! The store has the groups `image` (the encoder) and `head`.

use std::collections::BTreeMap;
use tch::nn;

use crate::config::ImageConfig;
use crate::config::networks::ImageStrategy;
use crate::failure::{Failure, Result};
use crate::model::vision::ImageEncoderCard;
use crate::training::fitting::{Schedule, StepOptions};
use crate::training::labelled::{HEAD, split_group};

pub(crate) const ENCODER: &str = "image";
/// The stages of a ResNet after its stem.
const RESNET_STAGES: i64 = 4;
/// The default learning rate of pretrained weights.
const PRETRAINED_RATE: f64 = 1e-4;
/// The default learning rate of random weights.
const RANDOM_RATE: f64 = 1e-3;

/// Freezes all weights that the strategy does not train.
pub(crate) fn freeze_weights(config: &ImageConfig, card: &ImageEncoderCard, store: &nn::VarStore) -> Result<()> {
    let stages = stages(card);
    let frozen = i64::from(config.frozen_stages);
    if frozen > stages {
        return Err(Failure::usage(format!(
            "image.frozen_stages: expected 0 to {stages}, the encoder's stages, got {frozen}"
        )));
    }
    for (name, weight) in store.variables() {
        // Running statistics never have a gradient.
        if let (ENCODER, name_in_encoder) = split_group(&name)
            && (config.strategy == ImageStrategy::Frozen || frozen > 0 && stage(card, name_in_encoder) <= frozen)
        {
            let _ = weight.set_requires_grad(false);
        }
    }
    Ok(())
}

/// Returns the learning rate of the encoder's last stage.
pub(crate) fn learning_rate(config: &ImageConfig, has_random_weights: bool) -> f64 {
    match config.learning_rate {
        0.0 if has_random_weights => RANDOM_RATE,
        0.0 => PRETRAINED_RATE,
        rate => rate,
    }
}

/// Returns the step options of a training on this store. The encoder's weights have `learning_rate`, reduced in lower
/// stages; the head has a rate of its own.
pub(crate) fn step_options(
    config: &ImageConfig,
    card: &ImageEncoderCard,
    learning_rate: f64,
    store: &nn::VarStore,
) -> StepOptions {
    let factor = |name: &str| match split_group(name) {
        (HEAD, _) => config.head_learning_rate / learning_rate,
        (_, name) => config.stage_decay.powi((stages(card) - stage(card, name)) as i32),
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

/// Returns the number of stages, each of which reduces the picture and adds channels.
fn stages(card: &ImageEncoderCard) -> i64 {
    match card.architecture.depth() {
        Some(_) => RESNET_STAGES,
        None => card.cnn_shape().channels.len() as i64,
    }
}

/// Returns the stage of a weight: 0 for a ResNet's stem, then the number of its stage from 1. The small CNN's linear
/// map belongs to its last block.
fn stage(card: &ImageEncoderCard, name: &str) -> i64 {
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
        freeze_weights(config, &card, &store).unwrap();
        (card, store)
    }

    fn trained_weights(store: &nn::VarStore) -> Vec<String> {
        let trained = store.variables().into_iter().filter(|(_, weight)| weight.requires_grad());
        trained.map(|(name, _)| name).collect()
    }

    #[test]
    fn the_stem_and_frozen_stages_are_not_trained() {
        for (architecture, first) in [(Architecture::ResNet18, "image.layer3."), (Architecture::Cnn, "image.blocks.2.")]
        {
            let (_, store) = prepared(architecture, &ImageConfig { frozen_stages: 2, ..Default::default() });
            let names = trained_weights(&store);
            let above = |name: &&String| name.starts_with("image.layer4.") || name.starts_with("image.outputs.");
            assert!(names.iter().any(|name| name.starts_with(first)) && names.iter().any(|n| above(&n)), "{names:?}");
            assert!(names.iter().all(|name| name.starts_with(first) || above(&name)), "{names:?}");
            assert!(names.iter().all(|name| !name.contains("running")), "{names:?}");
            let frozen = ImageConfig { strategy: ImageStrategy::Frozen, ..Default::default() };
            assert!(trained_weights(&prepared(architecture, &frozen).1).is_empty());
        }
        let card = ImageEncoderCard::new(Architecture::Cnn, Preprocess::default());
        let config = ImageConfig { frozen_stages: 4, ..Default::default() };
        let refused = freeze_weights(&config, &card, &nn::VarStore::new(Device::Cpu)).unwrap_err();
        assert!(refused.message.contains("expected 0 to 3, the encoder's stages, got 4"), "{refused}");
    }

    #[test]
    fn lower_stages_and_the_head_have_their_own_rates() {
        let config = ImageConfig { stage_decay: 0.5, head_learning_rate: 1e-2, ..Default::default() };
        assert_eq!((learning_rate(&config, true), learning_rate(&config, false)), (1e-3, 1e-4));
        let (card, store) = prepared(Architecture::ResNet18, &config);
        let _ = store.root().sub(HEAD).zeros("map", &[1]);
        let factors = step_options(&config, &card, 1e-3, &store).rate_factors;
        let factor = |name: &str| factors.get(name).copied().unwrap_or_else(|| panic!("no {name} in {factors:?}"));
        assert_eq!((factor("image.conv1.weight"), factor("image.layer3.0.conv1.weight")), (0.0625, 0.5));
        assert_eq!(factor("image.layer4.1.bn2.weight"), 1.0);
        assert!((factor("head.map") - 10.0).abs() < 1e-9);
    }
}
