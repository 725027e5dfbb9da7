//! The interface of a verb, and the flags that several verbs share.

use async_trait::async_trait;
use clap::Args;

use crate::config::Config;
use crate::failure::Result;
use crate::ids::RunDate;

/// Locations of lake and output.
#[derive(Debug, Args)]
pub(crate) struct Places {
    /// Read the Parquet lake at this root: s3://…, file://… or a plain path [default: lake.uri].
    #[arg(long, value_name = "URI")]
    pub(crate) lake: Option<String>,
    /// Write tables/, state/ and models/ below this root [default: output.uri].
    #[arg(long, value_name = "URI")]
    pub(crate) output: Option<String>,
}

/// The dates of a backfill, both included.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dates {
    pub(crate) first: RunDate,
    pub(crate) last: RunDate,
}

impl Dates {
    /// Returns the first date and every so many days after it, up to the last.
    pub(crate) fn every(self, step_days: u32) -> impl Iterator<Item = RunDate> {
        let days = (self.last.0 - self.first.0).num_days();
        (0..=days).step_by(step_days.max(1) as usize).map(move |day| self.first.plus_days(day))
    }
}

/// Parses `A..B`.
pub(crate) fn parse_dates(text: &str) -> Result<Dates, String> {
    let (first, last) = text.split_once("..").ok_or_else(|| format!("expected A..B, got {text:?}"))?;
    let parse = |date: &str| date.parse::<RunDate>().map_err(|failure| failure.to_string());
    let dates = Dates { first: parse(first)?, last: parse(last)? };
    match dates.first > dates.last {
        true => Err(format!("{first} is after {last}")),
        false => Ok(dates),
    }
}

/// Needs of a verb, which are met before it runs.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Needs<'a> {
    /// Locations that the verb's flags name.
    pub(crate) places: Option<&'a Places>,
    /// True for a verb that reads a lake: `lake.toml` then adds to its settings, and a file that fails to decode is named. The
    /// other verbs must work where the lake is out of reach.
    pub(crate) lake: bool,
    /// True for a verb that makes tensors: the GPU's library has to be open before the first one.
    pub(crate) tensors: bool,
}

impl<'a> Needs<'a> {
    /// Needs of a verb that works on the output alone.
    pub(crate) fn output(places: &'a Places) -> Self {
        Self { places: Some(places), ..Self::default() }
    }

    /// Needs of a verb that reads a lake and runs models on it.
    pub(crate) fn lake_and_models(places: &'a Places) -> Self {
        Self { places: Some(places), lake: true, tensors: true }
    }
}

/// One verb of the command line.
#[async_trait(?Send)]
pub(crate) trait Command {
    /// Returns the needs of the verb; by default it has none.
    fn needs(&self) -> Needs<'_> {
        Needs::default()
    }

    async fn run(&self, config: &Config) -> Result<()>;
}
