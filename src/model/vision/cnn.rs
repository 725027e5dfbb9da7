//! A small convolutional network for training from random weights: blocks of convolution, batch normalisation, ReLU and
//! 2 × 2 max pooling, then the mean over the picture and one linear layer.

use serde::{Deserialize, Serialize};
use tch::{Tensor, nn};

use super::layers::{Convolution, ConvolutionNorm};
use crate::failure::{Failure, Result};

/// Larger networks than this should be a ResNet.
const BLOCKS_MAX: usize = 6;
const WIDTH_MAX: i64 = 4096;

/// The sizes of the network, part of the card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CnnShape {
    /// The channels of each block. Every block halves the picture's side.
    pub channels: Vec<i64>,
    /// The length of a vector.
    pub width: i64,
}

impl Default for CnnShape {
    fn default() -> Self {
        Self { channels: vec![32, 64, 128], width: 128 }
    }
}

impl CnnShape {
    /// Refuses sizes that reduce a picture of `side` pixels to nothing.
    pub(crate) fn check(&self, side: i64) -> Result<()> {
        let blocks = self.channels.len();
        if blocks == 0 || blocks > BLOCKS_MAX {
            return Err(Failure::model(format!("expected 1 to {BLOCKS_MAX} blocks in cnn.channels, got {blocks}")));
        }
        if let Some(odd) = self.channels.iter().chain([&self.width]).find(|w| !(1..=WIDTH_MAX).contains(*w)) {
            return Err(Failure::model(format!("expected widths of 1 to {WIDTH_MAX} in cnn, got {odd}")));
        }
        match side >> blocks {
            0 => Err(Failure::model(format!("expected a crop of at least {} pixels, got {side}", 1 << blocks))
                .hint("every block halves the picture's side: use fewer cnn.channels or a larger crop")),
            _ => Ok(()),
        }
    }
}

#[derive(Debug)]
pub struct Cnn {
    blocks: Vec<ConvolutionNorm>,
    outputs: nn::Linear,
}

impl Cnn {
    /// Creates random weights below `path`: `blocks.N.{conv, norm}` and `outputs`.
    pub(crate) fn new(path: &nn::Path, shape: &CnnShape) -> Self {
        let mut blocks = Vec::new();
        let mut inputs = 3;
        for (i, &outputs) in shape.channels.iter().enumerate() {
            let below = path / "blocks" / i;
            let sizes = Convolution { inputs, outputs, kernel: 3, stride: 1 };
            blocks.push(ConvolutionNorm::new(&below / "conv", &below / "norm", sizes));
            inputs = outputs;
        }
        let outputs = nn::linear(path / "outputs", inputs, shape.width, Default::default());
        Self { blocks, outputs }
    }

    /// Maps float32 [n, 3, h, w] to [n, width].
    pub(crate) fn features(&self, pixels: &Tensor, train: bool) -> Result<Tensor> {
        let mut x = pixels.shallow_clone();
        for block in &self.blocks {
            x = block.forward(&x, train)?.f_relu_()?.f_max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false)?;
        }
        let pooled = x.f_adaptive_avg_pool2d([1, 1])?.f_flatten(1, -1)?;
        Ok(pooled.f_linear(&self.outputs.ws, self.outputs.bs.as_ref())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, nn::OptimizerConfig};

    #[test]
    fn output_shapes_follow_the_settings() {
        for (channels, width, side) in [(vec![8], 3, 7), (vec![4, 8, 16, 32], 10, 64)] {
            let shape = CnnShape { channels, width };
            shape.check(side).unwrap();
            let store = nn::VarStore::new(Device::Cpu);
            let network = Cnn::new(&store.root(), &shape);
            let x = Tensor::zeros([2, 3, side, side], (Kind::Float, Device::Cpu));
            assert_eq!(network.features(&x, false).unwrap().size(), [2, width]);
        }
    }

    #[test]
    fn it_learns_to_distinguish_stripes() {
        tch::manual_seed(7);
        let store = nn::VarStore::new(Device::Cpu);
        let network = Cnn::new(&store.root(), &CnnShape { channels: vec![8, 16], width: 2 });
        let lines = Tensor::from_slice(&[1f32, 1., -1., -1.]).repeat([4]);
        let across = lines.view([1, 1, 1, 16]).expand([8, 3, 16, 16], false);
        let down = lines.view([1, 1, 16, 1]).expand([8, 3, 16, 16], false);
        let clean = Tensor::cat(&[across, down], 0);
        let labels = Tensor::arange(16, (Kind::Int64, Device::Cpu)).divide_scalar_mode(8, "floor");
        let mut optimizer = nn::Adam::default().build(&store, 1e-2).unwrap();
        let noisy = || &clean + clean.randn_like() * 0.5;
        for _ in 0..30 {
            let loss = network.features(&noisy(), true).unwrap().cross_entropy_for_logits(&labels);
            optimizer.backward_step(&loss);
        }
        let right = network.features(&noisy(), false).unwrap().accuracy_for_logits(&labels);
        assert!(right.double_value(&[]) > 0.9, "{right:?}");
    }
}
