//! Pre-norm attention blocks (Vaswani et al. 2017; Xiong et al. 2020), shared by the bidirectional and the causal
//! transformer. The two differ in their attention mask only.

use tch::Tensor;
use tch::nn::{self, Module};

use super::short_attention::ShortAttention;
use crate::failure::Result;
use crate::model::shape::IntentShape;

/// The events that an event attends to.
#[derive(Debug)]
pub(super) enum AttentionMask<'a> {
    /// All events of the user, by the kernel for short histories.
    Short(ShortAttention),
    /// All events, which is right without padding only.
    All,
    /// Events where this is true, bool [users, 1, 1, events].
    Visible(&'a Tensor),
    /// The event itself and earlier ones.
    Causal,
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

/// Attention blocks with a final layer norm.
#[derive(Debug)]
pub(crate) struct AttentionBlocks {
    blocks: Vec<Block>,
    norm: nn::LayerNorm,
    width: i64,
    heads: i64,
    dropout: f64,
}

impl AttentionBlocks {
    /// Creates initial weights below `path`.
    pub(crate) fn new(path: &nn::Path, shape: &IntentShape) -> Self {
        let d = shape.width;
        let blocks = (0..shape.layers).map(|i| {
            let layer = path / format!("layer{i}");
            Block {
                norm_attention: nn::layer_norm(&layer / "norm_attention", vec![d], Default::default()),
                qkv: nn::linear(&layer / "qkv", d, 3 * d, Default::default()),
                project: nn::linear(&layer / "project", d, d, Default::default()),
                norm_feed: nn::layer_norm(&layer / "norm_feed", vec![d], Default::default()),
                widen: nn::linear(&layer / "widen", d, 2 * d, Default::default()),
                narrow: nn::linear(&layer / "narrow", 2 * d, d, Default::default()),
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

    /// Makes the kernel for batches of short histories; none where libtorch's has to be used.
    pub(super) fn short(&self, x: &Tensor, lengths: &Tensor) -> Result<Option<ShortAttention>> {
        // An operation on a weight has a gradient only where gradients are tracked.
        let is_tracked = |block: &Block| block.qkv.ws.alias().requires_grad();
        match self.blocks.iter().any(is_tracked) {
            true => Ok(None),
            false => ShortAttention::new(x, lengths, self.heads),
        }
    }

    /// float32 [users, events, width] → the same shape.
    pub(super) fn states(&self, events: &Tensor, mut mask: AttentionMask<'_>, train: bool) -> Result<Tensor> {
        let mut x = events.shallow_clone();
        // Sums go into the newer of the two tensors, which nothing else reads, and which no gradient needs.
        for block in &self.blocks {
            x = self.attend(block, &x, &mut mask)?.f_dropout(self.dropout, train)?.f_add_(&x)?;
            let fed = block.narrow.forward(&gelu(block.widen.forward(&block.norm_feed.forward(&x)))?);
            x = fed.f_dropout(self.dropout, train)?.f_add_(&x)?;
        }
        Ok(self.norm.forward(&x))
    }

    /// float32 [users, events, width] → the same shape.
    fn attend(&self, block: &Block, x: &Tensor, mask: &mut AttentionMask<'_>) -> Result<Tensor> {
        let users = x.size()[0];
        let events = x.size()[1];
        let split_heads = |t: &Tensor| t.view([users, events, self.heads, self.width / self.heads]).transpose(1, 2);
        let qkv = block.qkv.forward(&block.norm_attention.forward(x));
        let (visible, causal) = match mask {
            AttentionMask::Short(kernel) => return Ok(block.project.forward(&kernel.attend(&qkv)?)),
            AttentionMask::All => (None, false),
            AttentionMask::Visible(visible) => (Some(*visible), false),
            AttentionMask::Causal => (None, true),
        };
        let qkv = qkv.chunk(3, -1);
        let attended = Tensor::f_scaled_dot_product_attention(
            &split_heads(&qkv[0]),
            &split_heads(&qkv[1]),
            &split_heads(&qkv[2]),
            visible,
            0.0,
            causal,
            None,
            false,
        )?;
        Ok(block.project.forward(&attended.transpose(1, 2).contiguous().view([users, events, self.width])))
    }
}

/// Applies GELU, in place unless a gradient needs its input.
fn gelu(mut x: Tensor) -> Result<Tensor> {
    match x.requires_grad() {
        true => Ok(x.f_gelu("none")?),
        false => Ok(x.f_gelu_("none")?),
    }
}
