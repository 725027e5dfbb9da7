//! The temporal convolutional network (Bai et al. 2018): residual causal convolutions, each with twice the dilation of the
//! previous one (van den Oord et al. 2016), until one state has seen the whole history.
//!
//! Without recurrence, the days of a history are processed in parallel, which is faster on GPUs and for long histories.

use tch::Tensor;
use tch::nn::{self, Module};

use super::history_network::HistoryNetwork;
use crate::failure::Result;
use crate::model::demand::shape::DemandShape;

/// Days that one convolution combines.
const KERNEL: i64 = 3;

#[derive(Debug)]
struct Layer {
    convolution: nn::Conv1D,
    mix: nn::Conv1D,
    /// Distance in days between the combined days.
    dilation: i64,
}

#[derive(Debug)]
pub(crate) struct Tcn {
    enter: nn::Conv1D,
    layers: Vec<Layer>,
}

impl Tcn {
    pub(crate) fn new(path: &nn::Path, shape: &DemandShape, inputs: i64) -> Self {
        let d = shape.width;
        let mut layers = Vec::new();
        let mut dilation = 1;
        let mut seen = 1;
        while seen < shape.history_days {
            let layer = path / format!("layer{}", layers.len());
            let config = nn::ConvConfig { dilation, ..Default::default() };
            layers.push(Layer {
                convolution: nn::conv1d(&layer / "convolution", d, d, KERNEL, config),
                mix: nn::conv1d(&layer / "mix", d, d, 1, Default::default()),
                dilation,
            });
            seen += (KERNEL - 1) * dilation;
            dilation *= 2;
        }
        Self { enter: nn::conv1d(path / "enter", inputs, d, 1, Default::default()), layers }
    }

    /// float32 [items, days, inputs] → one state per day, float32 [items, width, days].
    fn states(&self, days: &Tensor) -> Result<Tensor> {
        let mut x = self.enter.forward(&days.transpose(1, 2));
        for layer in &self.layers {
            // Zeros before the first day only, so that a state sees its own day and earlier ones.
            let padded = x.f_constant_pad_nd([(KERNEL - 1) * layer.dilation, 0])?;
            x = &x + layer.mix.forward(&layer.convolution.forward(&padded).gelu("none"));
        }
        Ok(x)
    }
}

impl HistoryNetwork for Tcn {
    fn state(&self, days: &Tensor, _train: bool) -> Result<Tensor> {
        Ok(self.states(days)?.select(2, -1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::networks::DemandNetworkName;
    use tch::{Device, Kind};

    #[test]
    fn a_state_sees_earlier_days_and_no_later_ones() {
        let store = nn::VarStore::new(Device::Cpu);
        let shape = DemandShape { history_days: 60, ..DemandShape::tiny(DemandNetworkName::Tcn) };
        let network = Tcn::new(&store.root(), &shape, 3);
        let days = Tensor::randn([1, 60, 3], (Kind::Float, Device::Cpu));
        let before = network.states(&days).unwrap();
        let moved = |day: i64| -> Vec<bool> {
            let changed = days.copy();
            let _ = changed.narrow(1, day, 1).fill_(9.0);
            let difference = (network.states(&changed).unwrap() - &before).abs().amax([0i64, 1].as_slice(), false);
            Vec::<f32>::try_from(&difference).unwrap().iter().map(|d| *d > 0.0).collect()
        };
        assert!(moved(0)[59], "the last state does not see the first day");
        let late = moved(40);
        assert!(late[..40].iter().all(|m| !m) && late[40], "{late:?}");
    }
}
