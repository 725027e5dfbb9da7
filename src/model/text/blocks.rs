//! One block: attention and a feed-forward layer, each with a residual and a norm. BERT's family norms after each of the
//! two (Devlin et al. 2018), GPT-2 before (Radford et al. 2019).

use tch::Tensor;

use super::attention::{Attention, Sight};
use super::config::{Family, TextShape};
use super::layers::{Activation, Layout, Norm, Projection};
use super::loader::Loader;
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
        })
    }

    /// float32 [texts, tokens, width] → the same shape.
    pub fn states(&self, x: &Tensor, sight: &Sight, train: bool) -> Result<Tensor> {
        let drop = |t: Tensor| t.f_dropout(self.dropout, train);
        if self.norm_before {
            let attended = self.attention.attend(&self.norm_attention.normed(x)?, sight, train)?;
            let x = x.f_add(&drop(attended)?)?;
            let fed = self.feed(&self.norm_feed.normed(&x)?)?;
            return Ok(x.f_add(&drop(fed)?)?);
        }
        let attended = self.attention.attend(x, sight, train)?;
        let x = self.norm_attention.normed(&x.f_add(&drop(attended)?)?)?;
        let fed = self.feed(&x)?;
        self.norm_feed.normed(&x.f_add(&drop(fed)?)?)
    }

    fn feed(&self, x: &Tensor) -> Result<Tensor> {
        self.narrow.project(&self.activation.apply(&self.widen.project(x)?)?)
    }
}
