//! Statements that clients have named: ad hoc ones until they are fetched, prepared ones until they are closed.

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::{DFParser, Statement};
use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::status::refused;
use crate::serving::access::Account;
use crate::serving::caller::Caller;
use crate::serving::nights::Night;
use crate::serving::queries::{Planned, Queries};
use crate::serving::refusal::{self, Refusal};
use crate::serving::sql_text::refuse_complex;

/// Statements that are kept; the one that was used the longest ago makes room.
const STATEMENTS_MAX: usize = 4096;

#[derive(Clone)]
struct Named {
    /// Name of the user who sent it; no one else may use it.
    owner: String,
    statement: Statement,
    planned: Planned,
    values: Option<ParamValues>,
    cancelled: CancellationToken,
}

impl Named {
    /// Returns the plan with the values of its parameters.
    fn bound(&self) -> Result<Planned, Status> {
        let mut planned = self.planned.clone();
        if let Some(values) = &self.values {
            planned.plan = planned.plan.replace_params_with_values(values).map_err(refused)?;
        }
        Ok(planned)
    }
}

/// The statements of all clients by handle.
pub(super) struct Statements {
    queries: Arc<Queries>,
    named: Mutex<LruCache<String, Named>>,
    /// Cancellation of ad hoc statements that were fetched, by handle, with their owners. Their plans are dropped, and with them the
    /// night that they read.
    fetched: Mutex<LruCache<String, (String, CancellationToken)>>,
}

impl Statements {
    pub(super) fn new(queries: Arc<Queries>) -> Self {
        let max = NonZeroUsize::new(STATEMENTS_MAX).unwrap_or(NonZeroUsize::MIN);
        Self { queries, named: Mutex::new(LruCache::new(max)), fetched: Mutex::new(LruCache::new(max)) }
    }

    /// Plans a statement. Returns its handle and the schema of its rows.
    pub(super) async fn add(
        &self,
        caller: &Caller,
        night: Arc<Night>,
        sql: &str,
    ) -> Result<(String, SchemaRef), Status> {
        let parsed = parse_one(sql).inspect_err(|refusal| self.queries.refused(caller, sql, refusal.sqlstate));
        let statement = parsed.map_err(refused)?;
        let planned = self.queries.plan(caller, night, statement.clone()).await.map_err(refused)?;
        let schema = schema_of(&planned);
        let handle = uuid::Uuid::new_v4().to_string();
        let owner = caller.account.name.clone();
        let named = Named { owner, statement, planned, values: None, cancelled: CancellationToken::new() };
        self.lock().put(handle.clone(), named);
        Ok((handle, schema))
    }

    /// Sets a statement's parameters.
    pub(super) fn bind(&self, handle: &[u8], account: &Account, values: Option<ParamValues>) -> Result<(), Status> {
        let mut all = self.lock();
        let named = all.get_mut(key(handle)?).filter(|named| named.owner == account.name);
        named.ok_or_else(unknown)?.values = values;
        Ok(())
    }

    /// Plans a statement again if it is of another night. Returns the schema of its rows.
    pub(super) async fn renew(&self, caller: &Caller, handle: &[u8], night: Arc<Night>) -> Result<SchemaRef, Status> {
        let mut named = self.named(handle, &caller.account)?;
        if !Arc::ptr_eq(&named.planned.night, &night) {
            named.planned = self.queries.plan(caller, night, named.statement.clone()).await.map_err(refused)?;
        }
        // With its values, because they decide what may be null.
        let schema = schema_of(&named.bound()?);
        self.lock().put(key(handle)?.to_string(), named);
        Ok(schema)
    }

    /// Returns a statement as it was planned, without values for its parameters.
    pub(super) fn get(&self, handle: &[u8], account: &Account) -> Result<Planned, Status> {
        Ok(self.named(handle, account)?.planned)
    }

    /// Returns a statement to run, with the values of its parameters, and what cancels it.
    pub(super) fn take(&self, handle: &[u8], account: &Account) -> Result<(Planned, CancellationToken), Status> {
        let cancelled = CancellationToken::new();
        let named = {
            let mut all = self.lock();
            let named = all.get_mut(key(handle)?).filter(|named| named.owner == account.name);
            let named = named.ok_or_else(unknown)?;
            named.cancelled = cancelled.clone();
            named.clone()
        };
        Ok((named.bound()?, cancelled))
    }

    /// Forgets an ad hoc statement, except for how to cancel it.
    pub(super) fn fetched(&self, handle: &[u8]) {
        if let Ok(key) = key(handle)
            && let Some(named) = self.lock().pop(key)
        {
            let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
            fetched.put(key.into(), (named.owner, named.cancelled));
        }
    }

    /// Cancels what runs of a statement. Returns whether it is known.
    pub(super) fn cancel(&self, handle: &[u8], account: &Account) -> bool {
        let Ok(key) = key(handle) else { return false };
        let fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        let named = self.named(handle, account).ok().map(|named| (named.owner, named.cancelled));
        match fetched.or(named).filter(|(owner, _)| *owner == account.name) {
            Some((_, cancelled)) => {
                cancelled.cancel();
                true
            }
            None => false,
        }
    }

    pub(super) fn remove(&self, handle: &[u8], account: &Account) {
        if let (Ok(_), Ok(key)) = (self.named(handle, account), key(handle)) {
            self.lock().pop(key);
        }
    }

    fn named(&self, handle: &[u8], account: &Account) -> Result<Named, Status> {
        let named = self.lock().get(key(handle)?).cloned();
        named.filter(|named| named.owner == account.name).ok_or_else(unknown)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LruCache<String, Named>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the only statement of a text.
fn parse_one(sql: &str) -> refusal::Result<Statement> {
    refuse_complex(sql)?;
    let mut parsed = DFParser::parse_sql(sql)?;
    match (parsed.pop_front(), parsed.len()) {
        (Some(statement), 0) => Ok(statement),
        (first, more) => {
            let count = usize::from(first.is_some()) + more;
            Err(Refusal::new(Refusal::SYNTAX, format!("expected one statement, got {count}")))
        }
    }
}

fn schema_of(planned: &Planned) -> SchemaRef {
    Arc::new(planned.plan.schema().as_arrow().clone())
}

fn key(handle: &[u8]) -> Result<&str, Status> {
    std::str::from_utf8(handle).map_err(|_| unknown())
}

fn unknown() -> Status {
    Status::not_found("this statement is not known: it was closed, or many others came after it; send it again")
}

/// Returns the parameters of a plan as columns, in order.
pub(super) fn parameter_schema(plan: &LogicalPlan) -> Result<SchemaRef, Status> {
    let mut types: Vec<(usize, DataType)> = Vec::new();
    for (id, known) in plan.get_parameter_types().map_err(refused)? {
        let position = id.trim_start_matches('$').parse().unwrap_or(0);
        types.push((position, known.unwrap_or(DataType::Utf8)));
    }
    types.sort_by_key(|(position, _)| *position);
    let fields = types.into_iter().map(|(position, known)| Field::new(format!("${position}"), known, true));
    Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}

/// Returns the values of one row; `None` without a row.
pub(super) fn bind_parameters(batches: &[RecordBatch]) -> Result<Option<ParamValues>, Status> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0) else { return Ok(None) };
    if rows > 1 {
        return Err(refused(Refusal::new(Refusal::UNSUPPORTED, format!("parameters: expected one row, got {rows}"))));
    }
    let values = batch.columns().iter().map(|column| ScalarValue::try_from_array(column, 0));
    let values = values.collect::<Result<Vec<_>, _>>().map_err(refused)?;
    Ok(Some(ParamValues::from(values)))
}
