//! Adapters (Houlsby et al. 2019): trainable bottleneck layers inserted into a frozen network.

use tch::{Tensor, nn};

use super::activation::Activation;
use crate::failure::Result;

/// A bottleneck with a residual after a layer: x + up(gelu(down(x))).
#[derive(Debug)]
pub(crate) struct Adapter {
    down: nn::Linear,
    up: nn::Linear,
}

impl Adapter {
    /// `up` starts as zeros, so that a fresh adapter changes nothing.
    pub(crate) fn new(path: &nn::Path<'_>, width: i64, bottleneck: i64) -> Self {
        let zeros = nn::LinearConfig { ws_init: nn::Init::Const(0.0), bs_init: Some(nn::Init::Const(0.0)), bias: true };
        Self {
            down: nn::linear(path / "down", width, bottleneck, Default::default()),
            up: nn::linear(path / "up", bottleneck, width, zeros),
        }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let narrow = Activation::Gelu.apply(&x.f_linear(&self.down.ws, self.down.bs.as_ref())?)?;
        Ok(x.f_add(&narrow.f_linear(&self.up.ws, self.up.bs.as_ref())?)?)
    }
}
