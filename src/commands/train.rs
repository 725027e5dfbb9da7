//! `intentcast train`: trains a night's networks, or a model of labelled tables, texts or pictures.

use arrow::array::{ArrayRef, StringArray};
use async_trait::async_trait;
use clap::Args;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::command::{Command, Needs, Places};
use super::format::{self, Format};
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::ids::RunDate;
use crate::lake::stores::Location;
use crate::publish::lock;
use crate::training;
use crate::training::bundle::summary::{self, SummaryRow};
use crate::training::bundle::sweep::{Sweep, Trial};
use crate::training::flat_table::TableOptions;
use crate::training::labelled::InputOptions;

/// Train on what happened before a date and write a bundle.
///
/// The bundle becomes champion only if there is none yet. With --task table, learns labels from the columns of any flat table
/// instead, and writes a table model, which predict_table(...) calls in SQL and no night can use. With --task text, fine-tunes
/// a pretrained encoder on the labels of a text column, for classify_text(...). With --task image, trains on pictures,
/// from an encoder's weights or random ones, for classify_image(...).
#[derive(Debug, Args)]
pub struct Train {
    #[command(flatten)]
    places: Places,
    /// Learn from a shop's lake, a table, texts, or pictures.
    #[arg(long, value_enum, default_value = "night")]
    task: Task,
    /// Read nothing at or after this date; labels end before it, too. Required with --task night, unused otherwise.
    #[arg(long, value_name = "YYYY-MM-DD")]
    date: Option<RunDate>,
    /// Search the settings in this file on the validation set first, and train with the best (docs/models/training.md).
    #[arg(long, value_name = "FILE", conflicts_with = "table")]
    sweep: Option<PathBuf>,
    #[command(flatten)]
    table: TableOptions,
    #[command(flatten)]
    inputs: InputOptions,
}

/// Task that `train` learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Task {
    /// Both networks of a night, from a lake.
    Night,
    /// Labels of a flat table.
    Table,
    /// Labels of a text column, by a pretrained encoder.
    Text,
    /// Labels of pictures, by an encoder's weights or random ones.
    Image,
}

#[async_trait(?Send)]
impl Command for Train {
    fn needs(&self) -> Needs<'_> {
        Needs { lake: self.task == Task::Night, ..Needs::lake_and_models(&self.places) }
    }

    async fn run(&self, config: &Config) -> Result<()> {
        training::limit_threads(config);
        match self.task {
            Task::Night => self.train_night(config).await,
            Task::Table => self.train_table(config).await,
            Task::Text => self.train_text(config).await,
            Task::Image => self.train_image(config).await,
        }
    }
}

impl Train {
    async fn train_night(&self, config: &Config) -> Result<()> {
        let date = self.date.ok_or_else(|| Failure::usage("train: pass --date, or --task table, text or image"))?;
        let sweep = self.sweep.as_deref().map(Sweep::load).transpose()?;
        let output = Location::open(&config.output.uri, &config.s3)?;
        // It writes rollups and checkpoints.
        let writing = lock::begin_writing(&output, "training", &config.lock).await?;
        let trained = async {
            let (card, trials) = training::bundle::train_bundle(config, date, sweep.as_ref()).await?;
            training::bundle::promote_first(config, &card.version).await?;
            Ok::<_, Failure>((card, trials))
        };
        let trained = trained.await;
        let ended = writing.end_writing().await;
        let (card, trials) = trained?;
        ended?;
        if !trials.is_empty() {
            print_trials(&trials)?;
        }
        say!("model {} (as of {}; labels end before {})", card.version, card.as_of_dates.join(", "), card.labels_end);
        print_summary(&card.figures, config.recommendation.exclude_bought)?;
        say!(
            "figures of users and dates that were held out until then; models/{}/bundle.json has all {}",
            card.version,
            card.figures.len()
        );
        Ok(())
    }

    async fn train_table(&self, config: &Config) -> Result<()> {
        let card = training::table::train(config, &self.table).await?;
        say!("table model {} ({})", card.version, card.split);
        print_figures(&card.figures)?;
        let columns: Vec<String> = card.columns.0.iter().map(|c| format!("'{0}', \"{0}\"", c.name)).collect();
        let label = &card.labels[0].name;
        say!("in SQL: predict_table(named_struct({}), '{}', '{label}')", columns.join(", "), card.version);
        Ok(())
    }

    async fn train_text(&self, config: &Config) -> Result<()> {
        let card = training::text::train(config, &self.table, &self.inputs).await?;
        say!("text model {} ({}; {})", card.version, card.strategy, card.split);
        print_figures(&card.figures)?;
        let (column, version, labels) = (&card.text_column, &card.version, card.labels.join(", "));
        say!("in SQL: classify_text(\"{column}\", '{version}', '{}'); labels: {labels}", card.labels[0]);
        Ok(())
    }

    async fn train_image(&self, config: &Config) -> Result<()> {
        let card = training::image::train(config, &self.table, &self.inputs).await?;
        say!("image model {} ({}; {})", card.version, card.strategy, card.split);
        print_figures(&card.figures)?;
        let (version, labels) = (&card.version, card.labels.join(", "));
        say!("in SQL, for bytes: classify_image(image, '{version}', '{}'); labels: {labels}", card.labels[0]);
        Ok(())
    }
}

/// Prints trials, best first within each rung.
fn print_trials(trials: &[Trial]) -> Result<()> {
    let column = |text: &dyn Fn(&Trial) -> String| -> ArrayRef {
        Arc::new(trials.iter().map(|trial| Some(text(trial))).collect::<StringArray>())
    };
    let settings = |t: &Trial| t.settings.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ");
    let value = |t: &Trial| t.value.map_or_else(|| t.failure.clone().unwrap_or("none".into()), |v| format!("{v:.5}"));
    let columns = [
        ("rung", column(&|t| t.rung.to_string())),
        ("trial", column(&|t| t.number.to_string())),
        ("epochs", column(&|t| t.epochs_max.to_string())),
        ("value", column(&value)),
        ("seconds", column(&|t| format!("{:.1}", t.seconds))),
        ("settings", column(&settings)),
    ];
    format::print_columns(&columns, Format::Table)
}

/// Prints the figures that say how good a night's model is. Warns of those that are worse than a baseline.
fn print_summary(figures: &BTreeMap<String, f64>, excludes_bought: bool) -> Result<()> {
    let rows = summary::rows(figures);
    let column = |text: &dyn Fn(&SummaryRow) -> String| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(text(row))).collect::<StringArray>())
    };
    let columns = [
        ("task", column(&|row| row.task.clone())),
        ("figure", column(&|row| row.figure.into())),
        ("model", column(&|row| row.model.clone())),
        ("network", column(&|row| row.network.clone())),
        ("trees", column(&|row| row.trees.clone())),
        ("baseline", column(&|row| row.baseline.clone())),
    ];
    format::print_columns(&columns, Format::Table)?;
    for warning in summary::warnings(figures, excludes_bought) {
        tracing::warn!("{warning}");
    }
    Ok(())
}

fn print_figures(figures: &BTreeMap<String, f64>) -> Result<()> {
    let names: StringArray = figures.keys().map(|k| Some(k.as_str())).collect();
    let values: StringArray = figures.values().map(|v| Some(format!("{v:.4}"))).collect();
    format::print_columns(&[("figure", Arc::new(names) as ArrayRef), ("value", Arc::new(values))], Format::Table)
}
