//! A whole text network: embeddings, blocks, norms. The four families are one network here, told apart by their names, by
//! where norms stand and by what a token may look at.

use std::collections::HashMap;
use tch::{Kind, Tensor, nn};

use super::attention::Sight;
use super::blocks::Block;
use super::config::TextShape;
use super::layers::{Norm, looked_up};
use super::loader::Loader;
use super::names::Names;
use crate::failure::Result;

#[derive(Debug)]
pub struct TextNetwork {
    pub shape: TextShape,
    words: Tensor,
    positions: Tensor,
    types: Option<Tensor>,
    norm_first: Option<Norm>,
    pub blocks: Vec<Block>,
    norm_last: Option<Norm>,
}

impl TextNetwork {
    /// Builds the network out of tensors as a folder names them. They become trainable variables below `path`, under the
    /// same names without the family's prefix. Refuses tensors that are missing, misshapen, not finite or left over.
    pub fn open(path: &nn::Path<'_>, shape: &TextShape, tensors: HashMap<String, Tensor>) -> Result<Self> {
        let names = Names::of(shape.family);
        let mut loader = Loader::new(path, names, tensors)?;
        let width = shape.width;
        let words = loader.variable(names.words, &[shape.vocabulary, width])?;
        let positions = loader.variable(names.positions, &[shape.position_rows, width])?;
        let types = names.types.map(|name| loader.variable(name, &[shape.types, width])).transpose()?;
        let mut norm = |name| Norm::open(&mut loader, name, width, shape.epsilon);
        let norm_first = names.norm_first.map(&mut norm).transpose()?;
        let norm_last = names.norm_last.map(&mut norm).transpose()?;
        let mut blocks = Vec::new();
        for i in 0..shape.layers {
            blocks.push(Block::open(&mut loader, &format!("{}.{i}", names.blocks), shape)?);
        }
        loader.finish()?;
        Ok(Self { shape: shape.clone(), words, positions, types, norm_first, blocks, norm_last })
    }

    /// The word embedding, [vocabulary, width].
    pub fn words(&self) -> &Tensor {
        &self.words
    }

    /// Token ids int64 [texts, tokens] and what of them is text, bool [texts, tokens], padding behind
    /// → hidden states of the last layer, float32 [texts, tokens, width]. Those of padding mean nothing.
    pub fn states(&self, ids: &Tensor, real: &Tensor, train: bool) -> Result<Tensor> {
        let sight = Sight::new(real, self.shape.family.causal())?;
        let mut x = self.embedded(ids)?.f_dropout(self.shape.dropout, train)?;
        for block in &self.blocks {
            x = block.states(&x, &sight, train)?;
        }
        match &self.norm_last {
            Some(norm) => norm.normed(&x),
            None => Ok(x),
        }
    }

    fn embedded(&self, ids: &Tensor) -> Result<Tensor> {
        let mut x = looked_up(&self.words, ids)?.f_add(&looked_up(&self.positions, &self.places(ids)?)?)?;
        if let Some(types) = &self.types {
            x = x.f_add(&types.f_select(0, 0)?)?;
        }
        match &self.norm_first {
            Some(norm) => norm.normed(&x),
            None => Ok(x),
        }
    }

    /// The row of the position embedding for each token. RoBERTa counts the tokens that are no padding, whoever wrote them:
    /// a text with `<pad>` typed into it has a gap there in `transformers` too.
    fn places(&self, ids: &Tensor) -> Result<Tensor> {
        let first = self.shape.first_position();
        if first == 0 {
            return Ok(Tensor::f_arange(ids.size()[1], (Kind::Int64, ids.device()))?.f_expand_as(ids)?);
        }
        let counted = ids.f_ne(self.shape.pad_id)?.f_to_kind(Kind::Int64)?;
        Ok(counted.f_cumsum(1, Kind::Int64)?.f_mul(&counted)?.f_add_scalar(first - 1)?)
    }
}
