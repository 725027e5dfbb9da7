//! Linear maps, layer norms and embeddings. Every linear map of a text network is a [`Projection`], so that fine-tuning
//! has one place to attach to.

use tch::{Kind, Tensor, nn};

use super::low_rank::{LowRank, LowRankSettings};
use super::weight_loader::WeightLoader;
use crate::failure::{Failure, Result};

/// Layout in which a folder stores the weight of a linear map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// [outputs, inputs], as in torch's linear layer.
    OutIn,
    /// [inputs, outputs], as in GPT-2's "Conv1D".
    InOut,
}

/// x → x W + b over the last axis.
#[derive(Debug)]
pub(crate) struct Projection {
    weight: Tensor,
    bias: Tensor,
    layout: Layout,
    /// Added by LoRA.
    low_rank: Option<LowRank>,
}

impl Projection {
    /// Takes `{name}.weight` and `{name}.bias`; `sizes` are inputs and outputs.
    pub(crate) fn load(loader: &mut WeightLoader<'_>, name: &str, layout: Layout, sizes: (i64, i64)) -> Result<Self> {
        let (inputs, outputs) = sizes;
        let shape = match layout {
            Layout::OutIn => [outputs, inputs],
            Layout::InOut => [inputs, outputs],
        };
        let weight = loader.variable(&format!("{name}.weight"), &shape)?;
        let bias = loader.variable(&format!("{name}.bias"), &[outputs])?;
        Ok(Self { weight, bias, layout, low_rank: None })
    }

    /// Maps float32 [.., inputs] to [.., outputs].
    pub(crate) fn project(&self, x: &Tensor) -> Result<Tensor> {
        let projected = x.f_linear(&self.out_in()?, Some(&self.bias))?;
        match &self.low_rank {
            Some(low_rank) => Ok(projected.f_add(&low_rank.output_difference(x)?)?),
            None => Ok(projected),
        }
    }

    pub(crate) fn add_low_rank(&mut self, path: &nn::Path<'_>, settings: LowRankSettings) -> Result<()> {
        let (outputs, inputs) = self.out_in()?.size2()?;
        self.low_rank = Some(LowRank::new(path, (inputs, outputs), settings)?);
        Ok(())
    }

    /// Adds the low-rank difference to the weight and drops it.
    pub(crate) fn merge_low_rank(&mut self) -> Result<()> {
        if let Some(low_rank) = self.low_rank.take() {
            let merged = self.out_in()?.f_add(&low_rank.weight_difference()?)?;
            // The view shares the weight's memory, so this writes the variable itself.
            tch::no_grad(|| self.out_in()?.f_copy_(&merged).map_err(Failure::from))?;
        }
        Ok(())
    }

    /// Returns the weight as [outputs, inputs], as a view if it is stored transposed.
    fn out_in(&self) -> Result<Tensor> {
        Ok(match self.layout {
            Layout::OutIn => self.weight.shallow_clone(),
            Layout::InOut => self.weight.f_transpose(0, 1)?,
        })
    }
}

/// A layer norm over the last axis.
#[derive(Debug)]
pub(crate) struct Norm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f64,
}

impl Norm {
    pub(crate) fn load(loader: &mut WeightLoader<'_>, name: &str, width: i64, epsilon: f64) -> Result<Self> {
        let weight = loader.variable(&format!("{name}.weight"), &[width])?;
        let bias = loader.variable(&format!("{name}.bias"), &[width])?;
        Ok(Self { weight, bias, epsilon })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.epsilon, true)?)
    }
}

/// Returns the rows of an embedding for int64 ids.
pub(crate) fn look_up(embedding: &Tensor, ids: &Tensor) -> Result<Tensor> {
    debug_assert_eq!(ids.kind(), Kind::Int64);
    Ok(Tensor::f_embedding(embedding, ids, -1, false, false)?)
}
