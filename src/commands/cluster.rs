//! `intentcast cluster`: the processes of a cluster.

use async_trait::async_trait;
use clap::{Args, Subcommand};
use std::net::SocketAddr;

use super::command::{Command, Needs, Places};
use crate::cluster::processes::{self, ExecutorPlace};
use crate::config::Config;
use crate::failure::Result;

/// Run a process of a cluster; a night uses it with engine.cluster = df://HOST:PORT.
#[derive(Debug, Args)]
pub struct Cluster {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Split plans into stages and hand them to executors. Use the same --lake and --output as `nightly`.
    Scheduler {
        #[command(flatten)]
        places: Places,
        /// Listen on this address.
        #[arg(long, default_value = "127.0.0.1:50050", value_name = "HOST:PORT")]
        bind: SocketAddr,
    },
    /// Run stages: read, score, write. Use the same --lake and --output as `nightly`.
    Executor {
        #[command(flatten)]
        places: Places,
        #[command(flatten)]
        place: ExecutorPlace,
    },
}

#[async_trait(?Send)]
impl Command for Cluster {
    fn needs(&self) -> Needs<'_> {
        match &self.role {
            Role::Scheduler { places, .. } => Needs { tensors: false, ..Needs::lake_and_models(places) },
            Role::Executor { places, .. } => Needs::lake_and_models(places),
        }
    }

    async fn run(&self, config: &Config) -> Result<()> {
        match &self.role {
            Role::Scheduler { bind, .. } => processes::scheduler(config, *bind).await,
            Role::Executor { place, .. } => processes::executor(config, place).await,
        }
    }
}
