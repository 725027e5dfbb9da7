//! Size and seed of a simulated lake, and the units of its files.

use chrono::NaiveDate;

use super::signal::Signal;

/// Microseconds of a day.
pub(super) const DAY_MICROS: i64 = 86_400_000_000;
/// Rows of one record batch, at most.
pub(super) const BATCH_ROWS: usize = 32_768;

/// Size and seed of a lake.
#[derive(Debug, Clone)]
pub struct SimulateOptions {
    pub users: u64,
    pub items: u64,
    pub days: u32,
    pub seed: u64,
    pub faults: bool,
    /// Signal that predicts purchases.
    pub signal: Signal,
    /// First day.
    pub start: NaiveDate,
}
