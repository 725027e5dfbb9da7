//! State of a client's connection, and the connections that a cancel request can name.

use async_trait::async_trait;
use pgwire::api::ClientInfo;
use pgwire::api::cancel::CancelHandler;
use pgwire::error::PgWireResult;
use pgwire::messages::cancel::CancelRequest;
use pgwire::messages::startup::SecretKey;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

use super::errors;
use crate::ids::RunDate;
use crate::serving::caller::Caller;
use crate::serving::nights::Night;
use crate::serving::queries::Queries;
use crate::serving::refusal::Refusal;

/// Under this key `SET statement_timeout` keeps its milliseconds in the client's metadata.
pub(super) const STATEMENT_TIMEOUT: &str = "statement_timeout_ms";

/// One client's connection.
pub(super) struct Connection {
    pub(super) caller: Caller,
    /// The night that `SET intentcast.run_date` chose.
    run_date: Mutex<Option<RunDate>>,
    /// Cancels what runs now.
    running: Mutex<CancellationToken>,
}

impl Connection {
    pub(super) fn new(caller: Caller) -> Self {
        Self { caller, run_date: Mutex::default(), running: Mutex::default() }
    }

    /// Returns a client's connection, which its start-up has made.
    pub(super) fn of<C: ClientInfo + ?Sized>(client: &C) -> PgWireResult<Arc<Self>> {
        let found = client.session_extensions().get::<Arc<Connection>>();
        let found = found.map(|connection| Arc::clone(connection.as_ref()));
        found.ok_or_else(|| errors::refused(Refusal::new(Refusal::BUG, "the connection has no state")))
    }

    pub(super) fn run_date(&self) -> Option<RunDate> {
        *self.run_date.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_run_date(&self, run_date: Option<RunDate>) {
        *self.run_date.lock().unwrap_or_else(PoisonError::into_inner) = run_date;
    }

    /// Returns the night that this connection's next query reads.
    pub(super) async fn night(&self, queries: &Queries) -> Result<Arc<Night>, Refusal> {
        Ok(queries.nights.at(self.run_date()).await?)
    }

    /// Begins a statement, and returns what a cancel request will cancel.
    pub(super) fn begin(&self) -> CancellationToken {
        let token = CancellationToken::new();
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = token.clone();
        token
    }

    fn cancel(&self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).cancel();
    }
}

/// Returns the time limit that the client has set.
pub(super) fn statement_timeout<C: ClientInfo + ?Sized>(client: &C) -> Option<Duration> {
    let milliseconds = client.metadata().get(STATEMENT_TIMEOUT)?.parse().ok()?;
    Some(Duration::from_millis(milliseconds))
}

/// The connections of a server by process id, with the key that a cancel request must know.
#[derive(Default)]
pub(super) struct Connections(Mutex<HashMap<i32, Cancellable>>);

/// A connection with the key that cancels it.
type Cancellable = (Vec<u8>, Weak<Connection>);

impl Connections {
    pub(super) fn add(&self, pid: i32, key: &SecretKey, connection: &Arc<Connection>) {
        let mut connections = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|_, (_, connection)| connection.strong_count() > 0);
        connections.insert(pid, (bytes_of(key), Arc::downgrade(connection)));
    }
}

/// A key of four bytes is read back from a cancel request as bytes.
fn bytes_of(key: &SecretKey) -> Vec<u8> {
    match key {
        SecretKey::I32(number) => number.to_be_bytes().to_vec(),
        SecretKey::Bytes(bytes) => bytes.to_vec(),
    }
}

#[async_trait]
impl CancelHandler for Connections {
    async fn on_cancel_request(&self, request: CancelRequest) {
        let connections = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((key, connection)) = connections.get(&request.pid)
            && *key == bytes_of(&request.secret_key)
            && let Some(connection) = connection.upgrade()
        {
            connection.cancel();
        }
    }
}
