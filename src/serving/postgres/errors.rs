//! Refusals as PostgreSQL's clients read them.

use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use pgwire::error::{ErrorInfo, PgWireError};

use crate::engine::error_place;
use crate::serving::refusal::Refusal;

pub(super) fn refused(refusal: Refusal) -> PgWireError {
    let mut info = ErrorInfo::new("ERROR".into(), refusal.sqlstate.into(), refusal.failure.message);
    info.hint = refusal.failure.hint;
    PgWireError::UserError(Box::new(info))
}

/// Refuses a text that the parser cannot read, with the place of what it did not expect.
pub(super) fn syntax(text: &str, error: &ParserError) -> PgWireError {
    let mut info = ErrorInfo::new("ERROR".into(), Refusal::SYNTAX.into(), error.to_string());
    // The catalogue's parser gives no places: it replaces some words before it parses.
    let again = Parser::parse_sql(&PostgreSqlDialect {}, text);
    let place = again.err().as_ref().and_then(error_place::of_parser);
    info.position = place.and_then(|place| error_place::position(text, place)).map(|position| position.to_string());
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
