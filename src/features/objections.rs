//! Objections that follow from the days of a lake: events that are too old, days that are only partly loaded, and days whose events
//! are missing. A night stops for them; other verbs warn.

use clap::ValueEnum;
use serde::Serialize;

use super::lake_days::{DAYS_JUDGED, DayKind, LakeDays, UnitDay};
use super::rollups::Rollups;
use crate::config::Config;
use crate::ids::{RunDate, date32};

/// A kind of objection, as `--accept` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Accept {
    /// The newest event is older than lake.freshness_days_max
    Freshness,
    /// A day of the last week has fewer events than lake.volume_share_min of earlier same weekdays, or a day has fewer
    /// rows than when a night last read it
    Volume,
    /// More than lake.missing_day_share of the last 90 days are missing
    MissingDays,
}

/// An objection against a night.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Objection {
    pub(crate) kind: Accept,
    pub(crate) message: String,
}

/// Days before the run date that are compared, and weeks that each is compared with.
const DAYS_COMPARED: i32 = 7;
const WEEKS: i32 = 4;
/// A median below this many events says too little.
const EVENTS_MEDIAN_MIN: u64 = 50;
/// Number of days that a note names.
const DAYS_NAMED: usize = 10;

/// Warns of what a night would object to, for verbs that go ahead.
pub(crate) fn warn(config: &Config, rollups: &Rollups, run_date: RunDate) {
    for objection in find(config, &rollups.unit_days(), run_date) {
        tracing::warn!("{}; a night would stop (exit 4)", objection.message);
    }
}

/// Returns the objections against a night of `run_date` over these days.
pub(crate) fn find(config: &Config, unit_days: &[UnitDay], run_date: RunDate) -> Vec<Objection> {
    let days = LakeDays::before(run_date, unit_days);
    let old = too_old(days.newest(), config.lake.freshness_days_max, run_date);
    let small = too_few(unit_days, days.first(), config.lake.volume_share_min, run_date);
    let missing = too_many_missing(&days, config.lake.missing_day_share, run_date);
    old.into_iter().chain(small).chain(missing).collect()
}

/// Names the missing days of the last 90, for `runs.note`.
pub(crate) fn note_missing_days(rollups: &Rollups, run_date: RunDate) -> Option<String> {
    let days = rollups.days_before(run_date);
    let missing = days.of_kind(DayKind::Missing, date32(run_date.0) - DAYS_JUDGED);
    (!missing.is_empty())
        .then(|| format!("days without events, left out of demand histories: {}", name_days(&missing, run_date)))
}

/// Objects to the first day of the last week that has events, but fewer than `share_min` of the median of the same weekday in the
/// four weeks before. Each earlier day is counted at the same age, so that late events make no difference.
fn too_few(counts: &[UnitDay], first_day: i32, share_min: f64, run_date: RunDate) -> Option<Objection> {
    let today = date32(run_date.0);
    let known = |day: i32, days_after: i32| -> u64 {
        let of_day = counts.iter().filter(|part| part.event_day == day && part.arrival_day < day + days_after);
        of_day.map(|part| part.events).sum()
    };
    for days_ago in (1..=DAYS_COMPARED).rev() {
        let day = today - days_ago;
        let events = known(day, days_ago);
        if events == 0 || day - 7 * WEEKS < first_day {
            continue;
        }
        let mut earlier: Vec<u64> = (1..=WEEKS).map(|week| known(day - 7 * week, days_ago)).collect();
        earlier.sort_unstable();
        let median = (earlier[1] + earlier[2]) / 2;
        if median >= EVENTS_MEDIAN_MIN && (events as f64) < share_min * median as f64 {
            return Some(Objection {
                kind: Accept::Volume,
                message: format!(
                    "{} has {events} events, the median of the same weekday in the four weeks before is {median} \
                     (lake.volume_share_min = {share_min}): the day may be only partly loaded",
                    date_of(day, run_date)
                ),
            });
        }
    }
    None
}

/// Objects where more than `share_max` of the last 90 days, or of the days since the first event, are missing.
fn too_many_missing(days: &LakeDays, share_max: f64, run_date: RunDate) -> Option<Objection> {
    let today = date32(run_date.0);
    let from = days.first().max(today - DAYS_JUDGED);
    let missing = days.of_kind(DayKind::Missing, from);
    let share = missing.len() as f64 / f64::from((today - from).max(1));
    (share > share_max).then(|| Objection {
        kind: Accept::MissingDays,
        message: format!(
            "{} of the {} days before {run_date} have no event (lake.missing_day_share = {share_max}): {}",
            missing.len(),
            today - from,
            name_days(&missing, run_date)
        ),
    })
}

/// Objects where more than `days_max` whole days lie between the newest event and the run date; warns from two days on.
fn too_old(newest: Option<i32>, days_max: u32, run_date: RunDate) -> Option<Objection> {
    let Some(newest) = newest else {
        return Some(Objection { kind: Accept::Freshness, message: format!("no event is known before {run_date}") });
    };
    let days = date32(run_date.0) - newest - 1;
    let newest = date_of(newest, run_date);
    let message = format!("newest event is {days} days old ({newest}; lake.freshness_days_max = {days_max})");
    if i64::from(days) > i64::from(days_max) {
        return Some(Objection { kind: Accept::Freshness, message });
    }
    if days >= 2 {
        tracing::warn!("{message}");
    }
    None
}

/// Returns the date of a day near `known`.
pub(crate) fn date_of(day: i32, known: RunDate) -> RunDate {
    known.plus_days(i64::from(day) - i64::from(date32(known.0)))
}

/// Names days, spans as `first to last`.
fn name_days(days: &[i32], run_date: RunDate) -> String {
    let mut spans: Vec<(i32, i32)> = Vec::new();
    for &day in days {
        match spans.last_mut() {
            Some((_, last)) if *last + 1 == day => *last = day,
            _ => spans.push((day, day)),
        }
    }
    let name = |(first, last): &(i32, i32)| match first == last {
        true => date_of(*first, run_date).to_string(),
        false => format!("{} to {}", date_of(*first, run_date), date_of(*last, run_date)),
    };
    let mut names: Vec<String> = spans.iter().take(DAYS_NAMED).map(name).collect();
    if spans.len() > DAYS_NAMED {
        names.push(format!("and {} more", spans.len() - DAYS_NAMED));
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_days_without_events_count() {
        let day = |text: &str| Some(date32(text.parse::<RunDate>().unwrap().0));
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
        let part = |(event_day, arrival_day, events)| UnitDay { event_day, arrival_day, rows_read: events, events };
        let full: Vec<UnitDay> = (1..=35)
            .flat_map(|ago| [(today - ago, today - ago, 90), (today - ago, today - ago + 1, 10)])
            .filter(|(_, arrival, _)| *arrival < today)
            .map(part)
            .collect();
        assert_eq!(too_few(&full, today - 60, 0.95, date), None);
        let quarter = |part: &UnitDay| match part.event_day == today - 2 {
            true => UnitDay { events: part.events / 4, ..*part },
            false => *part,
        };
        let halved: Vec<UnitDay> = full.iter().map(quarter).collect();
        let objection = too_few(&halved, today - 60, 0.3, date).unwrap();
        assert!(objection.message.starts_with("2026-03-08 has 24 events"), "{}", objection.message);
        assert_eq!(too_few(&halved, today - 20, 0.3, date), None, "a young lake");
        let missing: Vec<UnitDay> = full.iter().copied().filter(|part| part.event_day != today - 2).collect();
        assert_eq!(too_few(&missing, today - 60, 0.3, date), None, "a day without any event is no half day");
        let small: Vec<UnitDay> = halved.iter().map(|part| UnitDay { events: part.events / 3, ..*part }).collect();
        assert_eq!(too_few(&small, today - 60, 0.3, date), None, "too few events to tell");
    }

    #[test]
    fn missing_days_are_named_and_a_tenth_of_them_is_too_many() {
        let night: RunDate = "2026-03-31".parse().unwrap();
        let today = date32(night.0);
        let part = |ago: i32| UnitDay { event_day: today - ago, arrival_day: today - ago, rows_read: 30, events: 30 };
        let lake = |gap: &[i32]| {
            let parts: Vec<UnitDay> = (1..=40).filter(|ago| !gap.contains(ago)).map(part).collect();
            LakeDays::before(night, &parts)
        };
        assert_eq!(too_many_missing(&lake(&[20, 19, 18, 5]), 0.1, night), None, "four of forty");
        let objection = too_many_missing(&lake(&[20, 19, 18, 5, 3]), 0.1, night).unwrap();
        let wanted = "5 of the 40 days before 2026-03-31 have no event (lake.missing_day_share = 0.1): \
                      2026-03-11 to 2026-03-13, 2026-03-26, 2026-03-28";
        assert_eq!(objection.message, wanted);
    }
}
