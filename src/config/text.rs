//! Settings of text classifiers.

use super::declare::settings;
use super::networks::{TextStrategy, name_of};
use crate::failure::{Failure, Result};

settings! {
    /// Text classifiers (`intentcast train --task text`, docs/models/language.md).
    TextConfig {
        /// Part of the encoder that is trained together with the head.
        strategy: TextStrategy = TextStrategy::All;
        /// For `all`: number of first blocks that are frozen, together with the embeddings. 0 trains everything.
        frozen_layers: u32 = 0, 0..=128;
        /// For `all`: learning-rate multiplier per block, from the last block down.
        layer_decay: f64 = 1.0, 0.01..=1.0;
        /// For `lora`: rank of the low-rank differences.
        rank: u32 = 8, 1..=1024;
        /// For `lora`: differences are scaled by `alpha / rank`.
        alpha: f64 = 16.0, 0.001..=10_000.0;
        /// For `adapters`: inner width of the bottleneck layers.
        bottleneck: u32 = 32, 1..=4096;
        /// For `prefix`: number of learned keys and values in front of a text.
        prefix_length: u32 = 16, 1..=512;
        /// Learning rate of the pretrained weights.
        learning_rate: f64 = 2e-5, 1e-9..=1.0;
        /// Learning rate of the head, after it has been trained alone.
        head_learning_rate: f64 = 1e-4, 1e-9..=1.0;
        /// Learning rate of the weights that `lora`, `adapters` or `prefix` adds. 0: 0.0005 for `lora`, 0.001 for `adapters`,
        /// 0.005 for `prefix`.
        beside_learning_rate: f64 = 0.0, 0.0..=1.0;
        /// Share of all steps over which the learning rate warms up; after that it falls linearly.
        warmup_share: f64 = 0.1, 0.0..=0.9;
        /// Gradients are clipped to this norm.
        gradient_norm_max: f64 = 1.0, 0.001..=1_000_000.0;
        /// Gradient accumulation: batches per step.
        accumulation_steps: u32 = 1, 1..=10_000;
        /// Tokens of a text that are read, in training and in SQL; at most the encoder's number of positions.
        max_length: u32 = 128, 1..=8192;
        /// Epochs of masked-language-model pretraining on the texts before any label is used.
        masked_epochs: u32 = 0, 0..=10_000;
        /// Largest number of full-batch steps in which the head is trained alone, for each penalty tried. 0: the head starts from
        /// random weights.
        head_epochs_max: u32 = 200, 0..=10_000;
        /// Largest number of epochs after that; early stopping by `train.patience_epochs`. Not for `frozen`.
        epochs_max: u32 = 3, 1..=10_000;
        /// Largest number of tokens in a training batch, padding included.
        batch_tokens_max: u32 = 2048, 1..=10_000_000;
    }
}

impl TextConfig {
    pub(super) fn check(&self) -> Result<()> {
        if self.strategy == TextStrategy::Frozen && self.head_epochs_max == 0 {
            return Err(Failure::usage(
                "text.head_epochs_max: expected at least 1, because text.strategy is frozen and nothing else learns, got 0",
            ));
        }
        let needs_all = [
            ("text.frozen_layers: expected 0", self.frozen_layers > 0),
            ("text.layer_decay: expected 1", self.layer_decay < 1.0),
        ];
        for (expected, is_set) in needs_all {
            if is_set && self.strategy != TextStrategy::All {
                return Err(Failure::usage(format!(
                    "{expected}, because text.strategy is {}, which trains no pretrained weight",
                    name_of(&self.strategy)
                ))
                .hint("set text.strategy=all"));
            }
        }
        Ok(())
    }
}
