//! Parses `config.json` of an image encoder's folder: the architecture and how pictures are preprocessed.

use serde::{Deserialize, Serialize};

use super::cnn::CnnShape;
use super::preprocess::Preprocess;
use super::resnet::ResNetDepth;
use crate::failure::{Failure, Result};

/// The format version of the card.
const FORMAT: u64 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    ResNet18,
    ResNet34,
    ResNet50,
    Cnn,
}

impl Architecture {
    /// All names, as in the card.
    pub(crate) const KNOWN: [&str; 4] = ["resnet18", "resnet34", "resnet50", "cnn"];

    /// `None` for the small CNN.
    pub(crate) fn depth(self) -> Option<ResNetDepth> {
        match self {
            Self::ResNet18 => Some(ResNetDepth::Eighteen),
            Self::ResNet34 => Some(ResNetDepth::ThirtyFour),
            Self::ResNet50 => Some(ResNetDepth::Fifty),
            Self::Cnn => None,
        }
    }
}

/// Everything that defines an image encoder except its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageEncoderCard {
    #[serde(default = "format")]
    format: u64,
    pub(crate) architecture: Architecture,
    #[serde(default)]
    pub(crate) preprocess: Preprocess,
    /// Sizes of the small CNN. Only allowed, and optional, if `architecture` is `cnn`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cnn: Option<CnnShape>,
}

fn format() -> u64 {
    FORMAT
}

impl ImageEncoderCard {
    /// Makes a card whose network has the default sizes.
    pub fn new(architecture: Architecture, preprocess: Preprocess) -> Self {
        Self { format: FORMAT, architecture, preprocess, cnn: None }
    }

    /// Parses and checks a card.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let refuse = |e: serde_json::Error| Failure::model(e.to_string());
        let json: serde_json::Value = serde_json::from_slice(bytes).map_err(refuse)?;
        if let Some(format) = json.get("format").filter(|f| f.as_u64() != Some(FORMAT)) {
            return Err(Failure::model(format!("expected format {FORMAT}, got {format}")));
        }
        let known = Architecture::KNOWN.join(", ");
        match json.get("architecture").and_then(serde_json::Value::as_str) {
            Some(name) if !Architecture::KNOWN.contains(&name) => {
                return Err(Failure::model(format!("unknown architecture {name}: expected one of {known}")));
            }
            Some(_) => {}
            None => return Err(Failure::model(format!("no architecture: expected one of {known}"))),
        }
        let card: Self = serde_json::from_value(json).map_err(refuse)?;
        card.check()?;
        Ok(card)
    }

    fn check(&self) -> Result<()> {
        self.preprocess.check()?;
        match (self.architecture, &self.cnn) {
            (Architecture::Cnn, _) => self.cnn_shape().check(self.preprocess.crop),
            (_, Some(_)) => Err(Failure::model("a cnn section belongs to the architecture cnn only")),
            (_, None) => Ok(()),
        }
    }

    /// Returns the canonical bytes of the card, independent of how the original was formatted.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self).map_err(Failure::bug)
    }

    /// The sizes of the small CNN.
    pub(crate) fn cnn_shape(&self) -> CnnShape {
        self.cnn.clone().unwrap_or_default()
    }

    /// The length of a vector.
    pub(crate) fn width(&self) -> i64 {
        match self.architecture.depth() {
            Some(depth) => depth.width(),
            None => self.cnn_shape().width,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let failure = ImageEncoderCard::from_bytes(text.as_bytes()).unwrap_err();
        assert_eq!(failure.kind.exit_code(), 6, "{failure}");
        failure.message
    }

    #[test]
    fn defaults_match_the_imagenet_weights() {
        let card = ImageEncoderCard::from_bytes(br#"{"architecture": "resnet50"}"#).unwrap();
        assert_eq!((card.preprocess.resize, card.preprocess.crop, card.width()), (256, 224, 2048));
        assert_eq!(ImageEncoderCard::from_bytes(&card.to_bytes().unwrap()).unwrap(), card);
    }

    #[test]
    fn unknown_architectures_formats_and_keys_are_refused() {
        let text = refusal(r#"{"architecture": "vit_b_16"}"#);
        assert_eq!(text, "unknown architecture vit_b_16: expected one of resnet18, resnet34, resnet50, cnn");
        assert!(refusal("{}").contains("no architecture: expected one of resnet18"));
        assert!(refusal(r#"{"architecture": "cnn", "format": 2}"#).contains("expected format 1, got 2"));
        assert!(refusal(r#"{"architecture": "cnn", "sides": 3}"#).contains("sides"));
        assert!(refusal("no json").contains("expected"));
    }

    #[test]
    fn impossible_sizes_are_refused() {
        let with = |settings: &str| refusal(&format!(r#"{{"architecture": "cnn", {settings}}}"#));
        assert!(with(r#""preprocess": {"resize": 64, "crop": 65}"#).contains("got 65 and 64"));
        assert!(with(r#""preprocess": {"std": [1, 0, 1]}"#).contains("positive deviations"));
        assert!(with(r#""preprocess": {"resize": 4, "crop": 4}"#).contains("a crop of at least 8 pixels, got 4"));
        assert!(with(r#""cnn": {"channels": []}"#).contains("1 to 6 blocks"));
        assert!(with(r#""cnn": {"width": -1}"#).contains("got -1"));
        assert!(refusal(r#"{"architecture": "resnet18", "cnn": {}}"#).contains("belongs to the architecture cnn"));
    }
}
