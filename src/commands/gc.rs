//! `intentcast gc`: removes what retention no longer needs.

use async_trait::async_trait;
use clap::Args;

use super::command::{Command, Places};
use crate::config::Config;
use crate::failure::Result;
use crate::lake::stores::Location;
use crate::publish::gc;

/// Remove nights past their retention, orphaned files, state that no night can use, and old locks.
#[derive(Debug, Args)]
pub struct Gc {
    #[command(flatten)]
    places: Places,
    /// List what would be removed, and remove nothing.
    #[arg(long)]
    dry_run: bool,
}

#[async_trait(?Send)]
impl Command for Gc {
    fn places(&self) -> Option<&Places> {
        Some(&self.places)
    }

    async fn run(&self, config: &Config) -> Result<()> {
        let output = Location::open(&config.output.uri, &config.s3)?;
        let plan = gc::plan(&output, &config.gc).await?;
        if !self.dry_run {
            gc::execute(&output, &plan, &config.lock).await?;
        }
        let (state_files, state_bytes) = plan.old_state();
        println!(
            "{} {} nights, {} orphaned files ({} bytes), {state_files} files of old state ({state_bytes} bytes), {} old lock objects",
            if self.dry_run { "would remove" } else { "removed" },
            plan.expired_nights.len(),
            plan.orphan_files.len(),
            plan.orphan_bytes(),
            plan.lock_objects.len()
        );
        Ok(())
    }
}
