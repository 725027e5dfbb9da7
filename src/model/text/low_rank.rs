//! LoRA (Hu et al. 2021): a trainable low-rank difference added to a frozen linear map.

use tch::{Tensor, nn};

use crate::failure::Result;

/// The difference scale · up · down to a linear map, through a few dimensions.
#[derive(Debug)]
pub(crate) struct LowRank {
    /// [rank, inputs]
    down: Tensor,
    /// [outputs, rank], initially zeros.
    up: Tensor,
    scale: f64,
}

impl LowRank {
    pub(crate) fn new(path: &nn::Path<'_>, sizes: (i64, i64), settings: LowRankSettings) -> Result<Self> {
        let (inputs, outputs) = sizes;
        let down = path.f_randn("down", &[settings.rank, inputs], 0.0, 1.0 / (inputs as f64).sqrt())?;
        let up = path.f_zeros("up", &[outputs, settings.rank])?;
        Ok(Self { down, up, scale: settings.alpha / settings.rank as f64 })
    }

    /// Returns what is added to the map's output: [.., inputs] → [.., outputs].
    pub(crate) fn output_difference(&self, x: &Tensor) -> Result<Tensor> {
        let none = None::<&Tensor>;
        Ok(x.f_linear(&self.down, none)?.f_linear(&self.up, none)?.f_mul_scalar(self.scale)?)
    }

    /// Returns what is added to the map's weight: [outputs, inputs].
    pub(crate) fn weight_difference(&self) -> Result<Tensor> {
        Ok(self.up.f_matmul(&self.down)?.f_mul_scalar(self.scale)?)
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LowRankSettings {
    /// Rank of the update; at least 1.
    pub(crate) rank: i64,
    /// The difference is scaled by alpha / rank.
    pub(crate) alpha: f64,
}
