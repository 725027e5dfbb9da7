//! `intentcast simulate`: writes a lake whose truth is known.

use async_trait::async_trait;
use clap::Args;

use super::command::Command;
use crate::config::Config;
use crate::failure::Result;
use crate::ids::RunDate;
use crate::lake::stores::Location;
use crate::simulation::signal::Signal;
use crate::simulation::{self, SimulateOptions};

/// Write a behaviour lake with known truth.
///
/// Rows are streamed, so memory does not grow with the lake; the same options and seed give the same bytes.
#[derive(Debug, Args)]
pub struct Simulate {
    /// Write the lake below this root.
    #[arg(long, value_name = "URI")]
    to: String,
    /// Simulate this many users.
    #[arg(long)]
    users: u64,
    /// Simulate a catalogue of this many items.
    #[arg(long)]
    items: u64,
    /// Simulate this many days of events.
    #[arg(long)]
    days: u32,
    /// Seed all random draws with this number.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Plant every kind of bad row and file, and list them in faults.json.
    #[arg(long)]
    faults: bool,
    /// Choose the signal that predicts purchases: all that a shop knows, or one modality alone.
    #[arg(long, value_enum, default_value_t = Signal::Mixed)]
    signal: Signal,
    /// Let this share of the users have an event on an average day, 0.001 to 0.5; about a tenth by default.
    #[arg(long)]
    active_share: Option<f64>,
    /// Start the lake on this day.
    #[arg(long, default_value = "2026-01-01", value_name = "YYYY-MM-DD")]
    start: RunDate,
}

#[async_trait(?Send)]
impl Command for Simulate {
    async fn run(&self, config: &Config) -> Result<()> {
        let options = SimulateOptions {
            users: self.users,
            items: self.items,
            days: self.days,
            seed: self.seed,
            faults: self.faults,
            signal: self.signal,
            active_share: self.active_share,
            start: self.start.0,
        };
        let report = simulation::simulate(&Location::open(&self.to, &config.s3)?, &options).await?;
        say!("{report}");
        Ok(())
    }
}
