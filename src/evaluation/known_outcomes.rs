//! Everything that a lake holds, for outcomes of past dates.

use crate::failure::{Failure, Result};
use crate::features::rollups::Rollups;
use crate::ids::{RunDate, date_of_day};
use crate::workspace::Workspace;

/// The rollups of everything that the lake holds, and the day up to which it is complete.
pub(super) struct KnownOutcomes {
    pub(super) rollups: Rollups,
    /// Rows that arrived before this date are counted: all of them.
    pub(super) arrived: RunDate,
    /// The day after the newest event, but not later than today, whose events are not complete.
    pub(super) end: RunDate,
}

impl KnownOutcomes {
    pub(super) async fn find(workspace: &Workspace) -> Result<Self> {
        let zone = workspace.config.time_zone();
        let today = RunDate(chrono::Utc::now().with_timezone(&zone).date_naive());
        let tomorrow = today.plus_days(1);
        let newest_file = workspace.lake()?.newest_event_day();
        let arrived = newest_file.map_or(tomorrow, |day| tomorrow.max(RunDate(day).plus_days(1)));
        let rollups = workspace.build_rollups(workspace.plan_rollups(arrived).await?, arrived).await?;
        let newest = rollups.unit_days().iter().filter(|day| day.events > 0).map(|day| day.event_day).max();
        let newest = newest.and_then(date_of_day).ok_or_else(|| {
            Failure::input(format!("{}: the lake has no events", workspace.config.lake.uri))
                .hint("look at the files below events/, and at the rows that a night would quarantine")
        })?;
        // The day that has begun is not complete. A simulated lake may be of days to come, whose files are.
        let complete = newest_file.map(RunDate).filter(|day| *day > today).map_or(today, |day| day.plus_days(1));
        Ok(Self { rollups, arrived, end: RunDate(newest).plus_days(1).min(complete) })
    }
}
