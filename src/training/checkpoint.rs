//! A checkpoint: where a lesson stands, as one object. Whoever goes on from it does what would have been done without
//! the interruption, to the bit.
//!
//! Random numbers need no place here: those of a step follow from the plan's seed and the step's number (`fit`).
//! An object is the blake3 hash of what follows it, then a safetensors file; what was half written or has rotted does
//! not match its hash. The position travels in it as a tensor of bytes.

use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use tch::Tensor;

use crate::failure::{Failure, Result};
use crate::model::weights;
use crate::training::journal::EpochRecord;

/// The name of the tensor that holds the position as JSON; weights and moments have a `/` in theirs.
const POSITION: &str = "position";
const HASH_BYTES: usize = 32;

/// How far a lesson has come. Numbers that decide are kept by their bits: JSON may lose the last one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Whole epochs.
    pub epochs: u32,
    /// Batches and samples of the epoch that has begun.
    pub batches: u64,
    pub samples: u64,
    pub steps: u64,
    /// Sum of the losses of those batches.
    #[serde(with = "bits")]
    pub loss_sum: f64,
    /// The least validation loss so far; infinite before there is one.
    #[serde(with = "bits")]
    pub best: f64,
    /// Epochs since.
    pub worse: u32,
    /// Spent until here, in all processes together.
    pub seconds: f64,
    /// The weights are the best ones, and nothing is left to do.
    pub finished: bool,
    /// What the log says of each whole epoch.
    pub records: Vec<EpochRecord>,
}

impl Default for Position {
    fn default() -> Self {
        Self {
            epochs: 0,
            batches: 0,
            samples: 0,
            steps: 0,
            loss_sum: 0.0,
            best: f64::INFINITY,
            worse: 0,
            seconds: 0.0,
            finished: false,
            records: Vec::new(),
        }
    }
}

/// A position with its tensors: `weights/…`, `best/…` once there is a best epoch, `first/…` and `second/…` moments.
#[derive(Debug)]
pub struct Checkpoint {
    pub position: Position,
    pub tensors: HashMap<String, Tensor>,
}

/// The object of a position and its tensors.
pub fn to_bytes(position: &Position, mut tensors: Vec<(String, Tensor)>) -> Result<Vec<u8>> {
    let text = serde_json::to_vec(position).map_err(Failure::bug)?;
    tensors.push((POSITION.into(), Tensor::f_from_slice(&text)?));
    let body = weights::tensors_to_bytes(&tensors)?;
    Ok([blake3::hash(&body).as_bytes().as_slice(), &body].concat())
}

impl Checkpoint {
    /// Refuses whatever is not, to the last byte, what was written.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let damaged = || Failure::model("damaged or half written: its bytes do not match their hash");
        let (hash, body) = bytes.split_at_checked(HASH_BYTES).ok_or_else(damaged)?;
        if blake3::hash(body).as_bytes() != hash {
            return Err(damaged());
        }
        let mut tensors = weights::tensors_from_bytes(body)?;
        let text = tensors.remove(POSITION).ok_or_else(|| Failure::model("it holds no position"))?;
        let text = Vec::<u8>::try_from(&text)?;
        let position = serde_json::from_slice(&text).map_err(|e| Failure::model(format!("its position: {e}")))?;
        Ok(Self { position, tensors })
    }
}

/// A number as its bits.
mod bits {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(value.to_bits())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        u64::deserialize(from).map(f64::from_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> Vec<u8> {
        let position = Position { steps: 7, loss_sum: 0.1 + 0.2, ..Default::default() };
        let weight = Tensor::from_slice(&[1.5f32, f32::MIN_POSITIVE, -0.0]);
        to_bytes(&position, vec![("weights/a".into(), weight)]).unwrap()
    }

    #[test]
    fn everything_comes_back_to_the_bit() {
        let back = Checkpoint::from_bytes(&object()).unwrap();
        assert_eq!((back.position.steps, back.position.loss_sum, back.position.best), (7, 0.1 + 0.2, f64::INFINITY));
        let weight = Vec::<f32>::try_from(&back.tensors["weights/a"]).unwrap();
        let bits: Vec<u32> = weight.iter().map(|w| w.to_bits()).collect();
        assert_eq!(bits, [1.5f32, f32::MIN_POSITIVE, -0.0].map(f32::to_bits));
    }

    #[test]
    fn cut_or_changed_anywhere_it_is_refused() {
        let whole = object();
        for length in (0..whole.len()).step_by(13) {
            assert!(Checkpoint::from_bytes(&whole[..length]).unwrap_err().message.contains("half written"));
        }
        for at in (0..whole.len()).step_by(17) {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(Checkpoint::from_bytes(&changed).is_err(), "byte {at}");
        }
    }
}
