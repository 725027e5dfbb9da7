//! Classes of demand patterns.

use serde::{Deserialize, Serialize};

/// Demand pattern of an item; [`super::ItemHistory::facts`] classifies items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DemandPattern {
    /// First seen less than `demand.history_days_min` days ago.
    New,
    /// No sale in the whole history.
    Dormant,
    Fast,
    /// Rare sales of about the same size.
    Slow,
    /// Rare sales of very different sizes.
    Lumpy,
}

impl DemandPattern {
    pub const ALL: [DemandPattern; 5] = [Self::New, Self::Dormant, Self::Fast, Self::Slow, Self::Lumpy];

    /// Returns the name that metrics and cards use.
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Dormant => "dormant",
            Self::Fast => "fast",
            Self::Slow => "slow",
            Self::Lumpy => "lumpy",
        }
    }
}
