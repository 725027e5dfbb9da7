//! `bundle.json`, the card of a model: everything but its weights.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::config::IntentsConfig;
use crate::failure::{Failure, FailureKind, Result};
use crate::features::contract::FeatureContract;
use crate::ids::ContentHash;
use crate::metrics::drift::Deciles;
use crate::model::blend::Blend;
use crate::model::demand::DemandShape;
use crate::model::latest_items::LatestItems;
use crate::model::scaling::Scaling;
use crate::model::shape::IntentShape;

/// The format version that is written. A card of a newer version is refused before its other fields are read, because it may
/// score otherwise.
pub const FORMAT: u32 = 7;

/// The oldest format version that is read: 4 has no trees, 5 none of the demand, 6 no latest items.
const FORMAT_MIN: u32 = 4;

/// The name of the card in a bundle's folder.
pub(super) const CARD_FILE: &str = "bundle.json";

/// Folders of the text and the image encoder in a bundle.
pub(crate) const TEXT_FOLDER: &str = "text";
pub(crate) const IMAGE_FOLDER: &str = "image";

/// The card of a model that nights use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BundleCard {
    pub format: u32,
    pub version: String,
    pub trained_at: String,
    /// Training read nothing on or after this date.
    pub labels_end: String,
    pub as_of_dates: Vec<String>,
    pub intent: IntentShape,
    pub scaling: Scaling,
    /// Weights of the network and the trees, and the calibration, of each target with trees.
    #[serde(default)]
    pub blend: Blend,
    /// Weights of the items of a user's last events in recommendations; none where training found that they don't help.
    #[serde(default)]
    pub latest_items: Option<LatestItems>,
    /// Hash of the trees' file; none for a bundle without trees.
    #[serde(default)]
    pub trees_hash: Option<String>,
    /// Hash of the demand trees' file; none for a bundle without them. Their weights are in `demand`.
    #[serde(default)]
    pub demand_trees_hash: Option<String>,
    /// The text encoder, whose files are in `text/`.
    #[serde(default)]
    pub text: Option<BundledTextEncoder>,
    /// The image encoder, whose files are in `image/`.
    #[serde(default)]
    pub image: Option<BundledImageEncoder>,
    pub demand: DemandShape,
    pub features: FeatureContract,
    pub features_fingerprint: String,
    /// Deciles of each feature over the training rows, on the network's scale: the reference for drift. Cards of earlier
    /// versions have none.
    #[serde(default)]
    pub feature_deciles: BTreeMap<String, Deciles>,
    pub horizon_days: u32,
    pub churn_days: u32,
    pub sql_fingerprint: String,
    pub input_fingerprint: String,
    pub weights_hash: String,
    /// Items that the model can recommend.
    pub items: u64,
    /// Metrics on the test users and test dates, by name: of the members before they learnt from these users and dates too.
    pub figures: BTreeMap<String, f64>,
    /// The `[features]`, `[intents]`, `[model]`, `[demand]` and `[train]` sections of the training, for people and for backtests, which look
    /// for a training that was done before.
    #[serde(default)]
    pub settings: serde_json::Value,
}

/// A pretrained text encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BundledTextEncoder {
    /// Its folder at training time.
    pub(crate) source: String,
    /// Hash of everything that its vectors depend on.
    pub(crate) hash: String,
    /// Tokens of a text that are read; 0 for the limit in the encoder's folder.
    pub(crate) tokens_max: u32,
}

/// An image encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BundledImageEncoder {
    /// Its folder at training time.
    pub(crate) source: String,
    /// Hash of everything that its vectors depend on.
    pub(crate) hash: String,
}

impl BundleCard {
    /// Returns the hash of what training has learnt: the weights and, where there are any, the trees with their blends and the
    /// weights of latest items.
    pub(crate) fn scoring_hash(&self) -> Result<String> {
        let hash = |parts: serde_json::Result<Vec<u8>>| -> Result<String> {
            Ok(ContentHash::from_bytes(&parts.map_err(Failure::bug)?).short())
        };
        let of_intents = match &self.trees_hash {
            Some(trees_hash) => hash(serde_json::to_vec(&(&self.weights_hash, trees_hash, &self.blend)))?,
            None => self.weights_hash.clone(),
        };
        let of_intents = match &self.latest_items {
            Some(latest) => hash(serde_json::to_vec(&(&of_intents, latest)))?,
            None => of_intents,
        };
        match &self.demand_trees_hash {
            Some(trees_hash) => hash(serde_json::to_vec(&(&of_intents, trees_hash, &self.demand.blend))),
            None => Ok(of_intents),
        }
    }

    /// Refuses a model that forecasts no demand.
    pub(crate) fn require_demand(&self) -> Result<()> {
        match self.demand.trained {
            true => Ok(()),
            false => Err(Failure::model(format!(
                "model {}: it forecasts no demand, it was trained with demand.enabled = false",
                self.version
            ))
            .hint("train with demand.enabled=true, or run nights with demand.enabled=false")),
        }
    }

    /// Returns the settings `intents.<name>` whose days are not those that the model predicts: name, the model's, the configured.
    pub(crate) fn other_horizons(&self, intents: &IntentsConfig) -> Vec<(&'static str, u32, u32)> {
        let both = [
            ("horizon_days", self.horizon_days, intents.horizon_days),
            ("churn_days", self.churn_days, intents.churn_days),
        ];
        both.into_iter().filter(|(_, trained, configured)| trained != configured).collect()
    }

    /// Parses `bundle.json` of `version`. Checks the format version first, since other formats have other fields.
    pub(super) fn parse(version: &str, bytes: &[u8]) -> Result<Self> {
        let refuse = |text: String| Failure::model(format!("models/{version}/{CARD_FILE}: {text}"));
        let card: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| damaged(refuse(e.to_string())))?;
        match card.get("format").and_then(serde_json::Value::as_u64) {
            Some(format) if format > FORMAT.into() => {
                return Err(refuse(format!(
                    "expected format {FORMAT_MIN} to {FORMAT}, got {format}, which a newer intentcast wrote"
                ))
                .hint("upgrade intentcast here, or promote another version"));
            }
            Some(format) if format < FORMAT_MIN.into() => {
                let text =
                    format!("expected format {FORMAT_MIN} to {FORMAT}, got {format}, which an older intentcast wrote");
                return Err(damaged(refuse(text)));
            }
            _ => {}
        }
        serde_json::from_value(card).map_err(|e| damaged(refuse(e.to_string())))
    }
}

/// Turns a failure to read a bundle's files into a failure of the model.
pub(super) fn damaged(failure: Failure) -> Failure {
    Failure { kind: FailureKind::Model, ..failure }.hint("train again, or promote another version")
}

/// Refuses an encoder whose hash differs from the one that the model was trained with. Compares the first 16 digits, because
/// hashes can be shortened and their suffix depends on the precision of this machine.
pub(crate) fn check_encoder_hash(version: &str, folder: &str, trained: &str, found: &str) -> Result<()> {
    let digits = |hash: &str| hash.get(..16).unwrap_or(hash).to_string();
    if digits(trained) == digits(found) {
        return Ok(());
    }
    Err(Failure::model(format!(
        "models/{version}/{folder}: expected the encoder {} that the model was trained with, got {}: its files changed",
        digits(trained),
        digits(found)
    ))
    .hint(format!("restore the files of {folder}/, or train again with an encoder that does not change meanwhile")))
}
