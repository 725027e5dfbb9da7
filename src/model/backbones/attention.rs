//! Pre-norm attention blocks (Vaswani et al. 2017; Xiong et al. 2020), shared by the bidirectional and the causal
//! transformer, which differ in nothing but what an event may look at.

use tch::Tensor;
use tch::nn::{self, Module};

use super::super::intent::IntentShape;
use crate::failure::Result;

/// What an event may look at.
#[derive(Debug, Clone, Copy)]
pub enum Sight<'a> {
    /// Events where this is true, bool [users, 1, 1, events].
    Where(&'a Tensor),
    /// Itself and what came before.
    Backwards,
}

#[derive(Debug)]
struct Block {
    norm_attention: nn::LayerNorm,
    qkv: nn::Linear,
    project: nn::Linear,
    norm_feed: nn::LayerNorm,
    widen: nn::Linear,
    narrow: nn::Linear,
}

#[derive(Debug)]
pub struct Blocks {
    blocks: Vec<Block>,
    norm: nn::LayerNorm,
    width: i64,
    heads: i64,
    dropout: f64,
}

impl Blocks {
    pub fn new(path: &nn::Path, shape: &IntentShape) -> Self {
        let d = shape.width;
        let blocks = (0..shape.layers).map(|i| {
            let p = path / format!("layer{i}");
            Block {
                norm_attention: nn::layer_norm(&p / "norm_attention", vec![d], Default::default()),
                qkv: nn::linear(&p / "qkv", d, 3 * d, Default::default()),
                project: nn::linear(&p / "project", d, d, Default::default()),
                norm_feed: nn::layer_norm(&p / "norm_feed", vec![d], Default::default()),
                widen: nn::linear(&p / "widen", d, 2 * d, Default::default()),
                narrow: nn::linear(&p / "narrow", 2 * d, d, Default::default()),
            }
        });
        Self {
            blocks: blocks.collect(),
            norm: nn::layer_norm(path / "norm", vec![d], Default::default()),
            width: d,
            heads: shape.heads,
            dropout: shape.dropout,
        }
    }

    /// float32 [users, events, width] → the same shape.
    pub fn states(&self, x: &Tensor, sight: Sight<'_>, train: bool) -> Result<Tensor> {
        let mut x = x.shallow_clone();
        for block in &self.blocks {
            x = &x + self.attended(block, &x, sight)?.f_dropout(self.dropout, train)?;
            let fed = block.narrow.forward(&block.widen.forward(&block.norm_feed.forward(&x)).gelu("none"));
            x = &x + fed.f_dropout(self.dropout, train)?;
        }
        Ok(self.norm.forward(&x))
    }

    fn attended(&self, block: &Block, x: &Tensor, sight: Sight<'_>) -> Result<Tensor> {
        let (b, n) = (x.size()[0], x.size()[1]);
        let split = |t: &Tensor| t.view([b, n, self.heads, self.width / self.heads]).transpose(1, 2);
        let qkv = block.qkv.forward(&block.norm_attention.forward(x)).chunk(3, -1);
        let (mask, causal) = match sight {
            Sight::Where(mask) => (Some(mask), false),
            Sight::Backwards => (None, true),
        };
        let attended = Tensor::f_scaled_dot_product_attention(
            &split(&qkv[0]),
            &split(&qkv[1]),
            &split(&qkv[2]),
            mask,
            0.0,
            causal,
            None,
            false,
        )?;
        Ok(block.project.forward(&attended.transpose(1, 2).contiguous().view([b, n, self.width])))
    }
}
