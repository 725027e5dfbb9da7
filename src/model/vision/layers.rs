//! The layer that both networks consist of: a convolution without bias, then batch normalisation.

use tch::{Tensor, nn};

use crate::failure::Result;

/// The sizes of a convolution. Its padding preserves the picture's size, apart from the stride.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Convolution {
    pub(crate) inputs: i64,
    pub(crate) outputs: i64,
    pub(crate) kernel: i64,
    pub(crate) stride: i64,
}

#[derive(Debug)]
pub(crate) struct ConvolutionNorm {
    weight: Tensor,
    norm: nn::BatchNorm,
    stride: i64,
    padding: i64,
}

/// Preserves the variance of gradients (He et al. 2015), as in torchvision's ResNet.
const INITIAL_WEIGHTS: nn::Init = nn::Init::Kaiming {
    dist: nn::init::NormalOrUniform::Normal,
    fan: nn::init::FanInOut::FanOut,
    non_linearity: nn::init::NonLinearity::ReLU,
};

impl ConvolutionNorm {
    /// Creates random weights as `convolution.weight` and `norm.{weight, bias, running_mean, running_var}`.
    pub(crate) fn new(convolution: nn::Path, norm: nn::Path, sizes: Convolution) -> Self {
        let Convolution { inputs, outputs, kernel, stride } = sizes;
        let weight = convolution.var("weight", &[outputs, inputs, kernel, kernel], INITIAL_WEIGHTS);
        let config = nn::BatchNormConfig { ws_init: nn::Init::Const(1.0), ..Default::default() };
        Self { weight, norm: nn::batch_norm2d(norm, outputs, config), stride, padding: (kernel - 1) / 2 }
    }

    /// Maps float32 [n, inputs, h, w] to [n, outputs, h / stride, w / stride]. In training, it normalises by the
    /// batch's statistics and moves the running ones towards them by a tenth; otherwise it normalises by the running
    /// ones.
    pub(crate) fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let stride = [self.stride; 2];
        let padding = [self.padding; 2];
        let convolved = x.f_conv2d(&self.weight, None::<&Tensor>, stride, padding, [1, 1], 1)?;
        let norm = &self.norm;
        let mean = Some(&norm.running_mean);
        let variance = Some(&norm.running_var);
        Ok(convolved.f_batch_norm(norm.ws.as_ref(), norm.bs.as_ref(), mean, variance, train, 0.1, 1e-5, true)?)
    }
}
