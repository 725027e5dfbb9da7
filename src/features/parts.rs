//! Parts of the users and of the items: the features or histories of one part fit into memory.
//!
//! A part depends only on a hash of the id (`user_bucket` and `item_bucket` in SQL). Rollup units of events are sorted by it, so
//! that a part of the users reads its own row groups and little else. Item days are far fewer than events, so each part of the
//! items reads all of them.

use super::rollups::Rollups;
use crate::config::Config;

/// Values of `user_bucket` and `item_bucket`.
pub(crate) const BUCKETS: i32 = 1 << 16;

/// Engine memory that the features of one event row take at most (docs/decisions/0005-user-parts.md).
const BYTES_PER_EVENT: u64 = 400;

/// Engine memory that the history of one item takes per day: twice the measured value (docs/decisions/0005-user-parts.md).
const BYTES_PER_ITEM_DAY: u64 = 320;

/// The users or items of a range of buckets, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub(crate) first_bucket: i32,
    pub(crate) last_bucket: i32,
}

impl Part {
    pub const ALL: Self = Self { first_bucket: 0, last_bucket: BUCKETS - 1 };

    /// Returns about this share of all, always the same ones; at least one bucket.
    pub(crate) fn share(share: f64) -> Self {
        let end = (share.clamp(0.0, 1.0) * f64::from(BUCKETS)).ceil() as i32;
        Self { first_bucket: 0, last_bucket: end.max(1) - 1 }
    }

    /// Splits the part into `parts` parts of nearly equal size.
    pub(crate) fn split(self, parts: u32) -> Vec<Self> {
        let buckets = i64::from(self.last_bucket - self.first_bucket) + 1;
        let parts = i64::from(parts).clamp(1, buckets);
        let start = |k: i64| self.first_bucket + (k * buckets / parts) as i32;
        (0..parts).map(|k| Self { first_bucket: start(k), last_bucket: start(k + 1) - 1 }).collect()
    }

    /// Splits `items` items into `engine.item_parts` parts, or as many as keep each within `engine.memory_bytes_max`.
    pub(crate) fn for_items(config: &Config, items: u64) -> Vec<Self> {
        let bytes = items * u64::from(config.demand.history_days + config.demand.horizon_days) * BYTES_PER_ITEM_DAY;
        let parts = match config.engine.item_parts {
            0 => bytes.div_ceil(config.engine.memory_bytes_max.max(1)),
            set => set.into(),
        };
        Self::ALL.split(u32::try_from(parts).unwrap_or(u32::MAX))
    }

    /// Splits a night's users into `engine.user_parts` parts, or as many as keep each within `engine.memory_bytes_max`.
    pub(crate) fn for_night(config: &Config, rollups: &Rollups) -> Vec<Self> {
        Self::for_share(config, rollups, 1.0)
    }

    /// Splits about this share of the users into parts that are no larger than a night's.
    pub(crate) fn for_share(config: &Config, rollups: &Rollups, share: f64) -> Vec<Self> {
        let events: u64 = rollups.units.iter().map(|u| u.rows).sum();
        let night_parts = match config.engine.user_parts {
            0 => (events * BYTES_PER_EVENT).div_ceil(config.engine.memory_bytes_max.max(1)),
            set => set.into(),
        };
        Self::share(share).split((night_parts as f64 * share.clamp(0.0, 1.0)).ceil() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_hold_every_bucket_once(parts in 0u32..70_000) {
            let split = Part::ALL.split(parts);
            prop_assert_eq!(split.first().map(|p| p.first_bucket), Some(0));
            prop_assert_eq!(split.last().map(|p| p.last_bucket), Some(BUCKETS - 1));
            prop_assert!(split.iter().all(|p| p.first_bucket <= p.last_bucket));
            prop_assert!(split.windows(2).all(|w| w[0].last_bucket + 1 == w[1].first_bucket));
        }
    }

    #[test]
    fn histories_of_a_part_of_the_items_fit_into_memory() {
        let mut config = Config::default();
        (config.engine.memory_bytes_max, config.demand.history_days, config.demand.horizon_days) = (64 << 20, 112, 28);
        let parts = |config: &Config, items: u64| Part::for_items(config, items).len();
        assert_eq!([0, 1_000, 16_000].map(|items| parts(&config, items)), [1, 1, 11]);
        config.engine.item_parts = 3;
        assert_eq!(parts(&config, 16_000), 3);
    }

    #[test]
    fn a_share_is_that_many_buckets() {
        assert_eq!(Part::share(1.0), Part::ALL);
        assert_eq!(Part::share(7.0), Part::ALL);
        assert_eq!(Part::share(0.25).last_bucket, BUCKETS / 4 - 1);
        assert_eq!(Part::share(0.0).last_bucket, 0);
    }
}
