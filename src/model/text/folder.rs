//! Loads and checks a Hugging Face folder: configuration, tokenizer, pooling, tensors, and a hash of all of them.
//! Training builds its network from here; scoring uses [`super::encoder::TextEncoder`].

use bytes::Bytes;
use std::collections::HashMap;
use tch::{Tensor, nn};

use super::network::TextNetwork;
use super::pooling::Pooling;
use super::sentence_transformers::{self, SentenceTransformersFiles};
use super::shape::TextShape;
use super::tokenizer::{MAX_LENGTH, TextTokenizer};
use super::weight_loader;
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::model::cards::hash_of;

/// Part of the hash. Raise it whenever the same files give other vectors than before.
const REVISION: &[u8] = b"text encoder 1";

#[derive(Debug)]
pub(crate) struct TextFolder {
    pub(crate) shape: TextShape,
    pub(crate) tokenizer: TextTokenizer,
    pub(crate) pooling: Pooling,
    /// A hash of everything that a vector depends on: configuration, tokenizer, weights, pooling, maximum length.
    pub(crate) hash: String,
    /// All files except the weights, by their paths below the folder.
    pub(crate) files: Vec<(String, Bytes)>,
    /// The path below the folder of a single weights file.
    pub(crate) weights_name: String,
    /// Tensors by their names in the files.
    tensors: HashMap<String, Tensor>,
    /// Names the folder in messages.
    url: String,
}

impl TextFolder {
    /// Without `max_length`, the folder's setting applies, or else [`MAX_LENGTH`] tokens.
    pub(crate) async fn load(root: &Location, max_length: Option<usize>) -> Result<Self> {
        let SentenceTransformersFiles { transformer, pooling, pooled_width, max_length: folder_max_length, mut files } =
            SentenceTransformersFiles::load(root).await?;
        let folder = sentence_transformers::subfolder(root, &transformer);
        let at = |name: &str| format!("{}{name}", folder.url);
        let config = read_required(&folder, "config.json", "expected a Hugging Face folder").await?;
        let shape = TextShape::parse(&config).map_err(|f| f.at(at("config.json")))?;
        if let Some(got) = pooled_width.filter(|got| *got != shape.width) {
            let expected = shape.width;
            return Err(Failure::model(format!("{}: expected a pooling of width {expected}, got {got}", folder.url)));
        }
        let vocabulary =
            read_required(&folder, "tokenizer.json", "AutoTokenizer's save_pretrained(folder) writes it").await?;
        let length = max_length.or(folder_max_length).unwrap_or(MAX_LENGTH);
        let tokenizer =
            TextTokenizer::from_bytes(&vocabulary, length, &shape).map_err(|f| f.at(at("tokenizer.json")))?;
        let weights = weight_loader::read_files(&folder).await?;
        let tensors = weight_loader::tensors(&weights).map_err(|f| f.at(&folder.url))?;
        let settings = Bytes::from(format!("{} {}", pooling.fingerprint(), tokenizer.max_length()));
        let hashed = [Bytes::from_static(REVISION), config.clone(), vocabulary.clone(), settings];
        let hash = hash_of(hashed.into_iter().chain(weights.into_iter().map(|(_, bytes)| bytes)));
        files.push((sentence_transformers::path_below(&transformer, "config.json"), config));
        files.push((sentence_transformers::path_below(&transformer, "tokenizer.json"), vocabulary));
        let weights_name = sentence_transformers::path_below(&transformer, weight_loader::SINGLE_FILE);
        let url = folder.url.to_string();
        Ok(Self { shape, tokenizer, pooling, hash, files, weights_name, tensors, url })
    }

    /// Builds the folder's network with its weights as trainable variables below `path`.
    pub(crate) fn network(&self, path: &nn::Path<'_>) -> Result<TextNetwork> {
        let tensors = self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        TextNetwork::load(path, &self.shape, tensors).map_err(|f| f.at(&self.url))
    }
}

async fn read_required(folder: &Location, name: &str, hint: &str) -> Result<Bytes> {
    let bytes = folder.read_if_there(name).await?;
    bytes.ok_or_else(|| Failure::model(format!("{}{name}: not found", folder.url)).hint(hint))
}
