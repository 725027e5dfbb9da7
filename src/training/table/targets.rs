//! One output of a table model with its value on every row.

use crate::model::table::network::TableLabel;

#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) label: TableLabel,
    pub(crate) values: Vec<f64>,
}

impl Target {
    /// Returns true for each of these rows that has the binary label or class.
    pub(crate) fn truth(&self, rows: &[usize]) -> Vec<bool> {
        rows.iter().map(|&row| self.values[row] > 0.5).collect()
    }
}
