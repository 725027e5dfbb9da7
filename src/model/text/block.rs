//! One transformer block: attention and a feed-forward layer, each with a residual and a layer norm. BERT's family
//! normalises after each layer (Devlin et al. 2018), GPT-2 before it (Radford et al. 2019).

use tch::Tensor;

use super::activation::Activation;
use super::adapter::Adapter;
use super::attention::{Attention, AttentionMask};
use super::layers::{Layout, Norm, Projection};
use super::shape::{Family, TextShape};
use super::weight_loader::WeightLoader;
use crate::failure::Result;

#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) attention: Attention,
    norm_attention: Norm,
    widen: Projection,
    narrow: Projection,
    norm_feed_forward: Norm,
    activation: Activation,
    norm_before: bool,
    dropout: f64,
    /// Added after each layer by fine-tuning; `None` in a pretrained network.
    pub(crate) adapter_attention: Option<Adapter>,
    pub(crate) adapter_feed_forward: Option<Adapter>,
}

impl Block {
    /// Takes the tensors of the block named `name`.
    pub(crate) fn load(loader: &mut WeightLoader<'_>, name: &str, shape: &TextShape) -> Result<Self> {
        let gpt2 = shape.family == Family::Gpt2;
        let layout = if gpt2 { Layout::InOut } else { Layout::OutIn };
        let names = loader.names();
        let width = shape.width;
        let wide = shape.feed_forward_width;
        let within = |part: &str| format!("{name}.{part}");
        Ok(Self {
            attention: Attention::load(loader, name, shape, layout)?,
            norm_attention: Norm::load(loader, &within(names.norm_attention), width, shape.epsilon)?,
            widen: Projection::load(loader, &within(names.widen), layout, (width, wide))?,
            narrow: Projection::load(loader, &within(names.narrow), layout, (wide, width))?,
            norm_feed_forward: Norm::load(loader, &within(names.norm_feed_forward), width, shape.epsilon)?,
            activation: shape.activation,
            norm_before: gpt2,
            dropout: shape.dropout,
            adapter_attention: None,
            adapter_feed_forward: None,
        })
    }

    /// Maps float32 [texts, tokens, width] to the same shape.
    pub(crate) fn forward(&self, x: &Tensor, mask: &AttentionMask, train: bool) -> Result<Tensor> {
        if self.norm_before {
            let x = x.f_add(&self.attend(&self.norm_attention.forward(x)?, mask, train)?)?;
            return Ok(x.f_add(&self.feed_forward(&self.norm_feed_forward.forward(&x)?, train)?)?);
        }
        let x = self.norm_attention.forward(&x.f_add(&self.attend(x, mask, train)?)?)?;
        self.norm_feed_forward.forward(&x.f_add(&self.feed_forward(&x, train)?)?)
    }

    fn attend(&self, x: &Tensor, mask: &AttentionMask, train: bool) -> Result<Tensor> {
        let attended = self.attention.attend(x, mask, train)?;
        self.finish_sublayer(attended, self.adapter_attention.as_ref(), train)
    }

    fn feed_forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let fed = self.narrow.project(&self.activation.apply(&self.widen.project(x)?)?)?;
        self.finish_sublayer(fed, self.adapter_feed_forward.as_ref(), train)
    }

    /// Applies dropout and the adapter to a layer's output before the residual is added.
    fn finish_sublayer(&self, x: Tensor, adapter: Option<&Adapter>, train: bool) -> Result<Tensor> {
        let x = x.f_dropout(self.dropout, train)?;
        match adapter {
            Some(adapter) => adapter.forward(&x),
            None => Ok(x),
        }
    }
}
