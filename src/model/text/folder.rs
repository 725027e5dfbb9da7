//! A Hugging Face folder, read whole and checked: configuration, tokenizer, pooling, tensors, and the hash of them all. Who
//! trains builds the network in a store of its own from here; who only scores takes [`super::encoder::TextEncoder`].

use bytes::Bytes;
use std::collections::HashMap;
use tch::{Tensor, nn};

use super::config::TextShape;
use super::loader;
use super::network::TextNetwork;
use super::pooling::Pooling;
use super::sentence::{self, SentenceFiles};
use super::tokens::{MAX_LENGTH, TextTokenizer};
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::model::cards::hash_of;

/// Counted up whenever the same files give other vectors than before.
const REVISION: &[u8] = b"text encoder 1";

#[derive(Debug)]
pub struct TextFolder {
    pub shape: TextShape,
    pub tokenizer: TextTokenizer,
    pub pooling: Pooling,
    /// Of everything that a vector depends on: configuration, tokenizer, weights, pooling, length.
    pub hash: String,
    /// Everything that was read but the weights, by names below the folder.
    pub files: Vec<(String, Bytes)>,
    /// Where weights of one file have to lie.
    pub weights_name: String,
    /// By the names that they have in the files.
    tensors: HashMap<String, Tensor>,
    /// What refusals call the folder.
    url: String,
}

impl TextFolder {
    /// `max_length` of `None`: what the folder says, or else [`MAX_LENGTH`] tokens.
    pub async fn read(folder: &Location, max_length: Option<usize>) -> Result<Self> {
        let SentenceFiles { transformer, pooling, pooled_width, max_length: said, files: mut kept } =
            SentenceFiles::read(folder).await?;
        let folder = sentence::below(folder, &transformer);
        let at = |name: &str| format!("{}{name}", folder.url);
        let config = required(&folder, "config.json", "expected a Hugging Face folder").await?;
        let shape = TextShape::parse(&config).map_err(|f| f.at(at("config.json")))?;
        if let Some(got) = pooled_width.filter(|got| *got != shape.width) {
            let expected = shape.width;
            return Err(Failure::model(format!("{}: expected a pooling of width {expected}, got {got}", folder.url)));
        }
        let words = required(&folder, "tokenizer.json", "AutoTokenizer's save_pretrained(folder) writes it").await?;
        let max_length = max_length.or(said).unwrap_or(MAX_LENGTH);
        let tokenizer = TextTokenizer::open(&words, max_length, &shape).map_err(|f| f.at(at("tokenizer.json")))?;
        let files = loader::read_files(&folder).await?;
        let tensors = loader::tensors(&files).map_err(|f| f.at(&folder.url))?;
        let told = Bytes::from(format!("{pooling:?} {}", tokenizer.max_length()));
        let parts = [Bytes::from_static(REVISION), config.clone(), words.clone(), told];
        let hash = hash_of(parts.into_iter().chain(files.into_iter().map(|(_, bytes)| bytes)));
        kept.push((sentence::named_below(&transformer, "config.json"), config));
        kept.push((sentence::named_below(&transformer, "tokenizer.json"), words));
        let weights_name = sentence::named_below(&transformer, loader::WHOLE);
        let url = folder.url.to_string();
        Ok(Self { shape, tokenizer, pooling, hash, files: kept, weights_name, tensors, url })
    }

    /// The folder's network, its weights trainable variables below `path`.
    pub fn network(&self, path: &nn::Path<'_>) -> Result<TextNetwork> {
        let tensors = self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        TextNetwork::open(path, &self.shape, tensors).map_err(|f| f.at(&self.url))
    }
}

async fn required(folder: &Location, name: &str, hint: &str) -> Result<Bytes> {
    let bytes = folder.read_if_there(name).await?;
    bytes.ok_or_else(|| Failure::model(format!("{}{name}: not found", folder.url)).hint(hint))
}
