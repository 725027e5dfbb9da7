//! A folder's network, tokenizer and pooling as one thing that turns texts into vectors: length-sorted batches in, the
//! caller's order out. A vector depends on its text alone, not on what stood beside it in a batch (within 1e-5).

use std::sync::atomic::AtomicU64;
use tch::{Device, Kind, Tensor, nn};

use super::folder::TextFolder;
use super::network::TextNetwork;
use super::pooling::Pooling;
use super::tokens::TextTokenizer;
use crate::config::networks::Precision;
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::model::memory::in_halves;
use crate::model::weights::all_finite;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderSettings {
    /// Tokens of a text that are read. `None`: what the folder says, or else 512; never more than the network
    /// has positions.
    pub max_length: Option<usize>,
    /// Texts of a batch × tokens of its longest one. A longer text is a batch of its own.
    pub batch_tokens_max: usize,
    pub device: Device,
}

impl Default for EncoderSettings {
    fn default() -> Self {
        Self { max_length: None, batch_tokens_max: 8192, device: Device::Cpu }
    }
}

/// Hidden states of a padded batch.
#[derive(Debug)]
pub struct TextStates {
    /// float32 [texts, tokens, width].
    pub states: Tensor,
    /// What of them is text and not padding, bool [texts, tokens].
    pub real: Tensor,
}

/// A pretrained encoder with fixed weights.
#[derive(Debug)]
pub struct TextEncoder {
    network: TextNetwork,
    tokenizer: TextTokenizer,
    pooling: Pooling,
    settings: EncoderSettings,
    hash: String,
    /// Batches that did not fit into memory.
    halved: AtomicU64,
    /// Keeps the variables that the network's layers share.
    store: nn::VarStore,
}

impl TextEncoder {
    /// Reads a Hugging Face folder. Refuses, by name, whatever does not fit together.
    pub async fn open(folder: &Location, settings: EncoderSettings) -> Result<Self> {
        let read = TextFolder::read(folder, settings.max_length).await?;
        let mut store = nn::VarStore::new(settings.device);
        let network = read.network(&store.root())?;
        store.freeze();
        let TextFolder { tokenizer, pooling, hash, .. } = read;
        Ok(Self { network, tokenizer, pooling, settings, hash, halved: AtomicU64::new(0), store })
    }

    /// The same encoder, computing in another precision.
    pub fn in_precision(mut self, precision: Precision) -> Self {
        if precision == Precision::Bf16 {
            self.store.bfloat16();
        }
        self.hash = precision.hash_of(&self.hash);
        self
    }

    /// Of everything that a vector depends on: configuration, tokenizer, weights, pooling, length. What a cache of vectors
    /// is keyed by, together with the text.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The length of a vector.
    pub fn width(&self) -> usize {
        self.pooling.width(self.network.shape.width) as usize
    }

    /// Tokens of a text that are read, special ones among them.
    pub fn max_length(&self) -> usize {
        self.tokenizer.max_length()
    }

    /// Number of weights.
    pub fn parameters(&self) -> i64 {
        crate::model::bundle::parameters(&self.store)
    }

    /// The token ids of each text, without padding.
    pub fn token_ids(&self, texts: &[&str]) -> Result<Vec<Vec<i64>>> {
        self.tokenizer.ids(texts)
    }

    /// One vector a text, in the texts' order. A text without a token (an empty one, where the tokenizer adds no special
    /// tokens) gives zeros.
    pub fn encode(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        let ids = self.tokenizer.ids(texts)?;
        let lengths: Vec<usize> = ids.iter().map(Vec::len).collect();
        let mut vectors = vec![vec![0.0; self.width()]; texts.len()];
        for batch in batches(&lengths, self.settings.batch_tokens_max) {
            let rows: Vec<&[i64]> = batch.iter().map(|place| ids[*place].as_slice()).collect();
            let pooled = in_halves(&rows, "texts", &self.halved, &|rows: &[&[i64]]| self.pooled(rows))?;
            for (place, vector) in batch.iter().zip(pooled) {
                vectors[*place] = vector;
            }
        }
        Ok(vectors)
    }

    /// The same with nulls, which stay null.
    pub fn encode_nullable(&self, texts: &[Option<&str>]) -> Result<Vec<Option<Vec<f32>>>> {
        let there: Vec<&str> = texts.iter().flatten().copied().collect();
        let mut vectors = self.encode(&there)?.into_iter();
        Ok(texts.iter().map(|text| text.and_then(|_| vectors.next())).collect())
    }

    /// Hidden states of all texts as one batch.
    pub fn states(&self, texts: &[&str]) -> Result<TextStates> {
        let ids = self.tokenizer.ids(texts)?;
        self.batch_states(&ids.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    fn pooled(&self, rows: &[&[i64]]) -> Result<Vec<Vec<f32>>> {
        let TextStates { states, real } = self.batch_states(rows)?;
        let _no_gradients = tch::no_grad_guard();
        let pooled = self.pooling.pooled(&states, &real)?.f_to_device(Device::Cpu)?;
        // No text makes them so: weights that are numbers may still overflow.
        if !all_finite(&pooled)? {
            return Err(Failure::model("text encoder: the vector of a text holds numbers that are not finite")
                .hint("its weights are numbers, and so large that sums of them are none: take another folder"));
        }
        Ok(Vec::<Vec<f32>>::try_from(pooled)?)
    }

    fn batch_states(&self, rows: &[&[i64]]) -> Result<TextStates> {
        let (ids, real) = padded(rows, self.network.shape.pad_id, self.settings.device)?;
        // A guard, as a closure that panics for want of memory would leave gradients off for good.
        let _no_gradients = tch::no_grad_guard();
        // Pooled in float32 whatever the blocks compute in.
        let states = self.network.states(&ids, &real, false)?.f_to_kind(Kind::Float)?;
        Ok(TextStates { states, real })
    }
}

/// Tokens of a text that are read, as settings and cards have it: 0 leaves it to the folder.
pub fn length_max(tokens_max: u32) -> Option<usize> {
    (tokens_max > 0).then_some(tokens_max as usize)
}

/// Token ids, int64 [texts, tokens of the longest], padded behind, and what of them is text, bool of the same shape.
pub fn padded(rows: &[&[i64]], pad_id: i64, device: Device) -> Result<(Tensor, Tensor)> {
    let tokens = rows.iter().map(|row| row.len()).max().unwrap_or(0).max(1);
    let size = [rows.len() as i64, tokens as i64];
    let (mut ids, mut real) = (Vec::new(), Vec::new());
    for row in rows {
        ids.extend_from_slice(row);
        ids.resize(ids.len() + tokens - row.len(), pad_id);
        real.extend((0..tokens).map(|place| place < row.len()));
    }
    let ids = Tensor::f_from_slice(&ids)?.f_view(size)?.f_to_device(device)?;
    Ok((ids, Tensor::f_from_slice(&real)?.f_view(size)?.f_to_device(device)?))
}

/// Places of texts with a token, shortest first, cut into batches of at most `tokens_max` when padded.
pub fn batches(lengths: &[usize], tokens_max: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).filter(|place| lengths[*place] > 0).collect();
    order.sort_by_key(|place| lengths[*place]);
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for place in order {
        match batches.last_mut() {
            Some(batch) if (batch.len() + 1) * lengths[place] <= tokens_max => batch.push(place),
            _ => batches.push(vec![place]),
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn batches_are_sorted_by_length_and_skip_texts_without_a_token() {
        assert_eq!(batches(&[5, 1, 0, 5, 2], 10), [vec![1, 4], vec![0, 3]]);
        assert_eq!(batches(&[30], 10), [vec![0]]);
        assert!(batches(&[0, 0], 10).is_empty());
    }

    proptest! {
        #[test]
        fn every_text_is_in_one_batch_that_is_small_enough(
            lengths in proptest::collection::vec(0usize..50, 0..40), tokens_max in 1usize..200,
        ) {
            let batches = batches(&lengths, tokens_max);
            let mut places: Vec<usize> = batches.concat();
            places.sort_unstable();
            let expected: Vec<usize> = (0..lengths.len()).filter(|i| lengths[*i] > 0).collect();
            prop_assert_eq!(places, expected);
            for batch in &batches {
                let longest = batch.iter().map(|i| lengths[*i]).max().unwrap_or(0);
                prop_assert!(batch.len() == 1 || batch.len() * longest <= tokens_max);
            }
        }
    }
}
