//! `intentcast report`: writes the planner's page and order sheet of a published night.

use async_trait::async_trait;
use clap::Args;
use std::path::Path;
use std::sync::Arc;

use super::command::{Command, Needs, Places};
use super::format;
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
        let report = Report::read(&workspace, self.date, self.compare).await?;
        if self.format == ReportFormat::Json {
            return format::print_line(format_args!("{}", report.to_json()?));
        }
        let folder = match &self.to {
            Some(folder) => Location::open(folder, &config.s3)?,
            None => output.folder(&format!("reports/{}", report.run_date())),
        };
        if let Ok(path) = folder.url.to_file_path() {
            std::fs::create_dir_all(&path).map_err(|e| refused(&path, &e))?;
        }
        let (run_date, orders) = (report.run_date(), report.orders()?);
        for file in report::files(report, config.report.language)? {
            folder.write_as(file.name, file.bytes, file.content_type).await?;
        }
        say!("report of {run_date}: {orders} items to order\nopen {}", folder.display(&folder.path("index.html")));
        Ok(())
    }
}

/// Returns why a folder cannot be made: a name that is wrong, or a disk that may recover.
fn refused(path: &Path, error: &std::io::Error) -> Failure {
    use std::io::ErrorKind::{AlreadyExists, NotADirectory, PermissionDenied, ReadOnlyFilesystem};
    let message = format!("{}: {error}", path.display());
    match error.kind() {
        AlreadyExists | NotADirectory | PermissionDenied | ReadOnlyFilesystem => {
            Failure::usage(message).hint("--to names a folder that can be written")
        }
        _ => Failure::transient(message),
    }
}
