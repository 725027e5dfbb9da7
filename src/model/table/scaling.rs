//! Standardises numbers by a mean and a deviation.

/// Standardised numbers are clamped to this many deviations.
pub(super) const DEVIATIONS_MAX: f32 = 8.0;

/// Returns the standardised number, clamped to [`DEVIATIONS_MAX`].
pub(super) fn standardise(value: f32, mean: f32, deviation: f32) -> f32 {
    ((value - mean) / deviation).clamp(-DEVIATIONS_MAX, DEVIATIONS_MAX)
}

/// Returns the mean and the deviation of some numbers. The deviation of a constant is `f32::MAX`: a column that never
/// varied in training carries no information, so later values must not either.
pub(super) fn fit_scale(values: impl Iterator<Item = f64> + Clone) -> (f32, f32) {
    let count = values.clone().count().max(1) as f64;
    let mean = values.clone().sum::<f64>() / count;
    let deviation = (values.map(|value| (value - mean) * (value - mean)).sum::<f64>() / count).sqrt();
    let is_constant = deviation <= 1e-6 * mean.abs().max(1e-3);
    (mean as f32, if is_constant { f32::MAX } else { deviation as f32 })
}
