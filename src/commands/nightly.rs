//! `intentcast nightly`: runs a night, or every night of a range; `--dry-run` prints their plans.

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray, UInt64Array};
use async_trait::async_trait;
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::command::{Command, Dates, Needs, Places, parse_dates};
use super::format::{self, Format};
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::features::objections::Accept;
use crate::ids::RunDate;
use crate::lake;
use crate::nightly::acceptance;
use crate::nightly::master_findings::{self, MasterFindings};
use crate::nightly::plan::{self, NightPlan};
use crate::nightly::{self, NightOptions, NightReport};
use crate::publish::night::FaultPoint;
use crate::score::models::Models;
use crate::workspace::{Access, Workspace};

/// Run the night: features, scores, demand, replenishment, checks, one atomic publication.
#[derive(Debug, Args)]
pub struct Nightly {
    #[command(flatten)]
    places: Places,
    /// Score as of this date, 00:00 in lake.time_zone; it is also the first forecast date.
    #[arg(long, required_unless_present = "backfill", value_name = "YYYY-MM-DD")]
    date: Option<RunDate>,
    /// Run every night from A to B, both included, oldest first; stop at the first that fails.
    #[arg(long, value_name = "A..B", conflicts_with = "date", value_parser = parse_dates)]
    backfill: Option<Dates>,
    /// Give up after this many seconds (exit 75); the next attempt reuses finished stages.
    #[arg(long, value_name = "SECONDS")]
    deadline: Option<u64>,
    /// Print what would be read, reused and built, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print the result in this format; json and csv print data only.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Publish in spite of these objections, and note them in `runs`.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND")]
    accept: Vec<Accept>,
    #[arg(long, hide = true)]
    die_at: Option<String>,
}

#[async_trait(?Send)]
impl Command for Nightly {
    fn needs(&self) -> Needs<'_> {
        Needs::lake_and_models(&self.places)
    }

    async fn run(&self, config: &Config) -> Result<()> {
        let date = self.date.map(|date| Dates { first: date, last: date });
        let dates = self.backfill.or(date).ok_or_else(|| Failure::usage("nightly: pass --date or --backfill"))?;
        let models = Arc::new(Models::new(config)?);
        for run_date in dates.every(1) {
            let done = match self.dry_run {
                true => self.print_plan(config, &models, run_date).await,
                false => self.run_night(config, &models, run_date).await,
            };
            done.map_err(|failure| failure.at(format!("night of {run_date}")))?;
        }
        Ok(())
    }
}

impl Nightly {
    async fn run_night(&self, config: &Config, models: &Arc<Models>, run_date: RunDate) -> Result<()> {
        let deadline = self.deadline.map(Duration::from_secs);
        let options =
            NightOptions { run_date, deadline, fault: FaultPoint(self.die_at.clone()), accept: self.accept.clone() };
        let report = nightly::run(config, models, &options).await?;
        match self.format {
            Format::Json => print_json(&report),
            Format::Csv => print_tables(&report, Format::Csv),
            Format::Table => print_summary(config, &report),
        }
    }

    async fn print_plan(&self, config: &Config, models: &Arc<Models>, run_date: RunDate) -> Result<()> {
        let workspace = Workspace::open(config, Arc::clone(models), Access::ReadOnly).await?;
        let (survey, ctx) = plan::survey(&workspace, run_date).await?;
        let night = NightPlan::new(&survey)?;
        let mut findings = MasterFindings::new();
        if survey.rollups.is_complete() {
            findings = master_findings::count(&ctx).await?;
        }
        let days = workspace.unit_days(&survey.rollups, run_date).await?;
        for objection in acceptance::find_objections(&workspace, &days, run_date).await? {
            tracing::warn!("the night would stop (exit 4): {}", objection.message);
        }
        match self.format {
            Format::Json => {
                let plans = match &survey.model {
                    Some(_) if !night.nothing_to_do => plan::physical_plans(&ctx, &workspace.sql).await?,
                    _ => BTreeMap::new(),
                };
                print_json(&DryRun { night, master_findings: findings, plans })
            }
            Format::Csv => print_stages(&night),
            Format::Table => {
                say!("{}", night.to_string().trim_end());
                if !findings.is_empty() {
                    say!("master data: {}", master_findings::describe(&findings));
                }
                Ok(())
            }
        }
    }
}

/// JSON that `--dry-run --format json` prints.
#[derive(Serialize)]
struct DryRun {
    #[serde(flatten)]
    night: NightPlan,
    /// Empty until all event files are in rollups.
    master_findings: MasterFindings,
    /// Physical plans of the checkpointed queries, by stage.
    plans: BTreeMap<String, String>,
}

fn print_json(value: &impl Serialize) -> Result<()> {
    say!("{}", serde_json::to_string(value).map_err(Failure::bug)?);
    Ok(())
}

fn print_summary(config: &Config, report: &NightReport) -> Result<()> {
    if !report.published {
        say!("night of {}: already published, nothing changed", report.run_date);
        return Ok(());
    }
    say!(
        "night of {} published as generation {} by model {}",
        report.run_date,
        report.generation,
        report.model_version
    );
    say!(
        "read {} files ({} bytes, {} rows), skipped {} files ({} bytes); encoded {} users, reused {}",
        report.read.files_read,
        report.read.bytes_read,
        report.read.rows_read,
        report.read.files_skipped,
        report.read.bytes_skipped,
        report.users_encoded,
        report.users_kept
    );
    if !report.read.files_ignored.is_empty() {
        say!("ignored objects that are no data: {}", lake::count_by_reason(&report.read.files_ignored));
    }
    if !report.master_findings.is_empty() {
        say!("master data: {}", master_findings::describe(&report.master_findings));
    }
    print_tables(report, Format::Table)?;
    let (lake_uri, output) = (&config.lake.uri, &config.output.uri);
    let query = "SELECT item_id, on_hand, order_quantity, stock_out_risk, reason FROM replenishment ORDER BY stock_out_risk DESC LIMIT 10";
    say!("next, with the same settings: intentcast sql --lake {lake_uri} --output {output} -c '{query}'");
    Ok(())
}

fn print_tables(report: &NightReport, format: Format) -> Result<()> {
    let tables = report.table_rows.keys();
    let names: StringArray = tables.clone().map(|t| Some(t.as_str())).collect();
    let rows: Int64Array = report.table_rows.values().copied().collect();
    let paths: StringArray = tables.map(|t| report.table_paths.get(t).map(String::as_str)).collect();
    format::print_columns(
        &[("table", Arc::new(names) as ArrayRef), ("rows", Arc::new(rows)), ("path", Arc::new(paths))],
        format,
    )
}

fn print_stages(night: &NightPlan) -> Result<()> {
    let stages = &night.stages;
    let dates: StringArray = stages.iter().map(|_| Some(night.run_date.to_string())).collect();
    let names: StringArray = stages.iter().map(|s| Some(s.name)).collect();
    let seconds: Float64Array = stages.iter().map(|s| s.seconds_predicted).collect();
    let rows: UInt64Array = stages.iter().map(|s| s.rows_predicted).collect();
    let bytes: UInt64Array = stages.iter().map(|s| s.bytes_predicted).collect();
    let what: StringArray = stages.iter().map(|s| Some(s.what.as_str())).collect();
    format::print_columns(
        &[
            ("run_date", Arc::new(dates) as ArrayRef),
            ("stage", Arc::new(names)),
            ("seconds_predicted", Arc::new(seconds)),
            ("rows_predicted", Arc::new(rows)),
            ("bytes_predicted", Arc::new(bytes)),
            ("what", Arc::new(what)),
        ],
        Format::Csv,
    )
}
