//! AdamW (Loshchilov and Hutter 2019, algorithm 2) in tensor operations. The AdamW of tch hides its moments, so a killed
//! training could not resume to the bit with it.
//!
//! A weight without a gradient is treated as one whose gradient is zero: a step then follows from weights, moments and
//! gradients alone, never from which weights have already had a gradient in this process.

use std::collections::BTreeMap;
use tch::{Tensor, nn};

use crate::failure::{Failure, Result};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// Optimizer state of the trainable weights of a store; ordered by name, because norms are summed in that order.
#[derive(Debug)]
pub(crate) struct AdamW {
    weights: BTreeMap<String, Moments>,
    weight_decay: f64,
    /// Factor on the learning rate of a weight, by name; 1 for a weight without an entry.
    rate_factors: BTreeMap<String, f64>,
    /// Steps taken, by which the moments are corrected for their start at zero.
    pub(crate) steps: u64,
}

#[derive(Debug)]
struct Moments {
    weight: Tensor,
    /// Running mean of the gradient.
    first: Tensor,
    /// Running mean of the squared gradient.
    second: Tensor,
}

impl AdamW {
    #[cfg(test)]
    pub(crate) fn new(store: &nn::VarStore, weight_decay: f64) -> Self {
        Self::with_rate_factors(store, weight_decay, BTreeMap::new())
    }

    /// `rate_factors`, by the name of a weight, multiply the learning rate of a step.
    pub(crate) fn with_rate_factors(
        store: &nn::VarStore,
        weight_decay: f64,
        rate_factors: BTreeMap<String, f64>,
    ) -> Self {
        let trained = store.variables().into_iter().filter(|(_, weight)| weight.requires_grad());
        let moments = |weight: Tensor| {
            let (first, second) = tch::no_grad(|| (weight.zeros_like(), weight.zeros_like()));
            Moments { weight, first, second }
        };
        Self {
            weights: trained.map(|(name, weight)| (name, moments(weight))).collect(),
            weight_decay,
            rate_factors,
            steps: 0,
        }
    }

    pub(crate) fn zero_grad(&mut self) {
        self.weights.values_mut().for_each(|m| m.weight.zero_grad());
    }

    /// Multiplies the gradients, for a mean over accumulated batches.
    pub(crate) fn scale(&mut self, share: f64) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for mut gradient in self.weights.values().map(|m| m.weight.grad()).filter(Tensor::defined) {
            let _ = gradient.f_mul_scalar_(share)?;
        }
        Ok(())
    }

    /// Clips the gradients to a norm over all weights; returns the norm before.
    pub(crate) fn clip(&mut self, norm_max: f64) -> Result<f64> {
        let _guard = tch::no_grad_guard();
        let mut gradients: Vec<Tensor> =
            self.weights.values().map(|m| m.weight.grad()).filter(Tensor::defined).collect();
        let norms: Vec<Tensor> = gradients.iter().map(Tensor::f_norm).collect::<Result<_, _>>()?;
        if norms.is_empty() {
            return Ok(0.0);
        }
        let norm = Tensor::f_stack(&norms, 0)?.f_norm()?.f_double_value(&[])?;
        let share = norm_max / (norm + 1e-6);
        if share < 1.0 {
            for gradient in &mut gradients {
                let _ = gradient.f_mul_scalar_(share)?;
            }
        }
        Ok(norm)
    }

    /// Takes one step against the gradients.
    pub(crate) fn step(&mut self, learning_rate: f64) -> Result<()> {
        let _guard = tch::no_grad_guard();
        self.steps += 1;
        let correction = |beta: f64| 1.0 - beta.powi(self.steps.min(i32::MAX as u64) as i32);
        let first_correction = correction(BETA1);
        let second_correction = correction(BETA2);
        for (name, m) in &mut self.weights {
            let learning_rate = learning_rate * self.rate_factors.get(name).copied().unwrap_or(1.0);
            let grad = m.weight.grad();
            let gradient = if grad.defined() { grad } else { m.weight.zeros_like() };
            let _ = m.first.f_lerp_(&gradient, 1.0 - BETA1)?;
            let _ = m.second.f_mul_scalar_(BETA2)?;
            let _ = m.second.f_add_(&(gradient.f_square()? * (1.0 - BETA2)))?;
            let spread = m.second.f_sqrt()? / second_correction.sqrt() + EPSILON;
            let _ = m.weight.f_mul_scalar_(1.0 - learning_rate * self.weight_decay)?;
            let _ = m.weight.f_sub_(&(m.first.f_div(&spread)? * (learning_rate / first_correction)))?;
        }
        Ok(())
    }

    /// Both moments of every weight, named `first/…` and `second/…`; they share memory with the optimizer.
    pub(crate) fn moments(&self) -> Vec<(String, Tensor)> {
        let named = |(name, m): (&String, &Moments)| {
            [(format!("first/{name}"), m.first.shallow_clone()), (format!("second/{name}"), m.second.shallow_clone())]
        };
        self.weights.iter().flat_map(named).collect()
    }

    /// Restores saved moments and the number of steps taken.
    pub(crate) fn restore(&mut self, steps: u64, take: &mut dyn FnMut(&str) -> Option<Tensor>) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for (name, m) in &mut self.weights {
            for (kind, moment) in [("first", &mut m.first), ("second", &mut m.second)] {
                let name = format!("{kind}/{name}");
                let saved = take(&name).ok_or_else(|| Failure::model(format!("{name} is missing")))?;
                moment.f_copy_(&saved).map_err(|e| Failure::from(e).at(&name))?;
            }
        }
        self.steps = steps;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use tch::nn::OptimizerConfig;
    use tch::{Device, Kind};

    /// A small regression that starts from the same weights each time.
    fn problem() -> (nn::VarStore, impl Fn(&nn::VarStore, u64) -> Tensor) {
        let store = nn::VarStore::new(Device::Cpu);
        let _ = store.root().var_copy("a", &Tensor::from_slice(&[0.5f32, -1.0, 2.0]));
        let _ = store.root().var_copy("b", &Tensor::from_slice(&[0.1f32]));
        let loss = |store: &nn::VarStore, step: u64| {
            let w = store.variables();
            let x = Tensor::from_slice(&[1.0f32, (step as f32).sin(), 0.3 * step as f32]);
            ((&w["a"] * x).sum(Kind::Float) + &w["b"] - 3.0).square().sum(Kind::Float)
        };
        (store, loss)
    }

    #[test]
    fn gradients_are_clipped_to_a_norm_over_all_weights() {
        let (store, _) = problem();
        let mut optimizer = AdamW::with_rate_factors(&store, 0.0, BTreeMap::new());
        // The norm of (0, 0, 3) and (4).
        let slopes = [Tensor::from_slice(&[0f32, 0.0, 3.0]), Tensor::from_slice(&[4f32])];
        let w = store.variables();
        ((&w["a"] * &slopes[0]).sum(Kind::Float) + (&w["b"] * &slopes[1]).sum(Kind::Float)).backward();
        let gradients = || Vec::<f32>::try_from(Tensor::cat(&[w["a"].grad(), w["b"].grad()], 0)).unwrap();
        assert!((optimizer.clip(10.0).unwrap() - 5.0).abs() < 1e-6);
        assert_eq!(gradients(), [0.0, 0.0, 3.0, 4.0]);
        assert!((optimizer.clip(1.0).unwrap() - 5.0).abs() < 1e-6);
        let clipped = gradients();
        assert!(clipped.iter().zip([0.0, 0.0, 0.6, 0.8]).all(|(a, b)| (a - b).abs() < 1e-6), "{clipped:?}");
    }

    fn values(store: &nn::VarStore) -> Vec<f32> {
        let w = store.variables();
        Vec::try_from(Tensor::cat(&[&w["a"], &w["b"]], 0)).unwrap()
    }

    fn steps(store: &nn::VarStore, ours: &mut AdamW, loss: impl Fn(&nn::VarStore, u64) -> Tensor, count: u64) {
        for _ in 0..count {
            ours.zero_grad();
            loss(store, ours.steps).backward();
            ours.clip(1.0).unwrap();
            ours.step(0.05).unwrap();
        }
    }

    #[test]
    fn it_takes_the_steps_of_the_adamw_of_libtorch() {
        let (theirs, loss) = problem();
        let mut optimizer = nn::AdamW { wd: 0.1, ..Default::default() }.build(&theirs, 0.05).unwrap();
        for step in 0..40 {
            optimizer.zero_grad();
            loss(&theirs, step).backward();
            optimizer.clip_grad_norm(1.0);
            optimizer.step();
        }
        let (store, loss) = problem();
        steps(&store, &mut AdamW::new(&store, 0.1), loss, 40);
        for (ours, theirs) in values(&store).iter().zip(values(&theirs)) {
            assert!((ours - theirs).abs() < 1e-5, "{ours} {theirs}");
        }
    }

    #[test]
    fn the_first_step_has_the_size_of_the_learning_rate() {
        let store = nn::VarStore::new(Device::Cpu);
        let weight = store.root().var_copy("w", &Tensor::from_slice(&[1.0f32, 1.0]));
        let unmoved = store.root().var_copy("unmoved", &Tensor::from_slice(&[1.0f32]));
        let mut adamw = AdamW::new(&store, 0.5);
        (&weight * Tensor::from_slice(&[1000.0f32, -0.001])).sum(Kind::Float).backward();
        adamw.step(0.1).unwrap();
        // By hand: 1 · (1 - 0.1 · 0.5) decayed, less 0.1 in the direction of the gradient's sign.
        let moved = Vec::<f32>::try_from(&weight).unwrap();
        assert!((moved[0] - 0.85).abs() < 1e-5 && (moved[1] - 1.05).abs() < 1e-5, "{moved:?}");
        assert!((unmoved.double_value(&[0]) - 0.95).abs() < 1e-6, "no gradient is a gradient of zero");
    }

    #[test]
    fn a_rate_factor_scales_the_steps_of_its_weight() {
        let store = nn::VarStore::new(Device::Cpu);
        let slow = store.root().zeros("slow", &[1]);
        let fast = store.root().zeros("fast", &[1]);
        let mut adamw = AdamW::with_rate_factors(&store, 0.0, BTreeMap::from([("slow".to_string(), 0.25)]));
        (&slow + &fast).sum(Kind::Float).backward();
        adamw.scale(0.5).unwrap();
        assert_eq!(fast.grad().double_value(&[0]), 0.5);
        adamw.step(0.1).unwrap();
        let (slow, fast) = (slow.double_value(&[0]), fast.double_value(&[0]));
        assert!((slow + 0.025).abs() < 1e-6 && (fast + 0.1).abs() < 1e-6, "{slow} {fast}");
    }

    #[test]
    fn with_its_moments_restored_it_continues_to_the_bit() {
        let (whole, loss) = problem();
        steps(&whole, &mut AdamW::new(&whole, 0.1), &loss, 30);
        let (store, _) = problem();
        let mut first = AdamW::new(&store, 0.1);
        steps(&store, &mut first, &loss, 13);
        let mut saved: HashMap<String, Tensor> =
            first.moments().into_iter().map(|(name, t)| (name, t.copy())).collect();
        let mut second = AdamW::new(&store, 0.1);
        second.restore(13, &mut |name| saved.remove(name)).unwrap();
        store.variables().values_mut().for_each(Tensor::zero_grad);
        steps(&store, &mut second, &loss, 17);
        assert_eq!(values(&store), values(&whole));
        let missing = second.restore(1, &mut |_| None).unwrap_err();
        assert!(missing.message.contains("first/a is missing"), "{missing}");
    }
}
