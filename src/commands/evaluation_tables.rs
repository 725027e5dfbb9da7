//! Tables and a page of an evaluation, as `intentcast evaluate` and `intentcast backtest` show them.

use arrow::array::{ArrayRef, BooleanArray, Float64Array, StringArray, UInt64Array};
use clap::Args;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::{self, Format};
use crate::evaluation::{
    DemandDifference, DemandFigures, Difference, Evaluation, IntentFigures, RecommendationDifference,
    RecommendationFigures, Task,
};
use crate::failure::{Failure, Result};
use crate::ids::RunDate;

/// The predictions that are evaluated, and where their figures go.
#[derive(Debug, Args)]
pub(super) struct Shown {
    /// Evaluate only these predictions [default: all; demand of dates whose horizon has passed].
    #[arg(long, value_enum, value_name = "TASK")]
    pub(super) task: Option<Task>,
    /// Also figures of new, light and heavy users, and of the 20 categories that sold most.
    #[arg(long)]
    pub(super) slices: bool,
    /// Print in this format; the table leaves out some figures.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Also write a page with curves and forecasts, one HTML file that needs nothing else.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
}

impl Shown {
    /// Refuses what could not be shown, before an evaluation takes minutes.
    pub(super) fn refuse_unusable(&self, compares_two: bool) -> Result<()> {
        if self.format == Format::Csv && (compares_two || self.task.is_none()) {
            let without = if compares_two { ", without --against" } else { "" };
            return Err(Failure::usage("--format csv: expected one table, got several")
                .hint(format!("pass --task{without}; or use --format json")));
        }
        self.page.as_deref().map_or(Ok(()), require_folder)
    }

    pub(super) fn show(&self, evaluation: &Evaluation) -> Result<()> {
        print(evaluation, self.format)?;
        self.page.as_deref().map_or(Ok(()), |page| write_page(evaluation, page))
    }
}

/// Prints each table that has rows.
fn print(evaluation: &Evaluation, format: Format) -> Result<()> {
    if !evaluation.figures.is_empty() {
        print_intents(&evaluation.figures, format)?;
    }
    if !evaluation.differences.is_empty() {
        print_differences(&evaluation.differences, format)?;
    }
    if !evaluation.recommendations.is_empty() {
        print_recommendations(&evaluation.recommendations, format)?;
    }
    if !evaluation.recommendation_differences.is_empty() {
        print_recommendation_differences(&evaluation.recommendation_differences, format)?;
    }
    if !evaluation.demand.is_empty() {
        print_demand(&evaluation.demand, format)?;
    }
    if !evaluation.demand_differences.is_empty() {
        print_demand_differences(&evaluation.demand_differences, format)?;
    }
    Ok(())
}

/// Refuses a page in a folder that is not there.
fn require_folder(page: &Path) -> Result<()> {
    if page.is_dir() {
        return Err(unwritable(page, "it is a folder"));
    }
    match page.parent().is_none_or(|folder| folder.as_os_str().is_empty() || folder.is_dir()) {
        true => Ok(()),
        false => Err(unwritable(page, "there is no such folder")),
    }
}

fn unwritable(page: &Path, reason: impl Display) -> Failure {
    Failure::usage(format!("--page {}: {reason}", page.display()))
        .hint("name a file in a folder that can be written to")
}

/// Writes the page of an evaluation to a file, whole or not at all.
fn write_page(evaluation: &Evaluation, path: &Path) -> Result<()> {
    let failed = |e: std::io::Error| unwritable(path, e);
    let mut part = path.as_os_str().to_os_string();
    part.push(".part");
    std::fs::write(&part, evaluation.page()?).map_err(failed)?;
    std::fs::rename(&part, path).map_err(failed)
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

fn counts<T>(rows: &[T], of: impl Fn(&T) -> u64) -> ArrayRef {
    Arc::new(rows.iter().map(|row| Some(of(row))).collect::<UInt64Array>())
}

fn flags<T>(rows: &[T], of: impl Fn(&T) -> bool) -> ArrayRef {
    Arc::new(rows.iter().map(|row| Some(of(row))).collect::<BooleanArray>())
}

fn date_text(run_date: Option<RunDate>) -> String {
    run_date.map_or("all".into(), |date| date.to_string())
}

/// The columns of a difference between two models with its interval.
fn difference_columns<T>(
    rows: &[T],
    of: impl Fn(&T) -> (f64, Option<(f64, f64)>),
    format: Format,
) -> Vec<(&'static str, ArrayRef)> {
    let shown_difference = |row: &T| {
        let (difference, interval) = of(row);
        shown(Some(difference), interval)
    };
    match format {
        Format::Table => vec![("difference", texts(rows, shown_difference))],
        Format::Json | Format::Csv => vec![
            ("difference", numbers(rows, |row| Some(of(row).0))),
            ("difference_low", numbers(rows, |row| of(row).1.map(|(low, _)| low))),
            ("difference_high", numbers(rows, |row| of(row).1.map(|(_, high)| high))),
        ],
    }
}

fn print_intents(rows: &[IntentFigures], format: Format) -> Result<()> {
    let mut columns = vec![
        ("run_date", texts(rows, |row| date_text(row.run_date))),
        ("model_version", texts(rows, |row| row.model_version.clone())),
        ("in_training", flags(rows, |row| row.in_training)),
        ("intent", texts(rows, |row| row.intent.into())),
        ("user_group", texts(rows, |row| row.group.into())),
        ("users", counts(rows, |row| row.users)),
        ("positives", counts(rows, |row| row.positives)),
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
            ("threshold", numbers(rows, |row| row.threshold)),
            ("f1_at_threshold", numbers(rows, |row| row.f1_at_threshold)),
            ("accuracy_at_threshold", numbers(rows, |row| row.accuracy_at_threshold)),
            ("precision_top_1", numbers(rows, |row| Some(row.tops[0].0))),
            ("lift_top_1", numbers(rows, |row| row.lift(0))),
            ("mean_score_top_1", numbers(rows, |row| Some(row.tops[0].1))),
            ("precision_top_5", numbers(rows, |row| Some(row.tops[1].0))),
            ("lift_top_5", numbers(rows, |row| row.lift(1))),
            ("mean_score_top_5", numbers(rows, |row| Some(row.tops[1].1))),
            ("precision_top_10", numbers(rows, |row| Some(row.tops[2].0))),
            ("lift_top_10", numbers(rows, |row| row.lift(2))),
            ("mean_score_top_10", numbers(rows, |row| Some(row.tops[2].1))),
        ]),
    }
    format::print_columns(&columns, format)
}

fn print_differences(rows: &[Difference], format: Format) -> Result<()> {
    let mut columns =
        vec![("intent", texts(rows, |row| row.intent.into())), ("figure", texts(rows, |row| row.figure.into()))];
    columns.extend(difference_columns(rows, |row| (row.difference, row.interval), format));
    format::print_columns(&columns, format)
}

fn print_recommendations(rows: &[RecommendationFigures], format: Format) -> Result<()> {
    let mut columns = vec![
        ("run_date", texts(rows, |row| date_text(row.run_date))),
        ("model_version", texts(rows, |row| row.model_version.clone())),
        ("in_training", flags(rows, |row| row.in_training)),
        ("recommended", counts(rows, |row| row.length as u64)),
        ("users", counts(rows, |row| row.users)),
    ];
    match format {
        Format::Table => columns.extend([
            ("recall", texts(rows, |row| shown(Some(row.recall), None))),
            ("ndcg", texts(rows, |row| shown(Some(row.ndcg), row.ndcg_interval))),
            ("mrr", texts(rows, |row| shown(Some(row.mrr), None))),
        ]),
        Format::Json | Format::Csv => columns.extend([
            ("recall", numbers(rows, |row| Some(row.recall))),
            ("ndcg", numbers(rows, |row| Some(row.ndcg))),
            ("ndcg_low", numbers(rows, |row| row.ndcg_interval.map(|(low, _)| low))),
            ("ndcg_high", numbers(rows, |row| row.ndcg_interval.map(|(_, high)| high))),
            ("mrr", numbers(rows, |row| Some(row.mrr))),
        ]),
    }
    format::print_columns(&columns, format)
}

fn print_recommendation_differences(rows: &[RecommendationDifference], format: Format) -> Result<()> {
    let mut columns =
        vec![("recommended", counts(rows, |row| row.length as u64)), ("figure", texts(rows, |_| "ndcg".into()))];
    columns.extend(difference_columns(rows, |row| (row.difference, row.interval), format));
    format::print_columns(&columns, format)
}

fn print_demand(rows: &[DemandFigures], format: Format) -> Result<()> {
    let mut columns = vec![
        ("run_date", texts(rows, |row| date_text(row.run_date))),
        ("model_version", texts(rows, |row| row.model_version.clone())),
        ("in_training", flags(rows, |row| row.in_training)),
        ("demand_pattern", texts(rows, |row| row.pattern.into())),
        ("category", texts(rows, |row| row.category.clone())),
        ("items", counts(rows, |row| row.items)),
        ("days", counts(rows, |row| row.days)),
    ];
    match format {
        Format::Table => columns.extend([
            ("pinball", texts(rows, |row| shown(Some(row.pinball), Some(row.pinball_interval)))),
            ("seasonal_naive", texts(rows, |row| shown(Some(row.pinball_seasonal_naive), None))),
            ("bias", texts(rows, |row| shown(row.bias, None))),
            ("covered_q90", texts(rows, |row| shown(Some(row.covered_q90), Some(row.covered_q90_interval)))),
            ("lead_time_covered_q90", texts(rows, |row| shown(row.lead_time_covered_q90, None))),
        ]),
        Format::Json | Format::Csv => columns.extend([
            ("units", numbers(rows, |row| Some(row.units))),
            ("pinball", numbers(rows, |row| Some(row.pinball))),
            ("pinball_low", numbers(rows, |row| Some(row.pinball_interval.0))),
            ("pinball_high", numbers(rows, |row| Some(row.pinball_interval.1))),
            ("pinball_seasonal_naive", numbers(rows, |row| Some(row.pinball_seasonal_naive))),
            ("weighted_quantile_loss", numbers(rows, |row| row.weighted_quantile_loss)),
            ("mae", numbers(rows, |row| Some(row.mae))),
            ("mse", numbers(rows, |row| Some(row.mse))),
            ("rmse", numbers(rows, |row| Some(row.mse.sqrt()))),
            ("mase", numbers(rows, |row| row.mase)),
            ("rmsse", numbers(rows, |row| row.rmsse)),
            ("bias", numbers(rows, |row| row.bias)),
            ("covered_q90", numbers(rows, |row| Some(row.covered_q90))),
            ("covered_q90_low", numbers(rows, |row| Some(row.covered_q90_interval.0))),
            ("covered_q90_high", numbers(rows, |row| Some(row.covered_q90_interval.1))),
            ("within_q05_q95", numbers(rows, |row| Some(row.within[0]))),
            ("within_q10_q90", numbers(rows, |row| Some(row.within[1]))),
            ("within_q25_q75", numbers(rows, |row| Some(row.within[2]))),
            ("lead_times", counts(rows, |row| row.lead_times)),
            ("lead_time_pinball", numbers(rows, |row| row.lead_time_pinball)),
            ("lead_time_covered_q90", numbers(rows, |row| row.lead_time_covered_q90)),
        ]),
    }
    format::print_columns(&columns, format)
}

fn print_demand_differences(rows: &[DemandDifference], format: Format) -> Result<()> {
    let mut columns = vec![
        ("demand_pattern", texts(rows, |row| row.pattern.into())),
        ("figure", texts(rows, |row| row.figure.into())),
    ];
    columns.extend(difference_columns(rows, |row| (row.difference, Some(row.interval)), format));
    format::print_columns(&columns, format)
}
