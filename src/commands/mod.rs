//! The command line: one file per verb, each with its flags and what it prints.
//!
//! In: the process's arguments. [`Cli::run`] resolves the configuration once, reads the lake's `lake.toml` for verbs that read
//! a lake, and runs the verb on the process's one runtime. A verb prints its result to standard output; logs, notes and
//! errors go to standard error. Nothing imports this room.

// say! instead: println! panics where the reader has closed the pipe.
#![warn(clippy::print_stdout)]

/// Prints a line to standard output. Ends the verb with a failure where that is impossible, and continues where the reader has seen
/// enough (`| head`).
macro_rules! say {
    ($($text:tt)*) => {
        $crate::commands::format::print_line(format_args!($($text)*))?
    };
}

mod backtest;
mod check;
mod cluster;
mod command;
mod doctor;
mod erase;
mod error_place;
mod evaluate;
mod evaluation_tables;
pub mod format;
mod gc;
mod import;
mod models;
mod nightly;
mod promote;
mod prompt;
mod report;
mod rollback;
mod serve;
pub mod shell;
mod simulate;
mod sql;
mod train;
mod why;

use clap::{Args, Parser, Subcommand};
use std::io::IsTerminal;
use std::path::PathBuf;

use crate::config::{Config, environment};
use crate::failure::{Failure, Result};
use crate::lake::{lake_file, unreadable};
use crate::panics;
use crate::score::devices;
use command::{Command, Needs, Places};

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
#[command(next_help_heading = "Global options")]
pub struct Settings {
    /// Read settings from this TOML file (jobs/nightly.toml lists every setting with its default).
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Override one setting; wins over INTENTCAST_SECTION__KEY, which wins over the file.
    #[arg(long = "set", global = true, value_name = "SECTION.KEY=VALUE", value_parser = parse_setting)]
    pub(crate) set: Vec<(String, String)>,
    /// Log to standard error as text, or as one JSON object per line.
    #[arg(long, global = true, default_value = "text", value_parser = ["text", "json"])]
    pub(crate) log_format: String,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    Simulate(simulate::Simulate),
    Import(import::Import),
    Nightly(nightly::Nightly),
    Rollback(rollback::Rollback),
    Train(Box<train::Train>),
    Evaluate(evaluate::Evaluate),
    Backtest(backtest::Backtest),
    Models(models::Models),
    Promote(promote::Promote),
    Report(report::ReportArgs),
    Check(check::Check),
    Why(why::Why),
    Sql(sql::Sql),
    Serve(serve::Serve),
    Gc(gc::Gc),
    Erase(erase::Erase),
    Cluster(cluster::Cluster),
    Doctor(doctor::Doctor),
}

impl Verb {
    fn command(&self) -> &dyn Command {
        match self {
            Verb::Simulate(verb) => verb,
            Verb::Import(verb) => verb,
            Verb::Nightly(verb) => verb,
            Verb::Rollback(verb) => verb,
            Verb::Train(verb) => verb.as_ref(),
            Verb::Evaluate(verb) => verb,
            Verb::Backtest(verb) => verb,
            Verb::Models(verb) => verb,
            Verb::Promote(verb) => verb,
            Verb::Report(verb) => verb,
            Verb::Check(verb) => verb,
            Verb::Why(verb) => verb,
            Verb::Sql(verb) => verb,
            Verb::Serve(verb) => verb,
            Verb::Gc(verb) => verb,
            Verb::Erase(verb) => verb,
            Verb::Cluster(verb) => verb,
            Verb::Doctor(verb) => verb,
        }
    }
}

impl Cli {
    /// Resolves the configuration, then runs the verb.
    pub fn run(self) -> Result<()> {
        start_logging(&self.settings.log_format);
        let command = self.verb.command();
        let config = self.resolve_config(command.needs().places)?;
        // Plans of a night and chains of operators nest deeply, and a debug build has large stack frames: 2 MiB, the default, leave
        // little room. Only what is used of a stack takes memory.
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(64 << 20).build();
        let runtime = runtime.map_err(|e| Failure::bug(format!("no runtime: {e}")))?;
        runtime.block_on(run_command(command, config))
    }

    fn resolve_config(&self, places: Option<&Places>) -> Result<Config> {
        let mut overrides = self.settings.set.clone();
        // clap keeps a global option's values from one side of the verb only, and drops the others silently.
        let given = std::env::args().filter(|a| a == "--set" || a.starts_with("--set=")).count();
        if given > overrides.len() {
            return Err(Failure::usage(format!("--set: {given} given, {} understood", overrides.len()))
                .hint("write all of them before the verb, or all after it"));
        }
        if let Some(places) = places {
            overrides.extend(places.lake.clone().map(|uri| ("lake.uri".into(), uri)));
            overrides.extend(places.output.clone().map(|uri| ("output.uri".into(), uri)));
        }
        Config::resolve(self.settings.config.as_deref(), environment(), &overrides)
    }
}

async fn run_command(command: &dyn Command, config: Config) -> Result<()> {
    let Needs { lake, tensors, .. } = command.needs();
    // The user's settings win over the lake's own.
    let config = if lake { lake_file::with_lake_settings(config).await? } else { config };
    if tensors && config.score.device != "cpu" {
        devices::find_cuda();
    }
    match panics::caught(command.run(&config)).await {
        Err(failure) if lake => Err(unreadable::name_file(&config, failure).await),
        done => done,
    }
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("expected SECTION.KEY=VALUE, got {text:?}"))?;
    Ok((key.trim().into(), value.into()))
}

/// Sends logs to standard error, without colour codes where that is no terminal.
fn start_logging(format: &str) {
    use tracing_subscriber::EnvFilter;
    // `RUST_LOG` asks for more, such as the causes of a failure.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,intentcast=info"));
    let colour = std::io::stderr().is_terminal();
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    let started = if format == "json" { logs.json().try_init() } else { logs.without_time().try_init() };
    // A second start within one process (tests) keeps the first subscriber.
    started.unwrap_or_default();
}
