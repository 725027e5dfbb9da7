//! A text encoder that partitions and stages share: `embed_text`, and the texts that a night or a training encodes.

use arrow::array::ArrayRef;
use std::sync::{Arc, Mutex, PoisonError};
use tch::Device;

use super::devices;
use super::distinct::{self, Kept};
use crate::config::{Config, networks::Precision};
use crate::failure::Result;
use crate::lake::stores::Location;
use crate::model::text::encoder::{EncoderSettings, TextEncoder, length_max};
use crate::model::text::text_column;

/// The first digits of a hash, enough to tell encoders of one shop apart.
pub fn short(hash: &str, precision: Precision) -> String {
    precision.hash_of(&hash[..16])
}

/// Its forward passes take turns: a tensor may not be reached from two threads at once.
#[derive(Debug)]
pub struct SharedEncoder {
    /// Of all that a vector follows from besides its text.
    pub hash: String,
    /// Numbers of a vector.
    pub width: usize,
    encoder: Mutex<TextEncoder>,
    kept: Kept<f32>,
}

impl SharedEncoder {
    /// Reads a Hugging Face folder. `tokens_max`: tokens of a text that are read; 0 leaves it to the folder.
    pub async fn open(folder: &Location, tokens_max: u32, config: &Config, device: Device) -> Result<Arc<Self>> {
        let settings = EncoderSettings {
            max_length: length_max(tokens_max),
            batch_tokens_max: devices::batch_tokens(&config.score, device),
            device,
        };
        let encoder = TextEncoder::open(folder, settings).await?.in_precision(config.score.precision);
        let (hash, width) = (short(encoder.hash(), config.score.precision), encoder.width());
        let kept = Kept::new(config.score.answers_bytes_max, width);
        Ok(Arc::new(Self { hash, width, encoder: Mutex::new(encoder), kept }))
    }

    /// One vector a text. Takes long: not for a thread that serves streams.
    pub fn encode(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        self.encoder.lock().unwrap_or_else(PoisonError::into_inner).encode(texts)
    }

    /// list<float32> [texts]; null for null. Equal texts are encoded once, and not again while their vectors are kept.
    pub fn column(&self, texts: &ArrayRef) -> Result<ArrayRef> {
        let texts = text_column::read_texts("embed_text", texts)?;
        let texts: Vec<Option<&str>> = texts.iter().map(Option::as_deref).collect();
        let found = self.kept.answers(&texts, |texts| Ok(self.encode(texts)?.into_iter().map(Some).collect()))?;
        Ok(distinct::vectors(&found))
    }
}
