//! Test helpers: weights by a formula, and the fixtures of tests/fixtures/vision. Its make.py has the same formula, and
//! both must agree to the bit: the weights of a ResNet are too large to store.

use std::collections::HashMap;
use std::path::PathBuf;
use tch::{Tensor, nn};

use crate::model::weights;

pub(crate) fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/vision")).join(name)
}

/// Reads a picture's bytes.
pub(crate) fn picture(name: &str) -> Vec<u8> {
    std::fs::read(fixture("pictures").join(name)).unwrap()
}

/// Reads the expected tensors of a fixture file.
pub(crate) fn expected(name: &str) -> HashMap<String, Tensor> {
    weights::tensors_from_bytes(&std::fs::read(fixture(name)).unwrap()).unwrap()
}

/// Returns numbers in [0, 1): FNV-1a of the name seeds splitmix64, whose words give their upper 24 bits.
pub(crate) fn uniform(name: &str, count: usize) -> impl Iterator<Item = f64> {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
    let seed = name.bytes().fold(0xCBF2_9CE4_8422_2325, fnv);
    (1..=count as u64).map(move |i| {
        let mut z = seed.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f64 / f64::from(1 << 24)
    })
}

/// Returns weights on scales that neither vanish nor explode; variances are positive.
fn tensor(name: &str, shape: &[i64]) -> Tensor {
    let fan_in: i64 = shape[1..].iter().product();
    let bound = (6.0 / fan_in as f64).sqrt();
    let scale = |u: f64| match name {
        n if n.ends_with("running_var") => 0.5 + u,
        n if n.ends_with("running_mean") => (2.0 * u - 1.0) * 0.2,
        n if n.ends_with("bias") => (2.0 * u - 1.0) * 0.1,
        _ if shape.len() == 1 => 0.25 + 0.5 * u,
        _ => (2.0 * u - 1.0) * bound,
    };
    let values: Vec<f32> = uniform(name, shape.iter().product::<i64>() as usize).map(|u| scale(u) as f32).collect();
    Tensor::from_slice(&values).view(shape)
}

/// Fills all variables of a store with the formula's numbers.
pub(crate) fn fill(store: &nn::VarStore) {
    for (name, mut variable) in store.variables() {
        tch::no_grad(|| variable.copy_(&tensor(&name, &variable.size())));
    }
}

/// Returns float32 [n, 3, height, width]: noise plus slopes that differ by picture and channel, since noise alone
/// hardly changes a pooled vector.
pub(crate) fn input(shape: [i64; 4]) -> Tensor {
    let mut noise = uniform("input", shape.iter().product::<i64>() as usize);
    let mut values = Vec::new();
    for n in 0..shape[0] {
        for c in 0..3 {
            for (y, x) in (0..shape[2]).flat_map(|y| (0..shape[3]).map(move |x| (y, x))) {
                let (across, down) = (x as f64 / shape[3] as f64, y as f64 / shape[2] as f64);
                let slopes = ((n + 1) * (c - 1)) as f64 * across + (2 * n - 1) as f64 * down;
                values.push(((2.0 * noise.next().unwrap() - 1.0) + slopes) as f32);
            }
        }
    }
    Tensor::from_slice(&values).view(shape)
}

/// Returns the largest absolute difference of two tensors.
pub(crate) fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a.to_kind(tch::Kind::Double) - b.to_kind(tch::Kind::Double)).abs().max().double_value(&[])
}
