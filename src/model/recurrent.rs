//! Stacked recurrent cells over a sequence: what the LSTM, GRU and RNN files of both kinds of network are made of.
//!
//! Time runs forward only. So what stands at a position depends on that position and the ones before it, and padding
//! behind a sequence cannot reach its states.

use tch::nn::{self, Init};
use tch::{Kind, Tensor};

use crate::failure::Result;

/// Which recurrence; the file that owns a cell explains when to choose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    Lstm,
    Gru,
    Rnn,
}

/// Sizes of a stack.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub inputs: i64,
    pub width: i64,
    pub layers: i64,
    pub dropout: f64,
}

/// One layer's weights: input to gates, state to gates, and their biases.
type Weights = [Tensor; 4];

#[derive(Debug)]
pub struct Recurrent {
    cell: Cell,
    sizes: Sizes,
    layers: Vec<Weights>,
}

impl Recurrent {
    pub fn new(path: &nn::Path, cell: Cell, sizes: Sizes) -> Self {
        let gates = match cell {
            Cell::Lstm => 4,
            Cell::Gru => 3,
            Cell::Rnn => 1,
        } * sizes.width;
        let layers = (0..sizes.layers).map(|i| {
            let p = path / format!("layer{i}");
            let inputs = if i == 0 { sizes.inputs } else { sizes.width };
            [
                p.var("weight_ih", &[gates, inputs], nn::init::DEFAULT_KAIMING_UNIFORM),
                // Orthogonal, so that a plain RNN neither forgets nor explodes at once (Saxe et al. 2014).
                p.var("weight_hh", &[gates, sizes.width], Init::Orthogonal { gain: 1.0 }),
                bias(&p, cell, gates, sizes.width),
                p.zeros("bias_hh", &[gates]),
            ]
        });
        let stack = Self { cell, sizes, layers: layers.collect() };
        if path.device().is_cuda() {
            stack.flatten();
        }
        stack
    }

    /// Moves each layer's weights into one piece of memory. cuDNN would do so at every call, and warn of it each time.
    fn flatten(&self) {
        let _no_gradients = tch::no_grad_guard();
        // As cudnnRNNMode_t counts them.
        let mode = match self.cell {
            Cell::Rnn => 1,
            Cell::Lstm => 2,
            Cell::Gru => 3,
        };
        for weights in &self.layers {
            let (inputs, width) = (weights[0].size()[1], self.sizes.width);
            // Without it the results are the same.
            let flat = Tensor::f_internal_cudnn_rnn_flatten_weight(weights, 4, inputs, mode, width, 0, 1, true, false);
            if let Err(why) = flat {
                tracing::debug!("weights of {:?} stay where they are: {why}", self.cell);
            }
        }
    }

    /// float32 [rows, steps, inputs] → the last layer's state at every step, float32 [rows, steps, width].
    pub fn states(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let mut states = x.shallow_clone();
        for (i, weights) in self.layers.iter().enumerate() {
            if i > 0 {
                states = states.f_dropout(self.sizes.dropout, train)?;
            }
            states = self.layer(&states, weights, train)?;
        }
        Ok(states)
    }

    fn layer(&self, x: &Tensor, weights: &Weights, train: bool) -> Result<Tensor> {
        let start = Tensor::f_zeros([1, x.size()[0], self.sizes.width], (Kind::Float, x.device()))?;
        let weights: Vec<&Tensor> = weights.iter().collect();
        // One layer a call, with biases, without dropout, forward in time, rows first.
        Ok(match self.cell {
            Cell::Lstm => x.f_lstm(&[&start, &start], &weights, true, 1, 0.0, train, false, true)?.0,
            Cell::Gru => x.f_gru(&start, &weights, true, 1, 0.0, train, false, true)?.0,
            Cell::Rnn => x.f_rnn_tanh(&start, &weights, true, 1, 0.0, train, false, true)?.0,
        })
    }
}

/// Zeros, but ones at an LSTM's forget gate: it starts by remembering (Jozefowicz et al. 2015).
fn bias(path: &nn::Path, cell: Cell, gates: i64, width: i64) -> Tensor {
    let bias = path.zeros("bias_ih", &[gates]);
    if cell == Cell::Lstm {
        // libtorch orders the gates: input, forget, cell, output.
        let _ = tch::no_grad(|| bias.narrow(0, width, width).fill_(1.0));
    }
    bias
}
