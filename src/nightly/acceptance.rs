//! Decides whether a night is published in spite of objections against its inputs.
//!
//! A planner who orders by last week's demand is worse off than one who knows that there are no numbers today. `nightly --accept`
//! publishes anyway and writes what was accepted to `runs.note`.

use arrow::array::AsArray;
use arrow::datatypes::{Date32Type, Int64Type};
use chrono::{DateTime, TimeDelta, Utc};
use clap::ValueEnum;
use datafusion::prelude::SessionContext;
use std::collections::{BTreeMap, BTreeSet};

use crate::failure::{Failure, Result};
use crate::features::erased_users::ErasureRecord;
use crate::features::lake_days::{LakeDays, UnitDay};
use crate::features::objections::{self, Accept, Objection, date_of};
use crate::ids::RunDate;
use crate::publish::readers;
use crate::publish::runs::{self, RunKind, RunRecord};
use crate::workspace::Workspace;

/// Time by which the clocks of the machines of a night and of an erasure may differ.
const CLOCKS_DIFFER_MAX: TimeDelta = TimeDelta::hours(1);

/// Returns the objections against a night of `run_date` over these days.
pub(crate) async fn find_objections(
    workspace: &Workspace,
    days: &[UnitDay],
    run_date: RunDate,
) -> Result<Vec<Objection>> {
    let mut found = objections::find(&workspace.config, days, run_date);
    if let Some(mut read) = LastReading::find(workspace, run_date).await? {
        let days = LakeDays::before(run_date, days);
        if fewer_rows(&days, &read).is_some() {
            // An erasure may have taken persons out of the lake since then.
            if let Some(record) = ErasureRecord::read(workspace.output()?).await? {
                let since = began_reading(&runs::history(workspace.output()?).await?, read.night);
                read.leave_out(|day| record.lake_events_since(since, day));
            }
            found.extend(fewer_rows(&days, &read));
        }
    }
    Ok(found)
}

/// Stops the night (exit 4) if an objection is not accepted; returns what is accepted as a note.
pub(crate) fn stop_unless_accepted(objections: &[Objection], accepted: &[Accept]) -> Result<Option<String>> {
    let messages = |objections: &[&Objection]| {
        let messages: Vec<&str> = objections.iter().map(|objection| objection.message.as_str()).collect();
        messages.join("; ")
    };
    let refused: Vec<&Objection> = objections.iter().filter(|o| !accepted.contains(&o.kind)).collect();
    if refused.is_empty() {
        let all: Vec<&Objection> = objections.iter().collect();
        return Ok((!all.is_empty()).then(|| format!("accepted: {}", messages(&all))));
    }
    let kinds: BTreeSet<Accept> = objections.iter().map(|objection| objection.kind).collect();
    let names: Vec<String> =
        kinds.iter().filter_map(|kind| kind.to_possible_value()).map(|value| value.get_name().to_string()).collect();
    Err(Failure::check(format!("{}; nothing is published", messages(&refused))).hint(format!(
        "load the missing events and run the same command again, or publish anyway with --accept {}",
        names.join(",")
    )))
}

/// Returns when the newest night of a date began to read the lake, at the latest. The row of an erasure publishes what a night before
/// it had read.
fn began_reading(history: &[RunRecord], night: RunDate) -> DateTime<Utc> {
    let nights = history.iter().filter(|row| row.run_date == night && row.kind == RunKind::Night);
    let Some(newest) = nights.max_by_key(|row| row.made_visible_at) else { return DateTime::UNIX_EPOCH };
    let read = TimeDelta::try_seconds(newest.stage_seconds().unwrap_or_default() as i64).unwrap_or_default();
    newest.made_visible_at - read - CLOCKS_DIFFER_MAX
}

/// The rows that a night last read of each day.
#[derive(Debug)]
struct LastReading {
    night: RunDate,
    rows_read: BTreeMap<i32, u64>,
}

impl LastReading {
    /// Reads it from the newest visible night up to `run_date`: that table survives a rebuild of the state, and a night of a later
    /// date knows more.
    async fn find(workspace: &Workspace, run_date: RunDate) -> Result<Option<Self>> {
        let newest = workspace.nights().iter().rfind(|night| night.run_date() <= run_date);
        let Some(night) = newest.filter(|night| night.version("lake_day").is_some()) else { return Ok(None) };
        let ctx = SessionContext::new();
        readers::register_nights(&ctx, workspace.output()?, "lake_day", "lake_day", std::slice::from_ref(night))
            .await?;
        let mut rows_read = BTreeMap::new();
        for batch in ctx.sql("SELECT day, rows_read FROM lake_day").await?.collect().await? {
            let (day, rows) =
                (batch.column(0).as_primitive::<Date32Type>(), batch.column(1).as_primitive::<Int64Type>());
            rows_read.extend(day.values().iter().copied().zip(rows.values().iter().map(|rows| rows.unsigned_abs())));
        }
        Ok(Some(Self { night: night.run_date(), rows_read }))
    }

    fn leave_out(&mut self, rows_of: impl Fn(i32) -> u64) {
        for (day, rows) in &mut self.rows_read {
            *rows = rows.saturating_sub(rows_of(*day));
        }
    }
}

/// Objects to days of which fewer rows were read than when a night last read them. A day of which nothing is read any more has left
/// the lake (shops keep files for some months), or is judged as a day without events.
fn fewer_rows(days: &LakeDays, read: &LastReading) -> Option<Objection> {
    let fewer = |(day, rows): &(&i32, &u64)| (1..**rows).contains(&days.rows_read(**day));
    let found: Vec<(&i32, &u64)> = read.rows_read.iter().filter(fewer).collect();
    let (day, rows) = found.first()?;
    let others = match found.len() {
        1 => String::new(),
        2 => "; another day has fewer rows too".into(),
        days => format!("; {} other days have fewer rows too", days - 1),
    };
    Some(Objection {
        kind: Accept::Volume,
        message: format!(
            "{} has {} rows, {rows} when the night of {} read it{others}: a file may have been replaced or removed",
            date_of(**day, read.night),
            days.rows_read(**day),
            read.night
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::date32;

    #[test]
    fn a_day_with_fewer_rows_than_before_is_found() {
        let night: RunDate = "2026-03-10".parse().unwrap();
        let today = date32(night.0);
        let part = |ago: i32, rows_read: u64| UnitDay {
            event_day: today - ago,
            arrival_day: today - ago,
            rows_read,
            events: 1,
        };
        let days = LakeDays::before(night.plus_days(1), &[part(3, 10), part(2, 4), part(1, 2), part(0, 7)]);
        let read = |rows: &[(i32, u64)]| LastReading {
            night,
            rows_read: rows.iter().map(|(ago, rows)| (today - ago, *rows)).collect(),
        };
        assert_eq!(fewer_rows(&days, &read(&[(3, 10), (2, 3), (1, 2)])), None, "the same and more");
        assert_eq!(fewer_rows(&days, &read(&[(400, 5)])), None, "a day that left the lake");
        let mut erased = read(&[(3, 12), (2, 4)]);
        erased.leave_out(|day| if day == today - 3 { 2 } else { 0 });
        assert_eq!(fewer_rows(&days, &erased), None, "two rows are of an erased person");
        let objection = fewer_rows(&days, &read(&[(3, 11), (2, 5), (1, 2)])).unwrap();
        let wanted = "2026-03-07 has 10 rows, 11 when the night of 2026-03-10 read it; another day has fewer rows too";
        assert!(objection.message.starts_with(wanted), "{}", objection.message);
    }

    #[test]
    fn only_what_is_named_is_accepted() {
        let old = [Objection { kind: Accept::Freshness, message: "old".into() }];
        let refused = stop_unless_accepted(&old, &[]).unwrap_err();
        assert_eq!(refused.kind.exit_code(), 4);
        assert!(refused.hint.unwrap().ends_with("--accept freshness"));
        assert_eq!(stop_unless_accepted(&old, &[Accept::Freshness]).unwrap(), Some("accepted: old".into()));
        assert_eq!(stop_unless_accepted(&[], &[]).unwrap(), None);
    }
}
