//! `intentcast evaluate`: the scores of models on past dates against the actual outcomes.

use arrow::array::{ArrayRef, BooleanArray, Float64Array, StringArray, UInt64Array};
use async_trait::async_trait;
use clap::Args;
use std::sync::Arc;

use super::command::{Command, Dates, Needs, Places, parse_dates};
use super::format::{self, Format};
use crate::config::Config;
use crate::evaluation::{self, Difference, IntentFigures, Options};
use crate::failure::{Failure, Result};
use crate::ids::RunDate;
use crate::score::models::Models;
use crate::workspace::{Access, Workspace};

/// Compare the scores that models would have had on past dates with the actual outcomes.
///
/// Features are as of each date, outcomes of the days after it, over everything that the lake holds now. A date is marked `in_training`
/// if the model learned from days on or after it: its figures say little about future days. Writes nothing below the output.
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
    /// Print in this format; the table leaves out some figures.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[async_trait(?Send)]
impl Command for Evaluate {
    fn needs(&self) -> Needs<'_> {
        Needs::lake_and_models(&self.places)
    }

    async fn run(&self, config: &Config) -> Result<()> {
        if self.format == Format::Csv && self.against.is_some() {
            return Err(Failure::usage("--against: CSV cannot hold figures and differences; use --format json"));
        }
        let dates = match (self.backfill, self.date) {
            (Some(dates), _) => dates.every(self.step_days).collect(),
            (None, Some(date)) => vec![date],
            (None, None) => return Err(Failure::usage("evaluate: pass --date or --backfill")),
        };
        let models = Arc::new(Models::new(config)?);
        let workspace = Workspace::open(config, models, Access::ReadOnly).await?;
        let options =
            Options { dates, model: self.model.clone(), against: self.against.clone(), seed: config.train.seed };
        let evaluation = evaluation::evaluate(&workspace, &options).await?;
        print_figures(&evaluation.figures, self.format)?;
        match evaluation.differences.is_empty() {
            true => Ok(()),
            false => print_differences(&evaluation.differences, self.format),
        }
    }
}

/// A number as a table shows it, with its interval where there is one.
fn shown(value: Option<f64>, interval: Option<(f64, f64)>) -> String {
    // Adding zero turns a negative zero into a positive one.
    let text = |number: f64| format!("{:.4}", (number * 1e4).round() / 1e4 + 0.0);
    match (value, interval) {
        (None, _) => String::new(),
        (Some(value), None) => text(value),
        (Some(value), Some((low, high))) => format!("{} ({} to {})", text(value), text(low), text(high)),
    }
}

fn texts<T>(rows: &[T], of: impl Fn(&T) -> String) -> ArrayRef {
    Arc::new(rows.iter().map(|row| Some(of(row))).collect::<StringArray>())
}

fn numbers<T>(rows: &[T], of: impl Fn(&T) -> Option<f64>) -> ArrayRef {
    Arc::new(rows.iter().map(of).collect::<Float64Array>())
}

fn print_figures(rows: &[IntentFigures], format: Format) -> Result<()> {
    let count = |of: fn(&IntentFigures) -> u64| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(of(row))).collect::<UInt64Array>())
    };
    let in_training: BooleanArray = rows.iter().map(|row| Some(row.in_training)).collect();
    let mut columns = vec![
        ("run_date", texts(rows, |row| row.run_date.map_or("all".into(), |date| date.to_string()))),
        ("model_version", texts(rows, |row| row.model_version.clone())),
        ("in_training", Arc::new(in_training) as ArrayRef),
        ("intent", texts(rows, |row| row.intent.into())),
        ("users", count(|row| row.users)),
        ("positives", count(|row| row.positives)),
    ];
    match format {
        Format::Table => columns.extend([
            ("auc", texts(rows, |row| shown(row.auc, row.auc_interval))),
            ("average_precision", texts(rows, |row| shown(row.average_precision, None))),
            ("log_loss", texts(rows, |row| shown(Some(row.log_loss), row.log_loss_interval))),
            ("ece", texts(rows, |row| shown(Some(row.expected_calibration_error), None))),
        ]),
        Format::Json | Format::Csv => columns.extend([
            ("mean_score", numbers(rows, |row| Some(row.mean_score))),
            ("auc", numbers(rows, |row| row.auc)),
            ("auc_low", numbers(rows, |row| row.auc_interval.map(|(low, _)| low))),
            ("auc_high", numbers(rows, |row| row.auc_interval.map(|(_, high)| high))),
            ("average_precision", numbers(rows, |row| row.average_precision)),
            ("log_loss", numbers(rows, |row| Some(row.log_loss))),
            ("log_loss_low", numbers(rows, |row| row.log_loss_interval.map(|(low, _)| low))),
            ("log_loss_high", numbers(rows, |row| row.log_loss_interval.map(|(_, high)| high))),
            ("brier", numbers(rows, |row| Some(row.brier))),
            ("ece", numbers(rows, |row| Some(row.expected_calibration_error))),
            ("f1", numbers(rows, |row| Some(row.f1))),
            ("accuracy", numbers(rows, |row| Some(row.accuracy))),
            ("precision_top_1", numbers(rows, |row| Some(row.tops[0].0))),
            ("mean_score_top_1", numbers(rows, |row| Some(row.tops[0].1))),
            ("precision_top_5", numbers(rows, |row| Some(row.tops[1].0))),
            ("mean_score_top_5", numbers(rows, |row| Some(row.tops[1].1))),
            ("precision_top_10", numbers(rows, |row| Some(row.tops[2].0))),
            ("mean_score_top_10", numbers(rows, |row| Some(row.tops[2].1))),
        ]),
    }
    format::print_columns(&columns, format)
}

fn print_differences(rows: &[Difference], format: Format) -> Result<()> {
    let mut columns =
        vec![("intent", texts(rows, |row| row.intent.into())), ("figure", texts(rows, |row| row.figure.into()))];
    match format {
        Format::Table => columns.push(("difference", texts(rows, |row| shown(Some(row.difference), row.interval)))),
        Format::Json | Format::Csv => columns.extend([
            ("difference", numbers(rows, |row| Some(row.difference))),
            ("difference_low", numbers(rows, |row| row.interval.map(|(low, _)| low))),
            ("difference_high", numbers(rows, |row| row.interval.map(|(_, high)| high))),
        ]),
    }
    format::print_columns(&columns, format)
}
