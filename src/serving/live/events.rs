//! A user's new events, as a request sends them.

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use chrono::{DateTime, Duration, NaiveDate, Utc};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{Config, Partition};
use crate::failure::{Failure, Result};
use crate::ids::{RunDate, date32};

/// Events of one request.
pub(crate) const EVENTS_MAX: usize = 1_000;

/// Days after the night, and days around now, to which the newest event of a request may belong: plans are made for each.
pub(super) const DAYS_MAX: i64 = 8;
const DAYS_AROUND_NOW: i64 = 1;

/// One event with the names of the canonical view `events` (docs/howto/lake.md).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Event {
    /// RFC 3339, with an offset.
    ts: DateTime<Utc>,
    event_type: String,
    #[serde(default)]
    event_id: Option<String>,
    #[serde(default)]
    user_id: Option<String>,
    #[serde(default)]
    session_id: Option<String>,
    #[serde(default)]
    arrived_at: Option<DateTime<Utc>>,
    #[serde(default)]
    item_id: Option<String>,
    #[serde(default)]
    query: Option<String>,
    #[serde(default)]
    dwell_ms: Option<i64>,
    #[serde(default)]
    quantity: Option<i64>,
    #[serde(default)]
    price: Option<f64>,
    #[serde(default)]
    currency: Option<String>,
    #[serde(default)]
    rating: Option<i64>,
    #[serde(default)]
    text: Option<String>,
}

/// A user of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named<'a> {
    pub(crate) user_id: &'a str,
    /// The id that the client knows: the user's, or a pseudonym.
    pub(crate) asked_id: &'a str,
}

/// Events of one user, none of them in the future.
#[derive(Debug)]
pub(super) struct UserEvents<'a> {
    user_id: &'a str,
    events: &'a [Event],
    /// The date whose midnight is the first after the newest event; that of the night where there is none.
    pub(super) run_date: RunDate,
}

impl<'a> UserEvents<'a> {
    /// Refuses (usage) events of another user or from the future, too many, and those of which the newest is from before the night
    /// of `oldest`, the date of the newest night.
    pub(super) fn check(
        user: Named<'a>,
        events: &'a [Event],
        config: &Config,
        oldest: RunDate,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        if events.len() > EVENTS_MAX {
            return Err(Failure::usage(format!("expected at most {EVENTS_MAX} events, got {}", events.len())));
        }
        let latest = now + Duration::hours(config.lake.time_tolerance_hours.into());
        for (place, event) in events.iter().enumerate() {
            let place = place_of(place);
            if let Some(other) = event.user_id.as_deref().filter(|other| *other != user.asked_id) {
                return Err(Failure::usage(format!("{place}.user_id: expected {:?}, got {other:?}", user.asked_id)));
            }
            if event.ts < config.lake.first_at() {
                return Err(Failure::usage(format!(
                    "{place}.ts: is before lake.first_date, {}",
                    config.lake.first_date
                )));
            }
            if event.ts > latest {
                return Err(Failure::usage(format!("{place}.ts: {} is in the future", event.ts.to_rfc3339())));
            }
        }
        let Some(newest) = events.iter().map(|event| event.ts).max() else {
            return Ok(Self { user_id: user.user_id, events, run_date: oldest });
        };
        let run_date = RunDate(newest.with_timezone(&config.time_zone()).date_naive()).plus_days(1);
        if run_date < oldest {
            return Err(Failure::usage(format!(
                "the newest event is of {}, before the night of {oldest}, which knows that day",
                newest.to_rfc3339()
            ))
            .hint("send the events since that night; GET has its intents"));
        }
        let today = RunDate(now.with_timezone(&config.time_zone()).date_naive());
        let is_near_now = (run_date.0 - today.plus_days(1).0).num_days().abs() <= DAYS_AROUND_NOW;
        if run_date > oldest.plus_days(DAYS_MAX) && !is_near_now {
            return Err(Failure::usage(format!(
                "the newest event is of {}, neither within {DAYS_MAX} days of the night of {oldest} nor of today",
                newest.to_rfc3339()
            )));
        }
        Ok(Self { user_id: user.user_id, events, run_date })
    }

    /// Returns the rows as the view `events` of a lake that holds these events, with their places as `_file`.
    pub(super) fn rows(&self, schema: &SchemaRef, config: &Config) -> Result<RecordBatch> {
        let texts = |of: &dyn Fn(&Event) -> Option<&str>| -> ArrayRef {
            Arc::new(self.events.iter().map(of).collect::<StringArray>())
        };
        let numbers = |of: &dyn Fn(&Event) -> Option<i64>| -> ArrayRef {
            Arc::new(self.events.iter().map(of).collect::<Int64Array>())
        };
        let times = |of: &dyn Fn(&Event) -> Option<DateTime<Utc>>| -> ArrayRef {
            let micros = self.events.iter().map(|event| of(event).map(|at| at.timestamp_micros()));
            Arc::new(micros.collect::<TimestampMicrosecondArray>())
        };
        let day = |event: &Event| -> NaiveDate {
            match config.lake.partition {
                Partition::EventDateUtc => event.ts.date_naive(),
                _ => event.ts.with_timezone(&config.time_zone()).date_naive(),
            }
        };
        let days = self.events.iter().map(|event| Some(date32(day(event))));
        let places = (0..self.events.len()).map(|place| Some(place_of(place)));
        let mut columns: BTreeMap<&str, ArrayRef> = BTreeMap::from([
            ("event_id", texts(&|event| event.event_id.as_deref())),
            ("user_id", Arc::new(StringArray::from(vec![self.user_id; self.events.len()])) as ArrayRef),
            ("session_id", texts(&|event| event.session_id.as_deref())),
            ("ts", times(&|event| Some(event.ts))),
            ("arrived_at", times(&|event| event.arrived_at)),
            ("event_type", texts(&|event| Some(&event.event_type))),
            ("item_id", texts(&|event| event.item_id.as_deref())),
            ("query", texts(&|event| event.query.as_deref())),
            ("dwell_ms", numbers(&|event| event.dwell_ms)),
            ("quantity", numbers(&|event| event.quantity)),
            ("price", Arc::new(self.events.iter().map(|event| event.price).collect::<Float64Array>())),
            ("currency", texts(&|event| event.currency.as_deref())),
            ("rating", numbers(&|event| event.rating)),
            ("text", texts(&|event| event.text.as_deref())),
            ("_file", Arc::new(places.collect::<StringArray>())),
            ("_dt", Arc::new(days.collect::<arrow::array::Date32Array>())),
        ]);
        let column = |field: &arrow::datatypes::FieldRef| -> Result<ArrayRef> {
            match columns.remove(field.name().as_str()) {
                Some(column) => Ok(cast(&column, field.data_type())?),
                None => Err(Failure::bug(format!("the view events has a column {}", field.name()))),
            }
        };
        let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }
}

/// Returns what the customer wrote with the newest `count` events.
pub(super) fn newest_texts(events: &[Event], count: usize) -> impl Iterator<Item = String> {
    let mut newest: Vec<&Event> = events.iter().collect();
    newest.sort_by_key(|event| std::cmp::Reverse(event.ts));
    newest.truncate(count);
    newest.into_iter().flat_map(|event| [&event.query, &event.text]).flatten().cloned()
}

/// Names an event of a request, counting from 0 as JSON paths do.
fn place_of(place: usize) -> String {
    format!("[{place}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    const U: Named<'_> = Named { user_id: "u", asked_id: "u" };

    fn events(json: &str) -> Vec<Event> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_run_date_is_the_local_day_after_the_newest_event() {
        let mut config = Config::default();
        config.lake.time_zone = "Europe/Berlin".into();
        let sent = events(
            r#"[{"ts": "2026-04-29T21:59:59Z", "event_type": "view"}, {"ts": "2026-04-29T22:00:00Z", "event_type": "view"}]"#,
        );
        let (oldest, now) = ("2026-04-29".parse().unwrap(), "2026-12-01T00:00:00Z".parse().unwrap());
        let date = |events: &[Event]| UserEvents::check(U, events, &config, oldest, now).unwrap().run_date.to_string();
        assert_eq!(date(&sent[..1]), "2026-04-30");
        assert_eq!(date(&sent), "2026-05-01");
    }

    #[test]
    fn events_that_no_night_would_read_are_refused_with_their_place() {
        let (oldest, now) = ("2026-04-29".parse().unwrap(), "2026-05-20T00:00:00Z".parse().unwrap());
        let config = Config::default();
        for (json, expected) in [
            (
                r#"[{"ts": "2026-05-05T10:00:00Z", "event_type": "view", "user_id": "v"}]"#,
                r#"[0].user_id: expected "u""#,
            ),
            (
                r#"[{"ts": "2026-05-05T10:00:00Z", "event_type": "view"}, {"ts": "2027-01-01T00:00:00Z", "event_type": "view"}]"#,
                "[1].ts: 2027-01-01T00:00:00+00:00 is in the future",
            ),
            (r#"[{"ts": "2026-04-01T10:00:00Z", "event_type": "view"}]"#, "before the night of 2026-04-29"),
            (r#"[{"ts": "-262143-01-01T00:00:00Z", "event_type": "view"}]"#, "[0].ts: is before lake.first_date"),
            (r#"[{"ts": "2026-05-15T10:00:00Z", "event_type": "view"}]"#, "neither within 8 days of the night"),
        ] {
            let sent = events(json);
            let refused = UserEvents::check(U, &sent, &config, oldest, now).unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
        }
        let today = events(r#"[{"ts": "2026-05-19T10:00:00Z", "event_type": "view"}]"#);
        assert!(UserEvents::check(U, &today, &config, oldest, now).is_ok(), "a night may be older, as that of a demo");
        assert_eq!(UserEvents::check(U, &[], &config, oldest, now).unwrap().run_date, oldest);
        let many = vec![events(r#"[{"ts": "2026-05-05T10:00:00Z", "event_type": "view"}]"#)[0].clone(); EVENTS_MAX + 1];
        let refused = UserEvents::check(U, &many, &config, oldest, now).unwrap_err().to_string();
        assert!(refused.contains("at most 1000 events, got 1001"), "{refused}");
    }
}
