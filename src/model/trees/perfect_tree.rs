//! A tree whose leaves are all equally deep.

/// Tests between the root and a leaf.
pub(crate) const DEPTH: usize = 6;
pub(crate) const NODES: usize = (1 << DEPTH) - 1;
pub(super) const LEAVES: usize = 1 << DEPTH;
/// Nodes and leaves.
pub(crate) const PLACES: usize = NODES + LEAVES;

/// A decision tree in heap order: the children of node `i` are `2i + 1` and `2i + 2`; the leaves follow the nodes. A path that
/// ends earlier is filled with copies of its leaf.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PerfectTree {
    /// The feature that each node tests.
    pub(crate) feature: [u16; NODES],
    /// A value up to this goes left, a larger one right.
    pub(crate) threshold: [f32; NODES],
    /// True where null goes left.
    pub(crate) null_left: [bool; NODES],
    /// The expected output at each node and leaf; a leaf's is what it adds to the score.
    pub(crate) value: [f64; PLACES],
    /// Training rows that reached each node and leaf, for explanations. Copies of a leaf have its number.
    pub(crate) cover: [f32; PLACES],
}

impl PerfectTree {
    /// Adds to each feature's share how far its tests move a row's expected output on the way from the root to the leaf (Saabas
    /// 2014, "Interpreting random forests"). Returns the expected output at the root: with it the shares add up to the leaf.
    pub(super) fn add_shares(&self, row: &[f32], shares: &mut [f64]) -> f64 {
        let mut place = 0;
        for _ in 0..DEPTH {
            let feature = usize::from(self.feature[place]);
            let value = row[feature];
            let right = if value.is_nan() { !self.null_left[place] } else { value > self.threshold[place] };
            let next = 2 * place + 1 + usize::from(right);
            shares[feature] += self.value[next] - self.value[place];
            place = next;
        }
        self.value[0]
    }
}
