//! Scaled dot-product attention (Vaswani et al. 2017), shared by all text networks. The families differ in the mask and
//! in whether queries, keys and values come from one linear map or from three.

use tch::{Kind, Tensor};

use super::layers::{Layout, Projection};
use super::prefix::Prefix;
use super::shape::TextShape;
use super::tensor_names;
use super::weight_loader::WeightLoader;
use crate::failure::Result;

/// Tokens that each token may attend to: bool [texts, 1, 1 or tokens, tokens].
#[derive(Debug)]
pub(crate) struct AttentionMask(Tensor);

impl AttentionMask {
    /// `is_token` is bool [texts, tokens], false for padding, which follows the text. Every token therefore attends at
    /// least to the text's first one, so that no row of the mask is empty and gives NaN.
    pub(crate) fn new(is_token: &Tensor, causal: bool) -> Result<Self> {
        let keys = is_token.f_unsqueeze(1)?.f_unsqueeze(1)?;
        if !causal {
            return Ok(Self(keys));
        }
        let tokens = is_token.size()[1];
        let earlier = Tensor::f_ones([tokens, tokens], (Kind::Bool, is_token.device()))?.f_tril(0)?;
        Ok(Self(keys.f_logical_and(&earlier)?))
    }

    /// Returns the mask with `prefix` keys in front, to which every token attends.
    fn with_prefix(&self, prefix: i64) -> Result<Tensor> {
        let mut size = self.0.size();
        size[3] = prefix;
        Ok(Tensor::f_cat(&[Tensor::f_ones(size, (Kind::Bool, self.0.device()))?, self.0.shallow_clone()], 3)?)
    }
}

#[derive(Debug)]
enum InputProjections {
    Separate([Projection; 3]),
    Fused(Projection),
}

#[derive(Debug)]
pub(crate) struct Attention {
    inputs: InputProjections,
    output: Projection,
    /// Added by fine-tuning; `None` in a pretrained network.
    pub(crate) prefix: Option<Prefix>,
    heads: i64,
    dropout: f64,
}

impl Attention {
    /// Takes the tensors of the block named `block`.
    pub(crate) fn load(loader: &mut WeightLoader<'_>, block: &str, shape: &TextShape, layout: Layout) -> Result<Self> {
        let names = loader.names();
        let width = shape.width;
        let mut map =
            |name: &str, outputs| Projection::load(loader, &format!("{block}.{name}"), layout, (width, outputs));
        let inputs = match names.inputs {
            tensor_names::AttentionInputs::Separate([q, k, v]) => {
                InputProjections::Separate([map(q, width)?, map(k, width)?, map(v, width)?])
            }
            tensor_names::AttentionInputs::Fused(qkv) => InputProjections::Fused(map(qkv, 3 * width)?),
        };
        let output = map(names.output, width)?;
        Ok(Self { inputs, output, prefix: None, heads: shape.heads, dropout: shape.attention_dropout })
    }

    /// Maps float32 [texts, tokens, width] to the same shape.
    pub(crate) fn attend(&self, x: &Tensor, mask: &AttentionMask, train: bool) -> Result<Tensor> {
        let [queries, mut keys, mut values] = self.split(x)?;
        let mut keys_mask = mask.0.shallow_clone();
        if let Some(prefix) = &self.prefix {
            keys = prepend(&prefix.keys, &keys)?;
            values = prepend(&prefix.values, &values)?;
            keys_mask = mask.with_prefix(prefix.keys.size()[1])?;
        }
        let dropout = if train { self.dropout } else { 0.0 };
        let attended = Tensor::f_scaled_dot_product_attention(
            &queries,
            &keys,
            &values,
            Some(&keys_mask),
            dropout,
            false,
            None,
            false,
        )?;
        self.output.project(&attended.f_transpose(1, 2)?.f_contiguous()?.f_view(x.size().as_slice())?)
    }

    /// Returns the maps to which LoRA adds a difference, with the names of its variables.
    pub(crate) fn low_rank_maps(&mut self) -> Vec<(&'static str, &mut Projection)> {
        match &mut self.inputs {
            InputProjections::Separate([q, _, v]) => vec![("queries", q), ("values", v)],
            InputProjections::Fused(qkv) => vec![("inputs", qkv)],
        }
    }

    /// Returns queries, keys and values by head: [texts, heads, tokens, width of a head].
    fn split(&self, x: &Tensor) -> Result<[Tensor; 3]> {
        let [q, k, v] = match &self.inputs {
            InputProjections::Separate([q, k, v]) => [q.project(x)?, k.project(x)?, v.project(x)?],
            InputProjections::Fused(qkv) => {
                let all = qkv.project(x)?;
                let width = x.size()[2];
                [all.f_narrow(2, 0, width)?, all.f_narrow(2, width, width)?, all.f_narrow(2, 2 * width, width)?]
            }
        };
        Ok([self.split_heads(&q)?, self.split_heads(&k)?, self.split_heads(&v)?])
    }

    fn split_heads(&self, x: &Tensor) -> Result<Tensor> {
        let (texts, tokens, width) = x.size3()?;
        Ok(x.f_reshape([texts, tokens, self.heads, width / self.heads])?.f_transpose(1, 2)?)
    }
}

fn prepend(prefix: &Tensor, by_head: &Tensor) -> Result<Tensor> {
    let (texts, heads, _, width) = by_head.size4()?;
    let repeated = prefix.f_unsqueeze(0)?.f_expand([texts, heads, prefix.size()[1], width], true)?;
    Ok(Tensor::f_cat(&[repeated, by_head.shallow_clone()], 2)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visible(causal: bool) -> Vec<Vec<bool>> {
        let is_token = Tensor::from_slice(&[true, true, false]).view([1, 3]);
        let AttentionMask(mask) = AttentionMask::new(&is_token, causal).unwrap();
        Vec::<Vec<bool>>::try_from(mask.squeeze_dim(0).squeeze_dim(0)).unwrap()
    }

    #[test]
    fn padding_and_causally_later_tokens_are_masked() {
        assert_eq!(visible(false), [[true, true, false]]);
        assert_eq!(visible(true), [[true, false, false], [true, true, false], [true, true, false]]);
    }

    #[test]
    fn every_token_attends_to_a_prefix() {
        let is_token = Tensor::from_slice(&[true, false]).view([1, 2]);
        let mask = AttentionMask::new(&is_token, true).unwrap().with_prefix(1).unwrap();
        let rows = Vec::<Vec<bool>>::try_from(mask.squeeze_dim(0).squeeze_dim(0)).unwrap();
        assert_eq!(rows, [[true, true, false], [true, true, false]]);
    }
}
