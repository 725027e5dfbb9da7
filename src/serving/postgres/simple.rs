//! Simple queries: text in, rows as text out.

use async_trait::async_trait;
use datafusion::sql::sqlparser::ast::{self, Expr};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion_postgres::arrow_pg::datatypes::{arrow_schema_to_pg_fields, encode_recordbatch};
use datafusion_postgres::datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use futures::{Sink, StreamExt, stream};
use pgwire::api::portal::Format;
use pgwire::api::query::SimpleQueryHandler;
use pgwire::api::results::{QueryResponse, Response};
use pgwire::api::store::PortalStore;
use pgwire::api::{ClientInfo, ClientPortalStore};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::response::TransactionStatus;
use std::fmt::Debug;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::connection::Connection;
use super::{connection, copy_out, errors, settings};
use crate::serving::queries::{Planned, Queries, Rows};
use crate::serving::refusal::Refusal;
use crate::serving::sql_text::refuse_complex;

/// Answers simple queries.
pub(super) struct Simple {
    queries: Arc<Queries>,
    parser: PostgresCompatibilityParser,
}

impl Simple {
    pub(super) fn new(queries: Arc<Queries>) -> Self {
        Self { queries, parser: PostgresCompatibilityParser::new() }
    }
}

#[async_trait]
impl SimpleQueryHandler for Simple {
    async fn do_query<C>(&self, client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let connection = Connection::of(client)?;
        let cancelled = connection.begin();
        let refused = |error: &PgWireError| self.queries.refused(&connection.caller, query, errors::sqlstate(error));
        let statements = parse(&self.parser, query).inspect_err(refused)?;
        if statements.is_empty() {
            return Ok(vec![Response::EmptyQuery]);
        }
        let mut responses = Vec::new();
        let mut failed = client.transaction_status() == TransactionStatus::Error;
        for statement in statements {
            refuse_in_failed_transaction(failed, &statement).inspect_err(refused)?;
            failed &= !matches!(statement, ast::Statement::Commit { .. } | ast::Statement::Rollback { .. });
            if settings::is_setting(&statement) {
                let answer = settings::answer(client, &self.queries, &connection, &statement).await;
                responses.push(answer.inspect_err(refused)?);
                continue;
            }
            let copy = copy_out::CopyOut::of(&statement).inspect_err(refused)?;
            let query = copy.as_ref().map_or(&statement, |copy| &copy.query);
            let planned = plan(&self.queries, &connection, query.clone()).await?;
            let timeout = connection::statement_timeout(client);
            let rows = self.queries.start(&connection.caller, planned, cancelled.clone(), timeout);
            responses.push(match copy {
                Some(copy) => copy.response(rows)?,
                None => Response::Query(response(rows, &Format::UnifiedText)?),
            });
        }
        Ok(responses)
    }
}

/// Parses statements as PostgreSQL's clients write them.
pub(super) fn parse(parser: &PostgresCompatibilityParser, query: &str) -> PgWireResult<Vec<ast::Statement>> {
    refuse_complex(query).map_err(errors::refused)?;
    let mut statements = parser.parse(query).map_err(|error| errors::syntax(query, &error))?;
    for statement in &mut statements {
        use_backslash_in_patterns(statement);
    }
    Ok(statements)
}

/// Writes `LIKE 'a/_b' ESCAPE '/'` with a backslash, the only escape character that DataFusion knows.
fn use_backslash_in_patterns(statement: &mut ast::Statement) {
    let visited: ControlFlow<()> = ast::visit_expressions_mut(statement, |expression| {
        if let Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } = expression
            && let Some(escape) = escape_char.clone().and_then(ast::ValueWithSpan::into_string)
            && escape.chars().count() == 1
            && escape != "\\"
        {
            let escape = escape.replace('\'', "''");
            let rewritten = format!(r"replace(replace({pattern}, '\', '\\'), '{escape}', '\')");
            let parsed = Parser::new(&PostgreSqlDialect {}).try_with_sql(&rewritten);
            if let Ok(rewritten) = parsed.and_then(|mut parser| parser.parse_expr()) {
                (**pattern, *escape_char) = (rewritten, None);
            }
        }
        ControlFlow::Continue(())
    });
    debug_assert!(visited.is_continue());
}

/// Refuses statements in a transaction that an error has ended, until it is rolled back, as clients expect.
pub(super) fn refuse_in_failed_transaction(failed: bool, statement: &ast::Statement) -> PgWireResult<()> {
    let ends = matches!(statement, ast::Statement::Commit { .. } | ast::Statement::Rollback { .. });
    if ends || !failed {
        return Ok(());
    }
    let message = "the transaction failed: commands are refused until ROLLBACK";
    Err(errors::refused(Refusal::new(Refusal::FAILED_TRANSACTION, message)))
}

/// Plans a query of a connection's night.
pub(super) async fn plan(
    queries: &Queries,
    connection: &Connection,
    statement: ast::Statement,
) -> PgWireResult<Planned> {
    let refused = |refusal: &Refusal| queries.refused(&connection.caller, &statement.to_string(), refusal.sqlstate);
    let night = connection.night(queries).await.inspect_err(refused).map_err(errors::refused)?;
    let statement = datafusion::sql::parser::Statement::Statement(Box::new(statement));
    queries.plan(&connection.caller, night, statement).await.map_err(errors::refused)
}

/// Encodes rows as they come.
pub(super) fn response(rows: Rows, format: &Format) -> PgWireResult<QueryResponse> {
    let fields = Arc::new(arrow_schema_to_pg_fields(&rows.schema, format, None)?);
    let encoded = Arc::clone(&fields);
    let rows = rows.stream.flat_map(move |batch| match batch {
        Ok(batch) => stream::iter(encode_recordbatch(Arc::clone(&encoded), batch)).boxed(),
        Err(refusal) => stream::iter([Err(errors::refused(refusal))]).boxed(),
    });
    Ok(QueryResponse::new(fields, rows))
}
