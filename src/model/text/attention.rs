//! Scaled dot-product attention (Vaswani et al. 2017), the one block that all text networks share: they differ in what a
//! token may look at, and in whether queries, keys and values come from one map or from three.

use tch::{Kind, Tensor};

use super::config::TextShape;
use super::layers::{Layout, Projection};
use super::loader::Loader;
use super::names;
use crate::failure::Result;

/// What each token may look at: bool [texts, 1, 1 or tokens, tokens].
#[derive(Debug)]
pub struct Sight(Tensor);

impl Sight {
    /// From what is text and what is padding, bool [texts, tokens], padding behind. Every token then sees at least the
    /// text's first one, so that no row is empty and none gives NaN.
    pub fn new(real: &Tensor, causal: bool) -> Result<Self> {
        let keys = real.f_unsqueeze(1)?.f_unsqueeze(1)?;
        if !causal {
            return Ok(Self(keys));
        }
        let tokens = real.size()[1];
        let before = Tensor::f_ones([tokens, tokens], (Kind::Bool, real.device()))?.f_tril(0)?;
        Ok(Self(keys.f_logical_and(&before)?))
    }

    /// The same with keys in front that every token sees.
    fn behind(&self, prefix: i64) -> Result<Tensor> {
        let mut size = self.0.size();
        size[3] = prefix;
        Ok(Tensor::f_cat(&[Tensor::f_ones(size, (Kind::Bool, self.0.device()))?, self.0.shallow_clone()], 3)?)
    }
}

/// Keys and values in front of each text's own, float32 [heads, prefix, width of a head]: what prefix-tuning learns.
#[derive(Debug)]
pub struct Prefix {
    pub keys: Tensor,
    pub values: Tensor,
}

#[derive(Debug)]
enum Inputs {
    Apart([Projection; 3]),
    Fused(Projection),
}

#[derive(Debug)]
pub struct Attention {
    inputs: Inputs,
    output: Projection,
    /// `None` in a network as its folder has it.
    pub prefix: Option<Prefix>,
    heads: i64,
    dropout: f64,
}

impl Attention {
    /// Takes the tensors of the block that is called `block`.
    pub fn open(loader: &mut Loader<'_>, block: &str, shape: &TextShape, layout: Layout) -> Result<Self> {
        let (names, width) = (loader.names(), shape.width);
        let mut map =
            |name: &str, outputs| Projection::open(loader, &format!("{block}.{name}"), layout, (width, outputs));
        let inputs = match names.inputs {
            names::Inputs::Apart([q, k, v]) => Inputs::Apart([map(q, width)?, map(k, width)?, map(v, width)?]),
            names::Inputs::Fused(qkv) => Inputs::Fused(map(qkv, 3 * width)?),
        };
        let output = map(names.output, width)?;
        Ok(Self { inputs, output, prefix: None, heads: shape.heads, dropout: shape.attention_dropout })
    }

    /// float32 [texts, tokens, width] → the same shape.
    pub fn attend(&self, x: &Tensor, sight: &Sight, train: bool) -> Result<Tensor> {
        let [queries, mut keys, mut values] = self.split(x)?;
        let mut mask = sight.0.shallow_clone();
        if let Some(prefix) = &self.prefix {
            keys = in_front(&prefix.keys, &keys)?;
            values = in_front(&prefix.values, &values)?;
            mask = sight.behind(prefix.keys.size()[1])?;
        }
        let dropout = if train { self.dropout } else { 0.0 };
        let attended =
            Tensor::f_scaled_dot_product_attention(&queries, &keys, &values, Some(&mask), dropout, false, None, false)?;
        self.output.project(&attended.f_transpose(1, 2)?.f_contiguous()?.f_view(x.size().as_slice())?)
    }

    /// The maps that low-rank differences stand beside, with the names of their variables.
    pub fn low_rank_maps(&mut self) -> Vec<(&'static str, &mut Projection)> {
        match &mut self.inputs {
            Inputs::Apart([q, _, v]) => vec![("queries", q), ("values", v)],
            Inputs::Fused(qkv) => vec![("inputs", qkv)],
        }
    }

    /// Queries, keys and values by head, [texts, heads, tokens, width of a head].
    fn split(&self, x: &Tensor) -> Result<[Tensor; 3]> {
        let [q, k, v] = match &self.inputs {
            Inputs::Apart([q, k, v]) => [q.project(x)?, k.project(x)?, v.project(x)?],
            Inputs::Fused(qkv) => {
                let all = qkv.project(x)?;
                let width = x.size()[2];
                [all.f_narrow(2, 0, width)?, all.f_narrow(2, width, width)?, all.f_narrow(2, 2 * width, width)?]
            }
        };
        Ok([self.by_head(&q)?, self.by_head(&k)?, self.by_head(&v)?])
    }

    fn by_head(&self, x: &Tensor) -> Result<Tensor> {
        let (texts, tokens, width) = x.size3()?;
        Ok(x.f_reshape([texts, tokens, self.heads, width / self.heads])?.f_transpose(1, 2)?)
    }
}

fn in_front(prefix: &Tensor, own: &Tensor) -> Result<Tensor> {
    let (texts, heads, _, width) = own.size4()?;
    let prefix = prefix.f_unsqueeze(0)?.f_expand([texts, heads, prefix.size()[1], width], true)?;
    Ok(Tensor::f_cat(&[prefix, own.shallow_clone()], 2)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(causal: bool) -> Vec<Vec<bool>> {
        let real = Tensor::from_slice(&[true, true, false]).view([1, 3]);
        let Sight(mask) = Sight::new(&real, causal).unwrap();
        Vec::<Vec<bool>>::try_from(mask.squeeze_dim(0).squeeze_dim(0)).unwrap()
    }

    #[test]
    fn padding_is_not_seen_and_a_causal_token_does_not_look_ahead() {
        assert_eq!(seen(false), [[true, true, false]]);
        assert_eq!(seen(true), [[true, false, false], [true, true, false], [true, true, false]]);
    }

    #[test]
    fn a_prefix_is_seen_by_every_token() {
        let real = Tensor::from_slice(&[true, false]).view([1, 2]);
        let mask = Sight::new(&real, true).unwrap().behind(1).unwrap();
        let mask = Vec::<Vec<bool>>::try_from(mask.squeeze_dim(0).squeeze_dim(0)).unwrap();
        assert_eq!(mask, [[true, true, false], [true, true, false]]);
    }
}
