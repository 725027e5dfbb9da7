//! `intentcast backtest`: trains a model at each of several past dates, and compares its predictions with what came.

use async_trait::async_trait;
use clap::Args;
use std::sync::Arc;

use super::command::{Command, Needs, Places};
use super::evaluation_tables::Shown;
use crate::config::Config;
use crate::evaluation::{self, Backtested, Task};
use crate::failure::{Failure, Result};
use crate::ids::RunDate;
use crate::lake::stores::Location;
use crate::publish::lock;
use crate::score::models::Models;
use crate::training;
use crate::workspace::{Access, Workspace};

/// Train at past dates, and compare what these models would have predicted with the actual outcomes.
///
/// Each model learns from days before its date alone, with the settings of now, and is evaluated as of that date (see evaluate). The
/// figures of all dates together say how well models trained like this predict. No model becomes champion. A date that was trained with
/// these settings, SQL files and lake before is not trained again.
#[derive(Debug, Args)]
pub struct Backtest {
    #[command(flatten)]
    places: Places,
    /// Train and score as of these dates.
    #[arg(long, required = true, value_delimiter = ',', value_name = "YYYY-MM-DD,…")]
    dates: Vec<RunDate>,
    #[command(flatten)]
    shown: Shown,
}

#[async_trait(?Send)]
impl Command for Backtest {
    fn needs(&self) -> Needs<'_> {
        Needs::lake_and_models(&self.places)
    }

    async fn run(&self, config: &Config) -> Result<()> {
        self.shown.refuse_unusable(false)?;
        if self.shown.task == Some(Task::Demand) && !config.demand.enabled {
            return Err(Failure::usage("backtest: --task demand asks for forecasts, but demand.enabled is false")
                .hint("leave out one of the two"));
        }
        training::limit_threads(config);
        let mut dates = self.dates.clone();
        dates.sort();
        dates.dedup();
        let models = Arc::new(Models::new(config)?);
        let workspace = Workspace::open(config, models, Access::ReadOnly).await?;
        // Before the first training, which takes minutes.
        evaluation::require_complete(&workspace, &dates, self.shown.task).await?;
        let output = Location::open(&config.output.uri, &config.s3)?;
        let writing = lock::begin_writing(&output, "training", &config.lock).await?;
        let trained = train_each(config, &workspace, &dates).await;
        let ended = writing.end_writing().await;
        let backtested = trained?;
        ended?;
        let (task, slices) = (self.shown.task, self.shown.slices);
        let evaluation = evaluation::evaluate_each(&workspace, &backtested, task, slices, config.train.seed).await?;
        self.shown.show(&evaluation)
    }
}

/// Trains a model of each date, unless there is one already.
async fn train_each(config: &Config, workspace: &Workspace, dates: &[RunDate]) -> Result<Vec<Backtested>> {
    let mut backtested = Vec::new();
    for &date in dates {
        let card = match training::bundle::find_bundle(workspace, date).await? {
            Some(card) => card,
            None => training::bundle::train_bundle(config, date, None).await?.0,
        };
        tracing::info!("as of {date}: model {}", card.version);
        backtested.push(Backtested { date, card });
    }
    Ok(backtested)
}
