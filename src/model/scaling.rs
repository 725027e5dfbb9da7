//! Standardisation of tabular features, and the units of the amount heads.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::failure::Result;
use crate::metrics::moments::Moments;

/// Constants learnt from the training set that scale tabular features and amounts; stored in the bundle's card.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    /// Mean of each feature; never NaN.
    pub mean: Vec<f32>,
    /// Standard deviation of each feature; `f32::MAX` for a constant one.
    pub deviation: Vec<f32>,
    /// Mean spend of a buying user: the unit of the spend head.
    pub spend: f64,
    /// Mean units of a buying user: the unit of the units head. Wholesalers buy by the thousand.
    pub units: f64,
}

impl Scaling {
    /// Builds the scaling from the moments of each feature. A feature that is constant in training carries no information,
    /// even if it varies later: its deviation becomes `f32::MAX`, which scales every value to zero.
    pub(crate) fn from_moments(features: &[Moments], units: f64, spend: f64) -> Self {
        let deviation = |moments: &Moments| {
            let deviation = moments.deviation();
            let constant = deviation <= 1e-6 * moments.mean().abs().max(1.0);
            if constant { f32::MAX } else { deviation.max(1e-3) as f32 }
        };
        Self {
            mean: features.iter().map(|moments| moments.mean() as f32).collect(),
            deviation: features.iter().map(deviation).collect(),
            spend: spend.max(1e-6),
            units: units.max(1e-6),
        }
    }

    /// Returns the inputs of the heads besides the encoder state, on the CPU, float32 [users, 2 × features + 2]: standardised
    /// values, their null flags, idle time, its null flag.
    ///
    /// `tabular` is row-major [users, features]; `idle_log_hours` is [users]. NaN is null.
    pub(crate) fn head_inputs(&self, tabular: &[f32], idle_log_hours: &[f32]) -> Result<Tensor> {
        let users = idle_log_hours.len() as i64;
        let features = self.mean.len() as i64;
        let mean = Tensor::f_from_slice(&self.mean)?;
        let deviation = Tensor::f_from_slice(&self.deviation)?;
        let values = Tensor::f_from_slice(tabular)?.f_view([users, features])?;
        let idle = Tensor::f_from_slice(idle_log_hours)?.f_view([users, 1])?;
        let null_flags = |of: &Tensor| of.f_isnan()?.f_to_kind(Kind::Float);
        let scaled = ((&values - mean) / deviation).f_clamp(-8.0, 8.0)?.f_nan_to_num(0.0, 8.0, -8.0)?;
        let scaled_idle = (&idle / 4.0).f_nan_to_num(0.0, None, None)?;
        Ok(Tensor::f_cat(&[scaled, null_flags(&values)?, scaled_idle, null_flags(&idle)?], 1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constant_and_null_features_are_scaled_to_zero() {
        let tabular = [7.0, f32::NAN, 1.0, 7.0, f32::NAN, 3.0].to_vec();
        let mut moments = vec![Moments::default(); 3];
        tabular.iter().enumerate().for_each(|(at, &value)| moments[at % 3].add(value.into()));
        let scaling = Scaling::from_moments(&moments, 1.0, 1.0);
        assert!(scaling.mean.iter().chain(&scaling.deviation).all(|v| v.is_finite()));
        let parsed: Scaling = serde_json::from_str(&serde_json::to_string(&scaling).unwrap()).unwrap();
        assert_eq!(parsed, scaling);
        let scaled = scaling.head_inputs(&[1000.0, 1000.0, 3.0], &[2.0]).unwrap().view([-1]);
        let scaled = Vec::<f32>::try_from(&scaled).unwrap();
        assert!(scaled[0].abs() < 1e-30 && scaled[1].abs() < 1e-30, "{scaled:?}");
        assert_eq!(scaled[2..], [1.0, 0.0, 0.0, 0.0, 0.5, 0.0]);
        let nulls = scaling.head_inputs(&[f32::NAN; 3], &[f32::NAN]).unwrap().view([-1]);
        assert_eq!(Vec::<f32>::try_from(&nulls).unwrap(), [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0]);
    }
}
