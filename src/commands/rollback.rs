//! `intentcast rollback`: hides the newest generation of a night.

use async_trait::async_trait;
use clap::Args;

use super::command::{Command, Needs, Places};
use crate::config::Config;
use crate::failure::Result;
use crate::ids::RunDate;
use crate::lake::stores::Location;
use crate::publish::runs;

/// Hide the visible generation of a night; readers then see the one before it.
///
/// That is an earlier generation of the same date where there is one, else the night before. No file is deleted.
#[derive(Debug, Args)]
pub struct Rollback {
    #[command(flatten)]
    places: Places,
    /// Hide the visible generation of this run date.
    #[arg(long, value_name = "YYYY-MM-DD")]
    date: RunDate,
}

#[async_trait(?Send)]
impl Command for Rollback {
    fn needs(&self) -> Needs<'_> {
        Needs::output(&self.places)
    }

    async fn run(&self, config: &Config) -> Result<()> {
        let output = Location::open(&config.output.uri, &config.s3)?;
        match runs::rollback(&output, self.date, &config.lock).await? {
            Some(night) => say!("visible now: {} generation {}", night.run_date(), night.run.generation),
            None => say!("no night is visible now"),
        }
        Ok(())
    }
}
