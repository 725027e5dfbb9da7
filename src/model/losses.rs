//! Losses as formulas on tensors. They return one value per element unless stated otherwise, so that callers weight and
//! average them.
//!
//! The tests below compare every value and gradient with plain arithmetic. To add a loss: a function here with its source,
//! a reference in the tests, a name in `config::networks`, an arm where the names are matched (`training/objective.rs`).

use tch::{Kind, Tensor};

/// Returns the binary cross-entropy of logits; `positive_weight` broadcasts to the logits and weights label 1.
pub(crate) fn cross_entropy(logits: &Tensor, labels: &Tensor, positive_weight: Option<&Tensor>) -> Tensor {
    let positive = labels * logits.log_sigmoid();
    let negative = (1.0 - labels) * (-logits).log_sigmoid();
    let likelihood: Tensor = match positive_weight {
        Some(weight) => positive * weight + negative,
        None => positive + negative,
    };
    -likelihood
}

/// Returns the focal loss of logits (Lin et al. 2017, eq. 4): cross-entropy times (1 - p of the label)^gamma.
pub(crate) fn focal(logits: &Tensor, labels: &Tensor, gamma: f64) -> Tensor {
    let p = logits.sigmoid();
    let missed: Tensor = 1.0 - &p;
    let positive = labels * missed.pow_tensor_scalar(gamma) * logits.log_sigmoid();
    let negative = (1.0 - labels) * p.pow_tensor_scalar(gamma) * (-logits).log_sigmoid();
    let weighted: Tensor = positive + negative;
    -weighted
}

/// Returns one minus the soft intersection over union of each column of logits (Rahman and Wang 2016), float [columns].
/// One pseudo-count on both sides keeps a column without positives defined; the loss then rewards low probabilities.
pub(crate) fn soft_iou(logits: &Tensor, labels: &Tensor) -> Tensor {
    soft_iou_of_probabilities(&logits.sigmoid(), labels)
}

/// Returns [`soft_iou`] of probabilities instead of logits.
pub(crate) fn soft_iou_of_probabilities(p: &Tensor, labels: &Tensor) -> Tensor {
    let sum = |t: Tensor| t.sum_dim_intlist(0i64, false, None::<Kind>);
    let intersection = sum(p * labels);
    let union = sum(p + labels - p * labels);
    1.0 - (intersection + 1.0) / (union + 1.0)
}

pub(crate) fn squared_error(forecast: &Tensor, actual: &Tensor) -> Tensor {
    (forecast - actual).square()
}

pub(crate) fn absolute_error(forecast: &Tensor, actual: &Tensor) -> Tensor {
    (forecast - actual).abs()
}

/// Returns the root of the mean squared error over all elements: one number. The gradient of the root is infinite at zero
/// error, so 1e-9 is added to the mean.
pub(crate) fn root_mean_squared_error(forecast: &Tensor, actual: &Tensor) -> Tensor {
    (squared_error(forecast, actual).mean(None::<Kind>) + 1e-9).sqrt()
}

/// Returns the Huber loss (Huber 1964): quadratic up to an error of `delta`, linear beyond.
pub(crate) fn huber(forecast: &Tensor, actual: &Tensor, delta: f64) -> Tensor {
    let error = absolute_error(forecast, actual);
    let within = error.clamp_max(delta);
    &within * (&error - &within * 0.5)
}

/// Returns the pinball loss (Koenker and Bassett 1978) of quantiles [.., levels] for actual values [.., 1].
pub(crate) fn pinball(quantiles: &Tensor, actual: &Tensor, levels: &Tensor) -> Tensor {
    let error = actual - quantiles;
    (&error * levels).maximum(&(&error * (levels - 1.0)))
}

/// Returns the Poisson negative log-likelihood without the term that depends on the actual count only. `mean` > 0.
pub(crate) fn poisson(mean: &Tensor, actual: &Tensor) -> Tensor {
    mean - actual * mean.log()
}

/// Returns the Tweedie deviance loss for 1 < `power` < 2: compound Poisson-gamma, many zeros and a long tail (Jørgensen 1987).
/// `mean` > 0.
pub(crate) fn tweedie(mean: &Tensor, actual: &Tensor, power: f64) -> Tensor {
    mean.pow_tensor_scalar(2.0 - power) / (2.0 - power) - actual * mean.pow_tensor_scalar(1.0 - power) / (1.0 - power)
}

/// Returns the negative binomial negative log-likelihood with variance mean + mean² / `size` (DeepAR, Salinas et al. 2020).
/// `mean`, `size` > 0.
pub(crate) fn negative_binomial(mean: &Tensor, size: &Tensor, actual: &Tensor) -> Tensor {
    let total = (mean + size).log();
    (actual + 1.0).lgamma() + size.lgamma()
        - (actual + size).lgamma()
        - size * (size.log() - &total)
        - actual * (mean.log() - total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::demand::counts::ln_gamma;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    const N: usize = 12;

    fn draw(seed: u64, low: f64, high: f64) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..N).map(|_| rng.random_range(low..high)).collect()
    }

    fn values(tensor: &Tensor) -> Vec<f64> {
        Vec::<f64>::try_from(&tensor.contiguous().view([-1])).unwrap()
    }

    fn sigmoid(x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }

    /// Asserts that the sum of `loss` and its gradient equal `reference`, which is plain arithmetic, and its central
    /// differences.
    fn assert_agrees(at: &[f64], loss: impl Fn(&Tensor) -> Tensor, reference: impl Fn(&[f64]) -> f64) {
        let leaf = Tensor::from_slice(at).set_requires_grad(true);
        let value = loss(&leaf).sum(Kind::Double);
        value.backward();
        let wanted = reference(at);
        assert!((value.double_value(&[]) - wanted).abs() < 1e-9 * wanted.abs().max(1.0), "{value:?}, {wanted}");
        for (i, got) in values(&leaf.grad()).into_iter().enumerate() {
            let moved = |by: f64| {
                let mut at = at.to_vec();
                at[i] += by;
                reference(&at)
            };
            let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            assert!((got - slope).abs() < 1e-6 * slope.abs().max(1.0), "gradient {i}: {got}, {slope}");
        }
    }

    /// Half of the labels are 1; the others 0, one of them smoothed.
    fn labels() -> Vec<f64> {
        (0..N).map(|i| if i == 3 { 0.1 } else { f64::from(u8::from(i % 2 == 0)) }).collect()
    }

    #[test]
    fn cross_entropy_with_and_without_class_weights() {
        let y = labels();
        let raw = draw(1, -4.0, 4.0);
        let of = |x: f64, y: f64, w: f64| -(w * y * sigmoid(x).ln() + (1.0 - y) * (1.0 - sigmoid(x)).ln());
        let target = Tensor::from_slice(&y);
        assert_agrees(
            &raw,
            |x| cross_entropy(x, &target, None),
            |x| x.iter().zip(&y).map(|(&x, &y)| of(x, y, 1.0)).sum(),
        );
        let weight = Tensor::from_slice(&[7.5f64]);
        assert_agrees(
            &raw,
            |x| cross_entropy(x, &target, Some(&weight)),
            |x| x.iter().zip(&y).map(|(&x, &y)| of(x, y, 7.5)).sum(),
        );
    }

    #[test]
    fn cross_entropy_of_a_confident_mistake_is_finite() {
        let raw = Tensor::from_slice(&[200f32, -200.0]);
        let labels = Tensor::from_slice(&[0f32, 1.0]);
        assert_eq!(cross_entropy(&raw, &labels, None).sum(Kind::Float).double_value(&[]), 400.0);
    }

    #[test]
    fn focal_loss() {
        let y = labels();
        let raw = draw(2, -4.0, 4.0);
        let target = Tensor::from_slice(&y);
        for gamma in [0.0, 0.5, 2.0] {
            let of = |x: f64, y: f64| {
                let p = sigmoid(x);
                -(y * (1.0 - p).powf(gamma) * p.ln() + (1.0 - y) * p.powf(gamma) * (1.0 - p).ln())
            };
            assert_agrees(&raw, |x| focal(x, &target, gamma), |x| x.iter().zip(&y).map(|(&x, &y)| of(x, y)).sum());
        }
    }

    #[test]
    fn soft_iou_of_each_column() {
        let y = labels();
        let raw = draw(3, -4.0, 4.0);
        let target = Tensor::from_slice(&y).view([-1, 3]);
        let reference = |x: &[f64]| -> f64 {
            (0..3)
                .map(|c| {
                    let mut intersection = 1.0;
                    let mut union = 1.0;
                    for row in 0..N / 3 {
                        let p = sigmoid(x[row * 3 + c]);
                        let label = y[row * 3 + c];
                        intersection += p * label;
                        union += p + label - p * label;
                    }
                    1.0 - intersection / union
                })
                .sum()
        };
        assert_agrees(&raw, |x| soft_iou(&x.view([-1, 3]), &target), reference);
    }

    #[test]
    fn squared_absolute_and_root_mean_squared() {
        let forecast = draw(4, -5.0, 5.0);
        let actual = draw(5, -5.0, 5.0);
        let target = Tensor::from_slice(&actual);
        let errors = |x: &[f64]| -> Vec<f64> { x.iter().zip(&actual).map(|(f, a)| f - a).collect() };
        assert_agrees(&forecast, |x| squared_error(x, &target), |x| errors(x).iter().map(|m| m * m).sum());
        assert_agrees(&forecast, |x| absolute_error(x, &target), |x| errors(x).iter().map(|m| m.abs()).sum());
        assert_agrees(
            &forecast,
            |x| root_mean_squared_error(x, &target),
            |x| (errors(x).iter().map(|m| m * m).sum::<f64>() / N as f64 + 1e-9).sqrt(),
        );
        let exact = Tensor::from_slice(&actual).set_requires_grad(true);
        root_mean_squared_error(&exact, &target).backward();
        assert!(values(&exact.grad()).iter().all(|g| g.is_finite()));
    }

    #[test]
    fn huber_loss() {
        let forecast = draw(6, -5.0, 5.0);
        let actual = draw(7, -5.0, 5.0);
        let target = Tensor::from_slice(&actual);
        for delta in [0.5, 1.0, 3.0] {
            let of = |m: f64| if m.abs() <= delta { 0.5 * m * m } else { delta * (m.abs() - 0.5 * delta) };
            let reference = |x: &[f64]| x.iter().zip(&actual).map(|(f, a)| of(f - a)).sum();
            assert_agrees(&forecast, |x| huber(x, &target, delta), reference);
        }
    }

    #[test]
    fn pinball_loss_equals_the_metric() {
        let quantiles = draw(8, 0.0, 9.0);
        let levels = [0.05, 0.5, 0.9];
        let actual = [3.0, 0.0, 7.5, 2.0];
        let tensors = (Tensor::from_slice(&actual).view([4, 1]), Tensor::from_slice(&levels));
        let reference =
            |x: &[f64]| -> f64 { (0..N).map(|i| crate::metrics::pinball(levels[i % 3], x[i], actual[i / 3])).sum() };
        assert_agrees(&quantiles, |x| pinball(&x.view([4, 3]), &tensors.0, &tensors.1), reference);
    }

    #[test]
    fn poisson_and_tweedie() {
        let mean = draw(9, 0.1, 6.0);
        let actual = draw(10, 0.0, 6.0);
        let target = Tensor::from_slice(&actual);
        let sum = |x: &[f64], of: &dyn Fn(f64, f64) -> f64| x.iter().zip(&actual).map(|(&m, &a)| of(m, a)).sum::<f64>();
        assert_agrees(&mean, |x| poisson(x, &target), |x| sum(x, &|m, a| m - a * m.ln()));
        for power in [1.2, 1.5, 1.8] {
            let of = |m: f64, a: f64| m.powf(2.0 - power) / (2.0 - power) - a * m.powf(1.0 - power) / (1.0 - power);
            assert_agrees(&mean, |x| tweedie(x, &target, power), |x| sum(x, &of));
        }
    }

    #[test]
    fn negative_binomial_in_its_mean_and_its_size() {
        let mean = draw(11, 0.1, 9.0);
        let size = draw(12, 0.2, 5.0);
        let actual: Vec<f64> = draw(13, 0.0, 12.0).iter().map(|a| a.floor()).collect();
        let of = |m: f64, r: f64, y: f64| {
            let p = r / (r + m);
            -(ln_gamma(y + r) - ln_gamma(r) - ln_gamma(y + 1.0) + r * p.ln() + y * (1.0 - p).ln())
        };
        let (m, r, y) = (Tensor::from_slice(&mean), Tensor::from_slice(&size), Tensor::from_slice(&actual));
        let all = |mean: &[f64], size: &[f64]| (0..N).map(|i| of(mean[i], size[i], actual[i])).sum::<f64>();
        assert_agrees(&mean, |x| negative_binomial(x, &r, &y), |x| all(x, &size));
        assert_agrees(&size, |x| negative_binomial(&m, x, &y), |x| all(&mean, x));
    }
}
