//! The networks, heads, losses and augmentations that a configuration can name.
//!
//! Names only: what they mean is in `model` and `training`, which lie further along the flow. An unknown name is
//! refused with the list of the known ones, and `match` makes the compiler ask for a new one's file.

use serde::{Deserialize, Serialize};

use super::{ModelConfig, TrainConfig};
use crate::failure::{Failure, Result};

/// What reads a user's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackboneName {
    /// Every event sees every other one.
    #[default]
    Transformer,
    /// An event sees the ones before it, as in GPT.
    Causal,
    Lstm,
    Gru,
    Rnn,
}

impl BackboneName {
    pub const ALL: [BackboneName; 5] = [Self::Transformer, Self::Causal, Self::Lstm, Self::Gru, Self::Rnn];

    /// Whether an event's state knows of the events after it.
    pub fn looks_ahead(self) -> bool {
        match self {
            Self::Transformer => true,
            Self::Causal | Self::Lstm | Self::Gru | Self::Rnn => false,
        }
    }
}

/// How what an item shows joins what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FusionName {
    /// All that is known adds up.
    #[default]
    Sum,
    /// One map over all side by side.
    Concat,
    /// Each as far as a gate lets it in.
    Gate,
    /// Scaled dot products over what is there.
    Attention,
    /// Attention for each event, and the means once more beside the sequence.
    Multilevel,
}

impl FusionName {
    pub const ALL: [FusionName; 5] = [Self::Sum, Self::Concat, Self::Gate, Self::Attention, Self::Multilevel];
}

/// The numbers that text and image encoders compute with; their vectors are float32 either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    #[default]
    F32,
    /// Half the memory, and on a GPU faster; eight bits of each number instead of 24.
    Bf16,
}

impl Precision {
    pub const ALL: [Precision; 2] = [Self::F32, Self::Bf16];

    /// The encoder of this hash as it computes in this precision: its vectors are not those of another one.
    pub fn hash_of(self, encoder: &str) -> String {
        let plain = encoder.strip_suffix(BF16).unwrap_or(encoder);
        match self {
            Self::F32 => plain.to_string(),
            Self::Bf16 if plain.is_empty() => String::new(),
            Self::Bf16 => format!("{plain}{BF16}"),
        }
    }
}

/// How hashes of encoders end that compute in bfloat16.
const BF16: &str = "-bf16";

/// How the intents of a user hang together, and the labels of a text or picture that has several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadName {
    /// Each on its own.
    #[default]
    Sigmoid,
    /// A linear chain over the ordered intents.
    Crf,
}

impl HeadName {
    pub const ALL: [HeadName; 2] = [Self::Sigmoid, Self::Crf];
}

/// What the intents are trained by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossName {
    /// Binary cross-entropy.
    #[default]
    Bce,
    Focal,
    /// Soft intersection over union (Jaccard).
    Iou,
    /// The likelihood of the whole label vector under the chain.
    Crf,
}

/// What expected units and spend are trained by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AmountLossName {
    #[default]
    Poisson,
    Mse,
    Mae,
    Rmse,
    Huber,
    Tweedie,
    NegativeBinomial,
}

/// How much a positive label weighs against a negative one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassWeights {
    #[default]
    None,
    /// As much more as positives are rarer in training.
    Balanced,
}

/// What reads an item's daily history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DemandNetworkName {
    Lstm,
    #[default]
    Gru,
    Rnn,
    /// Dilated causal convolutions over time.
    Tcn,
}

impl DemandNetworkName {
    pub const ALL: [DemandNetworkName; 4] = [Self::Lstm, Self::Gru, Self::Rnn, Self::Tcn];
}

/// How a user's events are changed each time that training shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Augmentation {
    #[default]
    None,
    /// Forgets the oldest events.
    Crop,
    /// Hides what some events were.
    Mask,
    /// Crop and mask.
    Both,
    /// Shuffles a stretch of events.
    Reorder,
    All,
}

/// What the encoder learns from events alone, before it sees a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pretraining {
    #[default]
    None,
    /// What hidden events were.
    Masked,
    /// What comes next; for backbones that read forwards.
    NextEvent,
    /// Which of two changed histories are one user's.
    Contrastive,
}

/// What users without labels teach beside those who have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unlabelled {
    #[default]
    None,
    /// What the network is surest of is taken for true.
    PseudoLabels,
    /// A changed history has the scores of the unchanged one.
    Consistency,
}

/// How a pretrained text encoder learns a task of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextStrategy {
    /// Its weights are trained, but for the first `text.frozen_layers`.
    #[default]
    All,
    /// Only the head on its vectors.
    Frozen,
    /// Low-rank differences, added to its weights at the end.
    Lora,
    /// Bottlenecks behind its layers.
    Adapters,
    /// Keys and values in front of every text.
    Prefix,
}

/// A network for pictures that starts with random weights, where no encoder's folder is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageNetworkName {
    #[default]
    Cnn,
    Resnet18,
    Resnet34,
    Resnet50,
}

/// How an image encoder learns a task of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageStrategy {
    /// Its weights are trained, but for those of the first `image.frozen_stages`.
    #[default]
    All,
    /// Only the head on its vectors.
    Frozen,
}

/// How a picture is changed each time that training shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageAugmentation {
    None,
    /// Every other time, left and right change places.
    Flip,
    /// The crop lies anywhere instead of in the middle.
    Crop,
    #[default]
    Both,
}

/// By which statistics batch normalisation normalises in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormStatistics {
    /// `kept` for an encoder's folder, `batch` from random weights.
    #[default]
    Auto,
    /// Those that the folder holds, which stay as they are.
    Kept,
    /// Those of each batch, which the kept ones follow.
    Batch,
}

impl ModelConfig {
    /// The chain is trained by its likelihood and by nothing else, and the likelihood needs the chain. Class weights are
    /// those of cross-entropy: set beside another loss they would be ignored in silence.
    pub(super) fn check_losses(&self) -> Result<()> {
        if self.class_weights != ClassWeights::None && self.loss != LossName::Bce {
            return Err(Failure::usage(format!(
                "model.class_weights: expected none, because model.loss is {}, got {}",
                name_of(&self.loss),
                name_of(&self.class_weights)
            ))
            .hint("class weights go with model.loss=bce"));
        }
        match (self.head, self.loss) {
            (HeadName::Crf, LossName::Crf) | (HeadName::Sigmoid, LossName::Bce | LossName::Focal | LossName::Iou) => {
                Ok(())
            }
            (HeadName::Crf, _) => Err(Failure::usage(format!(
                "model.loss: expected crf, because model.head is crf, got {}",
                name_of(&self.loss)
            ))
            .hint("set model.loss=crf, or model.head=sigmoid")),
            (HeadName::Sigmoid, LossName::Crf) => {
                Err(Failure::usage("model.head: expected crf, because model.loss is crf, got sigmoid")
                    .hint("set model.head=crf, or model.loss to bce, focal or iou"))
            }
        }
    }
}

impl TrainConfig {
    /// A backbone that sees what comes next has nothing to guess; users without labels must be there to teach.
    pub(super) fn check_unlabelled(&self, backbone: BackboneName) -> Result<()> {
        if self.pretraining == Pretraining::NextEvent && backbone.looks_ahead() {
            return Err(Failure::usage(format!(
                "train.pretraining: expected none, masked or contrastive, because model.backbone is {}, which sees the next \
                 event, got next_event",
                name_of(&backbone)
            ))
            .hint("set model.backbone=causal for next events"));
        }
        if self.unlabelled != Unlabelled::None && self.labels_share == 1.0 {
            return Err(Failure::usage(format!(
                "train.unlabelled: expected none, because train.labels_share is 1 and nobody is unlabelled, got {}",
                name_of(&self.unlabelled)
            ))
            .hint("set train.labels_share below 1"));
        }
        Ok(())
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
    use crate::config::Config;

    fn resolved(pairs: &[(&str, &str)]) -> crate::failure::Result<Config> {
        let pairs: Vec<(String, String)> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        Config::resolve(None, [], &pairs)
    }

    #[test]
    fn an_unknown_network_is_refused_with_the_names_of_the_known_ones() {
        let refused = |key: &str, known: &[&str]| {
            let failure = resolved(&[(key, "mamba")]).unwrap_err();
            assert_eq!(failure.kind.exit_code(), 2);
            for name in known {
                assert!(failure.message.contains(name), "{key}: {failure}");
            }
        };
        refused("model.backbone", &["transformer", "causal", "lstm", "gru", "rnn"]);
        refused("model.head", &["sigmoid", "crf"]);
        refused("model.loss", &["bce", "focal", "iou", "crf"]);
        refused("model.amount_loss", &["poisson", "mse", "mae", "rmse", "huber", "tweedie", "negative_binomial"]);
        refused("demand.network", &["lstm", "gru", "rnn", "tcn"]);
        refused("train.augmentation", &["none", "crop", "mask", "both", "reorder", "all"]);
        refused("train.pretraining", &["none", "masked", "next_event", "contrastive"]);
        refused("train.unlabelled", &["none", "pseudo_labels", "consistency"]);
        refused("text.strategy", &["all", "frozen", "lora", "adapters", "prefix"]);
        refused("image.network", &["cnn", "resnet18", "resnet34", "resnet50"]);
        refused("image.strategy", &["all", "frozen"]);
        refused("image.augmentation", &["none", "flip", "crop", "both"]);
        refused("image.norm_statistics", &["auto", "kept", "batch"]);
    }

    #[test]
    fn a_backbone_that_sees_the_next_event_is_not_asked_to_guess_it() {
        let failure = resolved(&[("train.pretraining", "next_event")]).unwrap_err();
        assert!(failure.message.contains("because model.backbone is transformer, which sees"), "{failure}");
        resolved(&[("train.pretraining", "next_event"), ("model.backbone", "causal")]).unwrap();
    }

    #[test]
    fn losses_heads_and_weights_that_do_not_fit_are_refused() {
        resolved(&[("model.head", "crf"), ("model.loss", "crf")]).unwrap();
        resolved(&[("model.loss", "focal")]).unwrap();
        for (pairs, part) in [
            (vec![("model.head", "crf")], "model.loss: expected crf, because model.head is crf, got bce"),
            (vec![("model.head", "crf"), ("model.loss", "iou")], "got iou"),
            (vec![("model.loss", "crf")], "model.head: expected crf, because model.loss is crf, got sigmoid"),
            (
                vec![("model.loss", "focal"), ("model.class_weights", "balanced")],
                "model.class_weights: expected none, because model.loss is focal, got balanced",
            ),
        ] {
            let failure = resolved(&pairs).unwrap_err();
            assert_eq!(failure.kind.exit_code(), 2);
            assert!(failure.message.contains(part), "{failure}");
        }
    }
}
