//! The server: SQL over PostgreSQL's protocol and Arrow Flight SQL, one user's intents over HTTP.
//!
//! In: a configuration, and so an output, and a lake where there is one. Out: answers of the newest visible night, or of an earlier
//! one on request. The night's sessions come from the workspace, in read-only mode ([`nights`]); what they show is restricted
//! ([`visible`]); every protocol plans and runs its queries at one place ([`queries`]).

mod access;
mod audit;
mod caller;
mod flight;
mod http;
mod live;
mod metrics;
mod nights;
mod pg_catalog;
mod postgres;
mod pseudonyms;
mod queries;
mod refusal;
mod sql_text;
mod stored;
mod visible;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::failure::{Failure, Result};
use access::{Acceptor, Access, Incoming, Tls};
use nights::Nights;
use queries::Queries;

pub(crate) use access::hash_password;

/// Time for the answers of the queries that ended last.
const LAST_ROWS: Duration = Duration::from_secs(1);

/// A server whose addresses are bound.
pub(crate) struct Server {
    queries: Arc<Queries>,
    config: Config,
    tls: Option<Tls>,
    pg: Option<TcpListener>,
    flight: Option<TcpListener>,
    http: Option<TcpListener>,
}

impl Server {
    /// Binds the configured addresses and opens the newest night.
    pub(crate) async fn open(config: &Config) -> Result<Self> {
        let access = Arc::new(Access::new(config)?);
        let tls = access::load_tls(config)?;
        let missing = missing_beyond(config);
        let pg = bind("serve.pg", &config.serve.pg, &missing).await?;
        let flight = bind("serve.flight", &config.serve.flight, &missing).await?;
        let http = bind("serve.http", &config.serve.http, &missing).await?;
        if pg.is_none() && flight.is_none() && http.is_none() {
            return Err(Failure::usage("serve.pg, serve.flight, serve.http: expected an address, got off for all"));
        }
        let nights = Nights::open(config).await?;
        Ok(Self {
            queries: Arc::new(Queries::new(config, access, nights)),
            config: config.clone(),
            tls,
            pg,
            flight,
            http,
        })
    }

    /// Returns what is served where, for people to read.
    pub(crate) fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        let bound = [("pg", &self.pg), ("flight", &self.flight), ("http", &self.http)].into_iter();
        bound.filter_map(|(name, listener)| Some((name, listener.as_ref()?.local_addr().ok()?))).collect()
    }

    /// Serves until `stopping`. Then no connection is accepted, and running queries have `serve.drain_seconds` to end.
    pub(crate) async fn run(self, stopping: CancellationToken) -> Result<()> {
        let open = TaskTracker::new();
        let connections_max = self.config.serve.connections_max as usize;
        let acceptor = |protocol, listener, alpn: &[&str]| {
            let tls = self.tls.as_ref().map(|tls| tls.acceptor(alpn)).transpose()?;
            Ok::<_, Failure>(Acceptor::new(protocol, listener, tls, connections_max, stopping.clone()))
        };
        if let Some(listener) = self.pg {
            let acceptor = acceptor("pg", listener, &["postgresql"])?;
            open.spawn(postgres::serve(acceptor, Arc::clone(&self.queries), open.clone()));
        }
        if let Some(listener) = self.flight {
            let incoming = Incoming::new(acceptor("flight", listener, &["h2"])?, flight::OPENING_BYTES);
            open.spawn(flight::serve(incoming, Arc::clone(&self.queries), stopping.clone()));
        }
        if let Some(listener) = self.http {
            let incoming = Incoming::new(acceptor("http", listener, &["http/1.1"])?, http::OPENING_BYTES);
            open.spawn(http::serve(incoming, Arc::clone(&self.queries), stopping.clone()));
            // Reading a large night takes a while; requests that come earlier wait for it.
            tokio::spawn(prepare_live(Arc::clone(&self.queries)));
        }
        let refresh = Duration::from_secs(self.config.serve.refresh_seconds.into());
        loop {
            tokio::select! {
                () = stopping.cancelled() => break,
                () = async {
                    tokio::time::sleep(refresh).await;
                    refresh_nights(Arc::clone(&self.queries)).await;
                } => {}
            }
        }
        open.close();
        let drain = Duration::from_secs(self.config.serve.drain_seconds.into());
        tokio::select! {
            () = self.queries.drained() => {}
            () = tokio::time::sleep(drain) => tracing::warn!("queries still run after serve.drain_seconds; they are cancelled"),
        }
        self.queries.stopped.cancel();
        // The last rows, and the refusals of what was cancelled, are on their way to their clients.
        tokio::time::sleep(LAST_ROWS).await;
        self.queries.closed.cancel();
        tokio::time::timeout(Duration::from_secs(5), open.wait()).await.unwrap_or_default();
        Ok(())
    }
}

/// Reads what answers for one user need, before the first of them is asked for.
async fn prepare_live(queries: Arc<Queries>) {
    let begun = std::time::Instant::now();
    match queries.nights.live().await {
        Ok(_) => tracing::info!("ready to score users with new events after {:.1} s", begun.elapsed().as_secs_f64()),
        Err(failure) => tracing::warn!("users cannot be scored with new events: {failure}"),
    }
}

/// A store that is out of reach for a while must not end the server: it keeps the night that it has.
async fn refresh_nights(queries: Arc<Queries>) {
    let shared = Arc::clone(&queries);
    // In a task of its own: a damaged file that makes a reader panic must not end the server either.
    let refreshed = tokio::spawn(async move { shared.nights.refresh().await }).await;
    match refreshed.unwrap_or_else(|e| Err(Failure::bug(e))) {
        Ok(true) => {
            let date =
                queries.nights.newest().run_date.map_or("no night".into(), |date| format!("the night of {date}"));
            tracing::info!("showing {date}");
        }
        Ok(false) => {}
        Err(failure) => tracing::warn!("looking for a new night: {failure}"),
    }
}

/// Returns the settings without which the server stays on this machine.
fn missing_beyond(config: &Config) -> Vec<&'static str> {
    let serve = &config.serve;
    let settings = [
        ("[[serve.users]]", serve.users.is_empty()),
        ("serve.tls_certificate", serve.tls_certificate.is_empty()),
        ("serve.tls_key", serve.tls_key.is_empty()),
    ];
    settings.into_iter().filter(|(_, is_missing)| *is_missing).map(|(setting, _)| setting).collect()
}

/// Binds an address; `None` for `off`. Refuses one that other machines reach where settings are `missing` for that.
async fn bind(setting: &str, address: &str, missing: &[&str]) -> Result<Option<TcpListener>> {
    if address == "off" {
        return Ok(None);
    }
    let wrong = |e: std::io::Error| Failure::usage(format!("{setting} = {address}: {e}"));
    let resolved: Vec<SocketAddr> = tokio::net::lookup_host(address).await.map_err(wrong)?.collect();
    if let Some(beyond) = resolved.iter().find(|a| !missing.is_empty() && !is_loopback(a.ip())) {
        return Err(Failure::usage(format!(
            "{setting} = {address}: {} is reachable from other machines, for which this is missing: {}",
            beyond.ip(),
            missing.join(", ")
        ))
        .hint("configure it (docs/howto/serve.md), or bind to a loopback address such as 127.0.0.1"));
    }
    match TcpListener::bind(resolved.as_slice()).await {
        Ok(listener) => Ok(Some(listener)),
        Err(e) => Err(wrong(e).hint(format!(
            "choose another address with --{} or {setting}, or stop what listens there",
            setting.trim_start_matches("serve.")
        ))),
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
