//! Everything that a lake holds, for outcomes of past dates.

use crate::failure::{Failure, Result};
use crate::features::rollups::Rollups;
use crate::ids::{RunDate, date_of_day};
use crate::workspace::Workspace;

/// The rollups of everything that the lake holds, and the day on which it ends.
pub(super) struct KnownOutcomes {
    pub(super) rollups: Rollups,
    /// The day after the newest event.
    pub(super) end: RunDate,
}

impl KnownOutcomes {
    pub(super) async fn find(workspace: &Workspace) -> Result<Self> {
        // Rows arrive by tomorrow at the latest, or, in a lake of the future, by the day after its newest file.
        let tomorrow = RunDate(chrono::Utc::now().date_naive()).plus_days(1);
        let newest_file = workspace.lake()?.files("events").iter().filter_map(|file| file.dt).max();
        let arrived = newest_file.map_or(tomorrow, |day| tomorrow.max(RunDate(day).plus_days(1)));
        let rollups = workspace.build_rollups(workspace.plan_rollups(arrived).await?, arrived).await?;
        let newest = rollups.unit_days().iter().filter(|day| day.events > 0).map(|day| day.event_day).max();
        let newest = newest.and_then(date_of_day).ok_or_else(|| {
            Failure::input(format!("{}: the lake has no events", workspace.config.lake.uri))
                .hint("look at the files below events/, and at the rows that a night would quarantine")
        })?;
        Ok(Self { rollups, end: RunDate(newest).plus_days(1) })
    }
}
