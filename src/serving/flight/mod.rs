//! Arrow Flight SQL, on the service trait of `arrow-flight`: Arrow batches go out as they come.
//!
//! Read only: no transactions, updates or ingestion. A client chooses an earlier night with the header `intentcast-run-date`.

mod info;
mod statements;
mod status;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, CommandGetCatalogs,
    CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo,
    CommandPreparedStatementQuery, CommandStatementQuery, DoPutPreparedStatementResult, ProstMessageExt, SqlInfo,
    TicketStatementQuery,
};
use arrow_flight::{
    Action, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse, IpcMessage,
    SchemaAsIpc, Ticket,
};
use datafusion::prelude::SessionContext;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use prost::Message;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::access::{Access, Account, Incoming};
use super::caller::Caller;
use super::nights::Night;
use super::queries::{Queries, Rows};
use super::refusal::Refusal;
use crate::ids::RunDate;
use statements::{Statements, bind_parameters, parameter_schema};
use status::{internal, refused, unsupported};

/// Header by which a client chooses the night of a date.
const RUN_DATE_HEADER: &str = "intentcast-run-date";

const AUTHORIZATION: &str = "authorization";

/// Length of the preface of HTTP/2 (RFC 9113, section 3.4).
pub(super) const OPENING_BYTES: usize = 24;

/// Time after which a silent client is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// `CancelResult` of Flight SQL, which `arrow-flight` does not export.
const CANCELLED: i32 = 1;
const NOT_CANCELLABLE: i32 = 3;

/// Serves Flight SQL until `stopping`.
pub(super) async fn serve(incoming: Incoming, queries: Arc<Queries>, stopping: CancellationToken) {
    let service = FlightServiceServer::new(Flight { statements: Statements::new(Arc::clone(&queries)), queries });
    let server = tonic::transport::Server::builder().http2_keepalive_interval(Some(KEEP_ALIVE)).add_service(service);
    if let Err(error) = server.serve_with_incoming_shutdown(incoming, stopping.cancelled_owned()).await {
        tracing::warn!("flight: {error}");
    }
}

/// The service.
struct Flight {
    queries: Arc<Queries>,
    statements: Statements,
}

type Answer<T> = Result<Response<T>, Status>;
type DataStream = Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send>>;

impl Flight {
    async fn night<T>(&self, request: &Request<T>) -> Result<Arc<Night>, Refusal> {
        let run_date = match request.metadata().get(RUN_DATE_HEADER) {
            None => None,
            Some(value) => {
                let text = value.to_str().unwrap_or("?");
                let wrong = || {
                    let message = format!("{RUN_DATE_HEADER}: expected YYYY-MM-DD, got {text}");
                    Refusal::new(Refusal::INVALID_VALUE, message)
                };
                Some(text.parse::<RunDate>().map_err(|_| wrong())?)
            }
        };
        Ok(self.queries.nights.at(run_date).await?)
    }

    /// Returns the account that a client has proved to be; each refusal is logged.
    async fn account<T>(&self, request: &Request<T>) -> Result<Account, Status> {
        let header = request.metadata().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let known = self.queries.access.account_of_header(header).await;
        known.map_err(|refusal| {
            // A caller who has proved nothing has no name.
            let caller = caller(Access::open_account(""), request);
            self.queries.refused(&caller, "", refusal.sqlstate);
            refused(refusal)
        })
    }

    async fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        Ok(caller(self.account(request).await?, request))
    }

    /// Returns the night that a statement of a client reads; a refusal is logged.
    async fn night_of<T>(&self, caller: &Caller, statement: &str, request: &Request<T>) -> Result<Arc<Night>, Status> {
        let night = self.night(request).await;
        night.map_err(|refusal| {
            self.queries.refused(caller, statement, refusal.sqlstate);
            refused(refusal)
        })
    }

    async fn start<T>(&self, handle: &[u8], request: &Request<T>) -> Result<Rows, Status> {
        let caller = self.caller(request).await?;
        let (planned, cancelled) = self.statements.take(handle, &caller.account)?;
        Ok(self.queries.start(&caller, planned, cancelled, None))
    }

    /// Returns a session that shows what the client may see.
    async fn session<T>(&self, request: &Request<T>) -> Result<SessionContext, Status> {
        let account = self.account(request).await?;
        let night = self.night(request).await.map_err(refused)?;
        night.session(account.view().map_err(refused)?).await.map_err(refused)
    }
}

fn caller<T>(account: Account, request: &Request<T>) -> Caller {
    Caller { account, address: request.remote_addr(), protocol: "flight" }
}

/// Describes an answer that `ticket` fetches.
fn flight_info(schema: &SchemaRef, ticket: Vec<u8>, descriptor: FlightDescriptor) -> Answer<FlightInfo> {
    let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket));
    let info = FlightInfo::new().try_with_schema(schema).map_err(internal)?;
    Ok(Response::new(info.with_endpoint(endpoint).with_descriptor(descriptor)))
}

fn data(
    schema: SchemaRef,
    batches: stream::BoxStream<'static, Result<RecordBatch, FlightError>>,
) -> Answer<DataStream> {
    let encoded = FlightDataEncoderBuilder::new().with_schema(schema).build(batches).map_err(Status::from);
    Ok(Response::new(encoded.boxed()))
}

fn one_batch(batch: RecordBatch) -> Answer<DataStream> {
    data(batch.schema(), stream::iter([Ok(batch)]).boxed())
}

fn rows(rows: Rows) -> Answer<DataStream> {
    let batches = rows.stream.map_err(|refusal| FlightError::Tonic(Box::new(refusal.grpc_status())));
    data(rows.schema, batches.boxed())
}

fn schema_bytes(schema: &SchemaRef) -> Result<bytes::Bytes, Status> {
    let message = SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into();
    let IpcMessage(bytes) = message.map_err(|e: arrow::error::ArrowError| internal(e))?;
    Ok(bytes)
}

#[tonic::async_trait]
impl FlightSqlService for Flight {
    type FlightService = Flight;

    /// Answers name and password with a token.
    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Answer<Pin<Box<dyn Stream<Item = Result<HandshakeResponse, Status>> + Send>>> {
        let account = self.account(&request).await?;
        let header = request.metadata().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = self.queries.access.issue_token(&account, header).map_err(refused)?;
        let answer = HandshakeResponse { protocol_version: 0, payload: token.clone().into() };
        let stream: Pin<Box<dyn Stream<Item = _> + Send>> = stream::iter([Ok(answer)]).boxed();
        let mut response = Response::new(stream);
        let header = format!("Bearer {token}").parse().map_err(internal)?;
        response.metadata_mut().insert(AUTHORIZATION, header);
        Ok(response)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        let caller = self.caller(&request).await?;
        let night = self.night_of(&caller, &query.query, &request).await?;
        let (handle, schema) = self.statements.add(&caller, night, &query.query).await?;
        let ticket = TicketStatementQuery { statement_handle: handle.into() };
        flight_info(&schema, ticket.as_any().encode_to_vec(), request.into_inner())
    }

    async fn do_get_statement(
        &self,
        ticket: TicketStatementQuery,
        request: Request<Ticket>,
    ) -> Answer<<Self as FlightService>::DoGetStream> {
        let started = self.start(&ticket.statement_handle, &request).await?;
        self.statements.fetched(&ticket.statement_handle);
        rows(started)
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let caller = self.caller(&request).await?;
        let night = self.night_of(&caller, &query.query, &request).await?;
        let (handle, schema) = self.statements.add(&caller, night, &query.query).await?;
        let parameters = parameter_schema(&self.statements.get(handle.as_bytes(), &caller.account)?.plan)?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: handle.into(),
            dataset_schema: schema_bytes(&schema)?,
            parameter_schema: schema_bytes(&parameters)?,
        })
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let account = self.account(&request).await?;
        let parts = request.into_inner().map_err(|status| FlightError::Tonic(Box::new(status)));
        let mut stream = FlightRecordBatchStream::new_from_flight_data(parts);
        let (mut batches, mut rows) = (Vec::new(), 0);
        // One row is taken: more need not be read to be refused.
        while rows <= 1
            && let Some(batch) = stream.try_next().await.map_err(Status::from)?
        {
            rows += batch.num_rows();
            batches.push(batch);
        }
        let values = bind_parameters(&batches)?;
        self.statements.bind(&query.prepared_statement_handle, &account, values)?;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: None })
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        // A prepared statement lives long: it reads the night that is the newest when it runs.
        let caller = self.caller(&request).await?;
        let night = self.night_of(&caller, "", &request).await?;
        let schema = self.statements.renew(&caller, &query.prepared_statement_handle, night).await?;
        flight_info(&schema, query.as_any().encode_to_vec(), request.into_inner())
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<Ticket>,
    ) -> Answer<<Self as FlightService>::DoGetStream> {
        rows(self.start(&query.prepared_statement_handle, &request).await?)
    }

    async fn do_action_close_prepared_statement(
        &self,
        query: ActionClosePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<(), Status> {
        let account = self.account(&request).await?;
        self.statements.remove(&query.prepared_statement_handle, &account);
        Ok(())
    }

    async fn do_action_cancel_query(
        &self,
        query: ActionCancelQueryRequest,
        request: Request<Action>,
    ) -> Result<ActionCancelQueryResult, Status> {
        let account = self.account(&request).await?;
        let info = FlightInfo::decode(query.info).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let result = match info.endpoint.iter().any(|endpoint| self.cancel(endpoint, &account)) {
            true => CANCELLED,
            false => NOT_CANCELLABLE,
        };
        Ok(ActionCancelQueryResult { result })
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        let schema = query.into_builder().schema();
        flight_info(&schema, query.as_any().encode_to_vec(), request.into_inner())
    }

    async fn do_get_catalogs(&self, query: CommandGetCatalogs, request: Request<Ticket>) -> Answer<DataStream> {
        self.account(&request).await?;
        one_batch(info::catalogs(query)?)
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        let schema = query.clone().into_builder().schema();
        flight_info(&schema, query.as_any().encode_to_vec(), request.into_inner())
    }

    async fn do_get_schemas(&self, query: CommandGetDbSchemas, request: Request<Ticket>) -> Answer<DataStream> {
        one_batch(info::schemas(query, &self.session(&request).await?)?)
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        let schema = query.clone().into_builder().schema();
        flight_info(&schema, query.as_any().encode_to_vec(), request.into_inner())
    }

    async fn do_get_tables(&self, query: CommandGetTables, request: Request<Ticket>) -> Answer<DataStream> {
        one_batch(info::tables(query, &self.session(&request).await?).await?)
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        let schema = query.into_builder().schema();
        flight_info(&schema, query.as_any().encode_to_vec(), request.into_inner())
    }

    async fn do_get_table_types(&self, query: CommandGetTableTypes, request: Request<Ticket>) -> Answer<DataStream> {
        self.account(&request).await?;
        one_batch(info::table_types(query)?)
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        let schema = query.clone().into_builder(&info::sql_info()?).schema();
        flight_info(&schema, query.as_any().encode_to_vec(), request.into_inner())
    }

    async fn do_get_sql_info(&self, query: CommandGetSqlInfo, request: Request<Ticket>) -> Answer<DataStream> {
        self.account(&request).await?;
        one_batch(query.into_builder(&info::sql_info()?).build().map_err(Status::from)?)
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        let schema = query.into_builder(&info::type_info()?).schema();
        flight_info(&schema, query.as_any().encode_to_vec(), request.into_inner())
    }

    async fn do_get_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        request: Request<Ticket>,
    ) -> Answer<DataStream> {
        self.account(&request).await?;
        one_batch(query.into_builder(&info::type_info()?).build().map_err(Status::from)?)
    }

    async fn get_flight_info_primary_keys(
        &self,
        query: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        flight_info(&info::primary_key_schema(), query.as_any().encode_to_vec(), request.into_inner())
    }

    async fn do_get_primary_keys(&self, _query: CommandGetPrimaryKeys, request: Request<Ticket>) -> Answer<DataStream> {
        self.account(&request).await?;
        one_batch(RecordBatch::new_empty(info::primary_key_schema()))
    }

    async fn get_flight_info_exported_keys(
        &self,
        query: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        flight_info(&info::foreign_key_schema(), query.as_any().encode_to_vec(), request.into_inner())
    }

    async fn do_get_exported_keys(
        &self,
        _query: CommandGetExportedKeys,
        request: Request<Ticket>,
    ) -> Answer<DataStream> {
        self.account(&request).await?;
        one_batch(RecordBatch::new_empty(info::foreign_key_schema()))
    }

    async fn get_flight_info_imported_keys(
        &self,
        query: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        flight_info(&info::foreign_key_schema(), query.as_any().encode_to_vec(), request.into_inner())
    }

    async fn do_get_imported_keys(
        &self,
        _query: CommandGetImportedKeys,
        request: Request<Ticket>,
    ) -> Answer<DataStream> {
        self.account(&request).await?;
        one_batch(RecordBatch::new_empty(info::foreign_key_schema()))
    }

    async fn get_flight_info_cross_reference(
        &self,
        query: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        flight_info(&info::foreign_key_schema(), query.as_any().encode_to_vec(), request.into_inner())
    }

    async fn do_get_cross_reference(
        &self,
        _query: CommandGetCrossReference,
        request: Request<Ticket>,
    ) -> Answer<DataStream> {
        self.account(&request).await?;
        one_batch(RecordBatch::new_empty(info::foreign_key_schema()))
    }

    async fn do_put_statement_update(
        &self,
        _query: arrow_flight::sql::CommandStatementUpdate,
        _request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(unsupported("an update"))
    }

    async fn do_put_prepared_statement_update(
        &self,
        _query: arrow_flight::sql::CommandPreparedStatementUpdate,
        _request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(unsupported("an update"))
    }

    async fn do_put_statement_ingest(
        &self,
        _query: arrow_flight::sql::CommandStatementIngest,
        _request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(unsupported("ingestion"))
    }

    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}

impl Flight {
    /// Cancels the query that an endpoint's ticket names. Returns whether there was one.
    fn cancel(&self, endpoint: &FlightEndpoint, account: &Account) -> bool {
        let Some(ticket) = &endpoint.ticket else { return false };
        let Ok(message) = Any::decode(ticket.ticket.clone()) else { return false };
        match (message.unpack::<TicketStatementQuery>(), message.unpack::<CommandPreparedStatementQuery>()) {
            (Ok(Some(ticket)), _) => self.statements.cancel(&ticket.statement_handle, account),
            (_, Ok(Some(query))) => self.statements.cancel(&query.prepared_statement_handle, account),
            _ => false,
        }
    }
}
