//! Settings of `intentcast serve`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

use super::declare::{SettingValue, settings};
use crate::failure::{Failure, Result};

settings! {
    /// The server (`intentcast serve`).
    ServeConfig {
        /// Address of the PostgreSQL protocol, `host:port`, or `off`.
        pg: String = "127.0.0.1:5432".into();
        /// Address of Arrow Flight SQL, `host:port`, or `off`.
        flight: String = "127.0.0.1:32010".into();
        /// Address of HTTP, `host:port`, or `off`.
        http: String = "127.0.0.1:8080".into();
        /// Queries that run at once. 0: one per core. Eight times as many wait, first in first out.
        queries_max: u32 = 0, 0..=10_000;
        /// Seconds that a query waits for its turn before it is refused.
        wait_seconds_max: u32 = 300, 1..=86_400;
        /// Seconds that a query may run, reading its rows included.
        query_seconds_max: u32 = 300, 1..=86_400;
        /// Rows that a query may return.
        query_rows_max: u64 = 100_000_000, 1..=1_000_000_000;
        /// Memory in bytes that one query may hold; all queries together hold at most `engine.memory_bytes_max`.
        query_bytes_max: u64 = 512 << 20;
        /// Connections that each protocol accepts at once.
        connections_max: u32 = 500, 1..=1_000_000;
        /// Seconds between two looks for a new night.
        refresh_seconds: u32 = 10, 1..=86_400;
        /// Seconds that queries have to end after a signal to stop.
        drain_seconds: u32 = 30, 0..=86_400;
        /// PEM file with the server's certificate and its chain, for all three protocols. Empty: no TLS.
        tls_certificate: String = String::new();
        /// PEM file with the key of `tls_certificate`.
        tls_key: String = String::new();
        /// File with the key of pseudonyms, at least 32 random bytes, where a user has `user_ids = "pseudonym"`.
        pseudonym_key: String = String::new();
        /// Minutes after which a token of HTTP or Flight SQL expires.
        token_minutes: u32 = 60, 1..=525_600;
        /// Users and their roles, each a table `[[serve.users]]` (docs/howto/serve.md). Empty: everyone on this machine, as an analyst.
        users: Vec<ServedUser> = Vec::new();
    }
}

impl ServeConfig {
    pub(super) fn check(&self) -> Result<()> {
        if self.tls_certificate.is_empty() != self.tls_key.is_empty() {
            return Err(Failure::usage("serve.tls_certificate, serve.tls_key: expected both or none, got one"));
        }
        let mut names = BTreeSet::new();
        for user in &self.users {
            if user.name.is_empty() || !names.insert(&user.name) {
                return Err(Failure::usage(format!("serve.users: expected names, each once, got {:?}", user.name)));
            }
            if user.scram.is_empty() && user.argon2.is_empty() {
                return Err(Failure::usage(format!(
                    "serve.users: {}: expected scram, argon2 or both, got none",
                    user.name
                ))
                .hint("`intentcast serve --hash-password` makes both"));
            }
            if user.user_ids == UserIds::Pseudonym && self.pseudonym_key.is_empty() {
                return Err(Failure::usage(format!(
                    "serve.users: {}: user_ids = \"pseudonym\" needs serve.pseudonym_key",
                    user.name
                ))
                .hint("`head -c 32 /dev/urandom > FILE` makes a key"));
            }
        }
        Ok(())
    }
}

/// Rights of a user of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// All SQL, and GET below /v1.
    Analyst,
    /// SQL on demand, orders and runs.
    Planner,
    /// HTTP below /v1 alone.
    Service,
    /// Everything.
    Admin,
}

/// A user of the server.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServedUser {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// Salted password for PostgreSQL's protocol, as `--hash-password` prints it.
    #[serde(default)]
    pub(crate) scram: String,
    /// Hash of the password for HTTP and Flight SQL, as `--hash-password` prints it.
    #[serde(default)]
    pub(crate) argon2: String,
    /// Shows texts that customers wrote.
    #[serde(default)]
    pub(crate) free_text: bool,
    /// Shows ids of customers as they are, or as pseudonyms.
    #[serde(default)]
    pub(crate) user_ids: UserIds,
}

/// The way in which a user of the server sees ids of customers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum UserIds {
    #[default]
    Plain,
    Pseudonym,
}

/// Without the hashes, which must not get into logs.
impl fmt::Debug for ServedUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServedUser").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

impl SettingValue for Vec<ServedUser> {}
