//! The command line: flags of every verb, and which room each one calls.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

use crate::config::Config;
use crate::engine::doctor;
use crate::failure::{Failure, Result};

/// The nightly intent and demand job: Parquet lake in, purchase intents, demand quantiles and reorder lines out.
#[derive(Debug, Parser)]
#[command(name = "intentcast", version)]
pub struct Cli {
    #[command(flatten)]
    pub settings: Settings,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Flags that every verb takes.
#[derive(Debug, Args)]
pub struct Settings {
    /// Reads settings from this TOML file (jobs/nightly.toml shows every one with its default).
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Overrides one setting; wins over INTENTCAST_SECTION__KEY, which wins over the file.
    #[arg(long = "set", global = true, value_name = "SECTION.KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
    /// Logs as text for people or as one JSON object a line.
    #[arg(long, global = true, default_value = "text", value_parser = ["text", "json"])]
    pub log_format: String,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Says what this machine and configuration can do: libtorch, GPU, cores, memory limits.
    Doctor,
}

impl Cli {
    /// Resolves the configuration once, then calls the verb's room.
    pub fn run(self) -> Result<()> {
        start_logging(&self.settings.log_format);
        let config =
            Config::resolve(self.settings.config.as_deref(), crate::config::environment(), &self.settings.set)?;
        match self.verb {
            Verb::Doctor => doctor::print(&config),
        }
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("expected SECTION.KEY=VALUE, got {text:?}"))?;
    Ok((key.trim().into(), value.into()))
}

/// Logs go to standard error, so that standard output stays data.
fn start_logging(format: &str) {
    let filter = tracing_subscriber::EnvFilter::new("warn,intentcast=info");
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if format == "json" { logs.json().try_init() } else { logs.without_time().try_init() };
    // A second start within one process (tests) keeps the first subscriber.
    started.unwrap_or_default();
}

/// Runs an async verb to its end on a runtime of its own.
pub fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Runtime::new().map_err(|e| Failure::bug(format!("no runtime: {e}")))?.block_on(work)
}
