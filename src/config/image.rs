//! Settings of image classifiers.

use super::declare::settings;
use super::networks::{ImageAugmentation, ImageNetworkName, ImageStrategy, NormStatistics};
use crate::failure::{Failure, Result};

settings! {
    /// Image classifiers (`intentcast train --task image`, docs/models/vision.md).
    ImageConfig {
        /// Without `--encoder`: network that starts from random weights.
        network: ImageNetworkName = ImageNetworkName::Cnn;
        /// Without `--encoder`: side in pixels of the square that the network sees.
        side_pixels: u32 = 64, 16..=512;
        /// Part of the encoder that is trained together with the head.
        strategy: ImageStrategy = ImageStrategy::All;
        /// For `all` with `--encoder`: number of first stages that are frozen, together with the stem. 0 trains everything.
        frozen_stages: u32 = 0, 0..=6;
        /// For `all`: learning-rate multiplier per stage, from the last stage down.
        stage_decay: f64 = 1.0, 0.01..=1.0;
        /// Statistics that batch normalisation uses in training.
        norm_statistics: NormStatistics = NormStatistics::Auto;
        /// Augmentation of pictures.
        augmentation: ImageAugmentation = ImageAugmentation::Both;
        /// Learning rate of the encoder. 0: 0.0001 with `--encoder`, 0.001 from random weights.
        learning_rate: f64 = 0.0, 0.0..=1.0;
        /// Learning rate of the head, after it has been trained alone.
        head_learning_rate: f64 = 1e-3, 1e-9..=1.0;
        /// Share of all steps over which the learning rate warms up; after that it falls linearly.
        warmup_share: f64 = 0.1, 0.0..=0.9;
        /// Gradients are clipped to this norm.
        gradient_norm_max: f64 = 1.0, 0.001..=1_000_000.0;
        /// Gradient accumulation: batches per step.
        accumulation_steps: u32 = 1, 1..=10_000;
        /// Largest number of full-batch steps in which the head is trained alone, for each penalty tried. 0: the head starts from
        /// random weights.
        head_epochs_max: u32 = 200, 0..=10_000;
        /// Largest number of epochs after that; early stopping by `train.patience_epochs`. Not for `frozen`.
        epochs_max: u32 = 10, 1..=10_000;
        /// Pictures in a training batch. Batch normalisation needs several.
        batch_rows: u32 = 32, 4..=4096;
    }
}

impl ImageConfig {
    pub(super) fn check(&self) -> Result<()> {
        if self.strategy == ImageStrategy::Frozen && self.head_epochs_max == 0 {
            return Err(Failure::usage(
                "image.head_epochs_max: expected at least 1, because image.strategy is frozen and nothing else learns, got 0",
            ));
        }
        let needs_all = [
            ("image.frozen_stages: expected 0", self.frozen_stages > 0),
            ("image.stage_decay: expected 1", self.stage_decay < 1.0),
        ];
        for (expected, is_set) in needs_all {
            if is_set && self.strategy == ImageStrategy::Frozen {
                return Err(Failure::usage(format!(
                    "{expected}, because image.strategy is frozen, which trains no weight of the encoder"
                ))
                .hint("set image.strategy=all"));
            }
        }
        if self.frozen_stages > 0 && self.norm_statistics == NormStatistics::Batch {
            return Err(Failure::usage(
                "image.norm_statistics: expected kept, because image.frozen_stages keeps stages as they are, got batch",
            ));
        }
        Ok(())
    }
}
