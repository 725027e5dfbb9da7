//! Statements that concern the connection and read no table: `SET`, `SHOW`, transactions, `DISCARD` and their like.

use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::{ContextModifier, Expr, Ident, Reset, Set, Statement};
use datafusion_postgres::hooks::set_show::SetShowHook;
use datafusion_postgres::hooks::transactions::TransactionStatementHook;
use datafusion_postgres::hooks::{HookClient, QueryHook};
use futures::stream;
use pgwire::api::Type;
use pgwire::api::results::{DataRowEncoder, FieldFormat, FieldInfo, QueryResponse, Response, Tag};
use pgwire::error::PgWireResult;
use std::sync::Arc;

use super::connection::{Connection, STATEMENT_TIMEOUT};
use super::errors;
use crate::failure::Failure;
use crate::ids::RunDate;
use crate::serving::pg_catalog::SEARCH_PATH;
use crate::serving::queries::Queries;
use crate::serving::refusal::Refusal;

/// The setting that limits the seconds of a query.
const TIMEOUT: &str = "statement_timeout";

/// The setting that chooses a night.
const RUN_DATE: &str = "intentcast.run_date";

/// Returns whether a statement concerns the connection alone.
pub(super) fn is_setting(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::Set(_)
            | Statement::ShowVariable { .. }
            | Statement::Reset(_)
            | Statement::StartTransaction { .. }
            | Statement::Commit { .. }
            | Statement::Rollback { .. }
            | Statement::Savepoint { .. }
            | Statement::ReleaseSavepoint { .. }
            | Statement::Discard { .. }
            | Statement::Deallocate { .. }
            | Statement::Close { .. }
            | Statement::LISTEN { .. }
            | Statement::UNLISTEN { .. }
    )
}

/// Returns the columns of a statement's answer.
pub(super) fn columns(statement: &Statement) -> Vec<FieldInfo> {
    match statement {
        Statement::ShowVariable { variable } => {
            let name = variable.last().map_or("", |name| name.value.as_str());
            vec![FieldInfo::new(name.to_lowercase(), None, None, Type::TEXT, FieldFormat::Text)]
        }
        _ => Vec::new(),
    }
}

/// Answers a statement that [`is_setting`].
pub(super) async fn answer(
    client: &mut dyn HookClient,
    queries: &Queries,
    connection: &Connection,
    statement: &Statement,
) -> PgWireResult<Response> {
    match statement {
        Statement::Set(Set::SingleAssignment { scope, hivevar, variable, values }) => {
            let name = variable.to_string().to_lowercase();
            if name == RUN_DATE {
                set_run_date(queries, connection, values.first()).await?;
                return Ok(done("SET"));
            }
            if name.starts_with("datafusion.") || name.starts_with("intentcast.") {
                let message = format!("{name}: settings of the engine cannot be changed here");
                return Err(errors::refused(Refusal::new(Refusal::NOT_ALLOWED, message)));
            }
            // Settings of PostgreSQL that mean nothing here are accepted, because clients set dozens of them.
            if name.contains('.') {
                return Ok(done("SET"));
            }
            if *scope == Some(ContextModifier::Local) && name == TIMEOUT {
                return Err(errors::unsupported("SET LOCAL: expected SET, because transactions keep no settings"));
            }
            // The hook knows no SET SESSION, which means the same.
            let plain = Set::SingleAssignment {
                scope: None,
                hivevar: *hivevar,
                variable: variable.clone(),
                values: values.clone(),
            };
            from_hook(&SetShowHook, client, &Statement::Set(plain)).await
        }
        Statement::Set(_) => from_hook(&SetShowHook, client, statement).await,
        Statement::ShowVariable { variable } => {
            let name = variable.iter().map(|part| part.value.to_lowercase()).collect::<Vec<_>>().join(".");
            match name.as_str() {
                RUN_DATE => {
                    let night = connection.night(queries).await.map_err(errors::refused)?;
                    shown(columns(statement), &night.run_date.map_or(String::new(), |date| date.to_string()))
                }
                "search_path" => shown(columns(statement), SEARCH_PATH),
                // By this name the hook knows what the client has set.
                "timezone" => {
                    let variable = ["time", "zone"].map(Ident::new).to_vec();
                    from_hook(&SetShowHook, client, &Statement::ShowVariable { variable }).await
                }
                "transaction_read_only" | "default_transaction_read_only" => shown(columns(statement), "on"),
                _ => from_hook(&SetShowHook, client, statement).await,
            }
        }
        Statement::Reset(reset) => {
            let names = |setting: &str| match &reset.reset {
                Reset::ALL => true,
                Reset::ConfigurationParameter(name) => name.to_string().eq_ignore_ascii_case(setting),
            };
            if names(RUN_DATE) {
                connection.set_run_date(None);
            }
            if names(TIMEOUT) {
                client.metadata_mut().remove(STATEMENT_TIMEOUT);
            }
            Ok(done("RESET"))
        }
        Statement::Discard { .. } => {
            connection.set_run_date(None);
            client.metadata_mut().remove(STATEMENT_TIMEOUT);
            Ok(done("DISCARD ALL"))
        }
        // Nothing was changed that a savepoint could give back.
        Statement::Savepoint { .. } => Ok(done("SAVEPOINT")),
        Statement::ReleaseSavepoint { .. } => Ok(done("RELEASE")),
        // The transaction works again if it had failed.
        Statement::Rollback { savepoint: Some(_), .. } => Ok(Response::TransactionStart(Tag::new("ROLLBACK"))),
        Statement::Deallocate { .. } => Ok(done("DEALLOCATE")),
        Statement::Close { .. } => Ok(done("CLOSE CURSOR")),
        Statement::LISTEN { .. } => Ok(done("LISTEN")),
        Statement::UNLISTEN { .. } => Ok(done("UNLISTEN")),
        _ => from_hook(&TransactionStatementHook, client, statement).await,
    }
}

async fn set_run_date(queries: &Queries, connection: &Connection, value: Option<&Expr>) -> PgWireResult<()> {
    let text = match value {
        Some(Expr::Value(value)) => value.clone().into_string(),
        Some(Expr::Identifier(name)) => Some(name.value.clone()),
        _ => None,
    };
    let text = text.unwrap_or_default();
    if text.is_empty() || text.eq_ignore_ascii_case("default") {
        connection.set_run_date(None);
        return Ok(());
    }
    let invalid =
        |failure: Failure| errors::refused(Refusal { sqlstate: Refusal::INVALID_VALUE, failure: failure.at(RUN_DATE) });
    let run_date: RunDate = text.parse().map_err(invalid)?;
    queries.nights.at(Some(run_date)).await.map_err(invalid)?;
    connection.set_run_date(Some(run_date));
    Ok(())
}

async fn from_hook(
    hook: &impl QueryHook,
    client: &mut dyn HookClient,
    statement: &Statement,
) -> PgWireResult<Response> {
    // A session of its own: what the hook sets there, no query sees.
    match hook.handle_simple_query(statement, &SessionContext::new(), client).await {
        Some(answer) => answer,
        None => Err(errors::unsupported(format!("{statement}: not supported"))),
    }
}

fn done(tag: &str) -> Response {
    Response::Execution(Tag::new(tag))
}

fn shown(columns: Vec<FieldInfo>, value: &str) -> PgWireResult<Response> {
    let columns = Arc::new(columns);
    let mut row = DataRowEncoder::new(Arc::clone(&columns));
    row.encode_field(&Some(value))?;
    Ok(Response::Query(QueryResponse::new(columns, stream::iter([Ok(row.take_row())]))))
}
