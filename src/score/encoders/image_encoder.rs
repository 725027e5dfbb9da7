//! An image encoder that partitions and stages share.

use arrow::array::{Array, ArrayRef};
use std::sync::Mutex;
use tch::Device;

use super::text_encoder::short_hash;
use crate::config::ScoreConfig;
use crate::failure::Result;
use crate::lake::stores::Location;
use crate::model::vision::{ImageEncoder, PictureLimits, PictureVectors, read_pictures};
use crate::score::lock::lock;

/// Forward passes take turns: two threads must not reach one tensor at once.
#[derive(Debug)]
pub(crate) struct SharedImageEncoder {
    /// Hash of everything but the image that a vector depends on.
    pub(crate) hash: String,
    /// Numbers in a vector.
    pub(crate) width: usize,
    encoder: Mutex<ImageEncoder>,
}

impl SharedImageEncoder {
    /// Loads a folder of `config.json` and `model.safetensors`, as docs/models/vision.md describes it.
    pub(crate) async fn open(folder: &Location, device: Device, config: &ScoreConfig) -> Result<Self> {
        let precision = config.precision;
        let encoder = ImageEncoder::open(folder, device, PictureLimits::default()).await?.in_precision(precision);
        let hash = short_hash(encoder.hash(), precision);
        Ok(Self { hash, width: encoder.width(), encoder: Mutex::new(encoder) })
    }

    /// One vector, or a reason for having none, for each of some rows of a column of bytes; null is an empty image. Blocks for
    /// long: not for a thread that serves streams.
    pub(crate) fn encode_rows(&self, images: &ArrayRef, rows: &[usize]) -> Result<PictureVectors> {
        let images = read_pictures(images)?;
        let mut wanted: Vec<&[u8]> = Vec::with_capacity(rows.len());
        for &row in rows {
            wanted.push(if images.is_valid(row) { images.value(row) } else { &[] });
        }
        self.encode(&wanted)
    }

    /// One vector, or a reason for having none, per image.
    pub(crate) fn encode(&self, images: &[&[u8]]) -> Result<PictureVectors> {
        lock(&self.encoder).encode(images)
    }
}
