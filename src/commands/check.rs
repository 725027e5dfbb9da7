//! `intentcast check`: says whether the newest night is young enough. The job cannot report its own absence.

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::command::{Command, Needs, Places};
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::publish::runs::{self, VisibleNight};

/// Fail with exit code 4 if the newest visible night was published too long ago.
///
/// For an alarm that does not depend on the job itself: run it from another scheduler or another machine.
#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    places: Places,
    /// Accept a night that was published at most this long ago, such as 26h, 90m or 2days.
    #[arg(long, value_name = "DURATION", default_value = "26h", value_parser = humantime::parse_duration)]
    max_age: Duration,
    /// Also write the figures to this file, for the textfile collector of Prometheus' node exporter.
    #[arg(long, value_name = "FILE")]
    prometheus: Option<PathBuf>,
}

#[async_trait(?Send)]
impl Command for Check {
    fn needs(&self) -> Needs<'_> {
        Needs::output(&self.places)
    }

    async fn run(&self, config: &Config) -> Result<()> {
        let output = Location::open(&config.output.uri, &config.s3)?;
        let place = output.display_folder();
        let newest = match runs::visible_nights(&output).await {
            Ok(mut nights) => nights.pop(),
            Err(failure) => {
                // Figures of the last check must not pass for today's.
                let unknown = Freshness { is_fresh: false, age: None, sentence: String::new() };
                self.write_metrics(&unknown.metrics(None, &place)).unwrap_or_else(warn);
                return Err(failure);
            }
        };
        let found = Freshness::measure(newest.as_ref(), self.max_age, Utc::now());
        let written = self.write_metrics(&found.metrics(newest.as_ref(), &place));
        if !found.is_fresh {
            written.unwrap_or_else(warn);
            // Without a hint, so that an alarm shows one line.
            return Err(Failure::check(format!("{place}: {}", found.sentence)));
        }
        written?;
        say!("{}", found.sentence);
        Ok(())
    }
}

impl Check {
    fn write_metrics(&self, text: &str) -> Result<()> {
        self.prometheus.as_deref().map_or(Ok(()), |file| replace(file, text))
    }
}

/// Reports a failure that must not hide a more important one.
fn warn(failure: Failure) {
    tracing::warn!("{failure}");
}

/// Difference of clocks that is accepted.
const AHEAD_MAX: TimeDelta = TimeDelta::hours(3);

/// Age of the newest visible night.
#[derive(Debug, PartialEq)]
struct Freshness {
    is_fresh: bool,
    age: Option<TimeDelta>,
    sentence: String,
}

impl Freshness {
    fn measure(newest: Option<&VisibleNight>, age_max: Duration, now: DateTime<Utc>) -> Self {
        let allowed = humantime::format_duration(age_max);
        let Some(night) = newest else {
            return Self { is_fresh: false, age: None, sentence: "no night is visible".into() };
        };
        // The clock of the machine that published may be a little ahead; a night of next year is no sign of life.
        let ahead = night.run.made_visible_at - now;
        let age = (now - night.run.made_visible_at).max(TimeDelta::zero());
        let is_fresh = ahead <= AHEAD_MAX && age.to_std().is_ok_and(|age| age <= age_max);
        if ahead > AHEAD_MAX {
            let at = night.run.made_visible_at.format("%Y-%m-%d %H:%M UTC");
            let sentence = format!("night {}: published in the future ({at}); a clock is wrong", night.run_date());
            return Self { is_fresh, age: None, sentence };
        }
        let minutes = Duration::from_secs(age.num_minutes().unsigned_abs() * 60);
        let sentence = format!(
            "night {}: published {} ago ({}), {} {allowed}",
            night.run_date(),
            humantime::format_duration(minutes),
            night.run.made_visible_at.format("%Y-%m-%d %H:%M UTC"),
            if is_fresh { "within" } else { "expected at most" },
        );
        Self { is_fresh, age: Some(age), sentence }
    }

    /// Returns the figures in the text format of Prometheus, labelled with the output.
    fn metrics(&self, newest: Option<&VisibleNight>, output: &str) -> String {
        let label = output.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let mut text = String::new();
        let mut gauge = |name: &str, help: &str, value: Option<f64>| {
            if let Some(value) = value {
                let name = format!("intentcast_{name}");
                writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name}{{output=\"{label}\"}} {value}")
                    .unwrap_or_default();
            }
        };
        let run = newest.map(|night| &night.run);
        let seconds = |time: DateTime<Utc>| time.timestamp() as f64;
        gauge("night_fresh", "1 if the newest visible night is young enough", Some(f64::from(u8::from(self.is_fresh))));
        gauge("night_age_seconds", "Age of the newest visible night", self.age.map(|age| age.num_seconds() as f64));
        let run_date = newest.and_then(|night| night.run_date().0.and_hms_opt(0, 0, 0));
        gauge(
            "night_run_date_seconds",
            "Run date of that night, UTC midnight",
            run_date.map(|at| seconds(at.and_utc())),
        );
        gauge("night_published_seconds", "When it was published", run.map(|run| seconds(run.made_visible_at)));
        let rows = |count: Option<i64>| count.map(|count| count as f64);
        gauge("night_rows_read", "Event rows that it is based on", rows(run.and_then(|run| run.rows_read)));
        gauge("night_rows_quarantined", "Bad rows among them", rows(run.and_then(|run| run.rows_quarantined)));
        gauge("night_duration_seconds", "Seconds of its stages", run.and_then(|run| run.stage_seconds()));
        text
    }
}

/// Replaces a file as a whole: a collector never reads half of it.
fn replace(file: &Path, text: &str) -> Result<()> {
    // Through a link to the file itself, which stays a link.
    let target = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_path_buf());
    if target.exists() && !target.is_file() {
        return Err(Failure::usage(format!("--prometheus {}: expected a file", file.display())));
    }
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || {
        let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
        temporary.write_all(text.as_bytes())?;
        // The collector runs as another user, whatever the umask of this one.
        temporary.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        temporary.persist(&target).map_err(|e| e.error)
    };
    write().map_err(|e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => {
            Failure::usage(format!("--prometheus {}: {e}", file.display()))
        }
        _ => Failure::transient(format!("--prometheus {}: {e}", file.display())),
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::runs::RunRecord;
    use serde_json::json;

    const DAY: Duration = Duration::from_secs(26 * 3600);

    fn at(hours: i64) -> DateTime<Utc> {
        "2026-03-02T03:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::hours(hours)
    }

    fn night() -> VisibleNight {
        let stages = json!({"checks": {"seconds": 1.5}, "intent": {"seconds": 2.5}}).to_string();
        let run: RunRecord = serde_json::from_value(json!({
            "run_date": "2026-03-02", "generation": 1, "kind": "night", "status": "published", "manifest_hash": "",
            "made_visible_at": at(0), "rows_read": 120, "stages": stages,
        }))
        .unwrap();
        VisibleNight { run }
    }

    #[test]
    fn a_night_is_fresh_until_its_age_is_over() {
        for (hours, is_fresh) in [(-2, true), (0, true), (26, true), (27, false), (-24 * 365, false)] {
            let found = Freshness::measure(Some(&night()), DAY, at(hours));
            assert_eq!(found.is_fresh, is_fresh, "{found:?}");
        }
        let old = Freshness::measure(Some(&night()), DAY, at(30)).sentence;
        assert_eq!(old, "night 2026-03-02: published 1day 6h ago (2026-03-02 03:00 UTC), expected at most 1day 2h");
        let future = Freshness::measure(Some(&night()), DAY, at(-24 * 365));
        assert!(future.age.is_none() && future.sentence.contains("in the future"), "{future:?}");
        let none = Freshness::measure(None, DAY, at(0));
        assert_eq!((none.is_fresh, none.sentence.as_str()), (false, "no night is visible"));
    }

    #[test]
    fn the_figures_are_in_the_format_of_prometheus() {
        let text = Freshness::measure(Some(&night()), DAY, at(1)).metrics(Some(&night()), "/out \"1\"/");
        for (name, value) in [("fresh", "1"), ("age_seconds", "3600"), ("rows_read", "120"), ("duration_seconds", "4")]
        {
            let line = format!("intentcast_night_{name}{{output=\"/out \\\"1\\\"/\"}} {value}");
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        let none = Freshness::measure(None, DAY, at(1)).metrics(None, "o");
        assert_eq!(none.lines().last(), Some("intentcast_night_fresh{output=\"o\"} 0"));
    }
}
