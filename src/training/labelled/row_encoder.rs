//! The interface of a task that trains a classifier: it provides the vectors of its rows and the head on them.

use rand_chacha::ChaCha8Rng;
use tch::{Device, Tensor};

use crate::failure::Result;
use crate::model::labels::LabelHead;

/// Makes the inputs of a batch. It needs no network, so that another thread can run it ahead of the device.
pub(crate) trait InputBuilder: Send + 'static {
    /// Inputs of a batch, on the CPU.
    type Inputs: Send + 'static;

    fn build(&self, rows: &[usize], rng: &mut ChaCha8Rng) -> Result<Self::Inputs>;
}

/// Encodes a task's rows as vectors.
pub(crate) trait RowEncoder {
    type Builder: InputBuilder;

    fn input_builder(&self) -> Self::Builder;

    /// The name of the task in messages and curves: `text`.
    fn name(&self) -> &'static str;

    fn head(&self) -> &LabelHead;

    /// The device of weights and vectors.
    fn device(&self) -> Device;

    /// Groups rows into batches, composed and ordered by `rng` alone.
    fn group_rows(&self, rows: &[usize], rng: &mut ChaCha8Rng) -> Vec<Vec<usize>>;

    /// Returns the vectors of a training batch, with gradients: float32 [rows, width].
    fn training_vectors(&self, inputs: &<Self::Builder as InputBuilder>::Inputs) -> Result<Tensor>;

    /// Applies `compute` to the vectors of any number of rows, batch by batch and without gradients. Returns one row
    /// per row, on the CPU and in the rows' order.
    fn map_vectors(&self, rows: &[usize], compute: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor>;
}

/// Returns logits without gradients, float32 [rows, labels] on the encoder's device, where a chain's weights are.
pub(crate) fn evaluate_logits(encoder: &impl RowEncoder, rows: &[usize]) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    let logits = encoder.map_vectors(rows, &|vectors| encoder.head().logits(vectors))?;
    Ok(logits.f_to_device(encoder.device())?)
}
