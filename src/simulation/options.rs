//! Size and seed of a simulated lake, and the units of its files.

use chrono::NaiveDate;

use super::signal::Signal;

/// Microseconds of a day.
pub(super) const DAY_MICROS: i64 = 86_400_000_000;
/// Rows of one record batch, at most.
pub(super) const BATCH_ROWS: usize = 32_768;

/// Share of the users who have an event on an average day, unless the options choose another; measured.
pub(super) const ACTIVE_SHARE: f64 = 0.105;

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
    /// Share of the users who have an event on an average day; none: about [`ACTIVE_SHARE`].
    pub active_share: Option<f64>,
    /// First day.
    pub start: NaiveDate,
}

impl SimulateOptions {
    /// Returns the factor on everyone's visits that gives the chosen share of active users.
    pub(super) fn traffic(&self) -> f32 {
        self.active_share.map_or(1.0, |share| (share / ACTIVE_SHARE) as f32)
    }
}
