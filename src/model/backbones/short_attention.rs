//! Attention over short sequences on the CPU, without gradients: softmax(q·kᵀ / √d)·v (Vaswani et al. 2017, equation 1).
//!
//! libtorch's kernel is made for long sequences. With tens of events and 16 numbers a head it takes up to four times as long as
//! this one, and took a third of the encoder's time (lab/results/night_cost.md). Padding costs nothing here, since each
//! user's keys end with the history.

use tch::{Device, Kind, Tensor};

use crate::failure::Result;

/// Keys that are worked on at a time.
const LANES: usize = 16;
/// Queries that share one pass over the keys.
const QUERIES: usize = 4;
/// Longest history, from which libtorch's kernel is as fast.
const EVENTS_MAX: i64 = 128;

/// Says whether this machine has the instructions that make the kernel fast.
fn has_fast_instructions() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        cfg!(target_arch = "aarch64")
    }
}

/// The kernel for heads of 16 or 32 numbers, with buffers that all layers of a batch share.
#[derive(Debug)]
pub(super) struct ShortAttention {
    heads: usize,
    head_dims: usize,
    /// Events of each user.
    lengths: Vec<usize>,
    /// Events of a user with padding.
    events: usize,
    input: Vec<f32>,
    output: Vec<f32>,
}

impl ShortAttention {
    /// Makes the kernel for a batch of `x`, float32 [users, events, width], with `lengths`, int64 [users]; none where libtorch's
    /// kernel has to be used.
    pub(super) fn new(x: &Tensor, lengths: &Tensor, heads: i64) -> Result<Option<Self>> {
        let (events, width) = (x.size()[1], x.size()[2]);
        let head_dims = width / heads;
        let serves = x.device() == Device::Cpu
            && x.kind() == Kind::Float
            && !x.requires_grad()
            && events <= EVENTS_MAX
            && matches!(head_dims, 16 | 32)
            && has_fast_instructions();
        if !serves {
            return Ok(None);
        }
        Ok(Some(Self {
            heads: heads as usize,
            head_dims: head_dims as usize,
            lengths: Vec::<i64>::try_from(lengths)?.into_iter().map(|length| length as usize).collect(),
            events: events as usize,
            input: Vec::new(),
            output: Vec::new(),
        }))
    }

    /// Queries, keys and values, float32 [users, events, 3 × width] → float32 [users, events, width]; zeros for padding.
    pub(super) fn attend(&mut self, qkv: &Tensor) -> Result<Tensor> {
        let cells = self.lengths.len() * self.events * self.heads * self.head_dims;
        self.input.resize(3 * cells, 0.0);
        self.output.resize(cells, 0.0);
        qkv.f_contiguous()?.f_copy_data(&mut self.input, 3 * cells)?;
        match self.head_dims {
            16 => self.run::<16>(),
            _ => self.run::<32>(),
        }
        let width = self.heads * self.head_dims;
        let size = [self.lengths.len() as i64, self.events as i64, width as i64];
        Ok(Tensor::f_from_slice(&self.output)?.f_view(size)?)
    }

    fn run<const DIMS: usize>(&mut self) {
        let (lengths, input, output) = (&self.lengths, &self.input, &mut self.output);
        // SAFETY: the kernel is made only where `has_fast_instructions` found what the function enables.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            attend_avx2::<DIMS>(input, output, lengths, self.events, self.heads)
        }
        #[cfg(not(target_arch = "x86_64"))]
        attend::<DIMS>(input, output, lengths, self.events, self.heads);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn attend_avx2<const DIMS: usize>(qkv: &[f32], out: &mut [f32], lengths: &[usize], events: usize, heads: usize) {
    attend::<DIMS>(qkv, out, lengths, events, heads);
}

/// Keys of one head, turned so that a number of 16 keys is one vector, and its values.
struct Head<const DIMS: usize> {
    keys: Vec<[[f32; LANES]; DIMS]>,
    values: Vec<[f32; DIMS]>,
    /// Scores of the queries by block of keys.
    scores: Vec<[[f32; LANES]; QUERIES]>,
}

// Inlined into the function above, whose instructions it is compiled for. Wider ones (AVX-512) were not faster. Accumulators are
// variables of their own, because the compiler keeps an array of them in memory.
#[inline(always)]
fn attend<const DIMS: usize>(qkv: &[f32], out: &mut [f32], lengths: &[usize], events: usize, heads: usize) {
    let width = heads * DIMS;
    let mut head = Head::<DIMS> { keys: Vec::new(), values: Vec::new(), scores: Vec::new() };
    let users = qkv.chunks_exact(events * 3 * width).zip(out.chunks_exact_mut(events * width));
    for ((rows, states), &length) in users.zip(lengths) {
        states[length * width..].fill(0.0);
        for first in (0..width).step_by(DIMS) {
            attend_head(rows, states, length, first, width, &mut head);
        }
    }
}

/// Computes the head whose numbers begin at `first`, for one user.
#[inline(always)]
fn attend_head<const DIMS: usize>(
    rows: &[f32],
    states: &mut [f32],
    length: usize,
    first: usize,
    width: usize,
    head: &mut Head<DIMS>,
) {
    let Head { keys, values, scores } = head;
    let blocks = length.div_ceil(LANES);
    keys.clear();
    keys.resize(blocks, [[0.0; LANES]; DIMS]);
    values.clear();
    values.resize(length, [0.0; DIMS]);
    scores.resize(blocks, [[0.0; LANES]; QUERIES]);
    for (event, value) in values.iter_mut().enumerate() {
        let at = event * 3 * width + first;
        for (number, key) in keys[event / LANES].iter_mut().zip(&rows[at + width..][..DIMS]) {
            number[event % LANES] = *key;
        }
        value.copy_from_slice(&rows[at + 2 * width..][..DIMS]);
    }
    let scale = 1.0 / (DIMS as f32).sqrt();
    for query in (0..length).step_by(QUERIES) {
        let count = QUERIES.min(length - query);
        let mut queries = [[0f32; DIMS]; QUERIES];
        for (row, numbers) in queries.iter_mut().take(count).enumerate() {
            for (number, q) in numbers.iter_mut().zip(&rows[(query + row) * 3 * width + first..][..DIMS]) {
                *number = q * scale;
            }
        }
        let largest = score(&queries, keys, length, scores);
        let totals = exponentials(scores, &largest);
        let attended = weighted_sums(scores, values);
        for row in 0..count {
            let to = &mut states[(query + row) * width + first..][..DIMS];
            for (state, sum) in to.iter_mut().zip(&attended[row]) {
                *state = sum / totals[row];
            }
        }
    }
}

/// Writes q·k of each query and key to `scores`, minus infinity behind the last key. Returns each query's largest.
#[inline(always)]
fn score<const DIMS: usize>(
    queries: &[[f32; DIMS]; QUERIES],
    keys: &[[[f32; LANES]; DIMS]],
    length: usize,
    scores: &mut [[[f32; LANES]; QUERIES]],
) -> [f32; QUERIES] {
    let mut largest = [[f32::NEG_INFINITY; LANES]; QUERIES];
    for (block, (keys, scores)) in keys.iter().zip(scores.iter_mut()).enumerate() {
        let (mut a, mut b, mut c, mut d) = ([0f32; LANES], [0f32; LANES], [0f32; LANES], [0f32; LANES]);
        for (dim, key) in keys.iter().enumerate() {
            add_product(queries[0][dim], key, &mut a);
            add_product(queries[1][dim], key, &mut b);
            add_product(queries[2][dim], key, &mut c);
            add_product(queries[3][dim], key, &mut d);
        }
        *scores = [a, b, c, d];
        if (block + 1) * LANES > length {
            for row in scores.iter_mut() {
                row[length % LANES..].fill(f32::NEG_INFINITY);
            }
        }
        for (largest, row) in largest.iter_mut().zip(scores.iter()) {
            for (most, score) in largest.iter_mut().zip(row) {
                *most = if *score > *most { *score } else { *most };
            }
        }
    }
    largest.map(|lanes| lanes.into_iter().fold(f32::NEG_INFINITY, f32::max))
}

/// Replaces scores by exp(score − largest); returns each query's sum of them.
#[inline(always)]
fn exponentials(scores: &mut [[[f32; LANES]; QUERIES]], largest: &[f32; QUERIES]) -> [f32; QUERIES] {
    let (mut a, mut b, mut c, mut d) = ([0f32; LANES], [0f32; LANES], [0f32; LANES], [0f32; LANES]);
    for block in scores {
        exponentials_of_row(&mut block[0], largest[0], &mut a);
        exponentials_of_row(&mut block[1], largest[1], &mut b);
        exponentials_of_row(&mut block[2], largest[2], &mut c);
        exponentials_of_row(&mut block[3], largest[3], &mut d);
    }
    [a, b, c, d].map(|lanes| lanes.iter().sum())
}

#[inline(always)]
fn exponentials_of_row(row: &mut [f32; LANES], largest: f32, sum: &mut [f32; LANES]) {
    for (score, sum) in row.iter_mut().zip(sum) {
        *score = exp(*score - largest);
        *sum += *score;
    }
}

/// Returns each query's sum of values times exponentials.
#[inline(always)]
fn weighted_sums<const DIMS: usize>(
    scores: &[[[f32; LANES]; QUERIES]],
    values: &[[f32; DIMS]],
) -> [[f32; DIMS]; QUERIES] {
    let (mut a, mut b, mut c, mut d) = ([0f32; DIMS], [0f32; DIMS], [0f32; DIMS], [0f32; DIMS]);
    for (values, block) in values.chunks(LANES).zip(scores) {
        for (lane, value) in values.iter().enumerate() {
            add_product(block[0][lane], value, &mut a);
            add_product(block[1][lane], value, &mut b);
            add_product(block[2][lane], value, &mut c);
            add_product(block[3][lane], value, &mut d);
        }
    }
    [a, b, c, d]
}

#[inline(always)]
fn add_product<const N: usize>(factor: f32, x: &[f32; N], sum: &mut [f32; N]) {
    for (sum, x) in sum.iter_mut().zip(x) {
        *sum = factor.mul_add(*x, *sum);
    }
}

/// exp(x) for x ≤ 0, within 2e-7 of the value; below −87 it stays at 1.6e-38 (Cephes, `expf`).
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Adding it rounds to a whole number, which is then in the lowest bits.
    const ROUNDS: f32 = 12_582_912.0;
    let x = if x > -87.0 { x } else { -87.0 };
    let rounded = x.mul_add(std::f32::consts::LOG2_E, ROUNDS);
    let n = rounded - ROUNDS;
    // ln 2 in two parts.
    let rest = n.mul_add(2.121_944_4e-4, n.mul_add(-0.693_359_4, x));
    let series = 1.987_569_2e-4_f32
        .mul_add(rest, 1.398_2e-3)
        .mul_add(rest, 8.333_452e-3)
        .mul_add(rest, 4.166_579_6e-2)
        .mul_add(rest, 1.666_666_5e-1)
        .mul_add(rest, 0.5);
    let power = series.mul_add(rest * rest, rest) + 1.0;
    // Two to the nth.
    power * f32::from_bits(rounded.to_bits().wrapping_add(127) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_libtorch_for_every_length() {
        tch::manual_seed(3);
        let _guard = tch::no_grad_guard();
        for (heads, dims) in [(4, 16), (2, 32), (1, 16)] {
            let lengths: Vec<i64> = (0..=67).collect();
            let (users, events, width) = (lengths.len() as i64, 67, heads * dims);
            let qkv = Tensor::randn([users, events, 3 * width], (Kind::Float, Device::Cpu));
            let lengths = Tensor::from_slice(&lengths);
            let mut kernel = ShortAttention::new(&qkv.narrow(2, 0, width), &lengths, heads).unwrap().unwrap();
            let ours = kernel.attend(&qkv).unwrap();
            for user in 1..users {
                let split = |part: i64| {
                    let rows = qkv.get(user).narrow(0, 0, user).narrow(1, part * width, width);
                    rows.view([1, user, heads, dims]).transpose(1, 2)
                };
                let theirs = Tensor::scaled_dot_product_attention(
                    &split(0),
                    &split(1),
                    &split(2),
                    None::<Tensor>,
                    0.0,
                    false,
                    None,
                    false,
                );
                let theirs = theirs.transpose(1, 2).reshape([user, width]);
                let difference = (ours.get(user).narrow(0, 0, user) - theirs).abs().max().double_value(&[]);
                assert!(difference < 5e-6, "{user} events: {difference}");
            }
            assert_eq!(ours.get(0).abs().max().double_value(&[]), 0.0, "padding");
        }
    }

    #[test]
    fn gradients_and_other_heads_are_left_to_libtorch() {
        let kernel = |x: &Tensor, heads| ShortAttention::new(x, &Tensor::from_slice(&[2i64]), heads).unwrap();
        let x = Tensor::zeros([1, 2, 48], (Kind::Float, Device::Cpu));
        assert!(kernel(&x, 3).is_some());
        assert!(kernel(&x, 4).is_none(), "12 numbers a head");
        assert!(kernel(&x.to_kind(Kind::Double), 3).is_none());
        assert!(kernel(&x.set_requires_grad(true), 3).is_none());
        let long = Tensor::zeros([1, EVENTS_MAX + 1, 48], (Kind::Float, Device::Cpu));
        assert!(kernel(&long, 3).is_none());
    }

    #[test]
    fn exponentials_are_exact_to_seven_digits() {
        for step in 0..=87_000 {
            let x = -f64::from(step) / 1000.0;
            let relative = (f64::from(exp(x as f32)) / f64::from(x as f32).exp() - 1.0).abs();
            assert!(relative < 2e-7, "{x}: {relative}");
        }
        assert!(exp(f32::NEG_INFINITY) < 2e-38);
    }
}
