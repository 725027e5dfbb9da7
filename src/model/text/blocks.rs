//! One block: attention and a feed-forward layer, each with a residual and a norm. BERT's family norms after each of the
//! two (Devlin et al. 2018), GPT-2 before (Radford et al. 2019).

use tch::Tensor;

use super::attention::{Attention, Sight};
use super::config::{Family, TextShape};
use super::layers::{Activation, Layout, Norm, Projection};
use super::loader::Loader;
use super::tuning::Adapter;
use crate::failure::Result;

#[derive(Debug)]
pub struct Block {
    pub attention: Attention,
    norm_attention: Norm,
    widen: Projection,
    narrow: Projection,
    norm_feed: Norm,
    activation: Activation,
    norm_before: bool,
    dropout: f64,
    /// Behind both layers; `None` in a network as its folder has it.
    pub adapter_attention: Option<Adapter>,
    pub adapter_feed: Option<Adapter>,
}

impl Block {
    /// Takes the tensors of the block that is called `name`.
    pub fn open(loader: &mut Loader<'_>, name: &str, shape: &TextShape) -> Result<Self> {
        let gpt2 = shape.family == Family::Gpt2;
        let layout = if gpt2 { Layout::InOut } else { Layout::OutIn };
        let (names, width, wide) = (loader.names(), shape.width, shape.feed_width);
        let within = |part: &str| format!("{name}.{part}");
        Ok(Self {
            attention: Attention::open(loader, name, shape, layout)?,
            norm_attention: Norm::open(loader, &within(names.norm_attention), width, shape.epsilon)?,
            widen: Projection::open(loader, &within(names.widen), layout, (width, wide))?,
            narrow: Projection::open(loader, &within(names.narrow), layout, (wide, width))?,
            norm_feed: Norm::open(loader, &within(names.norm_feed), width, shape.epsilon)?,
            activation: shape.activation,
            norm_before: gpt2,
            dropout: shape.dropout,
            adapter_attention: None,
            adapter_feed: None,
        })
    }

    /// float32 [texts, tokens, width] → the same shape.
    pub fn states(&self, x: &Tensor, sight: &Sight, train: bool) -> Result<Tensor> {
        if self.norm_before {
            let x = x.f_add(&self.attended(&self.norm_attention.normed(x)?, sight, train)?)?;
            return Ok(x.f_add(&self.fed(&self.norm_feed.normed(&x)?, train)?)?);
        }
        let x = self.norm_attention.normed(&x.f_add(&self.attended(x, sight, train)?)?)?;
        self.norm_feed.normed(&x.f_add(&self.fed(&x, train)?)?)
    }

    fn attended(&self, x: &Tensor, sight: &Sight, train: bool) -> Result<Tensor> {
        let attended = self.attention.attend(x, sight, train)?;
        self.finished(attended, self.adapter_attention.as_ref(), train)
    }

    fn fed(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let fed = self.narrow.project(&self.activation.apply(&self.widen.project(x)?)?)?;
        self.finished(fed, self.adapter_feed.as_ref(), train)
    }

    /// A layer's output on its way to the residual.
    fn finished(&self, x: Tensor, adapter: Option<&Adapter>, train: bool) -> Result<Tensor> {
        let x = x.f_dropout(self.dropout, train)?;
        match adapter {
            Some(adapter) => adapter.adapted(&x),
            None => Ok(x),
        }
    }
}
