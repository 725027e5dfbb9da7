//! Stacked recurrent cells over a sequence, shared by the recurrent behaviour backbone and the recurrent demand network.
//!
//! Time runs forward only: the state at a position depends on that position and the ones before it, so padding at the end
//! of a sequence cannot change its states.

use tch::nn::{self, Init};
use tch::{Kind, Tensor};

use crate::failure::Result;

/// A recurrent cell. Time grows linearly with a sequence's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecurrentCell {
    /// Long short-term memory (Hochreiter and Schmidhuber 1997; forget gate by Gers et al. 2000). With four gates the
    /// largest cell and the one that remembers longest.
    Lstm,
    /// The gated recurrent unit (Cho et al. 2014): three quarters of an LSTM's weights and time, and rarely worse on
    /// sequences of about a hundred steps.
    Gru,
    /// The plain recurrent network (Elman 1990) with tanh: the smallest and fastest cell. Its gradient fades within tens of
    /// steps, so choose it where only the last few steps matter, or as a baseline.
    Rnn,
}

/// Sizes of a stack.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StackSizes {
    /// Numbers per step of the input.
    pub(crate) inputs: i64,
    /// Numbers of a state.
    pub(crate) width: i64,
    pub(crate) layers: i64,
    /// Dropout between layers.
    pub(crate) dropout: f64,
}

/// One layer's weights: input to gates, state to gates, and their biases.
type LayerWeights = [Tensor; 4];

/// Layers of one recurrent cell; each layer reads the states of the layer below.
#[derive(Debug)]
pub(crate) struct RecurrentStack {
    cell: RecurrentCell,
    sizes: StackSizes,
    layers: Vec<LayerWeights>,
}

impl RecurrentStack {
    /// Creates initial weights below `path`.
    pub(crate) fn new(path: &nn::Path, cell: RecurrentCell, sizes: StackSizes) -> Self {
        let gates_per_unit = match cell {
            RecurrentCell::Lstm => 4,
            RecurrentCell::Gru => 3,
            RecurrentCell::Rnn => 1,
        };
        let gates = gates_per_unit * sizes.width;
        let layers = (0..sizes.layers).map(|i| {
            let layer = path / format!("layer{i}");
            let inputs = if i == 0 { sizes.inputs } else { sizes.width };
            [
                layer.var("weight_ih", &[gates, inputs], nn::init::DEFAULT_KAIMING_UNIFORM),
                // Orthogonal, so that a plain RNN neither forgets nor explodes at once (Saxe et al. 2014).
                layer.var("weight_hh", &[gates, sizes.width], Init::Orthogonal { gain: 1.0 }),
                input_bias(&layer, cell, gates, sizes.width),
                layer.zeros("bias_hh", &[gates]),
            ]
        });
        let stack = Self { cell, sizes, layers: layers.collect() };
        if path.device().is_cuda() {
            stack.flatten_weights();
        }
        stack
    }

    /// Moves each layer's weights into one piece of memory. Otherwise cuDNN does so in every call and logs a warning.
    fn flatten_weights(&self) {
        let _no_gradients = tch::no_grad_guard();
        // The values of cudnnRNNMode_t.
        let mode = match self.cell {
            RecurrentCell::Rnn => 1,
            RecurrentCell::Lstm => 2,
            RecurrentCell::Gru => 3,
        };
        for weights in &self.layers {
            let inputs = weights[0].size()[1];
            let width = self.sizes.width;
            // A failure costs time only: the results are the same.
            let flat = Tensor::f_internal_cudnn_rnn_flatten_weight(weights, 4, inputs, mode, width, 0, 1, true, false);
            if let Err(error) = flat {
                tracing::debug!("cannot flatten the weights of {:?}: {error}", self.cell);
            }
        }
    }

    /// float32 [rows, steps, inputs] → the last layer's state at every step, float32 [rows, steps, width].
    pub(crate) fn states(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let mut states = x.shallow_clone();
        for (i, weights) in self.layers.iter().enumerate() {
            if i > 0 {
                states = states.f_dropout(self.sizes.dropout, train)?;
            }
            states = self.layer_states(&states, weights, train)?;
        }
        Ok(states)
    }

    fn layer_states(&self, x: &Tensor, weights: &LayerWeights, train: bool) -> Result<Tensor> {
        let start = Tensor::f_zeros([1, x.size()[0], self.sizes.width], (Kind::Float, x.device()))?;
        let weights: Vec<&Tensor> = weights.iter().collect();
        // One layer per call, with biases, without dropout, forward in time, rows first.
        Ok(match self.cell {
            RecurrentCell::Lstm => x.f_lstm(&[&start, &start], &weights, true, 1, 0.0, train, false, true)?.0,
            RecurrentCell::Gru => x.f_gru(&start, &weights, true, 1, 0.0, train, false, true)?.0,
            RecurrentCell::Rnn => x.f_rnn_tanh(&start, &weights, true, 1, 0.0, train, false, true)?.0,
        })
    }
}

/// Returns zeros, except ones at an LSTM's forget gate, so that it starts by remembering (Jozefowicz et al. 2015).
fn input_bias(path: &nn::Path, cell: RecurrentCell, gates: i64, width: i64) -> Tensor {
    let bias = path.zeros("bias_ih", &[gates]);
    if cell == RecurrentCell::Lstm {
        // libtorch orders the gates: input, forget, cell, output.
        let _ = tch::no_grad(|| bias.narrow(0, width, width).fill_(1.0));
    }
    bias
}
