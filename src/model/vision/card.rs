//! `config.json` of an image encoder's folder: which network, and what is done to pictures before it sees them.

use serde::{Deserialize, Serialize};

use super::cnn::CnnShape;
use super::preprocess::Preprocess;
use super::resnet::Depth;
use crate::failure::{Failure, Result};

/// The format that is written and read.
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
    /// All names, as people write them.
    pub const KNOWN: [&str; 4] = ["resnet18", "resnet34", "resnet50", "cnn"];

    /// `None` for the small network.
    pub fn depth(self) -> Option<Depth> {
        match self {
            Self::ResNet18 => Some(Depth::Eighteen),
            Self::ResNet34 => Some(Depth::ThirtyFour),
            Self::ResNet50 => Some(Depth::Fifty),
            Self::Cnn => None,
        }
    }
}

/// Everything about an encoder but its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageCard {
    #[serde(default = "format")]
    format: u64,
    pub architecture: Architecture,
    #[serde(default)]
    pub preprocess: Preprocess,
    /// Sizes of the small network; only where `architecture` is `cnn`, which has defaults too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cnn: Option<CnnShape>,
}

fn format() -> u64 {
    FORMAT
}

impl ImageCard {
    /// A card whose network has the default sizes.
    pub fn new(architecture: Architecture, preprocess: Preprocess) -> Self {
        Self { format: FORMAT, architecture, preprocess, cnn: None }
    }

    /// Reads and checks a card.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let refuse = |e: serde_json::Error| Failure::model(e.to_string());
        let card: serde_json::Value = serde_json::from_slice(bytes).map_err(refuse)?;
        if let Some(format) = card.get("format").filter(|f| f.as_u64() != Some(FORMAT)) {
            return Err(Failure::model(format!("expected format {FORMAT}, got {format}")));
        }
        let known = Architecture::KNOWN.join(", ");
        match card.get("architecture").and_then(serde_json::Value::as_str) {
            Some(name) if !Architecture::KNOWN.contains(&name) => {
                Err(Failure::model(format!("unknown architecture {name}: expected one of {known}")))
            }
            Some(_) => Self::checked(serde_json::from_value(card).map_err(refuse)?),
            None => Err(Failure::model(format!("no architecture: expected one of {known}"))),
        }
    }

    fn checked(self) -> Result<Self> {
        self.preprocess.check()?;
        match (self.architecture, &self.cnn) {
            (Architecture::Cnn, _) => self.cnn_shape().check(self.preprocess.crop)?,
            (_, Some(_)) => return Err(Failure::model("the cnn section belongs to the architecture cnn alone")),
            (_, None) => {}
        }
        Ok(self)
    }

    /// The card as it is written; the same for all ways to write the same settings.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self).map_err(Failure::bug)
    }

    /// Sizes of the small network.
    pub fn cnn_shape(&self) -> CnnShape {
        self.cnn.clone().unwrap_or_default()
    }

    /// Numbers of a vector.
    pub fn width(&self) -> i64 {
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
        let failure = ImageCard::from_bytes(text.as_bytes()).unwrap_err();
        assert_eq!(failure.kind.exit_code(), 6, "{failure}");
        failure.message
    }

    #[test]
    fn defaults_are_those_of_the_imagenet_weights() {
        let card = ImageCard::from_bytes(br#"{"architecture": "resnet50"}"#).unwrap();
        assert_eq!((card.preprocess.resize, card.preprocess.crop, card.width()), (256, 224, 2048));
        assert_eq!(ImageCard::from_bytes(&card.to_bytes().unwrap()).unwrap(), card);
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let text = refusal(r#"{"architecture": "vit_b_16"}"#);
        assert_eq!(text, "unknown architecture vit_b_16: expected one of resnet18, resnet34, resnet50, cnn");
        assert!(refusal("{}").contains("no architecture: expected one of resnet18"));
        assert!(refusal(r#"{"architecture": "cnn", "format": 2}"#).contains("expected format 1, got 2"));
        assert!(refusal(r#"{"architecture": "cnn", "sides": 3}"#).contains("sides"));
        assert!(refusal("no json").contains("expected"));
    }

    #[test]
    fn sizes_that_cannot_be_meant_are_refused() {
        let with = |settings: &str| refusal(&format!(r#"{{"architecture": "cnn", {settings}}}"#));
        assert!(with(r#""preprocess": {"resize": 64, "crop": 65}"#).contains("got 65 and 64"));
        assert!(with(r#""preprocess": {"std": [1, 0, 1]}"#).contains("positive deviations"));
        assert!(with(r#""preprocess": {"resize": 4, "crop": 4}"#).contains("a crop of at least 8 pixels, got 4"));
        assert!(with(r#""cnn": {"channels": []}"#).contains("1 to 6 blocks"));
        assert!(with(r#""cnn": {"width": -1}"#).contains("got -1"));
        assert!(refusal(r#"{"architecture": "resnet18", "cnn": {}}"#).contains("belongs to the architecture cnn"));
    }
}
