//! `intentcast report`: writes the planner's page and order sheet of a published night.

use async_trait::async_trait;
use clap::Args;
use std::io::Write;
use std::sync::Arc;

use super::command::{Command, Needs, Places};
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::ids::RunDate;
use crate::lake::stores::Location;
use crate::report::{self, Report};
use crate::score::models::Models;
use crate::workspace::{Access, Workspace};

/// Output of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ReportFormat {
    /// Files in a folder: index.html, orders.xlsx and orders.csv.
    Html,
    /// One JSON object on standard output; no file is written.
    Json,
}

/// Write a page and an order sheet of a published night: what to order today, and why.
///
/// Reads published tables and the state that the night left. With --lake it also shows titles, promotions and daily stock.
/// Published tables do not change.
#[derive(Debug, Args)]
pub struct ReportArgs {
    #[command(flatten)]
    places: Places,
    /// Report on the night of this date [default: the newest visible night].
    #[arg(long, value_name = "YYYY-MM-DD")]
    date: Option<RunDate>,
    /// Compare with the night of this date [default: the visible night before].
    #[arg(long, value_name = "YYYY-MM-DD")]
    compare: Option<RunDate>,
    /// Write the files into this folder: s3://…, file://… or a plain path [default: <output>/reports/<date>].
    #[arg(long, value_name = "FOLDER")]
    to: Option<String>,
    /// Write files, or print JSON.
    #[arg(long, value_enum, default_value = "html")]
    format: ReportFormat,
}

#[async_trait(?Send)]
impl Command for ReportArgs {
    fn needs(&self) -> Needs<'_> {
        Needs { places: Some(&self.places), lake: true, tensors: false }
    }

    async fn run(&self, config: &Config) -> Result<()> {
        if self.format == ReportFormat::Json && self.to.is_some() {
            return Err(Failure::usage("--format json: expected no --to, because no file is written"));
        }
        let workspace = Workspace::open(config, Arc::new(Models::new(config)?), Access::ReadOnly).await?;
        let output = workspace.output()?;
        let newest = workspace.nights().last().map(|night| night.run_date());
        let Some(run_date) = self.date.or(newest) else {
            return Err(Failure::usage("report: no night is visible")
                .hint("`intentcast nightly --date D` publishes one; --output names its output"));
        };
        let report = Report::read(&workspace, run_date, self.compare).await?;
        if self.format == ReportFormat::Json {
            return print_line(&report.to_json()?.to_string());
        }
        let folder = match &self.to {
            Some(folder) => Location::open(folder, &config.s3)?,
            None => output.folder(&format!("reports/{run_date}")),
        };
        for file in report::files(&report, config.report.language)? {
            folder.write(file.name, file.bytes).await?;
        }
        println!(
            "report of {run_date}: {} items to order\nopen {}",
            report.orders()?,
            folder.display(&folder.path("index.html"))
        );
        Ok(())
    }
}

fn print_line(text: &str) -> Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::transient(format!("standard output: {e}")))
        }
        _ => Ok(()),
    }
}
