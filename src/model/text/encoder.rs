//! Turns texts into vectors with a folder's tokenizer, network and pooling. Texts are encoded in length-sorted batches
//! and returned in the caller's order. A vector depends only on its text, not on the other texts of the batch (within
//! 1e-5).

use std::sync::atomic::AtomicU64;
use tch::{Device, Kind, Tensor, nn};

use super::batching::{PaddedTokens, pad, sort_into_batches};
use super::folder::TextFolder;
use super::network::TextNetwork;
use super::pooling::Pooling;
use super::tokenizer::TextTokenizer;
use crate::config::networks::Precision;
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::model::out_of_memory::retry_in_halves;
use crate::model::weights::all_finite;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EncoderSettings {
    /// Longer texts are truncated to this number of tokens. `None`: the folder's setting, or else 512. Never more than
    /// the network has positions.
    pub(crate) max_length: Option<usize>,
    /// Texts of a batch × tokens of its longest one. A longer text is a batch by itself.
    pub(crate) batch_tokens_max: usize,
    pub(crate) device: Device,
}

impl Default for EncoderSettings {
    fn default() -> Self {
        Self { max_length: None, batch_tokens_max: 8192, device: Device::Cpu }
    }
}

/// The hidden states of a padded batch.
#[derive(Debug)]
pub(crate) struct TextStates {
    /// float32 [texts, tokens, width].
    pub(crate) states: Tensor,
    /// bool [texts, tokens]: false for padding.
    pub(crate) is_token: Tensor,
}

/// A pretrained encoder with fixed weights.
#[derive(Debug)]
pub(crate) struct TextEncoder {
    network: TextNetwork,
    tokenizer: TextTokenizer,
    pooling: Pooling,
    settings: EncoderSettings,
    hash: String,
    /// Counts batches that were halved because they did not fit in memory.
    halved: AtomicU64,
    /// Owns the variables of `network`.
    store: nn::VarStore,
}

impl TextEncoder {
    /// Loads a Hugging Face folder. Refuses, by name, files that do not fit together.
    pub(crate) async fn open(folder: &Location, settings: EncoderSettings) -> Result<Self> {
        let loaded = TextFolder::load(folder, settings.max_length).await?;
        let mut store = nn::VarStore::new(settings.device);
        let network = loaded.network(&store.root())?;
        store.freeze();
        let TextFolder { tokenizer, pooling, hash, .. } = loaded;
        Ok(Self { network, tokenizer, pooling, settings, hash, halved: AtomicU64::new(0), store })
    }

    /// Converts the encoder to another precision.
    pub(crate) fn in_precision(mut self, precision: Precision) -> Self {
        if precision == Precision::Bf16 {
            self.store.bfloat16();
        }
        self.hash = precision.hash_of(&self.hash);
        self
    }

    /// A hash of everything that a vector depends on besides its text: configuration, tokenizer, weights, pooling,
    /// maximum length. Caches of vectors use it in their keys.
    pub(crate) fn hash(&self) -> &str {
        &self.hash
    }

    /// The length of a vector.
    pub(crate) fn width(&self) -> usize {
        self.pooling.width(self.network.shape.width) as usize
    }

    /// The maximum number of tokens of a text, including special tokens.
    #[cfg(test)]
    pub(crate) fn max_length(&self) -> usize {
        self.tokenizer.max_length()
    }

    /// Returns the token ids of each text, without padding.
    #[cfg(test)]
    pub(crate) fn token_ids(&self, texts: &[&str]) -> Result<Vec<Vec<i64>>> {
        self.tokenizer.ids(texts)
    }

    /// Returns one vector per text, in order. A text without tokens (an empty one, if the tokenizer adds no special
    /// tokens) gives zeros.
    pub(crate) fn encode(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        let ids = self.tokenizer.ids(texts)?;
        let lengths: Vec<usize> = ids.iter().map(Vec::len).collect();
        let mut vectors = vec![vec![0.0; self.width()]; texts.len()];
        for batch in sort_into_batches(&lengths, self.settings.batch_tokens_max) {
            let rows: Vec<&[i64]> = batch.iter().map(|text| ids[*text].as_slice()).collect();
            let encoded = retry_in_halves(&rows, "texts", &self.halved, &|rows: &[&[i64]]| self.encode_batch(rows))?;
            for (text, vector) in batch.iter().zip(encoded) {
                vectors[*text] = vector;
            }
        }
        Ok(vectors)
    }

    /// Returns the hidden states of all texts as one batch.
    #[cfg(test)]
    pub(crate) fn states(&self, texts: &[&str]) -> Result<TextStates> {
        let ids = self.tokenizer.ids(texts)?;
        self.batch_states(&ids.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    fn encode_batch(&self, rows: &[&[i64]]) -> Result<Vec<Vec<f32>>> {
        let TextStates { states, is_token } = self.batch_states(rows)?;
        let _no_gradients = tch::no_grad_guard();
        let pooled = self.pooling.pool(&states, &is_token)?.f_to_device(Device::Cpu)?;
        // Finite weights can still overflow.
        if !all_finite(&pooled)? {
            return Err(Failure::model("text encoder: expected finite vectors, got NaN or infinity")
                .hint("its weights are finite but overflow in the forward pass: use another folder"));
        }
        Ok(Vec::<Vec<f32>>::try_from(pooled)?)
    }

    fn batch_states(&self, rows: &[&[i64]]) -> Result<TextStates> {
        let batch = pad(rows, self.network.shape.pad_id, self.settings.device)?;
        // A guard, not a closure: one that panics when memory runs out would leave gradients off for good.
        let _no_gradients = tch::no_grad_guard();
        // Pooling is in float32 in every precision of the blocks.
        let states = self.network.states(&batch, false)?.f_to_kind(Kind::Float)?;
        let PaddedTokens { is_token, .. } = batch;
        Ok(TextStates { states, is_token })
    }
}

/// Converts the maximum length of settings and cards, where 0 stands for the folder's.
pub(crate) fn length_max(tokens_max: u32) -> Option<usize> {
    (tokens_max > 0).then_some(tokens_max as usize)
}
