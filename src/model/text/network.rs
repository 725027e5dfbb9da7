//! A whole text network: embeddings, blocks, layer norms. The four families share this implementation; they differ in
//! tensor names, in the position of the norms and in the attention mask.

use std::collections::HashMap;
use tch::{Kind, Tensor, nn};

use super::attention::AttentionMask;
use super::batching::PaddedTokens;
use super::block::Block;
use super::layers::{Norm, look_up};
use super::shape::TextShape;
use super::tensor_names::TensorNames;
use super::weight_loader::WeightLoader;
use crate::failure::Result;

#[derive(Debug)]
pub(crate) struct TextNetwork {
    pub(crate) shape: TextShape,
    words: Tensor,
    positions: Tensor,
    segments: Option<Tensor>,
    norm_first: Option<Norm>,
    pub(crate) blocks: Vec<Block>,
    norm_last: Option<Norm>,
}

impl TextNetwork {
    /// Builds the network from tensors named as in a folder. They become trainable variables below `path`, under the
    /// same names without the family's prefix. Refuses missing, misshapen, non-finite and unused tensors.
    pub(crate) fn load(path: &nn::Path<'_>, shape: &TextShape, tensors: HashMap<String, Tensor>) -> Result<Self> {
        let names = TensorNames::for_family(shape.family);
        let mut loader = WeightLoader::new(path, names, tensors)?;
        let width = shape.width;
        let words = loader.variable(names.words, &[shape.vocabulary, width])?;
        let positions = loader.variable(names.positions, &[shape.position_rows, width])?;
        let segments = names.segments.map(|name| loader.variable(name, &[shape.segments, width])).transpose()?;
        let mut norm = |name| Norm::load(&mut loader, name, width, shape.epsilon);
        let norm_first = names.norm_first.map(&mut norm).transpose()?;
        let norm_last = names.norm_last.map(&mut norm).transpose()?;
        let mut blocks = Vec::new();
        for i in 0..shape.layers {
            blocks.push(Block::load(&mut loader, &format!("{}.{i}", names.blocks), shape)?);
        }
        loader.finish()?;
        Ok(Self { shape: shape.clone(), words, positions, segments, norm_first, blocks, norm_last })
    }

    /// The word embedding: [vocabulary, width].
    pub(crate) fn words(&self) -> &Tensor {
        &self.words
    }

    /// Returns the hidden states of the last layer: float32 [texts, tokens, width]. Those of padding are meaningless.
    pub(crate) fn states(&self, batch: &PaddedTokens, train: bool) -> Result<Tensor> {
        let mask = AttentionMask::new(&batch.is_token, self.shape.family.is_causal())?;
        let mut x = self.embed(&batch.ids)?.f_dropout(self.shape.dropout, train)?;
        for block in &self.blocks {
            x = block.forward(&x, &mask, train)?;
        }
        match &self.norm_last {
            Some(norm) => norm.forward(&x),
            None => Ok(x),
        }
    }

    fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        let mut x = look_up(&self.words, ids)?.f_add(&look_up(&self.positions, &self.position_ids(ids)?)?)?;
        if let Some(segments) = &self.segments {
            x = x.f_add(&segments.f_select(0, 0)?)?;
        }
        match &self.norm_first {
            Some(norm) => norm.forward(&x),
            None => Ok(x),
        }
    }

    /// Returns the row of the position embedding for each token. RoBERTa counts the tokens that are not the padding
    /// token: a text that contains `<pad>` literally has a gap there, as in `transformers`.
    fn position_ids(&self, ids: &Tensor) -> Result<Tensor> {
        let first = self.shape.first_position();
        if first == 0 {
            return Ok(Tensor::f_arange(ids.size()[1], (Kind::Int64, ids.device()))?.f_expand_as(ids)?);
        }
        let counted = ids.f_ne(self.shape.pad_id)?.f_to_kind(Kind::Int64)?;
        Ok(counted.f_cumsum(1, Kind::Int64)?.f_mul(&counted)?.f_add_scalar(first - 1)?)
    }
}
