//! The days of a lake: how many rows were read of each, and what a day without events means.
//!
//! In: the rows by day that every rollup unit counts. Out: the rows of the published table `lake_day`, the days that features
//! call closed or missing, and the days ahead on which the shop will be closed.

use arrow::array::{ArrayRef, AsArray, Date32Array, Int64Array, StringArray, StructArray};
use arrow::datatypes::{DataType, Date32Type, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::prelude::SessionContext;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::functions::Constant;
use crate::config::Config;
use crate::failure::Result;
use crate::ids::{RunDate, date32};

/// Days over which missing days are counted.
pub(crate) const DAYS_JUDGED: i32 = 90;

/// A day without events is compared with the days of this many weeks before it.
const WEEKS: i32 = 8;
/// Days with fewer events than this say nothing about a day without any.
const EVENTS_MEDIAN_MIN: f64 = 20.0;

/// Rows of one unit with one event day and one arrival day; days are numbers since 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UnitDay {
    pub(crate) event_day: i32,
    pub(crate) arrival_day: i32,
    /// Rows as the lake's files have them, bad and repeated ones included.
    pub(crate) rows_read: u64,
    /// Good rows.
    pub(crate) events: u64,
}

/// Takes rows that a file no longer has out of a unit's counts of a day, first from the arrival day with the most.
pub(super) fn take_out(days: &mut [UnitDay], event_day: i32, mut rows: u64) {
    let mut parts: Vec<&mut UnitDay> = days.iter_mut().filter(|part| part.event_day == event_day).collect();
    parts.sort_by_key(|part| std::cmp::Reverse(part.rows_read));
    for part in parts {
        let taken = rows.min(part.rows_read);
        part.rows_read -= taken;
        // Totals that counted a person keep their value, as far as there are so many rows.
        part.events = part.events.min(part.rows_read);
        rows -= taken;
    }
}

/// Kind of a day, by its events and those of the weeks before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DayKind {
    /// Has events.
    Open,
    /// The shop is closed on this weekday: no demand.
    Closed,
    /// No event, in a lake of few events a day: no demand.
    Quiet,
    /// No event where there should be many: nothing is known of the demand.
    Missing,
}

impl DayKind {
    fn name(self) -> &'static str {
        match self {
            DayKind::Open => "open",
            DayKind::Closed => "closed",
            DayKind::Quiet => "quiet",
            DayKind::Missing => "missing",
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    rows_read: u64,
    events: u64,
}

/// The days before a date, as that date knows them.
#[derive(Debug, Clone)]
pub(crate) struct LakeDays {
    days: BTreeMap<i32, Counts>,
    /// First day with an event; `end` for a lake without one.
    first: i32,
    /// The day after the last one.
    end: i32,
}

impl LakeDays {
    /// Sums the units' days before `date`, counting the rows that arrived before it.
    pub(crate) fn before<'a>(date: RunDate, units: impl IntoIterator<Item = &'a UnitDay>) -> Self {
        let end = date32(date.0);
        let mut days: BTreeMap<i32, Counts> = BTreeMap::new();
        for part in units.into_iter().filter(|part| part.event_day < end && part.arrival_day < end) {
            let counts = days.entry(part.event_day).or_default();
            counts.rows_read += part.rows_read;
            counts.events += part.events;
        }
        let first = days.iter().find(|(_, counts)| counts.events > 0).map_or(end, |(day, _)| *day);
        Self { days, first, end }
    }

    pub(crate) fn first(&self) -> i32 {
        self.first
    }

    /// Returns the last day with an event.
    pub(crate) fn newest(&self) -> Option<i32> {
        self.days.iter().rfind(|(_, counts)| counts.events > 0).map(|(day, _)| *day)
    }

    /// Returns how many rows were read of a day.
    pub(crate) fn rows_read(&self, day: i32) -> u64 {
        self.days.get(&day).map_or(0, |counts| counts.rows_read)
    }

    fn events(&self, day: i32) -> u64 {
        self.days.get(&day).map_or(0, |counts| counts.events)
    }

    /// Says what a day from the lake's first event on means.
    pub(crate) fn kind(&self, day: i32) -> DayKind {
        if self.events(day) > 0 {
            return DayKind::Open;
        }
        let weekdays = (1..=WEEKS).map(|week| day - 7 * week);
        if self.is_closed(weekdays, day) {
            return DayKind::Closed;
        }
        let mut events = self.events_of_weeks_before(day);
        if events.is_empty() {
            // A gap of more than eight weeks is compared with the weeks before it.
            let last = self.days.range(..day).rfind(|(_, counts)| counts.events > 0);
            events = last.map_or(Vec::new(), |(last, _)| self.events_of_weeks_before(last + 1));
        }
        match median(events) < EVENTS_MEDIAN_MIN {
            true => DayKind::Quiet,
            false => DayKind::Missing,
        }
    }

    /// Returns true if the shop will probably be closed on a day ahead.
    fn is_closed_ahead(&self, day: i32) -> bool {
        let weekdays = (self.end - 7 * WEEKS..self.end).filter(|before| (day - before) % 7 == 0);
        self.is_closed(weekdays, self.end)
    }

    /// Returns true if three quarters of the given same weekdays had no event while more than a quarter of all days of the weeks
    /// before `end` had some. Days before the lake's first event do not count.
    fn is_closed(&self, weekdays: impl Iterator<Item = i32>, end: i32) -> bool {
        let same: Vec<i32> = weekdays.filter(|day| *day >= self.first).collect();
        let without = same.iter().filter(|day| self.events(**day) == 0).count();
        let from = self.first.max(end - 7 * WEEKS);
        let with = self.events_of_weeks_before(end).len() as i32;
        !same.is_empty() && 4 * without >= 3 * same.len() && 4 * with > end - from
    }

    /// Returns the events of each day that has some, of the weeks before `end`.
    fn events_of_weeks_before(&self, end: i32) -> Vec<u64> {
        let days = self.days.range(end - 7 * WEEKS..end);
        days.map(|(_, counts)| counts.events).filter(|events| *events > 0).collect()
    }

    /// Returns the days of one kind from `from` on, ascending.
    pub(crate) fn of_kind(&self, kind: DayKind, from: i32) -> Vec<i32> {
        (self.first.max(from)..self.end).filter(|day| self.kind(*day) == kind).collect()
    }

    /// Returns the days that a night lists: all with rows, and the days without from `from` on.
    fn listed(&self, from: i32) -> Vec<i32> {
        let dense = self.first.max(from)..self.end;
        let mut days: Vec<i32> =
            self.days.keys().copied().filter(|day| !dense.contains(day)).chain(dense.clone()).collect();
        days.sort_unstable();
        days
    }
}

fn median(mut values: Vec<u64>) -> f64 {
    values.sort_unstable();
    match values.len() {
        0 => 0.0,
        n => (values[(n - 1) / 2] + values[n / 2]) as f64 / 2.0,
    }
}

/// Registers what the SQL files know of days: `lake_days()`, `missing_days()`, `closed_days()` (the horizon included), and
/// `missing_label_days()`, the days from the run date to the labels' end that turned out to be missing.
/// `days` ends at the run date; `label_days` ends with the labels, where a session has labels.
pub(crate) fn register(
    ctx: &SessionContext,
    config: &Config,
    days: &LakeDays,
    label_days: Option<&LakeDays>,
) -> Result<()> {
    let oldest = days.end - DAYS_JUDGED.max(config.demand.history_days.try_into().unwrap_or(i32::MAX / 2));
    let missing = days.of_kind(DayKind::Missing, oldest);
    let ahead = days.end..days.end.saturating_add_unsigned(config.demand.horizon_days);
    let closed =
        days.of_kind(DayKind::Closed, oldest).into_iter().chain(ahead.filter(|day| days.is_closed_ahead(*day)));
    let missing_labels = label_days.map_or(Vec::new(), |known| known.of_kind(DayKind::Missing, days.end));
    let values = [
        ("lake_days", rows(days, oldest)?),
        ("missing_days", dates(missing)),
        ("closed_days", dates(closed)),
        ("missing_label_days", dates(missing_labels)),
    ];
    for (name, value) in values {
        ctx.register_udf(Constant::new(name, value).into());
    }
    Ok(())
}

fn dates(days: impl IntoIterator<Item = i32>) -> ScalarValue {
    let values: Vec<ScalarValue> = days.into_iter().map(|day| ScalarValue::Date32(Some(day))).collect();
    ScalarValue::List(ScalarValue::new_list_nullable(&values, &DataType::Date32))
}

fn rows(days: &LakeDays, oldest: i32) -> Result<ScalarValue> {
    let listed = days.listed(oldest);
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let column = |name: &'static str, values: ArrayRef| (name, values);
    let rows = StructArray::try_from(vec![
        column("day", Arc::new(Date32Array::from(listed.clone()))),
        column("rows_read", Arc::new(Int64Array::from_iter_values(listed.iter().map(|d| number(days.rows_read(*d)))))),
        column("events", Arc::new(Int64Array::from_iter_values(listed.iter().map(|d| number(days.events(*d)))))),
        column("kind", Arc::new(StringArray::from_iter_values(listed.iter().map(|d| days.kind(*d).name())))),
    ])?;
    let list = datafusion::common::utils::SingleRowListArrayBuilder::new(Arc::new(rows));
    Ok(list.build_list_scalar())
}

const UNIT_DAYS_SQL: &str = "SELECT event_day, coalesce(arrival_day, event_day) AS arrival_day, \
     count(*) AS rows_read, sum(good) AS events FROM ( \
     SELECT event_day, arrival_day, 1 AS good FROM unit_event \
     UNION ALL SELECT event_day, arrival_day, 0 AS good FROM unit_quarantine \
     ) WHERE event_day IS NOT NULL GROUP BY event_day, coalesce(arrival_day, event_day) ORDER BY 1, 2";

const FILE_DAYS_SQL: &str = "SELECT event_day, arrival_day, count(*) AS rows_read, count(*) AS events FROM dated_events \
     WHERE ts >= lake_first_at() AND ts <= read_at() + time_tolerance() \
     GROUP BY event_day, arrival_day ORDER BY event_day, arrival_day";

/// Counts the rows of one unit, whose outputs are registered, by day. A row without a time is on no day.
pub(super) async fn count_unit(ctx: &SessionContext) -> Result<Vec<UnitDay>> {
    count(ctx, UNIT_DAYS_SQL).await
}

/// Counts the rows of the registered view `dated_events` with a plausible time by day; every row counts as good.
pub(super) async fn count_files(ctx: &SessionContext) -> Result<Vec<UnitDay>> {
    count(ctx, FILE_DAYS_SQL).await
}

async fn count(ctx: &SessionContext, sql: &str) -> Result<Vec<UnitDay>> {
    let mut days = Vec::new();
    for batch in ctx.sql(sql).await?.collect().await? {
        let day = |column: usize| batch.column(column).as_primitive::<Date32Type>();
        let count = |column: usize| batch.column(column).as_primitive::<Int64Type>();
        days.extend((0..batch.num_rows()).map(|row| UnitDay {
            event_day: day(0).value(row),
            arrival_day: day(1).value(row),
            rows_read: count(2).value(row).unsigned_abs(),
            events: count(3).value(row).unsigned_abs(),
        }));
    }
    Ok(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_went_are_taken_out_of_their_day_alone() {
        let part = |event_day, arrival_day, rows_read, events| UnitDay { event_day, arrival_day, rows_read, events };
        let mut days = [part(7, 7, 3, 3), part(7, 8, 5, 4), part(8, 8, 5, 5)];
        take_out(&mut days, 7, 6);
        assert_eq!(days, [part(7, 7, 2, 2), part(7, 8, 0, 0), part(8, 8, 5, 5)]);
        take_out(&mut days, 8, 9);
        take_out(&mut days, 9, 1);
        assert_eq!(days, [part(7, 7, 2, 2), part(7, 8, 0, 0), part(8, 8, 0, 0)]);
    }

    const END: &str = "2026-04-01";

    /// A lake whose day `ago` days before the end has `events(ago)` events, of the last `days` days.
    fn lake(days: i32, events: impl Fn(i32) -> u64) -> LakeDays {
        let date: RunDate = END.parse().unwrap();
        let end = date32(date.0);
        let unit: Vec<UnitDay> = (1..=days)
            .map(|ago| (end - ago, events(ago)))
            .filter(|(_, events)| *events > 0)
            .map(|(day, events)| UnitDay { event_day: day, arrival_day: day, rows_read: events + 1, events })
            .collect();
        LakeDays::before(date, &unit)
    }

    fn of_kind(days: &LakeDays, kind: DayKind) -> Vec<i32> {
        days.of_kind(kind, i32::MIN / 2).into_iter().map(|day| days.end - day).collect()
    }

    #[test]
    fn a_weekday_on_which_the_shop_is_closed_is_no_missing_day() {
        // The end is a Wednesday: three days ago it was Sunday.
        let shop = lake(90, |ago| if ago % 7 == 3 || ago == 12 { 0 } else { 100 });
        let closed = of_kind(&shop, DayKind::Closed);
        assert_eq!(closed, (0..12).rev().map(|week| 3 + 7 * week).collect::<Vec<_>>());
        assert_eq!(of_kind(&shop, DayKind::Missing), [87, 12], "the first Sunday, before any other, and the outage");
        assert_eq!((0..14).filter(|ahead| shop.is_closed_ahead(shop.end + ahead)).collect::<Vec<_>>(), [4, 11]);
        assert_eq!(shop.rows_read(shop.end - 1), 101);
    }

    #[test]
    fn days_without_events_are_normal_in_a_small_lake() {
        let small = lake(60, |ago| if ago % 5 == 0 { 0 } else { 19 });
        assert!(of_kind(&small, DayKind::Missing).is_empty());
        assert_eq!(of_kind(&small, DayKind::Quiet).len(), 11, "the lake begins 59 days ago");
        let larger = lake(60, |ago| if ago % 5 == 0 { 0 } else { 20 });
        assert_eq!(of_kind(&larger, DayKind::Missing).len(), 11);
    }

    #[test]
    fn a_long_gap_is_compared_with_the_weeks_before_it() {
        let two_days = lake(366, |ago| if ago == 1 || ago == 366 { 40 } else { 0 });
        assert_eq!(of_kind(&two_days, DayKind::Missing).len(), 364);
        let seldom = lake(366, |ago| if ago == 1 || ago == 366 { 4 } else { 0 });
        assert_eq!(of_kind(&seldom, DayKind::Quiet).len(), 364);
        assert!(!two_days.is_closed_ahead(two_days.end));
    }

    #[test]
    fn only_what_had_arrived_counts() {
        let date: RunDate = END.parse().unwrap();
        let end = date32(date.0);
        let late = UnitDay { event_day: end - 2, arrival_day: end, rows_read: 5, events: 5 };
        let known = UnitDay { arrival_day: end - 1, rows_read: 3, events: 0, ..late };
        let days = LakeDays::before(date, &[late, known]);
        assert_eq!((days.rows_read(end - 2), days.newest(), days.first()), (3, None, end));
        assert_eq!(LakeDays::before(date.plus_days(1), &[late, known]).rows_read(end - 2), 8);
        assert_eq!(days.listed(end - 90), [end - 2]);
    }
}
