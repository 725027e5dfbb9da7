//! An image encoder that partitions and stages share: `embed_image`, and the pictures that a night or a training encodes.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use std::sync::{Arc, Mutex, PoisonError};
use tch::Device;

use super::distinct::{self, Kept};
use super::embedding::short;
use crate::config::ScoreConfig;
use crate::failure::Result;
use crate::lake::stores::Location;
use crate::model::vision::{ImageEncoder, PictureError, PictureLimits, PictureVectors};

/// Its forward passes take turns: a tensor may not be reached from two threads at once.
#[derive(Debug)]
pub struct SharedImageEncoder {
    /// Of all that a vector follows from besides its picture.
    pub hash: String,
    /// Numbers of a vector.
    pub width: usize,
    encoder: Mutex<ImageEncoder>,
    kept: Kept<f32>,
}

impl SharedImageEncoder {
    /// Reads a folder of `config.json` and `model.safetensors`, as docs/models/vision.md says.
    pub async fn open(folder: &Location, device: Device, config: &ScoreConfig) -> Result<Arc<Self>> {
        let precision = config.precision;
        let encoder = ImageEncoder::open(folder, device, PictureLimits::default()).await?.in_precision(precision);
        let (hash, width) = (short(encoder.hash(), precision), encoder.width());
        let kept = Kept::new(config.answers_bytes_max, width);
        Ok(Arc::new(Self { hash, width, encoder: Mutex::new(encoder), kept }))
    }

    /// One vector a picture, or why it has none, of some rows of a column of bytes; null is an empty picture. Takes long:
    /// not for a thread that serves streams.
    pub fn encode_rows(&self, pictures: &ArrayRef, rows: &[usize]) -> Result<PictureVectors> {
        // With 64-bit offsets: a batch of pictures may hold more than 2 GB.
        let pictures = cast(pictures, &DataType::LargeBinary)?;
        let pictures = pictures.as_binary::<i64>();
        let of = |&row: &usize| if pictures.is_valid(row) { pictures.value(row) } else { &[] };
        self.encode(&rows.iter().map(of).collect::<Vec<_>>())
    }

    fn encode(&self, pictures: &[&[u8]]) -> Result<PictureVectors> {
        self.encoder.lock().unwrap_or_else(PoisonError::into_inner).encode(pictures)
    }

    /// list<float32> [pictures]; null for null, and for what can not be read, which the log counts. Equal pictures are encoded
    /// once, and not again while their vectors are kept.
    pub fn column(&self, pictures: &ArrayRef) -> Result<ArrayRef> {
        let pictures = cast(pictures, &DataType::LargeBinary)?;
        let pictures: Vec<Option<&[u8]>> = pictures.as_binary::<i64>().iter().collect();
        let (mut refusals, mut different) = (Refusals::default(), 0);
        let found = self.kept.answers(&pictures, |pictures| {
            different = pictures.len();
            Ok(self.encode(pictures)?.into_iter().map(|vector| refusals.heard(vector)).collect())
        })?;
        refusals.say("embed_image", "different pictures have no vector", different);
        Ok(distinct::vectors(&found))
    }
}

/// How many pictures can not be read, and why the first of them.
#[derive(Debug, Default)]
pub struct Refusals {
    count: usize,
    first: Option<PictureError>,
}

impl Refusals {
    /// What a picture gave; none where it is refused.
    pub fn heard<T>(&mut self, picture: Result<T, PictureError>) -> Option<T> {
        match picture {
            Ok(found) => Some(found),
            Err(reason) => {
                self.count += 1;
                self.first.get_or_insert(reason);
                None
            }
        }
    }

    /// Tells the log, if there were any: of which function, what that means, of how many.
    pub fn say(&self, function: &str, meaning: &str, of: usize) {
        if let Some(why) = &self.first {
            tracing::warn!("{function}: {} of {of} {meaning}; the first: {why}", self.count);
        }
    }
}
