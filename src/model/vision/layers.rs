//! The one layer that both networks are made of: a convolution without bias, then batch normalisation.

use tch::{Tensor, nn};

use crate::failure::Result;

/// Sizes of a convolution; padding keeps the size but for the stride.
#[derive(Debug, Clone, Copy)]
pub struct Convolution {
    pub inputs: i64,
    pub outputs: i64,
    pub kernel: i64,
    pub stride: i64,
}

#[derive(Debug)]
pub struct ConvolutionNorm {
    weight: Tensor,
    norm: nn::BatchNorm,
    stride: i64,
    padding: i64,
}

/// Where the variance of what a layer gives is kept for the way back (He et al. 2015), as torchvision starts a ResNet.
const START: nn::Init = nn::Init::Kaiming {
    dist: nn::init::NormalOrUniform::Normal,
    fan: nn::init::FanInOut::FanOut,
    non_linearity: nn::init::NonLinearity::ReLU,
};

impl ConvolutionNorm {
    /// Fresh weights under `convolution.weight` and `norm.{weight, bias, running_mean, running_var}`.
    pub fn new(convolution: nn::Path, norm: nn::Path, sizes: Convolution) -> Self {
        let Convolution { inputs, outputs, kernel, stride } = sizes;
        let weight = convolution.var("weight", &[outputs, inputs, kernel, kernel], START);
        let config = nn::BatchNormConfig { ws_init: nn::Init::Const(1.0), ..Default::default() };
        Self { weight, norm: nn::batch_norm2d(norm, outputs, config), stride, padding: (kernel - 1) / 2 }
    }

    /// float32 [n, inputs, h, w] to [n, outputs, h / stride, w / stride]. In training, statistics of the batch
    /// normalise and the running ones move by a tenth; otherwise the running ones normalise.
    pub fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        let x = x.f_conv2d(&self.weight, None::<&Tensor>, stride, padding, [1, 1], 1)?;
        let n = &self.norm;
        let (mean, variance) = (Some(&n.running_mean), Some(&n.running_var));
        Ok(x.f_batch_norm(n.ws.as_ref(), n.bs.as_ref(), mean, variance, train, 0.1, 1e-5, true)?)
    }
}
