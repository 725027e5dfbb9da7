//! The smallest parts: linear maps, layer norms, activations. Every linear map of a text network is a [`Projection`], so
//! that a strategy of fine-tuning has one place to hold on to.

use tch::{Kind, Tensor, nn};

use super::loader::Loader;
use super::tuning::{LowRank, LowRankSettings};
use crate::failure::{Failure, Result};

/// How a folder keeps the weight of a linear map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// [outputs, inputs], as torch's linear layer has it.
    OutIn,
    /// [inputs, outputs], as GPT-2's "Conv1D" has it.
    InOut,
}

/// x → x W + b over the last axis.
#[derive(Debug)]
pub struct Projection {
    weight: Tensor,
    bias: Tensor,
    layout: Layout,
    /// What fine-tuning learns beside the weight.
    low_rank: Option<LowRank>,
}

impl Projection {
    /// Takes `{name}.weight` and `{name}.bias`; `sizes` are inputs and outputs.
    pub fn open(loader: &mut Loader<'_>, name: &str, layout: Layout, sizes: (i64, i64)) -> Result<Self> {
        let (inputs, outputs) = sizes;
        let shape = match layout {
            Layout::OutIn => [outputs, inputs],
            Layout::InOut => [inputs, outputs],
        };
        let weight = loader.variable(&format!("{name}.weight"), &shape)?;
        let bias = loader.variable(&format!("{name}.bias"), &[outputs])?;
        Ok(Self { weight, bias, layout, low_rank: None })
    }

    /// float32 [.., inputs] → [.., outputs].
    pub fn project(&self, x: &Tensor) -> Result<Tensor> {
        let projected = x.f_linear(&self.out_in()?, Some(&self.bias))?;
        match &self.low_rank {
            Some(low_rank) => Ok(projected.f_add(&low_rank.difference(x)?)?),
            None => Ok(projected),
        }
    }

    pub fn add_low_rank(&mut self, path: &nn::Path<'_>, settings: LowRankSettings) -> Result<()> {
        let (outputs, inputs) = self.out_in()?.size2()?;
        self.low_rank = Some(LowRank::new(path, (inputs, outputs), settings)?);
        Ok(())
    }

    /// Adds the low-rank difference to the weight and drops it.
    pub fn merge_low_rank(&mut self) -> Result<()> {
        if let Some(low_rank) = self.low_rank.take() {
            let merged = self.out_in()?.f_add(&low_rank.weight()?)?;
            // The view shares the weight's memory, so this is the variable that is written.
            tch::no_grad(|| self.out_in()?.f_copy_(&merged).map_err(Failure::from))?;
        }
        Ok(())
    }

    /// The weight as [outputs, inputs], a view where it is kept the other way.
    fn out_in(&self) -> Result<Tensor> {
        Ok(match self.layout {
            Layout::OutIn => self.weight.shallow_clone(),
            Layout::InOut => self.weight.f_transpose(0, 1)?,
        })
    }
}

/// A layer norm over the last axis.
#[derive(Debug)]
pub struct Norm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f64,
}

impl Norm {
    pub fn open(loader: &mut Loader<'_>, name: &str, width: i64, epsilon: f64) -> Result<Self> {
        let weight = loader.variable(&format!("{name}.weight"), &[width])?;
        let bias = loader.variable(&format!("{name}.bias"), &[width])?;
        Ok(Self { weight, bias, epsilon })
    }

    pub fn normed(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.epsilon, true)?)
    }
}

/// What stands between the two linear maps of a feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x Φ(x), exactly.
    Gelu,
    /// x Φ(x) by a tangent (Hendrycks and Gimpel 2016).
    GeluTanh,
    /// The same tangent with rounded constants; differs in the last digits of float32.
    GeluFast,
    /// x σ(1.702 x).
    QuickGelu,
    Relu,
    Silu,
    Tanh,
}

impl Activation {
    /// The names that `transformers` gives them.
    pub const NAMES: [(&'static str, Activation); 9] = [
        ("gelu", Activation::Gelu),
        ("gelu_new", Activation::GeluTanh),
        ("gelu_pytorch_tanh", Activation::GeluTanh),
        ("gelu_fast", Activation::GeluFast),
        ("quick_gelu", Activation::QuickGelu),
        ("relu", Activation::Relu),
        ("silu", Activation::Silu),
        ("swish", Activation::Silu),
        ("tanh", Activation::Tanh),
    ];

    pub fn named(name: &str) -> Option<Activation> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, activation)| *activation)
    }

    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Activation::Gelu => x.f_gelu("none")?,
            Activation::GeluTanh => x.f_gelu("tanh")?,
            Activation::GeluFast => {
                let inner = x * 0.7978845608 * (x * x * 0.044715 + 1.0);
                x * 0.5 * (inner.f_tanh()? + 1.0)
            }
            Activation::QuickGelu => x * (x * 1.702).f_sigmoid()?,
            Activation::Relu => x.f_relu()?,
            Activation::Silu => x.f_silu()?,
            Activation::Tanh => x.f_tanh()?,
        })
    }
}

/// Rows of an embedding, by int64 ids.
pub fn looked_up(embedding: &Tensor, ids: &Tensor) -> Result<Tensor> {
    debug_assert_eq!(ids.kind(), Kind::Int64);
    Ok(Tensor::f_embedding(embedding, ids, -1, false, false)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_are_what_their_names_say() {
        // By the formulas of their papers, in float64, at -3, -0.5, 0 and 2.
        let cases: [(&str, [f64; 4]); 6] = [
            ("gelu", [-0.0040497, -0.1542688, 0.0, 1.9544997]),
            ("gelu_new", [-0.0036374, -0.1542860, 0.0, 1.9545977]),
            ("gelu_fast", [-0.0036374, -0.1542860, 0.0, 1.9545977]),
            ("quick_gelu", [-0.0180713, -0.1496116, 0.0, 1.9356586]),
            ("relu", [0.0, 0.0, 0.0, 2.0]),
            ("swish", [-0.1422776, -0.1887703, 0.0, 1.7615942]),
        ];
        let x = Tensor::from_slice(&[-3f32, -0.5, 0.0, 2.0]);
        for (name, expected) in cases {
            let got = Vec::<f64>::try_from(Activation::named(name).unwrap().apply(&x).unwrap()).unwrap();
            for (got, expected) in got.iter().zip(expected) {
                assert!((got - expected).abs() < 1e-6, "{name}: {got} for {expected}");
            }
        }
        assert_eq!(Activation::named("GELU"), None);
    }
}
