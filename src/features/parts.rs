//! Parts of the users: features of a part are built in the memory of a part.
//!
//! A user's part follows from a hash of the id alone (`user_bucket` in SQL), and rollup units are sorted by it, so that a
//! part reads its own row groups and little else.

use super::rollups::Rollups;
use crate::config::Config;

/// Values of `user_bucket`.
pub const BUCKETS: i32 = 1 << 16;

/// Engine memory that the features of one event row take, at most and by measurement (docs/decisions/0005-user-parts.md).
const BYTES_PER_EVENT: u64 = 160;

/// The users whose buckets lie between two, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserPart {
    pub first_bucket: i32,
    pub last_bucket: i32,
}

impl UserPart {
    pub const ALL: Self = Self { first_bucket: 0, last_bucket: BUCKETS - 1 };

    /// About this share of the users, the same ones each time; at least one bucket of them.
    pub fn share(share: f64) -> Self {
        let end = (share.clamp(0.0, 1.0) * f64::from(BUCKETS)).ceil() as i32;
        Self { first_bucket: 0, last_bucket: end.max(1) - 1 }
    }

    /// The same users in `parts` parts of near-equal size.
    pub fn split(self, parts: u32) -> Vec<Self> {
        let buckets = i64::from(self.last_bucket - self.first_bucket) + 1;
        let parts = i64::from(parts).clamp(1, buckets);
        let start = |k: i64| self.first_bucket + (k * buckets / parts) as i32;
        (0..parts).map(|k| Self { first_bucket: start(k), last_bucket: start(k + 1) - 1 }).collect()
    }

    /// The parts of a night: `engine.user_parts`, or as many as keep each within `engine.memory_bytes_max`.
    pub fn of_night(config: &Config, rollups: &Rollups) -> Vec<Self> {
        Self::of_share(config, rollups, 1.0)
    }

    /// About this share of the users, in parts no larger than a night's.
    pub fn of_share(config: &Config, rollups: &Rollups, share: f64) -> Vec<Self> {
        let events: u64 = rollups.units.iter().map(|u| u.rows).sum();
        let of_night = match config.engine.user_parts {
            0 => (events * BYTES_PER_EVENT).div_ceil(config.engine.memory_bytes_max.max(1)),
            set => set.into(),
        };
        Self::share(share).split((of_night as f64 * share.clamp(0.0, 1.0)).ceil() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_hold_every_bucket_once(parts in 0u32..70_000) {
            let split = UserPart::ALL.split(parts);
            prop_assert_eq!(split.first().map(|p| p.first_bucket), Some(0));
            prop_assert_eq!(split.last().map(|p| p.last_bucket), Some(BUCKETS - 1));
            prop_assert!(split.iter().all(|p| p.first_bucket <= p.last_bucket));
            prop_assert!(split.windows(2).all(|w| w[0].last_bucket + 1 == w[1].first_bucket));
        }
    }

    #[test]
    fn a_share_is_that_many_buckets() {
        assert_eq!(UserPart::share(1.0), UserPart::ALL);
        assert_eq!(UserPart::share(7.0), UserPart::ALL);
        assert_eq!(UserPart::share(0.25).last_bucket, BUCKETS / 4 - 1);
        assert_eq!(UserPart::share(0.0).last_bucket, 0);
    }
}
