//! The least value of a smooth function of all weights at once: L-BFGS with backtracking (Nocedal and Wright 2006,
//! algorithms 7.4, 7.5 and 3.1). For the few weights of a head on vectors that stay as they are, where every step can see
//! all rows and no learning rate has to be guessed; what scikit-learn's logistic regression takes, too.

use std::collections::VecDeque;
use tch::Tensor;

use crate::failure::{Failure, Result};

/// Steps that are remembered.
const MEMORY: usize = 10;
/// A step has to bring this share of what the slope promises (Armijo).
const PROMISED_SHARE: f64 = 1e-4;
const HALVINGS_MAX: usize = 20;
/// It is over where no slope is steeper than this, or a step brings less than this share of the value.
const FLAT: f64 = 1e-5;
const GAIN_MIN: f64 = 1e-7;

/// Where it ended.
#[derive(Debug)]
pub struct Least {
    pub at: Tensor,
    pub value: f64,
    pub steps: u32,
}

/// Goes down from `at`, float [weights], at most `steps_max` steps. `of` gives a value and its gradient, and has to be a
/// number at the start; a step to where it is none is halved as one that leads upwards is.
pub fn least(at: Tensor, steps_max: u32, mut of: impl FnMut(&Tensor) -> Result<(f64, Tensor)>) -> Result<Least> {
    let (value, mut gradient) = of(&at)?;
    if !value.is_finite() {
        return Err(Failure::model(format!("the head cannot learn: its first loss is {value}"))
            .hint("look at the encoder's weights: its vectors are no numbers, or gigantic"));
    }
    let mut now = Least { at, value, steps: 0 };
    let mut memory: VecDeque<Pair> = VecDeque::with_capacity(MEMORY);
    while now.steps < steps_max && gradient.abs().max().double_value(&[]) > FLAT {
        let mut direction = downwards(&gradient, &memory)?;
        let mut slope = dot(&direction, &gradient)?;
        // Rounding can turn it upwards, a function that is not convex, too.
        if slope >= 0.0 {
            memory.clear();
            (direction, slope) = (-&gradient, -dot(&gradient, &gradient)?);
        }
        // The first step knows no curvature: its length is one at most.
        let mut length = if memory.is_empty() { (1.0 / (-slope).sqrt()).min(1.0) } else { 1.0 };
        let mut found = None;
        for _ in 0..HALVINGS_MAX {
            let there = now.at.f_add(&direction.f_mul_scalar(length)?)?;
            let (value, gradient) = of(&there)?;
            if value <= now.value + PROMISED_SHARE * length * slope {
                found = Some((there, value, gradient));
                break;
            }
            length /= 2.0;
        }
        let Some((there, value, steeper)) = found else { break };
        let (moved, turned) = (there.f_sub(&now.at)?, steeper.f_sub(&gradient)?);
        let curvature = dot(&moved, &turned)?;
        if curvature > 1e-10 * dot(&turned, &turned)? {
            if memory.len() == MEMORY {
                memory.pop_front();
            }
            memory.push_back(Pair { moved, turned, curvature });
        }
        let gained = now.value - value;
        now = Least { at: there, value, steps: now.steps + 1 };
        gradient = steeper;
        if gained < GAIN_MIN * value.abs() {
            break;
        }
    }
    Ok(now)
}

/// A step and how the gradient changed in it.
struct Pair {
    moved: Tensor,
    turned: Tensor,
    /// Their product, above zero.
    curvature: f64,
}

/// Minus the gradient times the inverse of the curvature that the memory has met.
fn downwards(gradient: &Tensor, memory: &VecDeque<Pair>) -> Result<Tensor> {
    let mut rest = gradient.f_neg()?;
    let mut shares = Vec::with_capacity(memory.len());
    for pair in memory.iter().rev() {
        let share = dot(&pair.moved, &rest)? / pair.curvature;
        rest = rest.f_sub(&pair.turned.f_mul_scalar(share)?)?;
        shares.push(share);
    }
    if let Some(last) = memory.back() {
        rest = rest.f_mul_scalar(last.curvature / dot(&last.turned, &last.turned)?)?;
    }
    for (pair, share) in memory.iter().zip(shares.into_iter().rev()) {
        let back = dot(&pair.turned, &rest)? / pair.curvature;
        rest = rest.f_add(&pair.moved.f_mul_scalar(share - back)?)?;
    }
    Ok(rest)
}

fn dot(a: &Tensor, b: &Tensor) -> Result<f64> {
    Ok(a.f_dot(b)?.f_double_value(&[])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_the_bottom_of_a_narrow_valley() {
        // Rosenbrock's: curved, and a hundred times steeper across than along.
        let of = |at: &Tensor| {
            let (x, y) = (at.double_value(&[0]), at.double_value(&[1]));
            let value = (1.0 - x).powi(2) + 100.0 * (y - x * x).powi(2);
            let slope = [-2.0 * (1.0 - x) - 400.0 * x * (y - x * x), 200.0 * (y - x * x)];
            Ok((value, Tensor::from_slice(&slope)))
        };
        let found = least(Tensor::from_slice(&[-1.2f64, 1.0]), 200, of).unwrap();
        assert!((found.at.double_value(&[0]) - 1.0).abs() < 1e-3 && found.value < 1e-6, "{found:?}");
        assert!(found.steps < 60, "{found:?}");
        let few = least(Tensor::from_slice(&[-1.2f64, 1.0]), 3, of).unwrap();
        assert_eq!(few.steps, 3);
    }

    #[test]
    fn a_step_to_where_there_is_no_number_is_halved() {
        // ln x + 1/x has its least value at one, and none left of zero.
        let of = |at: &Tensor| {
            let x = at.double_value(&[0]);
            Ok((x.ln() + 1.0 / x, Tensor::from_slice(&[1.0 / x - 1.0 / (x * x)])))
        };
        let found = least(Tensor::from_slice(&[0.3f64]), 100, of).unwrap();
        assert!((found.at.double_value(&[0]) - 1.0).abs() < 1e-2, "{found:?}");
        let refused = least(Tensor::from_slice(&[-1.0f64]), 100, of).unwrap_err();
        assert!(refused.message.contains("its first loss is NaN"), "{refused}");
    }
}
