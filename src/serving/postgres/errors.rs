//! Refusals as PostgreSQL's clients read them.

use pgwire::error::{ErrorInfo, PgWireError};

use crate::serving::refusal::Refusal;

pub(super) fn refused(refusal: Refusal) -> PgWireError {
    let mut info = ErrorInfo::new("ERROR".into(), refusal.sqlstate.into(), refusal.failure.message);
    info.hint = refusal.failure.hint;
    PgWireError::UserError(Box::new(info))
}

/// Returns the SQLSTATE of an error.
pub(super) fn sqlstate(error: &PgWireError) -> &str {
    match error {
        PgWireError::UserError(info) => &info.code,
        _ => Refusal::BUG,
    }
}

/// Ends the connection.
pub(super) fn fatal(sqlstate: &str, message: impl Into<String>) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new("FATAL".into(), sqlstate.into(), message.into())))
}

pub(super) fn unsupported(what: impl Into<String>) -> PgWireError {
    refused(Refusal::new(Refusal::UNSUPPORTED, what))
}

pub(super) fn failed(error: impl Into<Refusal>) -> PgWireError {
    refused(error.into())
}
