//! A text encoder that partitions and stages share.

use std::sync::Mutex;
use tch::Device;

use crate::config::{Config, networks::Precision};
use crate::failure::Result;
use crate::lake::stores::Location;
use crate::model::text::encoder::{EncoderSettings, TextEncoder, length_max};
use crate::score::devices;
use crate::score::lock::lock;

/// The first digits of an encoder's hash, which distinguish the encoders of one shop, with its precision.
pub(super) fn short_hash(hash: &str, precision: Precision) -> String {
    precision.hash_of(&hash[..16])
}

/// Forward passes take turns: two threads must not reach one tensor at once.
#[derive(Debug)]
pub(crate) struct SharedTextEncoder {
    /// Hash of everything but the text that a vector depends on.
    pub(crate) hash: String,
    /// Numbers in a vector.
    pub(crate) width: usize,
    encoder: Mutex<TextEncoder>,
}

impl SharedTextEncoder {
    /// Loads a Hugging Face folder. Reads at most `tokens_max` tokens of a text; 0 leaves the limit to the folder.
    pub(crate) async fn open(folder: &Location, tokens_max: u32, config: &Config, device: Device) -> Result<Self> {
        let settings = EncoderSettings {
            max_length: length_max(tokens_max),
            batch_tokens_max: devices::batch_tokens(&config.score, device),
            device,
        };
        let encoder = TextEncoder::open(folder, settings).await?.in_precision(config.score.precision);
        let hash = short_hash(encoder.hash(), config.score.precision);
        Ok(Self { hash, width: encoder.width(), encoder: Mutex::new(encoder) })
    }

    /// One vector per text. Blocks for long: not for a thread that serves streams.
    pub(crate) fn encode(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        lock(&self.encoder).encode(texts)
    }
}
