//! `intentcast gc`: removes what retention no longer needs.

use arrow::array::{ArrayRef, StringArray, UInt64Array};
use async_trait::async_trait;
use clap::Args;
use std::sync::Arc;

use super::command::{Command, Needs, Places};
use super::format::{Format, print_columns};
use crate::config::Config;
use crate::failure::Result;
use crate::lake::stores::Location;
use crate::publish::gc::{self, GcPlan, GcRow};

/// Remove nights past their retention, orphaned files, state that no night can use, and old locks.
#[derive(Debug, Args)]
pub struct Gc {
    #[command(flatten)]
    places: Places,
    /// List what would be removed, and remove nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print a summary (and with --dry-run the list) as text, or the list of what is removed as JSON lines or CSV.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[async_trait(?Send)]
impl Command for Gc {
    fn needs(&self) -> Needs<'_> {
        Needs::output(&self.places)
    }

    async fn run(&self, config: &Config) -> Result<()> {
        let output = Location::open(&config.output.uri, &config.s3)?;
        let plan = gc::plan(&output, &config.gc).await?;
        if !self.dry_run {
            gc::execute(&output, &plan, &config.lock).await?;
        }
        if self.format != Format::Table {
            return print_plan(&plan, &output, self.format);
        }
        let (state_files, state_bytes) = plan.old_state();
        say!(
            "{} {} nights, {} orphaned files ({} bytes), {state_files} files of old state ({state_bytes} bytes), {} old lock objects",
            if self.dry_run { "would remove" } else { "removed" },
            plan.expired_nights.len(),
            plan.orphan_files.len(),
            plan.orphan_bytes(),
            plan.lock_objects.len()
        );
        match self.dry_run {
            true => print_plan(&plan, &output, self.format),
            false => Ok(()),
        }
    }
}

/// Prints one row for each night and file that the plan removes.
fn print_plan(plan: &GcPlan, output: &Location, format: Format) -> Result<()> {
    let rows = plan.rows(output);
    let text =
        |column: fn(&GcRow) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(column))) };
    let bytes: ArrayRef = Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.bytes)));
    let columns = [
        ("kind", text(|row| row.kind)),
        ("path", text(|row| &row.path)),
        ("bytes", bytes),
        ("reason", text(|row| &row.reason)),
    ];
    print_columns(&columns, format)
}
