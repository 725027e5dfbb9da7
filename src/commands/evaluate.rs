//! `intentcast evaluate`: the scores and forecasts of models on past dates against the actual outcomes.

use async_trait::async_trait;
use clap::Args;
use std::sync::Arc;

use super::command::{Command, Dates, Needs, Places, parse_dates};
use super::evaluation_tables::Shown;
use crate::config::Config;
use crate::evaluation::{self, Options};
use crate::failure::{Failure, Result};
use crate::ids::RunDate;
use crate::score::models::Models;
use crate::workspace::{Access, Workspace};

/// Compare the scores and forecasts that models would have had on past dates with the actual outcomes.
///
/// Features and histories are as of each date, outcomes of the days after it, over everything that the lake holds now. Forecasts are
/// the model's, before a night reconciles them with purchase intents. A date is marked `in_training` if the model learned from days
/// on or after it: its figures say little about future days. Writes nothing below the output.
#[derive(Debug, Args)]
pub struct Evaluate {
    #[command(flatten)]
    places: Places,
    /// Score as of this date.
    #[arg(long, required_unless_present = "backfill", value_name = "YYYY-MM-DD")]
    date: Option<RunDate>,
    /// Score as of dates from A to B, --step-days apart.
    #[arg(long, value_name = "A..B", conflicts_with = "date", value_parser = parse_dates)]
    backfill: Option<Dates>,
    /// Days between two dates of --backfill.
    #[arg(long, value_name = "DAYS", default_value = "7", value_parser = clap::value_parser!(u32).range(1..=366))]
    step_days: u32,
    /// Evaluate this version [default: model.version, or the champion].
    #[arg(long, value_name = "VERSION", default_value = "", hide_default_value = true)]
    model: String,
    /// Compare with this version, on the same users and dates.
    #[arg(long, value_name = "VERSION")]
    against: Option<String>,
    #[command(flatten)]
    shown: Shown,
}

#[async_trait(?Send)]
impl Command for Evaluate {
    fn needs(&self) -> Needs<'_> {
        Needs::lake_and_models(&self.places)
    }

    async fn run(&self, config: &Config) -> Result<()> {
        self.shown.refuse_unusable(self.against.is_some())?;
        let dates = match (self.backfill, self.date) {
            (Some(dates), _) => dates.every(self.step_days).collect(),
            (None, Some(date)) => vec![date],
            (None, None) => return Err(Failure::usage("evaluate: pass --date or --backfill")),
        };
        let models = Arc::new(Models::new(config)?);
        let workspace = Workspace::open(config, models, Access::ReadOnly).await?;
        let options = Options {
            dates,
            model: self.model.clone(),
            against: self.against.clone(),
            task: self.shown.task,
            slices: self.shown.slices,
            seed: config.train.seed,
        };
        let evaluation = evaluation::evaluate(&workspace, &options).await?;
        self.shown.show(&evaluation)
    }
}
