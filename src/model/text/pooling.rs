//! Pools the hidden states of a text's tokens into one vector, by the modes of sentence-transformers.

use tch::{Kind, Tensor};

use crate::failure::Result;

/// A way to turn the states of a text's tokens into one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PoolingMode {
    /// The first token's state.
    Cls,
    Max,
    Mean,
    /// The sum divided by the square root of the number of tokens.
    MeanSqrtLength,
    /// The mean weighted by position, from 1.
    WeightedMean,
    LastToken,
}

impl PoolingMode {
    /// The names in `1_Pooling/config.json`, in the order in which several modes are concatenated.
    pub(crate) const NAMES: [(&'static str, PoolingMode); 6] = [
        ("cls_token", PoolingMode::Cls),
        ("max_tokens", PoolingMode::Max),
        ("mean_tokens", PoolingMode::Mean),
        ("mean_sqrt_len_tokens", PoolingMode::MeanSqrtLength),
        ("weightedmean_tokens", PoolingMode::WeightedMean),
        ("lasttoken", PoolingMode::LastToken),
    ];

    /// Maps states, float32 [texts, tokens, width], to float32 [texts, width]. `is_token` is bool [texts, tokens] with
    /// at least one token per text.
    fn pool(self, states: &Tensor, is_token: &Tensor) -> Result<Tensor> {
        let weights = is_token.f_to_kind(Kind::Float)?;
        let lengths = weights.f_sum_dim_intlist([1i64].as_slice(), true, Kind::Float)?;
        Ok(match self {
            PoolingMode::Cls => states.f_select(1, 0)?,
            PoolingMode::Max => {
                let padding = is_token.f_logical_not()?.f_unsqueeze(-1)?;
                states.f_masked_fill(&padding, f64::NEG_INFINITY)?.f_amax([1i64].as_slice(), false)?
            }
            PoolingMode::Mean => weighted_sum(states, &weights)?.f_div(&lengths)?,
            PoolingMode::MeanSqrtLength => weighted_sum(states, &weights)?.f_div(&lengths.f_sqrt()?)?,
            PoolingMode::WeightedMean => {
                let places = weights.f_cumsum(1, Kind::Float)?.f_mul(&weights)?;
                let total = places.f_sum_dim_intlist([1i64].as_slice(), true, Kind::Float)?;
                weighted_sum(states, &places)?.f_div(&total)?
            }
            PoolingMode::LastToken => {
                let (texts, _, width) = states.size3()?;
                let last = (lengths.f_to_kind(Kind::Int64)? - 1).f_unsqueeze(-1)?.f_expand([texts, 1, width], true)?;
                states.f_gather(1, &last, false)?.f_squeeze_dim(1)?
            }
        })
    }
}

/// Returns Σ weight × state over the tokens.
fn weighted_sum(states: &Tensor, weights: &Tensor) -> Result<Tensor> {
    Ok(states.f_mul(&weights.f_unsqueeze(-1)?)?.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Float)?)
}

/// Pooling of states that a folder declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pooling {
    /// At least one; the vectors of several modes are concatenated.
    pub(crate) modes: Vec<PoolingMode>,
    /// Scales vectors to length one.
    pub(crate) normalise: bool,
}

impl Default for Pooling {
    /// The mean over the text's tokens, for folders without a pooling configuration.
    fn default() -> Self {
        Self { modes: vec![PoolingMode::Mean], normalise: false }
    }
}

impl Pooling {
    /// The length of a vector.
    pub(crate) fn width(&self, states: i64) -> i64 {
        states * self.modes.len() as i64
    }

    /// A stable text of the settings. It is part of the hash of a folder, so changing it recomputes all cached vectors.
    pub(crate) fn fingerprint(&self) -> String {
        format!("Pooling {{ pools: {:?}, normalise: {} }}", self.modes, self.normalise)
    }

    /// Maps states, float32 [texts, tokens, width], to float32 [texts, `width()`]. `is_token` is bool [texts, tokens]
    /// with at least one token per text.
    pub(crate) fn pool(&self, states: &Tensor, is_token: &Tensor) -> Result<Tensor> {
        let by_mode = self.modes.iter().map(|mode| mode.pool(states, is_token)).collect::<Result<Vec<_>>>()?;
        let pooled = Tensor::f_cat(&by_mode, 1)?;
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

    /// Pools two texts of two and one token, of width 2. The padding holds numbers that would show in a vector.
    fn pool(modes: &[PoolingMode], normalise: bool) -> Vec<Vec<f32>> {
        let states = Tensor::from_slice(&[1f32, -4.0, 3.0, 2.0, -5.0, 6.0, 99.0, 99.0]).view([2, 2, 2]);
        let is_token = Tensor::from_slice(&[true, true, true, false]).view([2, 2]);
        let pooling = Pooling { modes: modes.to_vec(), normalise };
        Vec::<Vec<f32>>::try_from(pooling.pool(&states, &is_token).unwrap()).unwrap()
    }

    #[test]
    fn padding_does_not_change_any_vector() {
        let root = 2f32.sqrt();
        let cases: [(PoolingMode, [f32; 2]); 6] = [
            (PoolingMode::Cls, [1.0, -4.0]),
            (PoolingMode::Max, [3.0, 2.0]),
            (PoolingMode::Mean, [2.0, -1.0]),
            (PoolingMode::MeanSqrtLength, [4.0 / root, -2.0 / root]),
            (PoolingMode::WeightedMean, [7.0 / 3.0, 0.0]),
            (PoolingMode::LastToken, [3.0, 2.0]),
        ];
        for (mode, first) in cases {
            let got = pool(&[mode], false);
            assert!(got[0].iter().zip(first).all(|(a, b)| (a - b).abs() < 1e-6), "{mode:?}: {got:?}");
            assert_eq!(got[1], [-5.0, 6.0], "{mode:?}");
        }
    }

    #[test]
    fn several_modes_are_concatenated_and_normalised_as_one() {
        assert_eq!(pool(&[PoolingMode::Cls, PoolingMode::Max], false)[0], [1.0, -4.0, 3.0, 2.0]);
        let pooling = Pooling { modes: vec![PoolingMode::Cls, PoolingMode::Mean], normalise: true };
        assert_eq!(pooling.fingerprint(), "Pooling { pools: [Cls, Mean], normalise: true }");
        let normalised = pool(&[PoolingMode::Cls, PoolingMode::Max], true);
        let squares: f32 = normalised[0].iter().map(|v| v * v).sum();
        assert!((squares - 1.0).abs() < 1e-6, "{normalised:?}");
    }
}
