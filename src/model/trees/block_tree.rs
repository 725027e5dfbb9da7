//! A perfect tree in the form in which blocks of rows pass it.
//!
//! Every test is made for every row, 64 rows at a time, and its answer is kept as a bit; the bits then lead each row to its leaf. That
//! is ten times as many tests as on the path of one row. But no memory address depends on the row, so the compiler can use vector
//! instructions: 3 to 5 times as fast with AVX2 (lab/results/night_cost.md).

use super::perfect_tree::{DEPTH, LEAVES, NODES, PerfectTree};

/// Rows that pass a tree together.
pub(crate) const BLOCK_ROWS: usize = 64;
/// Nodes above the last level: their answers fit 32 bits, and so do those of the last level.
const UPPER: usize = NODES / 2;

/// The values of one block: for each feature a column where null is smaller than every number, and one where it is larger.
#[derive(Debug)]
pub(crate) struct BlockColumns(Vec<[i32; BLOCK_ROWS]>);

/// Returns an integer that sorts as the number does. Both zeros give the same one.
fn ordered(number: f32) -> i32 {
    let bits = (number + 0.0).to_bits() as i32;
    bits ^ ((bits >> 31) & i32::MAX)
}

impl BlockColumns {
    pub(super) fn new(features: usize) -> Self {
        Self(vec![[0; BLOCK_ROWS]; 2 * features])
    }

    /// Takes at most [`BLOCK_ROWS`] rows, row-major [rows, `features`] with NaN for null.
    pub(super) fn fill(&mut self, rows: &[f32], features: usize) {
        for (row, values) in rows.chunks(features).enumerate() {
            for (pair, &value) in self.0.chunks_exact_mut(2).zip(values) {
                let [smaller, larger] = if value.is_nan() { [i32::MIN, i32::MAX] } else { [ordered(value); 2] };
                pair[0][row] = smaller;
                pair[1][row] = larger;
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct BlockTree {
    /// The column of [`BlockColumns`] that each node tests.
    column: [u32; NODES],
    /// A value up to this goes left, a larger one right.
    threshold: [i32; NODES],
    leaf: [f64; LEAVES],
}

impl BlockTree {
    pub(super) fn new(tree: &PerfectTree) -> Self {
        Self {
            column: std::array::from_fn(|node| 2 * u32::from(tree.feature[node]) + u32::from(!tree.null_left[node])),
            threshold: tree.threshold.map(ordered),
            leaf: std::array::from_fn(|leaf| tree.value[NODES + leaf]),
        }
    }

    /// Adds the leaf of each row to `scores`.
    #[inline(always)]
    fn add_leaves(&self, columns: &BlockColumns, scores: &mut [f64; BLOCK_ROWS]) {
        let upper = self.answers(0..UPPER, columns);
        let last = self.answers(UPPER..NODES, columns);
        let mut places = [0u32; BLOCK_ROWS];
        for _ in 1..DEPTH {
            for (place, answers) in places.iter_mut().zip(&upper) {
                *place = 2 * *place + 1 + ((answers >> *place) & 1);
            }
        }
        for ((score, place), answers) in scores.iter_mut().zip(places).zip(&last) {
            let place = place - UPPER as u32;
            *score += self.leaf[(2 * place + ((answers >> place) & 1)) as usize % LEAVES];
        }
    }

    /// Returns the answers of the tests at `nodes`: for each row one bit per test, the first test's lowest. A 1 goes right.
    #[inline(always)]
    fn answers(&self, nodes: std::ops::Range<usize>, columns: &BlockColumns) -> [u32; BLOCK_ROWS] {
        let mut answers = [0; BLOCK_ROWS];
        let tests = self.column[nodes.clone()].iter().zip(&self.threshold[nodes]);
        for (bit, (&column, threshold)) in tests.enumerate() {
            for (answer, value) in answers.iter_mut().zip(&columns.0[column as usize]) {
                *answer |= if value > threshold { 1 << bit } else { 0 };
            }
        }
        answers
    }
}

/// Adds up the leaves of one block of rows, in f64 and in the order of the trees.
pub(super) fn score_block(trees: &[BlockTree], columns: &BlockColumns) -> [f64; BLOCK_ROWS] {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the machine has what the function enables.
        return unsafe { score_block_avx2(trees, columns) };
    }
    add_up(trees, columns)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn score_block_avx2(trees: &[BlockTree], columns: &BlockColumns) -> [f64; BLOCK_ROWS] {
    add_up(trees, columns)
}

#[inline(always)]
fn add_up(trees: &[BlockTree], columns: &BlockColumns) -> [f64; BLOCK_ROWS] {
    let mut scores = [0.0; BLOCK_ROWS];
    // A closure would not be compiled for the instructions of the function above.
    for tree in trees {
        tree.add_leaves(columns, &mut scores);
    }
    scores
}
