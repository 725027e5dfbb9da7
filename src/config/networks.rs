//! Names that settings accept: networks, heads, losses, augmentations, training strategies.
//!
//! `model` and `training` implement them, later in the flow. An unknown name is refused with the list of the accepted ones,
//! and `match` makes the compiler ask for the implementation of a new one.

use serde::Serialize;

use super::declare::choices;

choices! {
    /// Backbone of the behaviour network: turns a user's events into states.
    BackboneName {
        /// attention, each event sees all others
        Transformer = "transformer",
        /// attention, each event sees only earlier ones, as in GPT
        Causal = "causal",
        /// recurrent, long short-term memory
        Lstm = "lstm",
        /// recurrent, gated recurrent unit
        Gru = "gru",
        /// recurrent, plain
        Rnn = "rnn",
    }
}

impl BackboneName {
    /// Returns true if the state of an event depends on later events.
    pub(crate) fn looks_ahead(self) -> bool {
        match self {
            Self::Transformer => true,
            Self::Causal | Self::Lstm | Self::Gru | Self::Rnn => false,
        }
    }
}

choices! {
    /// Fusion of an item's content vectors with the embeddings of its id and category.
    FusionName {
        /// adds all of them
        Sum = "sum",
        /// one linear map over their concatenation
        Concat = "concat",
        /// a learned gate per vector
        Gate = "gate",
        /// scaled dot-product attention over the vectors an item has
        Attention = "attention",
        /// attention per event, and the mean content vectors joined to the user's summary
        Multilevel = "multilevel",
    }
}

choices! {
    /// Precision in which text and image encoders compute. Their vectors are stored as float32 in both cases.
    Precision {
        /// float32
        F32 = "f32",
        /// bfloat16: half the memory and faster on a GPU, 8 instead of 24 significant bits
        Bf16 = "bf16",
    }
}

impl Precision {
    /// Returns the hash of an encoder that computes in this precision: its vectors differ from those of the other one.
    pub(crate) fn hash_of(self, encoder: &str) -> String {
        let plain = encoder.strip_suffix(BF16_SUFFIX).unwrap_or(encoder);
        match self {
            Self::F32 => plain.to_string(),
            Self::Bf16 if plain.is_empty() => String::new(),
            Self::Bf16 => format!("{plain}{BF16_SUFFIX}"),
        }
    }
}

/// Ending of the hashes of encoders that compute in bfloat16.
const BF16_SUFFIX: &str = "-bf16";

choices! {
    /// Head over several labels of one row: the intents of a user, or the labels of a text or picture.
    HeadName {
        /// independent probabilities
        Sigmoid = "sigmoid",
        /// a linear chain over the ordered labels
        Crf = "crf",
    }
}

choices! {
    /// Loss of the intents, and of the labels of texts and pictures.
    LossName {
        /// binary cross-entropy
        Bce = "bce",
        /// focal loss: easy examples weigh less
        Focal = "focal",
        /// soft intersection over union (Jaccard)
        Iou = "iou",
        /// negative log-likelihood of the whole label vector under the chain
        Crf = "crf",
    }
}

choices! {
    /// Loss of expected units and spend.
    AmountLossName {
        /// Poisson deviance
        Poisson = "poisson",
        /// mean squared error
        Mse = "mse",
        /// mean absolute error
        Mae = "mae",
        /// root mean squared error
        Rmse = "rmse",
        /// squared near zero, linear beyond
        Huber = "huber",
        /// between Poisson and gamma
        Tweedie = "tweedie",
        /// counts with more variance than Poisson
        NegativeBinomial = "negative_binomial",
    }
}

choices! {
    /// Weight of positive labels relative to negative ones.
    ClassWeights {
        /// equal weights
        None = "none",
        /// positives weigh more the rarer they are; probabilities stay calibrated
        Balanced = "balanced",
    }
}

choices! {
    /// Network that reads an item's daily history.
    DemandNetworkName {
        /// recurrent, long short-term memory
        Lstm = "lstm",
        /// recurrent, gated recurrent unit
        Gru = "gru",
        /// recurrent, plain
        Rnn = "rnn",
        /// dilated causal convolutions over time
        Tcn = "tcn",
    }
}

choices! {
    /// Random change of a user's events each time that training shows them.
    Augmentation {
        /// no change
        None = "none",
        /// drops the oldest events
        Crop = "crop",
        /// masks the content of some events
        Mask = "mask",
        /// crop and mask
        Both = "both",
        /// shuffles a stretch of events
        Reorder = "reorder",
        /// crop, mask and reorder
        All = "all",
    }
}

choices! {
    /// Self-supervised task on which the encoder is pretrained before it sees labels.
    Pretraining {
        /// no pretraining
        None = "none",
        /// predict masked events
        Masked = "masked",
        /// predict the next event; only for backbones that do not look ahead
        NextEvent = "next_event",
        /// recognise two augmented histories of the same user
        Contrastive = "contrastive",
    }
}

choices! {
    /// Semi-supervised training on users whose labels are not used.
    Unlabelled {
        /// they are ignored
        None = "none",
        /// confident predictions serve as labels
        PseudoLabels = "pseudo_labels",
        /// predictions of an augmented history must match those of the original
        Consistency = "consistency",
    }
}

choices! {
    /// Part of a pretrained text encoder that `train --task text` trains together with the head.
    TextStrategy {
        /// all weights except the first `text.frozen_layers` blocks
        All = "all",
        /// only the head
        Frozen = "frozen",
        /// low-rank differences, merged into the weights at the end
        Lora = "lora",
        /// bottleneck layers behind the encoder's layers
        Adapters = "adapters",
        /// learned keys and values in front of every text
        Prefix = "prefix",
    }
}

choices! {
    /// Image network that is trained from random weights.
    ImageNetworkName {
        /// a small convolutional network
        Cnn = "cnn",
        /// ResNet-18
        Resnet18 = "resnet18",
        /// ResNet-34
        Resnet34 = "resnet34",
        /// ResNet-50
        Resnet50 = "resnet50",
    }
}

choices! {
    /// Part of an image encoder that `train --task image` trains together with the head.
    ImageStrategy {
        /// all weights except the first `image.frozen_stages` stages
        All = "all",
        /// only the head; needs `--encoder`
        Frozen = "frozen",
    }
}

choices! {
    /// Random change of a picture each time that training shows it.
    ImageAugmentation {
        /// no change
        None = "none",
        /// mirrors half of the pictures
        Flip = "flip",
        /// crops at a random place instead of the centre
        Crop = "crop",
        /// flip and crop
        Both = "both",
    }
}

choices! {
    /// Statistics that batch normalisation uses in training.
    NormStatistics {
        /// `kept` with `--encoder`, `batch` from random weights
        Auto = "auto",
        /// the encoder's own, frozen
        Frozen = "kept",
        /// those of each batch, with running averages
        Batch = "batch",
    }
}

/// A name as the configuration writes it.
pub fn name_of(name: &impl Serialize) -> String {
    match serde_json::to_value(name) {
        Ok(serde_json::Value::String(text)) => text,
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::resolved;

    #[test]
    fn names_in_settings_files_stay_accepted() {
        let accepted = |key: &str, names: &[&str]| {
            let failure = resolved(&[(key, "mamba")]).unwrap_err();
            assert_eq!(failure.kind.exit_code(), 2);
            for name in names {
                assert!(failure.message.contains(name), "{key}: {failure}");
            }
        };
        accepted("model.backbone", &["transformer", "causal", "lstm", "gru", "rnn"]);
        accepted("model.head", &["sigmoid", "crf"]);
        accepted("model.loss", &["bce", "focal", "iou", "crf"]);
        accepted("model.amount_loss", &["poisson", "mse", "mae", "rmse", "huber", "tweedie", "negative_binomial"]);
        accepted("demand.network", &["lstm", "gru", "rnn", "tcn"]);
        accepted("train.augmentation", &["none", "crop", "mask", "both", "reorder", "all"]);
        accepted("train.pretraining", &["none", "masked", "next_event", "contrastive"]);
        accepted("train.unlabelled", &["none", "pseudo_labels", "consistency"]);
        accepted("text.strategy", &["all", "frozen", "lora", "adapters", "prefix"]);
        accepted("image.network", &["cnn", "resnet18", "resnet34", "resnet50"]);
        accepted("image.strategy", &["all", "frozen"]);
        accepted("image.augmentation", &["none", "flip", "crop", "both"]);
        accepted("image.norm_statistics", &["auto", "kept", "batch"]);
    }
}
