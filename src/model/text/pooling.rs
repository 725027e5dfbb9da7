//! One vector a text out of the hidden states of its tokens, by the modes of sentence-transformers.

use tch::{Kind, Tensor};

use crate::failure::Result;

/// How the states of a text's tokens become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// The first token's.
    Cls,
    Max,
    Mean,
    /// The sum over the root of the number of tokens.
    MeanSqrtLength,
    /// The mean, later tokens weighing more: by their place, from 1.
    WeightedMean,
    LastToken,
}

impl Pool {
    /// In the order in which several of them are put next to each other; with their names in `1_Pooling/config.json`.
    pub const NAMES: [(&'static str, Pool); 6] = [
        ("cls_token", Pool::Cls),
        ("max_tokens", Pool::Max),
        ("mean_tokens", Pool::Mean),
        ("mean_sqrt_len_tokens", Pool::MeanSqrtLength),
        ("weightedmean_tokens", Pool::WeightedMean),
        ("lasttoken", Pool::LastToken),
    ];

    /// float32 [texts, tokens, width], bool [texts, tokens] with at least one true a text → [texts, width].
    fn pooled(self, states: &Tensor, real: &Tensor) -> Result<Tensor> {
        let weights = real.f_to_kind(Kind::Float)?;
        let lengths = weights.f_sum_dim_intlist([1i64].as_slice(), true, Kind::Float)?;
        Ok(match self {
            Pool::Cls => states.f_select(1, 0)?,
            Pool::Max => {
                let padding = real.f_logical_not()?.f_unsqueeze(-1)?;
                states.f_masked_fill(&padding, f64::NEG_INFINITY)?.f_amax([1i64].as_slice(), false)?
            }
            Pool::Mean => weighed(states, &weights)?.f_div(&lengths)?,
            Pool::MeanSqrtLength => weighed(states, &weights)?.f_div(&lengths.f_sqrt()?)?,
            Pool::WeightedMean => {
                let places = weights.f_cumsum(1, Kind::Float)?.f_mul(&weights)?;
                let total = places.f_sum_dim_intlist([1i64].as_slice(), true, Kind::Float)?;
                weighed(states, &places)?.f_div(&total)?
            }
            Pool::LastToken => {
                let (texts, _, width) = states.size3()?;
                let last = (lengths.f_to_kind(Kind::Int64)? - 1).f_unsqueeze(-1)?.f_expand([texts, 1, width], true)?;
                states.f_gather(1, &last, false)?.f_squeeze_dim(1)?
            }
        })
    }
}

/// Σ over tokens of weight × state.
fn weighed(states: &Tensor, weights: &Tensor) -> Result<Tensor> {
    Ok(states.f_mul(&weights.f_unsqueeze(-1)?)?.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Float)?)
}

/// What a folder asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pooling {
    /// At least one; several are put next to each other.
    pub pools: Vec<Pool>,
    /// Whether vectors are brought to length one.
    pub normalise: bool,
}

impl Default for Pooling {
    /// For a folder that does not say: the mean over the text's tokens.
    fn default() -> Self {
        Self { pools: vec![Pool::Mean], normalise: false }
    }
}

impl Pooling {
    /// The length of a vector.
    pub fn width(&self, states: i64) -> i64 {
        states * self.pools.len() as i64
    }

    /// float32 [texts, tokens, width], bool [texts, tokens] with at least one true a text → float32 [texts, `width()`].
    pub fn pooled(&self, states: &Tensor, real: &Tensor) -> Result<Tensor> {
        let pooled = self.pools.iter().map(|pool| pool.pooled(states, real)).collect::<Result<Vec<_>>>()?;
        let pooled = Tensor::f_cat(&pooled, 1)?;
        if !self.normalise {
            return Ok(pooled);
        }
        let length = pooled.f_square()?.f_sum_dim_intlist([1i64].as_slice(), true, Kind::Float)?.f_sqrt()?;
        Ok(pooled.f_div(&length.f_clamp_min(1e-12)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two texts of two and one token, width 2; the padding holds numbers that would show.
    fn pooled(pools: &[Pool], normalise: bool) -> Vec<Vec<f32>> {
        let states = Tensor::from_slice(&[1f32, -4.0, 3.0, 2.0, -5.0, 6.0, 99.0, 99.0]).view([2, 2, 2]);
        let real = Tensor::from_slice(&[true, true, true, false]).view([2, 2]);
        let pooling = Pooling { pools: pools.to_vec(), normalise };
        Vec::<Vec<f32>>::try_from(pooling.pooled(&states, &real).unwrap()).unwrap()
    }

    #[test]
    fn padding_has_no_part_in_any_vector() {
        let root = 2f32.sqrt();
        let cases: [(Pool, [f32; 2]); 6] = [
            (Pool::Cls, [1.0, -4.0]),
            (Pool::Max, [3.0, 2.0]),
            (Pool::Mean, [2.0, -1.0]),
            (Pool::MeanSqrtLength, [4.0 / root, -2.0 / root]),
            (Pool::WeightedMean, [7.0 / 3.0, 0.0]),
            (Pool::LastToken, [3.0, 2.0]),
        ];
        for (pool, first) in cases {
            let got = pooled(&[pool], false);
            assert!(got[0].iter().zip(first).all(|(a, b)| (a - b).abs() < 1e-6), "{pool:?}: {got:?}");
            assert_eq!(got[1], [-5.0, 6.0], "{pool:?}");
        }
    }

    #[test]
    fn several_vectors_stand_next_to_each_other_and_are_normalised_as_one() {
        assert_eq!(pooled(&[Pool::Cls, Pool::Max], false)[0], [1.0, -4.0, 3.0, 2.0]);
        let normalised = pooled(&[Pool::Cls, Pool::Max], true);
        let squares: f32 = normalised[0].iter().map(|v| v * v).sum();
        assert!((squares - 1.0).abs() < 1e-6, "{normalised:?}");
    }
}
