//! Counts of what an erasure takes away.

/// Files and rows that go.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone {
    pub(crate) files: u64,
    pub(crate) rows: u64,
}

impl Gone {
    pub(super) fn add(&mut self, rows: u64) {
        self.files += u64::from(rows > 0);
        self.rows += rows;
    }
}
