//! An image encoder that partitions and stages share: `embed_image`, and the pictures that a night or a training encodes.

use arrow::array::{Array, ArrayRef, AsArray, Float32Builder, ListBuilder};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use std::sync::{Arc, Mutex, PoisonError};
use tch::Device;

use super::embedding::short;
use crate::config::networks::Precision;
use crate::failure::Result;
use crate::lake::stores::Location;
use crate::model::vision::{ImageEncoder, PictureLimits, Refused, Vectors};

/// Its forward passes take turns: a tensor may not be reached from two threads at once.
#[derive(Debug)]
pub struct SharedImageEncoder {
    /// Of all that a vector follows from besides its picture.
    pub hash: String,
    /// Numbers of a vector.
    pub width: usize,
    encoder: Mutex<ImageEncoder>,
}

impl SharedImageEncoder {
    /// Reads a folder of `config.json` and `model.safetensors`, as docs/models/vision.md says.
    pub async fn open(folder: &Location, device: Device, precision: Precision) -> Result<Arc<Self>> {
        let encoder = ImageEncoder::open(folder, device, PictureLimits::default()).await?.in_precision(precision);
        let (hash, width) = (short(encoder.hash(), precision), encoder.width());
        Ok(Arc::new(Self { hash, width, encoder: Mutex::new(encoder) }))
    }

    /// One vector a picture, or why it has none, of some rows of a column of bytes; null is an empty picture. Takes long:
    /// not for a thread that serves streams.
    pub fn encode_rows(&self, pictures: &ArrayRef, rows: &[usize]) -> Result<Vectors> {
        // With 64-bit offsets: a batch of pictures may hold more than 2 GB.
        let pictures = cast(pictures, &DataType::LargeBinary)?;
        let pictures = pictures.as_binary::<i64>();
        let of = |&row: &usize| if pictures.is_valid(row) { pictures.value(row) } else { &[] };
        let wanted: Vec<&[u8]> = rows.iter().map(of).collect();
        self.encoder.lock().unwrap_or_else(PoisonError::into_inner).encode(&wanted)
    }

    /// list<float32> [pictures]; null for null, and for what can not be read, which the log counts.
    pub fn column(&self, pictures: &ArrayRef) -> Result<ArrayRef> {
        let there: Vec<usize> = (0..pictures.len()).filter(|&row| pictures.is_valid(row)).collect();
        let mut vectors = there.iter().zip(self.encode_rows(pictures, &there)?).peekable();
        let mut column = ListBuilder::new(Float32Builder::new());
        let mut refusals = Refusals::default();
        for row in 0..pictures.len() {
            let vector = vectors.next_if(|(at, _)| **at == row).and_then(|(_, vector)| refusals.heard(vector));
            column.values().append_slice(vector.as_deref().unwrap_or_default());
            column.append(vector.is_some());
        }
        refusals.say("embed_image", "pictures have no vector", there.len());
        Ok(Arc::new(column.finish()))
    }
}

/// How many pictures can not be read, and why the first of them.
#[derive(Debug, Default)]
pub struct Refusals {
    count: usize,
    first: Option<Refused>,
}

impl Refusals {
    /// What a picture gave; none where it is refused.
    pub fn heard<T>(&mut self, picture: Result<T, Refused>) -> Option<T> {
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
