//! Minimises a smooth function of all weights at once: L-BFGS with backtracking (Nocedal and Wright 2006, algorithms
//! 7.4, 7.5 and 3.1). It serves the few weights of a head on fixed vectors, where every step can use all rows and no
//! learning rate has to be guessed. scikit-learn's logistic regression uses it too.

use std::collections::VecDeque;
use tch::Tensor;

use crate::failure::{Failure, Result};

/// The number of steps that approximate the curvature.
const MEMORY: usize = 10;
/// A step must achieve this share of the decrease that the slope promises (Armijo).
const SUFFICIENT_DECREASE: f64 = 1e-4;
const HALVINGS_MAX: usize = 20;
/// The search ends where no slope is steeper than this.
const GRADIENT_TOLERANCE: f64 = 1e-5;
/// The search ends when a step decreases the value by a smaller share than this.
const VALUE_TOLERANCE: f64 = 1e-7;

/// The end of a search.
#[derive(Debug)]
pub(crate) struct Minimum {
    pub(crate) at: Tensor,
    pub(crate) value: f64,
    pub(crate) steps: u32,
}

/// Minimises `objective` from `start`, float [weights], in at most `steps_max` steps. `objective` returns the value and
/// its gradient. The value at the start must be finite; a step to NaN or infinity is halved like one that leads
/// upwards.
pub(crate) fn minimise(
    start: Tensor,
    steps_max: u32,
    mut objective: impl FnMut(&Tensor) -> Result<(f64, Tensor)>,
) -> Result<Minimum> {
    let (value, mut gradient) = objective(&start)?;
    if !value.is_finite() {
        return Err(Failure::model(format!("cannot fit the head: its first loss is {value}"))
            .hint("check the encoder's weights: its vectors are NaN or overflow"));
    }
    let mut best = Minimum { at: start, value, steps: 0 };
    let mut memory: VecDeque<Correction> = VecDeque::with_capacity(MEMORY);
    while best.steps < steps_max && gradient.abs().max().double_value(&[]) > GRADIENT_TOLERANCE {
        let mut direction = descent_direction(&gradient, &memory)?;
        let mut slope = dot(&direction, &gradient)?;
        // Rounding, or a function that is not convex, can turn the direction upwards.
        if slope >= 0.0 {
            memory.clear();
            direction = -&gradient;
            slope = -dot(&gradient, &gradient)?;
        }
        // The first step knows no curvature, so its length is at most one.
        let mut scale = if memory.is_empty() { (1.0 / (-slope).sqrt()).min(1.0) } else { 1.0 };
        let mut accepted = None;
        for _ in 0..HALVINGS_MAX {
            let candidate = best.at.f_add(&direction.f_mul_scalar(scale)?)?;
            let (candidate_value, candidate_gradient) = objective(&candidate)?;
            if candidate_value <= best.value + SUFFICIENT_DECREASE * scale * slope {
                accepted = Some((candidate, candidate_value, candidate_gradient));
                break;
            }
            scale /= 2.0;
        }
        let Some((next, next_value, next_gradient)) = accepted else { break };
        let step = next.f_sub(&best.at)?;
        let gradient_change = next_gradient.f_sub(&gradient)?;
        let curvature = dot(&step, &gradient_change)?;
        if curvature > 1e-10 * dot(&gradient_change, &gradient_change)? {
            if memory.len() == MEMORY {
                memory.pop_front();
            }
            memory.push_back(Correction { step, gradient_change, curvature });
        }
        let decrease = best.value - next_value;
        best = Minimum { at: next, value: next_value, steps: best.steps + 1 };
        gradient = next_gradient;
        if decrease < VALUE_TOLERANCE * next_value.abs() {
            break;
        }
    }
    Ok(best)
}

/// A step, and how it changed the gradient.
struct Correction {
    step: Tensor,
    gradient_change: Tensor,
    /// Their scalar product, above zero.
    curvature: f64,
}

/// Returns minus the gradient times the approximate inverse Hessian.
fn descent_direction(gradient: &Tensor, memory: &VecDeque<Correction>) -> Result<Tensor> {
    let mut direction = gradient.f_neg()?;
    let mut shares = Vec::with_capacity(memory.len());
    for correction in memory.iter().rev() {
        let share = dot(&correction.step, &direction)? / correction.curvature;
        direction = direction.f_sub(&correction.gradient_change.f_mul_scalar(share)?)?;
        shares.push(share);
    }
    if let Some(last) = memory.back() {
        direction = direction.f_mul_scalar(last.curvature / dot(&last.gradient_change, &last.gradient_change)?)?;
    }
    for (correction, share) in memory.iter().zip(shares.into_iter().rev()) {
        let back = dot(&correction.gradient_change, &direction)? / correction.curvature;
        direction = direction.f_add(&correction.step.f_mul_scalar(share - back)?)?;
    }
    Ok(direction)
}

fn dot(a: &Tensor, b: &Tensor) -> Result<f64> {
    Ok(a.f_dot(b)?.f_double_value(&[])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_the_minimum_of_a_narrow_valley() {
        // Rosenbrock's function: curved, and a hundred times steeper across than along.
        let rosenbrock = |at: &Tensor| {
            let (x, y) = (at.double_value(&[0]), at.double_value(&[1]));
            let value = (1.0 - x).powi(2) + 100.0 * (y - x * x).powi(2);
            let slope = [-2.0 * (1.0 - x) - 400.0 * x * (y - x * x), 200.0 * (y - x * x)];
            Ok((value, Tensor::from_slice(&slope)))
        };
        let found = minimise(Tensor::from_slice(&[-1.2f64, 1.0]), 200, rosenbrock).unwrap();
        assert!((found.at.double_value(&[0]) - 1.0).abs() < 1e-3 && found.value < 1e-6, "{found:?}");
        assert!(found.steps < 60, "{found:?}");
        let few = minimise(Tensor::from_slice(&[-1.2f64, 1.0]), 3, rosenbrock).unwrap();
        assert_eq!(few.steps, 3);
    }

    #[test]
    fn a_step_to_nan_is_halved_and_a_start_at_nan_refused() {
        // ln x + 1/x has its minimum at one, and is NaN left of zero.
        let objective = |at: &Tensor| {
            let x = at.double_value(&[0]);
            Ok((x.ln() + 1.0 / x, Tensor::from_slice(&[1.0 / x - 1.0 / (x * x)])))
        };
        let found = minimise(Tensor::from_slice(&[0.3f64]), 100, objective).unwrap();
        assert!((found.at.double_value(&[0]) - 1.0).abs() < 1e-2, "{found:?}");
        let refused = minimise(Tensor::from_slice(&[-1.0f64]), 100, objective).unwrap_err();
        assert!(refused.message.contains("its first loss is NaN"), "{refused}");
    }
}
