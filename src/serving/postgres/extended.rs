//! Extended queries: prepared statements, typed parameters, portals with row limits.

use async_trait::async_trait;
use datafusion::sql::sqlparser::ast;
use datafusion_postgres::arrow_pg::datatypes::arrow_schema_to_pg_fields;
use datafusion_postgres::datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use futures::{Sink, SinkExt, StreamExt};
use pgwire::api::portal::{Format, Portal, PortalExecutionState};
use pgwire::api::query::ExtendedQueryHandler;
use pgwire::api::results::{FieldInfo, Response, Tag};
use pgwire::api::stmt::QueryParser;
use pgwire::api::store::{Entry, PortalStore};
use pgwire::api::{ClientInfo, ClientPortalStore, DEFAULT_NAME, PgWireConnectionState, Type};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::extendedquery::Execute;
use pgwire::messages::response::TransactionStatus;
use std::fmt::Debug;
use std::sync::Arc;

use super::connection::Connection;
use super::copy_out::CopyOut;
use super::parameters::Parameters;
use super::{connection, errors, settings, simple};
use crate::serving::queries::{Planned, Queries};
use crate::serving::refusal::Refusal;

/// A prepared statement.
#[derive(Clone)]
pub(super) enum Prepared {
    /// A statement that concerns the connection alone.
    Setting(Box<ast::Statement>),
    Query(Box<PreparedQuery>),
}

/// A prepared query.
#[derive(Clone)]
pub(super) struct PreparedQuery {
    statement: ast::Statement,
    copy: Option<CopyOut>,
    parameters: Parameters,
    planned: Planned,
}

/// Parses statements and keeps them with their plan.
pub(super) struct Preparer {
    queries: Arc<Queries>,
    parser: PostgresCompatibilityParser,
}

impl Preparer {
    /// Returns the only statement of a text; `None` where there is none.
    fn parse_one(&self, sql: &str) -> PgWireResult<Option<ast::Statement>> {
        let mut statements = simple::parse(&self.parser, sql)?;
        match statements.len() {
            0 | 1 => Ok(statements.pop()),
            count => {
                let message = format!("a prepared statement: expected one statement, got {count}");
                Err(errors::refused(Refusal::new(Refusal::SYNTAX, message)))
            }
        }
    }
}

#[async_trait]
impl QueryParser for Preparer {
    type Statement = Prepared;

    async fn parse_sql<C>(&self, client: &C, sql: &str, _types: &[Option<Type>]) -> PgWireResult<Option<Prepared>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        // Fails before the client was let in, so that nothing of it is kept.
        let connection = Connection::of(client)?;
        let refused = |error: &PgWireError| self.queries.refused(&connection.caller, sql, errors::sqlstate(error));
        let Some(statement) = self.parse_one(sql).inspect_err(refused)? else { return Ok(None) };
        if settings::is_setting(&statement) {
            return Ok(Some(Prepared::Setting(Box::new(statement))));
        }
        let copy = CopyOut::of(&statement).inspect_err(refused)?;
        let statement = copy.as_ref().map_or(statement, |copy| copy.query.clone());
        let planned = simple::plan(&self.queries, &connection, statement.clone()).await?;
        let parameters = Parameters::of(&planned.plan).inspect_err(refused)?;
        Ok(Some(Prepared::Query(Box::new(PreparedQuery { statement, copy, parameters, planned }))))
    }

    fn get_parameter_types(&self, statement: &Prepared) -> PgWireResult<Vec<Type>> {
        match statement {
            Prepared::Setting(_) => Ok(Vec::new()),
            Prepared::Query(query) => query.parameters.pg_types(),
        }
    }

    fn get_result_schema(&self, statement: &Prepared, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        match statement {
            Prepared::Setting(statement) => Ok(settings::columns(statement)),
            Prepared::Query(query) if query.copy.is_some() => Ok(Vec::new()),
            Prepared::Query(query) => {
                let schema = query.planned.plan.schema().as_arrow();
                arrow_schema_to_pg_fields(schema, format.unwrap_or(&Format::UnifiedText), None)
            }
        }
    }
}

/// Answers extended queries.
pub(super) struct Extended {
    queries: Arc<Queries>,
    preparer: Arc<Preparer>,
}

impl Extended {
    pub(super) fn new(queries: Arc<Queries>) -> Self {
        let preparer = Preparer { queries: Arc::clone(&queries), parser: PostgresCompatibilityParser::new() };
        Self { queries, preparer: Arc::new(preparer) }
    }
}

#[async_trait]
impl ExtendedQueryHandler for Extended {
    type Statement = Prepared;
    type QueryParser = Preparer;

    fn query_parser(&self) -> Arc<Preparer> {
        Arc::clone(&self.preparer)
    }

    /// Sends all rows as they come; the default implementation would hold them first.
    async fn on_execute<C>(&self, client: &mut C, message: Execute) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        let portal = match client.portal_store().get_portal(name) {
            Some(Entry::Value(portal)) if message.max_rows == 0 => portal,
            _ => return self._on_execute(client, message).await,
        };
        let streams = matches!(&portal.statement.statement, Prepared::Query(query) if query.copy.is_none())
            && matches!(client.state(), PgWireConnectionState::ReadyForQuery)
            && matches!(*portal.state().lock().await, PortalExecutionState::Initial);
        if !streams {
            return self._on_execute(client, message).await;
        }
        client.set_state(PgWireConnectionState::QueryInProgress);
        let Response::Query(mut response) = self.do_query(client, portal.as_ref(), 0).await? else {
            return Err(errors::refused(Refusal::new(Refusal::BUG, "a query without rows")));
        };
        let tag = response.command_tag().to_owned();
        let mut rows = 0;
        while let Some(row) = response.data_rows().next().await {
            client.feed(PgWireBackendMessage::DataRow(row?)).await?;
            rows += 1;
        }
        *portal.state().lock().await = PortalExecutionState::Finished;
        client.send(PgWireBackendMessage::CommandComplete(Tag::new(&tag).with_rows(rows).into())).await?;
        client.set_state(PgWireConnectionState::ReadyForQuery);
        Ok(())
    }

    async fn do_query<C>(&self, client: &mut C, portal: &Portal<Prepared>, _max_rows: usize) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let connection = Connection::of(client)?;
        let cancelled = connection.begin();
        let sql = match &portal.statement.statement {
            Prepared::Setting(statement) => statement.as_ref(),
            Prepared::Query(query) => &query.statement,
        };
        let refused = |error: &PgWireError| {
            self.queries.refused(&connection.caller, &sql.to_string(), errors::sqlstate(error));
        };
        let failed = client.transaction_status() == TransactionStatus::Error;
        simple::refuse_in_failed_transaction(failed, sql).inspect_err(refused)?;
        let query = match &portal.statement.statement {
            Prepared::Setting(statement) => {
                let answer = settings::answer(client, &self.queries, &connection, statement).await;
                return answer.inspect_err(refused);
            }
            Prepared::Query(query) => query,
        };
        let night = connection.night(&self.queries).await.map_err(errors::refused).inspect_err(refused)?;
        // A prepared statement lives long: it reads the night that is the newest when it runs.
        let mut planned = match Arc::ptr_eq(&night, &query.planned.night) {
            true => query.planned.clone(),
            false => simple::plan(&self.queries, &connection, query.statement.clone()).await?,
        };
        let values = query.parameters.values(portal).inspect_err(refused)?;
        let bound = planned.plan.replace_params_with_values(&values).map_err(errors::failed);
        planned.plan = bound.inspect_err(refused)?;
        let timeout = connection::statement_timeout(client);
        let rows = self.queries.start(&connection.caller, planned, cancelled, timeout);
        match &query.copy {
            Some(copy) => copy.response(rows),
            None => Ok(Response::Query(simple::response(rows, &portal.result_column_format)?)),
        }
    }
}
