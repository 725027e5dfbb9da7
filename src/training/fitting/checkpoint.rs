//! A checkpoint: the state of a training as one object. A training that resumes from it ends with the same weights to
//! the bit as one that was never interrupted.
//!
//! Random numbers are not stored: those of a step follow from the seed and the number of the step (`task`). An object is
//! a blake3 checksum followed by a safetensors file, so a half-written or damaged one is refused. The progress is stored
//! in it as a tensor of bytes.

use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use tch::Tensor;

use super::epoch_record::EpochRecord;
use crate::failure::{Failure, Result};
use crate::model::weights;

/// Name of the tensor that holds the progress as JSON; names of weights and moments contain a `/`.
const PROGRESS: &str = "progress";
const HASH_BYTES: usize = 32;

/// Progress of a training. Numbers that decide are stored by their bits: JSON may lose the last one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrainingProgress {
    /// Whole epochs.
    pub(crate) epochs: u32,
    /// Batches done in the epoch that has begun.
    pub(crate) batches: u64,
    /// Samples done in the epoch that has begun.
    pub(crate) samples: u64,
    pub(crate) steps: u64,
    /// Sum of the losses of the batches in the epoch that has begun.
    #[serde(with = "bits")]
    pub(crate) loss_sum: f64,
    /// The lowest validation loss so far; infinite before the first.
    #[serde(with = "bits")]
    pub(crate) best_loss: f64,
    pub(crate) epochs_without_improvement: u32,
    /// Time spent so far, over all processes.
    pub(crate) seconds: f64,
    /// The weights are the best ones, and nothing is left to do.
    pub(crate) finished: bool,
    /// One record for each whole epoch.
    pub(crate) records: Vec<EpochRecord>,
}

impl Default for TrainingProgress {
    fn default() -> Self {
        Self {
            epochs: 0,
            batches: 0,
            samples: 0,
            steps: 0,
            loss_sum: 0.0,
            best_loss: f64::INFINITY,
            epochs_without_improvement: 0,
            seconds: 0.0,
            finished: false,
            records: Vec::new(),
        }
    }
}

/// Progress with its tensors: `weights/…`, `best/…` once there is a best epoch, `first/…` and `second/…` moments.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) progress: TrainingProgress,
    pub(crate) tensors: HashMap<String, Tensor>,
}

/// Encodes progress and tensors as one object.
pub(crate) fn to_bytes(progress: &TrainingProgress, mut tensors: Vec<(String, Tensor)>) -> Result<Vec<u8>> {
    let text = serde_json::to_vec(progress).map_err(Failure::bug)?;
    tensors.push((PROGRESS.into(), Tensor::f_from_slice(&text)?));
    let body = weights::tensors_to_bytes(&tensors)?;
    Ok([blake3::hash(&body).as_bytes().as_slice(), &body].concat())
}

impl Checkpoint {
    /// Decodes an object; refuses one that differs in any byte from what was written.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let damaged = || Failure::model("damaged or half written: its bytes do not match their checksum");
        let (hash, body) = bytes.split_at_checked(HASH_BYTES).ok_or_else(damaged)?;
        if blake3::hash(body).as_bytes() != hash {
            return Err(damaged());
        }
        let mut tensors = weights::tensors_from_bytes(body)?;
        let bytes = tensors.remove(PROGRESS).ok_or_else(|| Failure::model("no progress in it"))?;
        let text = Vec::<u8>::try_from(&bytes)?;
        let progress = serde_json::from_slice(&text).map_err(|e| Failure::model(format!("its progress: {e}")))?;
        Ok(Self { progress, tensors })
    }
}

/// Stores a number as its bits.
mod bits {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(value.to_bits())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        u64::deserialize(from).map(f64::from_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> Vec<u8> {
        let progress = TrainingProgress { steps: 7, loss_sum: 0.1 + 0.2, ..Default::default() };
        let weight = Tensor::from_slice(&[1.5f32, f32::MIN_POSITIVE, -0.0]);
        to_bytes(&progress, vec![("weights/a".into(), weight)]).unwrap()
    }

    #[test]
    fn a_checkpoint_reads_back_to_the_bit() {
        let back = Checkpoint::from_bytes(&object()).unwrap();
        assert_eq!(
            (back.progress.steps, back.progress.loss_sum, back.progress.best_loss),
            (7, 0.1 + 0.2, f64::INFINITY)
        );
        let weight = Vec::<f32>::try_from(&back.tensors["weights/a"]).unwrap();
        let bits: Vec<u32> = weight.iter().map(|w| w.to_bits()).collect();
        assert_eq!(bits, [1.5f32, f32::MIN_POSITIVE, -0.0].map(f32::to_bits));
    }

    #[test]
    fn a_truncated_or_changed_checkpoint_is_refused() {
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
