//! Text classifiers in the registry: `models/text-DATE-HASH/` with `text.json`, `text/` (a Hugging Face folder, which
//! `TextEncoder::open` reads as any other), `head.safetensors`, and `beside.safetensors` where adapters or prefixes were
//! learnt.
//!
//! As with table models, there is no `bundle.json`, so nothing that looks for a night's model can take one of them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tch::{Device, Tensor, nn};

use super::classifier::{Beside, TextClassifier};
use super::folder::TextFolder;
use super::tokens::TextTokenizer;
use crate::failure::Result;
use crate::model::bundle::Registry;
use crate::model::cards::{Card, bytes_of, check_files, damaged, read_part};
use crate::model::labels::{LabelHead, Labels};

/// The format that is written and read.
pub const TEXT_FORMAT: u32 = 1;
/// The file that makes a folder of the registry a text classifier.
pub const TEXT_CARD: &str = "text.json";
const HEAD: &str = "head.safetensors";
const BESIDE: &str = "beside.safetensors";
/// The folder with the encoder.
const ENCODER: &str = "text";

/// `text.json`: everything about a text classifier but its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextCard {
    pub format: u32,
    pub version: String,
    pub trained_at: String,
    /// The files or folders that were read.
    pub table: Vec<String>,
    pub text_column: String,
    /// How rows were split into training, validation and test.
    pub split: String,
    /// The folder whose encoder was taught, and its hash.
    pub encoder: String,
    pub encoder_hash: String,
    pub strategy: String,
    pub kind: Labels,
    pub labels: Vec<String>,
    pub beside: Beside,
    /// Tokens of a text that are read.
    pub max_length: usize,
    pub weights_hash: String,
    /// Figures on the test rows, by name.
    pub figures: BTreeMap<String, f64>,
    /// The `[model]`, `[train]` and `[text]` sections of the training, for people; nothing reads them.
    #[serde(default)]
    pub settings: serde_json::Value,
}

/// What a training hands over beside the card.
#[derive(Debug)]
pub struct TextParts<'a> {
    /// The folder that the encoder came from: its files are kept, its weights replaced.
    pub folder: &'a TextFolder,
    /// By their names in the folder.
    pub encoder: Vec<(String, Tensor)>,
    pub head: Vec<(String, Tensor)>,
    pub beside: Vec<(String, Tensor)>,
}

/// A loaded text classifier.
#[derive(Debug)]
pub struct TextModel {
    pub card: TextCard,
    classifier: TextClassifier,
    tokenizer: TextTokenizer,
    /// Hold the weights of `classifier`.
    _stores: Vec<nn::VarStore>,
}

impl TextModel {
    /// The probability of each label of each text, in batches of at most so many padded tokens.
    pub fn probabilities(&self, texts: &[&str], tokens_max: usize) -> Result<Vec<Vec<f64>>> {
        self.classifier.probabilities(&self.tokenizer, texts, tokens_max)
    }
}

impl Card for TextCard {
    const KIND: &'static str = "text";
    const FILE: &'static str = TEXT_CARD;
    const FORMAT: u32 = TEXT_FORMAT;

    fn trained_at(&self) -> &str {
        &self.trained_at
    }

    fn seal(&mut self, version: String, weights_hash: String) {
        (self.version, self.weights_hash) = (version, weights_hash);
    }
}

impl Registry {
    /// Writes a text classifier.
    pub async fn write_text(&self, card: TextCard, parts: TextParts<'_>) -> Result<TextCard> {
        let mut files = parts.folder.files.clone();
        files.iter_mut().for_each(|(name, _)| *name = format!("{ENCODER}/{name}"));
        let bytes_of = |named| bytes_of(TextCard::KIND, named);
        files.push((format!("{ENCODER}/{}", parts.folder.weights_name), bytes_of(&parts.encoder)?));
        files.push((HEAD.into(), bytes_of(&parts.head)?));
        if card.beside != Beside::Nothing {
            files.push((BESIDE.into(), bytes_of(&parts.beside)?));
        }
        self.write_files(card, files).await
    }

    /// The card of a text classifier.
    pub async fn text_card(&self, version: &str) -> Result<TextCard> {
        self.card_of(version).await
    }

    /// Loads a text classifier and checks its files against the card.
    pub async fn load_text(&self, version: &str, device: Device) -> Result<TextModel> {
        let card = self.text_card(version).await?;
        let folder = self.0.folder(version);
        let read = TextFolder::read(&folder.folder(ENCODER), Some(card.max_length)).await.map_err(damaged)?;
        let read_file = async |name: &str| folder.read(name).await.map_err(damaged);
        let weights = format!("{ENCODER}/{}", read.weights_name);
        let (weights_bytes, head_bytes) = (read_file(&weights).await?, read_file(HEAD).await?);
        let beside_bytes = match card.beside {
            Beside::Nothing => None,
            _ => Some(read_file(BESIDE).await?),
        };
        let own = read.files.iter().map(|(name, bytes)| (format!("{ENCODER}/{name}"), bytes.clone()));
        let mut files: Vec<(String, Bytes)> = own.collect();
        files.extend([(weights, weights_bytes), (HEAD.to_string(), head_bytes.clone())]);
        files.extend(beside_bytes.iter().map(|bytes| (BESIDE.to_string(), bytes.clone())));
        check_files(folder.url.as_str(), files, &card.weights_hash)?;
        let mut encoder = nn::VarStore::new(device);
        let mut network = read.network(&encoder.root()).map_err(damaged)?;
        encoder.freeze();
        let mut stores = vec![encoder];
        let at = |name: &str| format!("{}{name}", folder.url);
        let sizes = (TextClassifier::width(&read), card.labels.len());
        let head = |path: &nn::Path<'_>| Ok(LabelHead::new(path, card.kind, sizes));
        let (head, store) = read_part((&head_bytes, at(HEAD)), device, head)?;
        stores.push(store);
        if let Some(bytes) = &beside_bytes {
            let add = |path: &nn::Path<'_>| card.beside.add(&mut network, path);
            stores.push(read_part((bytes, at(BESIDE)), device, add)?.1);
        }
        let classifier = TextClassifier::new(network, &read.pooling, head, device);
        Ok(TextModel { card, classifier, tokenizer: read.tokenizer, _stores: stores })
    }
}
