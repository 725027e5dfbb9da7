//! `intentcast serve`: answers SQL and HTTP until it is told to stop.

use async_trait::async_trait;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::command::{Command, Needs, Places};
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::serving::{self, Server};

/// Serve the published nights: SQL over PostgreSQL's protocol and Arrow Flight SQL, one user's intents over HTTP.
///
/// Only reads. Without --lake it serves the published tables, the models and what the state holds.
#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    places: Places,
    /// Serve PostgreSQL's protocol at this address, or `off` [default: serve.pg].
    #[arg(long, value_name = "HOST:PORT")]
    pg: Option<String>,
    /// Serve Arrow Flight SQL at this address, or `off` [default: serve.flight].
    #[arg(long, value_name = "HOST:PORT")]
    flight: Option<String>,
    /// Serve HTTP at this address, or `off` [default: serve.http].
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<String>,
    /// Read a password from standard input, print its hashes for [[serve.users]], and serve nothing.
    #[arg(long)]
    hash_password: bool,
}

#[async_trait(?Send)]
impl Command for Serve {
    fn needs(&self) -> Needs<'_> {
        Needs::lake_and_models(&self.places)
    }

    async fn run(&self, config: &Config) -> Result<()> {
        if self.hash_password {
            return print_hashes();
        }
        let mut config = config.clone();
        let flags = [
            (&self.pg, &mut config.serve.pg),
            (&self.flight, &mut config.serve.flight),
            (&self.http, &mut config.serve.http),
        ];
        for (flag, setting) in flags {
            if let Some(address) = flag {
                setting.clone_from(address);
            }
        }
        let stopping = CancellationToken::new();
        let mut signals = Vec::new();
        for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
            signals.push(signal(kind).map_err(|e| Failure::transient(format!("signals: {e}")))?);
        }
        let stop = stopping.clone();
        tokio::spawn(async move {
            let [terminate, interrupt] = signals.as_mut_slice() else { return };
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping; running queries may end");
            stop.cancel();
        });
        let server = Server::open(&config).await?;
        for (protocol, address) in server.addresses() {
            say!("{protocol} {address}");
        }
        server.run(stopping).await
    }
}

fn print_hashes() -> Result<()> {
    let no_password = |e: std::io::Error| Failure::usage(format!("standard input: {e}"));
    let password = match console::user_attended() && console::user_attended_stderr() {
        true => {
            eprint!("password: ");
            console::Term::stderr().read_secure_line().map_err(no_password)?
        }
        false => {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).map_err(no_password)?;
            line.trim_end_matches(['\r', '\n']).to_string()
        }
    };
    if password.is_empty() {
        return Err(Failure::usage("standard input: expected a password, got an empty line"));
    }
    say!("{}", serving::hash_password(&password)?);
    Ok(())
}
