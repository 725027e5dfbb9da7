//! The command line: flags of every verb, and which room each one calls.

use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::cluster::processes::{self, ExecutorPlace};
use crate::config::Config;
use crate::engine::doctor;
use crate::failure::{Failure, Result};
use crate::ids::RunDate;
use crate::lake::{lake_file, unreadable};
use crate::score::devices;
use crate::shell::Format;
use crate::simulation::SimulateOptions;
use crate::simulation::signal::Signal;
use crate::training::labelled::InputOptions;
use crate::training::table::TableOptions;
use crate::verbs;

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

/// Where the lake and the output are; the configuration's lake.uri and output.uri otherwise.
#[derive(Debug, Args)]
pub struct Places {
    /// Root of the Parquet lake: s3://…, file://… or a plain path.
    #[arg(long, value_name = "URI")]
    pub lake: Option<String>,
    /// Root of what is written: tables/, state/, models/.
    #[arg(long, value_name = "URI")]
    pub output: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Writes a behaviour lake with known truth, streamed; the same seed gives the same bytes.
    Simulate {
        /// Root of the lake to write.
        #[arg(long, value_name = "URI")]
        to: String,
        #[arg(long)]
        users: u64,
        #[arg(long)]
        items: u64,
        #[arg(long)]
        days: u32,
        #[arg(long, default_value_t = 42)]
        seed: u64,
        /// Plants every kind of bad row and file, and lists them in faults.json.
        #[arg(long)]
        faults: bool,
        /// What tells who is about to buy: everything a shop knows, or one modality alone (to see whether a model finds it).
        #[arg(long, value_enum, default_value_t = Signal::Mixed)]
        signal: Signal,
        /// First day of the lake.
        #[arg(long, default_value = "2026-01-01")]
        start: RunDate,
    },
    /// Streams a public data set's original files (also .gz and .zst) into a lake.
    ///
    /// Writes the publisher's own columns below URI/events/dt=DAY/, facts about items and users that lie on event lines
    /// once below URI/items/ and URI/users/, and URI/lake.toml, so that the other verbs need no settings for this lake.
    /// sql/lakes/NAME/ says what the columns mean. Damaged lines are counted by reason and left out; more than 1 % refuses
    /// the import. A failed import keeps nothing. A place that holds a lake already is refused: events would count twice.
    Import {
        /// taobao, tmall, rees46, retailrocket, online-retail-ii, complete-journey, cdnow or amazon-all-beauty.
        name: String,
        /// All files of the set; complete-journey: the transactions and, for categories, the products.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Root of the lake to write; it must hold none yet.
        #[arg(long, value_name = "URI")]
        to: String,
    },
    /// Runs the night: features, scores, demand, replenishment, checks, one atomic publication.
    Nightly {
        #[command(flatten)]
        places: Places,
        /// Scores as of this date, 00:00 in lake.time_zone; also the first forecast date.
        #[arg(long, required_unless_present = "backfill")]
        date: Option<RunDate>,
        /// Runs every night of A..B (both included), oldest first.
        #[arg(long, value_name = "A..B", conflicts_with = "date", value_parser = date_range)]
        backfill: Option<(RunDate, RunDate)>,
        /// Gives up after this many seconds (exit 75); finished stages are kept.
        #[arg(long, value_name = "SECONDS")]
        deadline: Option<u64>,
        /// Prints what would be read, kept and built, and does nothing.
        #[arg(long)]
        dry_run: bool,
        #[arg(long, value_enum, default_value = "table")]
        format: Format,
        #[arg(long, hide = true)]
        die_at: Option<String>,
    },
    /// Makes the night before visible again, without deleting anything.
    Rollback {
        #[command(flatten)]
        places: Places,
        #[arg(long)]
        date: RunDate,
    },
    /// Trains on what happened before the date and writes a bundle; champion only where there is none yet.
    ///
    /// With --task table, learns labels from the columns of any flat table instead, and writes a table model, which
    /// predict_table(...) calls in SQL and no night can take. With --task text, teaches a pretrained encoder labels of a
    /// text column, and writes a text model, which classify_text(...) calls. With --task image, the same of pictures, by an
    /// encoder or from random weights, for classify_image(...).
    Train {
        #[command(flatten)]
        places: Places,
        /// What to learn from: a shop's lake, a table, texts, or pictures.
        #[arg(long, value_enum, default_value = "night")]
        task: Task,
        /// Labels too end before this date: nothing at or after it is read. Needed with --task night alone.
        #[arg(long)]
        date: Option<RunDate>,
        /// Searches settings first, on the validation set, and trains with the best (docs/models/training.md).
        #[arg(long, value_name = "FILE", conflicts_with = "table")]
        sweep: Option<PathBuf>,
        #[command(flatten)]
        table: TableOptions,
        #[command(flatten)]
        inputs: InputOptions,
    },
    /// Lists the models, or makes one the champion.
    Models {
        #[command(flatten)]
        places: Places,
        /// Makes this version the champion.
        #[arg(long, value_name = "VERSION")]
        promote: Option<String>,
        #[arg(long, value_enum, default_value = "table")]
        format: Format,
    },
    /// A SQL prompt, or queries given at once, over lake, features, published tables and functions.
    Sql {
        #[command(flatten)]
        places: Places,
        /// Runs this query, or several parted by `;`, and ends.
        // A file of SQL begins with a comment, and that with hyphens.
        #[arg(short = 'c', long = "command", value_name = "QUERY", allow_hyphen_values = true)]
        query: Option<String>,
        /// What as_of() says; the latest published night otherwise.
        #[arg(long)]
        date: Option<RunDate>,
        #[arg(long, value_enum, default_value = "table")]
        format: Format,
    },
    /// Removes nights past their retention, orphaned files, state that no night can use, and old locks.
    Gc {
        #[command(flatten)]
        places: Places,
        /// Lists what would go.
        #[arg(long)]
        dry_run: bool,
    },
    /// Processes of a cluster; the night uses it with engine.cluster = df://HOST:PORT.
    Cluster {
        #[command(subcommand)]
        role: Role,
    },
    /// Says what this machine and configuration can do: libtorch, GPU, cores, memory limits.
    Doctor,
}

/// What `train` learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Task {
    /// Both networks of a night, from a lake.
    Night,
    /// Labels of a flat table.
    Table,
    /// Labels of a text column, by a pretrained encoder.
    Text,
    /// Labels of pictures, by an encoder's weights or random ones.
    Image,
}

/// What a process of a cluster does.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// Splits the driver's plans into stages and hands them to executors. Needs --lake and --output, as the night has them.
    Scheduler {
        #[command(flatten)]
        places: Places,
        /// Address to listen on.
        #[arg(long, default_value = "127.0.0.1:50050")]
        bind: SocketAddr,
    },
    /// Runs stages: reads, scores, writes. Needs --lake and --output, as the night has them.
    Executor {
        #[command(flatten)]
        places: Places,
        #[command(flatten)]
        place: ExecutorPlace,
    },
}

impl Cli {
    /// Resolves the configuration once, then calls the verb's room.
    pub fn run(self) -> Result<()> {
        start_logging(&self.settings.log_format);
        let mut overrides = self.settings.set.clone();
        // clap keeps a global option's values from one side of the verb only, and says nothing of the others.
        let given = std::env::args().filter(|a| a == "--set" || a.starts_with("--set=")).count();
        if given > overrides.len() {
            return Err(Failure::usage(format!("--set: {given} given, {} understood", overrides.len()))
                .hint("write all of them before the verb, or all after it"));
        }
        if let Some(places) = self.verb.places() {
            overrides.extend(places.lake.clone().map(|uri| ("lake.uri".into(), uri)));
            overrides.extend(places.output.clone().map(|uri| ("output.uri".into(), uri)));
        }
        let config = Config::resolve(self.settings.config.as_deref(), crate::config::environment(), &overrides)?;
        // A lake says what it is; whatever the user set wins.
        let config = if self.verb.opens_lake() { block_on(lake_file::settle(config))? } else { config };
        let config = &config;
        if self.verb.uses_models() && config.score.device != "cpu" {
            devices::look();
        }
        let opens_lake = self.verb.opens_lake();
        self.verb.run(config).or_else(|failure| match opens_lake {
            true => block_on(async { Err(unreadable::named(config, failure).await) }),
            false => Err(failure),
        })
    }
}

impl Verb {
    fn run(self, config: &Config) -> Result<()> {
        match self {
            Verb::Simulate { to, users, items, days, seed, faults, signal, start } => block_on(verbs::simulate(
                config,
                &to,
                &SimulateOptions { users, items, days, seed, faults, signal, start: start.0 },
            )),
            Verb::Import { name, files, to } => block_on(verbs::import(config, &name, &files, &to)),
            Verb::Nightly { date, backfill, deadline, dry_run, format, die_at, .. } => {
                let dates = backfill
                    .or(date.map(|d| (d, d)))
                    .ok_or_else(|| Failure::usage("nightly: pass --date or --backfill"))?;
                block_on(verbs::nightly(config, dates, deadline, dry_run, format, die_at))
            }
            Verb::Rollback { date, .. } => block_on(verbs::rollback(config, date)),
            Verb::Train { task: Task::Table, table, .. } => block_on(verbs::train_table(config, &table)),
            Verb::Train { task: Task::Text, table, inputs, .. } => block_on(verbs::train_text(config, &table, &inputs)),
            Verb::Train { task: Task::Image, table, inputs, .. } => {
                block_on(verbs::train_image(config, &table, &inputs))
            }
            Verb::Train { date, sweep, .. } => {
                let date = date.ok_or_else(|| Failure::usage("train: pass --date, or --task table, text or image"))?;
                block_on(verbs::train(config, date, sweep))
            }
            Verb::Models { promote, format, .. } => block_on(verbs::models(config, promote, format)),
            Verb::Sql { query, date, format, .. } => block_on(verbs::sql(config, query, date, format)),
            Verb::Gc { dry_run, .. } => block_on(verbs::gc(config, dry_run)),
            Verb::Cluster { role: Role::Scheduler { bind, .. } } => block_on(processes::scheduler(config, bind)),
            Verb::Cluster { role: Role::Executor { place, .. } } => block_on(processes::executor(config, &place)),
            Verb::Doctor => doctor::print(config),
        }
    }

    /// Verbs that make tensors: the GPU's library has to be open before the first one.
    fn uses_models(&self) -> bool {
        matches!(
            self,
            Verb::Nightly { .. }
                | Verb::Train { .. }
                | Verb::Sql { .. }
                | Verb::Doctor
                | Verb::Cluster { role: Role::Executor { .. } }
        )
    }

    fn places(&self) -> Option<&Places> {
        match self {
            Verb::Nightly { places, .. }
            | Verb::Rollback { places, .. }
            | Verb::Train { places, .. }
            | Verb::Models { places, .. }
            | Verb::Sql { places, .. }
            | Verb::Gc { places, .. }
            | Verb::Cluster { role: Role::Scheduler { places, .. } | Role::Executor { places, .. } } => Some(places),
            Verb::Simulate { .. } | Verb::Import { .. } | Verb::Doctor => None,
        }
    }

    /// Verbs that look at the output alone must work where the lake is out of reach.
    fn opens_lake(&self) -> bool {
        let elsewhere = matches!(
            self,
            Verb::Rollback { .. }
                | Verb::Models { .. }
                | Verb::Gc { .. }
                | Verb::Train { task: Task::Table | Task::Text | Task::Image, .. }
        );
        self.places().is_some() && !elsewhere
    }
}

fn date_range(text: &str) -> Result<(RunDate, RunDate), String> {
    let (from, to) = text.split_once("..").ok_or_else(|| format!("expected A..B, got {text:?}"))?;
    let (from, to): (RunDate, RunDate) = (from.parse().map_err(say)?, to.parse().map_err(say)?);
    if from > to { Err(format!("{from} is after {to}")) } else { Ok((from, to)) }
}

fn say(failure: Failure) -> String {
    failure.to_string()
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
