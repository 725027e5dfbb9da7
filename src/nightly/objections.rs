//! Reasons not to publish a night although all of its inputs can be read: events that are too old, and days that are only
//! partly loaded.
//!
//! A planner who orders by last week's demand is worse off than one who knows that there are no numbers today. `nightly --accept`
//! publishes all the same and writes what was accepted to `runs.note`.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Date32Type, Int32Type, Int64Type};
use chrono::NaiveDate;
use clap::ValueEnum;
use datafusion::prelude::SessionContext;
use serde::Serialize;

use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::ids::{RunDate, date32};

/// A kind of objection, as `--accept` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accept {
    /// The newest event is older than lake.freshness_days_max
    Freshness,
    /// A day of the last week has fewer events than lake.volume_share_min of earlier same weekdays
    Volume,
}

/// An objection against a night.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Objection {
    pub kind: Accept,
    pub message: String,
}

/// Days before the run date that are compared, and weeks that each is compared with.
const DAYS_COMPARED: i32 = 7;
const WEEKS: i32 = 4;
/// A median below this many events says too little.
const EVENTS_MEDIAN_MIN: i64 = 50;

const NEWEST_SQL: &str =
    "SELECT max(event_day) FROM unit_event WHERE event_day < run_date() AND arrival_day < run_date()";
/// Days as numbers since 1970-01-01. A comparison needs five weeks.
const COUNTS_SQL: &str = "SELECT CAST(event_day AS INT), CAST(arrival_day AS INT), count(*) FROM unit_event \
     WHERE event_day < run_date() AND event_day >= run_date() - 35 AND arrival_day < run_date() \
     GROUP BY event_day, arrival_day";
const OLDER_SQL: &str = "SELECT event_day FROM unit_event WHERE event_day < run_date() - 35 LIMIT 1";

/// Returns the objections against a night of `run_date` that follow from the session's events.
pub async fn find(ctx: &SessionContext, config: &Config, run_date: RunDate) -> Result<Vec<Objection>> {
    let counts = event_counts(ctx).await?;
    // Whole scans are left to lakes that stopped long ago.
    let newest = match counts.iter().map(|(day, ..)| *day).max() {
        Some(day) => Some(run_date.plus_days(i64::from(day - date32(run_date.0))).0),
        None => one_day(ctx, NEWEST_SQL).await?,
    };
    let old = too_old(newest, config.lake.freshness_days_max, run_date);
    let first = match one_day(ctx, OLDER_SQL).await? {
        Some(_) => i32::MIN,
        None => counts.iter().map(|(day, ..)| *day).min().unwrap_or(i32::MAX),
    };
    let small = too_few(&counts, first, config.lake.volume_share_min, run_date);
    Ok(old.into_iter().chain(small).collect())
}

/// Stops the night (exit 4) for the first objection that is not accepted; returns what is accepted as a note.
pub fn stop_unless_accepted(objections: &[Objection], accepted: &[Accept]) -> Result<Option<String>> {
    if let Some(objection) = objections.iter().find(|objection| !accepted.contains(&objection.kind)) {
        let name = objection.kind.to_possible_value().map_or(String::new(), |value| value.get_name().to_string());
        return Err(Failure::check(format!("{}; nothing is published", objection.message)).hint(format!(
            "load the missing events and run the same command again, or publish all the same with --accept {name}"
        )));
    }
    let messages: Vec<&str> = objections.iter().map(|objection| objection.message.as_str()).collect();
    Ok((!messages.is_empty()).then(|| format!("accepted: {}", messages.join("; "))))
}

/// Counts the user ids that are not stitched because too many are connected; returns a note where there are any.
pub async fn count_unstitched(ctx: &SessionContext, config: &Config) -> Result<Option<String>> {
    let ids = ctx.sql("SELECT user_id FROM unstitched").await?.count().await?;
    Ok((ids > 0).then(|| {
        let largest = config.lake.stitched_max;
        format!("{ids} user ids are not stitched: more than lake.stitched_max = {largest} of them are connected")
    }))
}

async fn one_day(ctx: &SessionContext, sql: &str) -> Result<Option<NaiveDate>> {
    let rows = ctx.sql(sql).await?.collect().await?;
    let day = rows.first().map(|batch| batch.column(0).as_primitive::<Date32Type>().clone());
    Ok(day.filter(|day| day.is_valid(0)).and_then(|day| day.value_as_date(0)))
}

/// Events by day and by day of arrival.
type EventCounts = Vec<(i32, i32, i64)>;

async fn event_counts(ctx: &SessionContext) -> Result<EventCounts> {
    let mut counts = Vec::new();
    for batch in ctx.sql(COUNTS_SQL).await?.collect().await? {
        let day = |column: usize| batch.column(column).as_primitive::<Int32Type>();
        let events = batch.column(2).as_primitive::<Int64Type>();
        counts.extend((0..batch.num_rows()).map(|row| (day(0).value(row), day(1).value(row), events.value(row))));
    }
    Ok(counts)
}

/// Objects to the first day of the last week that has events, but fewer than `share_min` of the median of the same weekday in the
/// four weeks before. Each earlier day counts as it was known the same number of days after itself, so that late events make
/// no difference.
fn too_few(counts: &EventCounts, first_day: i32, share_min: f64, run_date: RunDate) -> Option<Objection> {
    let today = date32(run_date.0);
    let known = |day: i32, days_after: i32| -> i64 {
        let of_day = counts.iter().filter(|(event, arrival, _)| *event == day && *arrival < day + days_after);
        of_day.map(|(_, _, events)| events).sum()
    };
    for days_ago in (1..=DAYS_COMPARED).rev() {
        let day = today - days_ago;
        let events = known(day, days_ago);
        if events == 0 || day - 7 * WEEKS < first_day {
            continue;
        }
        let mut earlier: Vec<i64> = (1..=WEEKS).map(|week| known(day - 7 * week, days_ago)).collect();
        earlier.sort_unstable();
        let median = (earlier[1] + earlier[2]) / 2;
        if median >= EVENTS_MEDIAN_MIN && (events as f64) < share_min * median as f64 {
            let date = RunDate(run_date.plus_days(-i64::from(days_ago)).0);
            return Some(Objection {
                kind: Accept::Volume,
                message: format!(
                    "{date} has {events} events, the median of the same weekday in the four weeks before is {median} \
                     (lake.volume_share_min = {share_min}): the day may be only partly loaded"
                ),
            });
        }
    }
    None
}

/// Objects where more than `days_max` whole days lie between the newest event and the run date; warns from two days on.
fn too_old(newest: Option<NaiveDate>, days_max: u32, run_date: RunDate) -> Option<Objection> {
    let Some(newest) = newest else {
        return Some(Objection { kind: Accept::Freshness, message: format!("no event is known before {run_date}") });
    };
    let days = i64::from(date32(run_date.0)) - i64::from(date32(newest)) - 1;
    let message = format!("newest event is {days} days old ({newest}; lake.freshness_days_max = {days_max})");
    if days > i64::from(days_max) {
        return Some(Objection { kind: Accept::Freshness, message });
    }
    if days >= 2 {
        tracing::warn!("{message}");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_days_without_events_count() {
        let day = |text: &str| Some(text.parse::<NaiveDate>().unwrap());
        let date: RunDate = "2026-03-10".parse().unwrap();
        assert_eq!(too_old(day("2026-03-09"), 0, date), None);
        assert_eq!(too_old(day("2026-03-06"), 3, date), None);
        let objection = too_old(day("2026-03-05"), 3, date).unwrap();
        assert!(objection.message.contains("newest event is 4 days old (2026-03-05;"), "{}", objection.message);
        assert!(too_old(None, 3, date).is_some());
    }

    #[test]
    fn a_partly_loaded_day_is_found_and_late_events_are_not() {
        let date: RunDate = "2026-03-10".parse().unwrap();
        let today = date32(date.0);
        // A hundred events a day, of which ten arrive a day late.
        let full: EventCounts = (1..=35)
            .flat_map(|ago| [(today - ago, today - ago, 90), (today - ago, today - ago + 1, 10)])
            .filter(|(_, arrival, _)| *arrival < today)
            .collect();
        assert_eq!(too_few(&full, today - 60, 0.95, date), None);
        let halved: EventCounts =
            full.iter().map(|&(day, at, n)| (day, at, if day == today - 2 { n / 4 } else { n })).collect();
        let objection = too_few(&halved, today - 60, 0.3, date).unwrap();
        assert!(objection.message.starts_with("2026-03-08 has 24 events"), "{}", objection.message);
        assert_eq!(too_few(&halved, today - 20, 0.3, date), None, "a young lake");
        let missing: EventCounts = full.iter().copied().filter(|(day, ..)| *day != today - 2).collect();
        assert_eq!(too_few(&missing, today - 60, 0.3, date), None, "a day without any event is no half day");
        let small: EventCounts = halved.iter().map(|&(day, at, n)| (day, at, n / 3)).collect();
        assert_eq!(too_few(&small, today - 60, 0.3, date), None, "too few events to tell");
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
