//! Writes and loads text classifiers in the registry: `models/text-DATE-HASH/` with `text.json`, `text/` (a Hugging
//! Face folder, which `TextEncoder::open` loads like any other), `head.safetensors`, and `beside.safetensors` with
//! adapters or prefixes.
//!
//! There is no `bundle.json`, so a night can never take such a model.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tch::{Device, Tensor, nn};

use super::classifier::{AddedModules, TextClassifier};
use super::folder::TextFolder;
use super::tokenizer::TextTokenizer;
use crate::failure::Result;
use crate::model::cards::{Card, bytes_of, check_files, damaged, read_part};
use crate::model::labels::{HeadSizes, LabelHead, LabelStructure};
use crate::model::registry::Registry;

/// The format version of `text.json`.
pub(crate) const TEXT_FORMAT: u32 = 1;
/// The card, whose presence marks a folder of the registry as a text classifier.
pub(crate) const TEXT_CARD: &str = "text.json";
const HEAD: &str = "head.safetensors";
const ADDED: &str = "beside.safetensors";
/// The subfolder of the encoder.
const ENCODER: &str = "text";

/// The contents of `text.json`: everything about a text classifier except its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TextCard {
    pub(crate) format: u32,
    pub(crate) version: String,
    pub(crate) trained_at: String,
    /// The files or folders of the training table.
    pub(crate) table: Vec<String>,
    pub(crate) text_column: String,
    /// Description of the split into training, validation and test, for people.
    pub(crate) split: String,
    /// The folder of the pretrained encoder.
    pub(crate) encoder: String,
    pub(crate) encoder_hash: String,
    pub(crate) strategy: String,
    pub(crate) kind: LabelStructure,
    pub(crate) labels: Vec<String>,
    #[serde(rename = "beside")]
    pub(crate) added_modules: AddedModules,
    /// Longer texts are truncated to this number of tokens.
    pub(crate) max_length: usize,
    pub(crate) weights_hash: String,
    /// Figures on the test rows.
    pub(crate) figures: BTreeMap<String, f64>,
    /// The `[model]`, `[train]` and `[text]` settings of the training, for people; nothing reads them.
    #[serde(default)]
    pub(crate) settings: serde_json::Value,
}

/// The trained weights of a text classifier, by name.
#[derive(Debug)]
pub(crate) struct TextModelWeights<'a> {
    /// The folder of the pretrained encoder, whose other files are copied.
    pub(crate) folder: &'a TextFolder,
    pub(crate) encoder: Vec<(String, Tensor)>,
    pub(crate) head: Vec<(String, Tensor)>,
    pub(crate) added: Vec<(String, Tensor)>,
}

/// A loaded text classifier.
#[derive(Debug)]
pub(crate) struct TextModel {
    pub(crate) card: TextCard,
    classifier: TextClassifier,
    tokenizer: TextTokenizer,
    /// Own the weights of `classifier`.
    _stores: Vec<nn::VarStore>,
}

impl TextModel {
    /// Returns the probability of each label of each text, computed in batches of at most `tokens_max` padded tokens.
    pub(crate) fn probabilities(&self, texts: &[&str], tokens_max: usize) -> Result<Vec<Vec<f64>>> {
        self.classifier.probabilities(&self.tokenizer, texts, tokens_max)
    }
}

impl Card for TextCard {
    const KIND: &'static str = "text";
    const FILE: &'static str = TEXT_CARD;
    const FORMAT: u32 = TEXT_FORMAT;

    fn version(&self) -> &str {
        &self.version
    }

    fn trained_at(&self) -> &str {
        &self.trained_at
    }

    fn weights_hash(&self) -> &str {
        &self.weights_hash
    }

    fn seal(&mut self, version: String, weights_hash: String) {
        (self.version, self.weights_hash) = (version, weights_hash);
    }
}

impl Registry {
    /// Writes a text classifier.
    pub(crate) async fn write_text(&self, card: TextCard, weights: TextModelWeights<'_>) -> Result<TextCard> {
        let mut files = in_encoder_folder(&weights.folder.files);
        let to_bytes = |named| bytes_of(TextCard::KIND, named);
        files.push((format!("{ENCODER}/{}", weights.folder.weights_name), to_bytes(&weights.encoder)?));
        files.push((HEAD.into(), to_bytes(&weights.head)?));
        if card.added_modules != AddedModules::None {
            files.push((ADDED.into(), to_bytes(&weights.added)?));
        }
        self.write_files(card, files).await
    }

    /// Loads a text classifier and checks its files against the card.
    pub(crate) async fn load_text(&self, version: &str, device: Device) -> Result<TextModel> {
        let card: TextCard = self.card_of(version).await?;
        let folder = self.0.folder(version);
        let encoder = TextFolder::load(&folder.folder(ENCODER), Some(card.max_length)).await.map_err(damaged)?;
        let read_file = async |name: &str| folder.read(name).await.map_err(damaged);
        let weights_name = format!("{ENCODER}/{}", encoder.weights_name);
        let weights_bytes = read_file(&weights_name).await?;
        let head_bytes = read_file(HEAD).await?;
        let added_bytes = match card.added_modules {
            AddedModules::None => None,
            _ => Some(read_file(ADDED).await?),
        };
        let mut files = in_encoder_folder(&encoder.files);
        files.extend([(weights_name, weights_bytes), (HEAD.to_string(), head_bytes.clone())]);
        files.extend(added_bytes.iter().map(|bytes| (ADDED.to_string(), bytes.clone())));
        check_files(folder.url.as_str(), files, &card.weights_hash)?;

        let mut encoder_store = nn::VarStore::new(device);
        let mut network = encoder.network(&encoder_store.root()).map_err(damaged)?;
        encoder_store.freeze();
        let mut stores = vec![encoder_store];
        let at = |name: &str| format!("{}{name}", folder.url);
        let sizes = HeadSizes { width: TextClassifier::width(&encoder), labels: card.labels.len() };
        let build_head = |path: &nn::Path<'_>| Ok(LabelHead::new(path, card.kind, sizes));
        let (head, head_store) = read_part(&head_bytes, at(HEAD), device, build_head)?;
        stores.push(head_store);
        if let Some(bytes) = &added_bytes {
            let add_modules = |path: &nn::Path<'_>| card.added_modules.add_to(&mut network, path);
            let (_, added_store) = read_part(bytes, at(ADDED), device, add_modules)?;
            stores.push(added_store);
        }
        let classifier = TextClassifier::new(network, &encoder.pooling, head, device);
        Ok(TextModel { card, classifier, tokenizer: encoder.tokenizer, _stores: stores })
    }
}

/// Returns an encoder's files by their paths below the model's folder.
fn in_encoder_folder(files: &[(String, Bytes)]) -> Vec<(String, Bytes)> {
    files.iter().map(|(name, bytes)| (format!("{ENCODER}/{name}"), bytes.clone())).collect()
}
