//! The client that asks.

use std::net::SocketAddr;

use super::access::Account;

/// A client of one protocol.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) account: Account,
    pub(super) address: Option<SocketAddr>,
    /// `pg`, `flight` or `http`.
    pub(super) protocol: &'static str,
}
