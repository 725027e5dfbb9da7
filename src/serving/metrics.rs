//! Counters of the server, as Prometheus reads them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the buckets of durations, in seconds.
const SECONDS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0];

/// Counters of the server.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    queries: Mutex<Histogram>,
    requests: Mutex<Histogram>,
}

/// Durations by two labels.
type Histogram = BTreeMap<(String, String), Durations>;

#[derive(Debug, Default, Clone)]
struct Durations {
    /// Per bound, and those above all bounds.
    counts: [u64; SECONDS.len() + 1],
    seconds: f64,
}

impl Durations {
    fn add(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = SECONDS.iter().position(|bound| seconds <= *bound).unwrap_or(SECONDS.len());
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.seconds += seconds;
    }
}

impl Metrics {
    /// Counts a query by its protocol and SQLSTATE (00000 is success).
    pub(crate) fn query_ended(&self, protocol: &str, sqlstate: &str, duration: Duration) {
        let mut queries = self.queries.lock().unwrap_or_else(PoisonError::into_inner);
        queries.entry((protocol.into(), sqlstate.into())).or_default().add(duration);
    }

    /// Counts a request of HTTP by its route and status.
    pub(crate) fn request_ended(&self, route: String, status: u16, duration: Duration) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.entry((route, status.to_string())).or_default().add(duration);
    }

    /// Writes all counters in Prometheus' text format.
    pub(crate) fn to_prometheus(&self) -> String {
        let queries = self.queries.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut text = String::new();
        write_histogram(
            &mut text,
            ("intentcast_query_seconds", "Duration of queries, by protocol and SQLSTATE."),
            ("protocol", "sqlstate"),
            &queries,
        );
        write_histogram(
            &mut text,
            ("intentcast_http_request_seconds", "Duration of HTTP requests, by route and status."),
            ("route", "status"),
            &requests,
        );
        text
    }
}

fn write_histogram(text: &mut String, (name, help): (&str, &str), (first, second): (&str, &str), counted: &Histogram) {
    let mut line = |line: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        writeln!(text, "{line}").unwrap_or_default();
    };
    line(format_args!("# HELP {name} {help}"));
    line(format_args!("# TYPE {name} histogram"));
    for ((a, b), durations) in counted {
        let labels = format!("{first}=\"{a}\",{second}=\"{b}\"");
        let mut sum = 0;
        for (count, bound) in
            durations.counts.iter().zip(SECONDS.map(|s| s.to_string()).into_iter().chain(["+Inf".into()]))
        {
            sum += count;
            line(format_args!("{name}_bucket{{{labels},le=\"{bound}\"}} {sum}"));
        }
        line(format_args!("{name}_sum{{{labels}}} {}", durations.seconds));
        line(format_args!("{name}_count{{{labels}}} {sum}"));
    }
}
