//! The audit log: one line of JSON on standard error for each query, without its text and without values.

use serde::Serialize;
use std::collections::BTreeSet;
use std::io::Write;

use super::caller::Caller;
use crate::ids::ContentHash;

/// One query.
pub(super) struct AuditLine<'a> {
    pub(super) caller: &'a Caller,
    pub(super) statement_hash: &'a str,
    pub(super) tables: &'a BTreeSet<String>,
    pub(super) rows: u64,
    pub(super) seconds: f64,
    /// SQLSTATE (00000 is success), or the status of HTTP.
    pub(super) outcome: &'a str,
}

#[derive(Serialize)]
struct Line<'a> {
    target: &'static str,
    timestamp: String,
    user: &'a str,
    address: Option<String>,
    protocol: &'a str,
    statement_hash: &'a str,
    tables: &'a BTreeSet<String>,
    rows: u64,
    seconds: f64,
    outcome: &'a str,
}

/// Returns the hash under which a statement is logged.
pub(super) fn statement_hash(statement: &str) -> String {
    ContentHash::from_bytes(statement).short()
}

/// Writes a line. A closed standard error doesn't end the server.
pub(super) fn write(line: &AuditLine<'_>) {
    let line = Line {
        target: "audit",
        timestamp: chrono::Utc::now().to_rfc3339(),
        user: &line.caller.account.name,
        address: line.caller.address.map(|address| address.to_string()),
        protocol: line.caller.protocol,
        statement_hash: line.statement_hash,
        tables: line.tables,
        rows: line.rows,
        seconds: line.seconds,
        outcome: line.outcome,
    };
    if let Ok(mut text) = serde_json::to_vec(&line) {
        text.push(b'\n');
        std::io::stderr().lock().write_all(&text).unwrap_or_default();
    }
}
