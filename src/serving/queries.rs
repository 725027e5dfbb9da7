//! Plans and runs queries for all protocols: read only, in turn, within limits, each with a line in the audit log.
//!
//! A query runs in a task of its own that hands over a few batches ahead. So its time limit or a cancellation ends it at once, and its
//! memory and its turn are free again, even where the client has stopped reading.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::TableReference;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;
use futures::{FutureExt, Stream, StreamExt, stream};
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, SemaphorePermit, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::access::{Account, SharedAccess};
use super::audit::{self, AuditLine};
use super::caller::Caller;
use super::metrics::Metrics;
use super::nights::{Night, Nights};
use super::pg_catalog;
use super::refusal::{Refusal, Result};
use super::sql_text;
use crate::config::{Config, cores};
use crate::engine::memory::QueryPool;
use crate::engine::schemas;

/// Batches that a query computes ahead of its reader.
const BATCHES_AHEAD: usize = 2;

/// Statements that are planned, and queries of descriptions that run, per running query.
const CHEAP_PER_TURN: usize = 4;

/// Tables of a query that needs no turn, at most.
const METADATA_TABLES_MAX: usize = 24;

/// Waiting queries per running one.
const WAITING_PER_TURN: usize = 8;

/// Time that an answer for one user waits for its turn.
const LIVE_WAIT_MAX: Duration = Duration::from_secs(5);

/// SQLSTATE of success.
const SUCCESS: &str = "00000";

/// A checked query of one night.
#[derive(Clone)]
pub(crate) struct Planned {
    pub(crate) night: Arc<Night>,
    /// The session of what it may read of the night.
    ctx: SessionContext,
    pub(crate) plan: LogicalPlan,
    /// Names of the tables that it reads, for the audit log.
    tables: BTreeSet<String>,
    /// True if it reads nothing but descriptions of tables.
    is_metadata: bool,
    /// True if a failure is answered without rows, because a client asked about things that this server doesn't have.
    answers_empty: bool,
    /// Hash of the statement, for the audit log.
    statement_hash: String,
}

/// Plans and runs queries.
pub(crate) struct Queries {
    pub(crate) nights: Nights,
    pub(crate) access: SharedAccess,
    pub(crate) metrics: Metrics,
    turns: Arc<Semaphore>,
    /// Statements that are planned at once.
    planning: Semaphore,
    /// Queries of descriptions that run at once.
    metadata: Arc<Semaphore>,
    /// Answers for one user with new events, and about items, that are computed at once.
    live: Semaphore,
    waiting: AtomicUsize,
    live_waiting: AtomicUsize,
    /// Queries that wait for a turn at most, and as many answers for one user.
    waiting_max: usize,
    wait_max: Duration,
    seconds_max: Duration,
    rows_max: u64,
    bytes_max: usize,
    /// Cancelled when the server ends; running queries then end too.
    pub(crate) stopped: CancellationToken,
    /// Ends the connections, once their last answers are sent.
    pub(crate) closed: CancellationToken,
    running: TaskTracker,
}

impl Queries {
    pub(crate) fn new(config: &Config, access: SharedAccess, nights: Nights) -> Self {
        let serve = &config.serve;
        let running_max = if serve.queries_max == 0 { cores() } else { serve.queries_max as usize };
        Self {
            nights,
            access,
            metrics: Metrics::default(),
            turns: Arc::new(Semaphore::new(running_max)),
            planning: Semaphore::new(running_max * CHEAP_PER_TURN),
            metadata: Arc::new(Semaphore::new(running_max * CHEAP_PER_TURN)),
            live: Semaphore::new(running_max * CHEAP_PER_TURN),
            waiting: AtomicUsize::default(),
            live_waiting: AtomicUsize::default(),
            waiting_max: running_max * WAITING_PER_TURN,
            wait_max: Duration::from_secs(serve.wait_seconds_max.into()),
            seconds_max: Duration::from_secs(serve.query_seconds_max.into()),
            rows_max: serve.query_rows_max,
            bytes_max: usize::try_from(serve.query_bytes_max).unwrap_or(usize::MAX),
            stopped: CancellationToken::new(),
            closed: CancellationToken::new(),
            running: TaskTracker::new(),
        }
    }

    /// Plans a statement against a night, and refuses everything that is more than reading.
    pub(crate) async fn plan(&self, caller: &Caller, night: Arc<Night>, statement: Statement) -> Result<Planned> {
        let statement_hash = audit::statement_hash(&statement.to_string());
        let begun = Instant::now();
        let planned = self.plan_within_limits(&caller.account, night, statement, &statement_hash).await;
        if let Err(refusal) = &planned {
            self.record(caller, (&statement_hash, &BTreeSet::new()), 0, begun, refusal.sqlstate);
        }
        planned
    }

    /// Counts and logs a statement that was refused before it was planned.
    pub(crate) fn refused(&self, caller: &Caller, statement: &str, sqlstate: &str) {
        self.record(caller, (&audit::statement_hash(statement), &BTreeSet::new()), 0, Instant::now(), sqlstate);
    }

    /// Counts a query that has ended with an SQLSTATE, and logs it.
    fn record(
        &self,
        caller: &Caller,
        (statement_hash, tables): (&str, &BTreeSet<String>),
        rows: u64,
        begun: Instant,
        outcome: &str,
    ) {
        self.metrics.query_ended(caller.protocol, outcome, begun.elapsed());
        let seconds = begun.elapsed().as_secs_f64();
        audit::write(&AuditLine { caller, statement_hash, tables, rows, seconds, outcome });
    }

    async fn plan_within_limits(
        &self,
        account: &Account,
        night: Arc<Night>,
        statement: Statement,
        statement_hash: &str,
    ) -> Result<Planned> {
        let ctx = night.session(account.view()?).await?;
        let _turn = self.planning.acquire().await.map_err(stopping)?;
        let seconds = self.seconds_max.as_secs();
        let planned = tokio::time::timeout(
            self.seconds_max,
            on_a_thread(plan(ctx, night, statement, statement_hash.to_string())),
        )
        .await;
        planned.unwrap_or_else(|_| {
            let message = format!("planning the query took longer than {seconds} seconds");
            Err(Refusal::new(Refusal::CANCELLED, message).hint("serve.query_seconds_max is the limit"))
        })
    }

    /// Prepares a query. Its stream starts it when it is first read, waits for its turn, then yields its rows; it ends with the
    /// failure, if there is one. So of several statements each starts when the one before has ended. `seconds_max` tightens the
    /// server's own time limit.
    pub(crate) fn start(
        self: &Arc<Self>,
        caller: &Caller,
        planned: Planned,
        cancelled: CancellationToken,
        seconds_max: Option<Duration>,
    ) -> Rows {
        let schema: SchemaRef = Arc::new(planned.plan.schema().as_arrow().clone());
        let (queries, caller) = (Arc::clone(self), caller.clone());
        let started = async move { queries.run(caller, planned, cancelled, seconds_max) };
        Rows { schema, stream: stream::once(started).flatten().boxed() }
    }

    fn run(
        self: Arc<Self>,
        caller: Caller,
        planned: Planned,
        cancelled: CancellationToken,
        seconds_max: Option<Duration>,
    ) -> stream::BoxStream<'static, Result<RecordBatch>> {
        let (batches, received) = mpsc::channel(BATCHES_AHEAD);
        let (failed, failure) = oneshot::channel();
        let queries = Arc::clone(&self);
        self.running.spawn(async move {
            let seconds_max = seconds_max.map_or(queries.seconds_max, |limit| limit.min(queries.seconds_max));
            let mut run = Run { begun: Instant::now(), rows: 0, batches, seconds_max };
            let done = AssertUnwindSafe(run.run(&queries, &planned, &cancelled)).catch_unwind().await;
            let done = done.unwrap_or_else(|_| Err(Refusal::new(Refusal::BUG, "this query failed inside the engine")));
            let about = (planned.statement_hash.as_str(), &planned.tables);
            let outcome = done.as_ref().err().map_or(SUCCESS, |refusal| refusal.sqlstate);
            queries.record(&caller, about, run.rows, run.begun, outcome);
            if let Err(refusal) = done {
                // The reader may be gone.
                failed.send(refusal).ok();
            }
        });
        rows_stream(received, failure).boxed()
    }

    /// Waits for a turn to answer for one user.
    pub(crate) async fn live_turn(&self) -> Result<SemaphorePermit<'_>> {
        if let Ok(turn) = self.live.try_acquire() {
            return Ok(turn);
        }
        let _waiting = Waiting::begin(&self.live_waiting, self.waiting_max)?;
        match tokio::time::timeout(LIVE_WAIT_MAX, self.live.acquire()).await {
            Ok(turn) => turn.map_err(stopping),
            Err(_) => Err(busy("too many requests are answered already".into())),
        }
    }

    /// Computes an answer for one user, for as long as a query may run.
    pub(crate) async fn in_time<T>(&self, answer: impl Future<Output = T>) -> Result<T> {
        within(self.seconds_max, answer).await
    }

    /// Returns when no query runs or waits.
    pub(crate) async fn drained(&self) {
        self.running.close();
        self.running.wait().await;
    }

    /// Waits for a turn, first in first out.
    async fn turn(&self) -> Result<OwnedSemaphorePermit> {
        if let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() {
            return Ok(turn);
        }
        let _waiting = Waiting::begin(&self.waiting, self.waiting_max)?;
        let seconds = self.wait_max.as_secs();
        let turn = tokio::time::timeout(self.wait_max, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.map_err(|_| busy(format!("no query ended within {seconds} seconds")))?;
        turn.map_err(stopping)
    }
}

async fn within<T>(limit: Duration, answer: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(limit, answer).await.map_err(|_| {
        let message = format!("the answer took longer than {} seconds", limit.as_secs_f64());
        Refusal::new(Refusal::CANCELLED, message).hint("serve.query_seconds_max is the limit")
    })
}

fn busy(message: String) -> Refusal {
    Refusal::new(Refusal::BUSY, message).hint("try again later")
}

fn stopping(_: AcquireError) -> Refusal {
    Refusal::new(Refusal::BUSY, "the server is stopping")
}

/// Runs what computes for long without a pause on a thread of its own, so that other clients are answered meanwhile.
async fn on_a_thread<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let runtime = tokio::runtime::Handle::current();
    let done = tokio::task::spawn_blocking(move || runtime.block_on(work)).await;
    done.unwrap_or_else(|_| Err(Refusal::new(Refusal::BUG, "planning this statement failed")))
}

async fn plan(ctx: SessionContext, night: Arc<Night>, statement: Statement, statement_hash: String) -> Result<Planned> {
    let state = ctx.state();
    if let Statement::Statement(sql) = &statement {
        sql_text::refuse_many_tables(sql)?;
    }
    let references = state.resolve_table_references(&statement)?;
    let tables = references.iter().map(|table| table.to_string()).collect();
    let answers_empty = pg_catalog::may_answer_without_rows(&references);
    let sql = match &statement {
        Statement::Statement(sql) if answers_empty => Some(sql.as_ref().clone()),
        _ => None,
    };
    let plan = state.statement_to_plan(statement).await.map_err(Refusal::from);
    let plan = match sql {
        Some(sql) => plan_of_catalogue(&state, plan, sql).await?,
        None => plan.map_err(|refusal| with_table(&ctx, refusal, &references))?,
    };
    refuse_writing(&plan)?;
    let is_description = pg_catalog::reads_descriptions(&references) && references.len() <= METADATA_TABLES_MAX;
    let is_metadata = is_description || reads_no_table(&plan)?;
    Ok(Planned { night, ctx, plan, tables, is_metadata, answers_empty, statement_hash })
}

/// Names the table that a statement misses as its author wrote it, and the one that is meant perhaps.
fn with_table(ctx: &SessionContext, refusal: Refusal, references: &[TableReference]) -> Refusal {
    let is_missing = |table: &&TableReference| !ctx.table_exist((*table).clone()).unwrap_or(true);
    match references.iter().find(is_missing).filter(|_| refusal.sqlstate == Refusal::UNKNOWN_TABLE) {
        Some(table) => Refusal { failure: schemas::table_not_found(ctx, table.table()), ..refusal }
            .hint("information_schema.tables lists the tables, and so does \\d in psql"),
        None => refusal,
    }
}

/// Plans a query of the catalogue that a client sent at its start: as it is, or else without the subqueries of its columns, which
/// DataFusion cannot correlate, or else as one without rows.
async fn plan_of_catalogue(
    state: &SessionState,
    plan: Result<LogicalPlan>,
    sql: ast::Statement,
) -> Result<LogicalPlan> {
    let works = |plan: &LogicalPlan| state.optimize(plan).map_err(Refusal::from);
    let refusal = match plan.and_then(|plan| works(&plan).map(|_| plan)) {
        Ok(plan) => return Ok(plan),
        Err(refusal) => refusal,
    };
    let simpler = pg_catalog::without_subqueries(&sql);
    if let Ok(plan) = state.statement_to_plan(Statement::Statement(Box::new(simpler))).await
        && works(&plan).is_ok()
    {
        return Ok(plan);
    }
    tracing::debug!("a query of the catalogue is answered without rows: {}", refusal.failure);
    pg_catalog::empty_answer(&sql).ok_or(refusal)
}

/// Counts a query among those that wait, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    /// Refuses a query where so many wait already.
    fn begin(all: &'a AtomicUsize, max: usize) -> Result<Self> {
        let waiting = Self(all);
        match all.fetch_add(1, Ordering::Relaxed) >= max {
            true => Err(busy(format!("{max} queries wait already"))),
            false => Ok(waiting),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The rows of a running query. Dropping them ends the query.
pub(crate) struct Rows {
    pub(crate) schema: SchemaRef,
    pub(crate) stream: stream::BoxStream<'static, Result<RecordBatch>>,
}

fn rows_stream(
    batches: mpsc::Receiver<RecordBatch>,
    failure: oneshot::Receiver<Refusal>,
) -> impl Stream<Item = Result<RecordBatch>> + Send {
    stream::unfold((batches, Some(failure)), |(mut batches, failure)| async move {
        match batches.recv().await {
            Some(batch) => Some((Ok(batch), (batches, failure))),
            // The task drops its end of the channel before it says whether it failed.
            None => match failure?.await {
                Ok(refusal) => Some((Err(refusal), (batches, None))),
                Err(_) => None,
            },
        }
    })
}

/// A query in its task.
struct Run {
    begun: Instant,
    rows: u64,
    batches: mpsc::Sender<RecordBatch>,
    seconds_max: Duration,
}

impl Run {
    async fn run(&mut self, queries: &Queries, planned: &Planned, cancelled: &CancellationToken) -> Result<()> {
        let reader = self.batches.clone();
        let ended = async {
            tokio::select! {
                () = cancelled.cancelled() => Refusal::new(Refusal::CANCELLED, "the query was cancelled"),
                () = queries.stopped.cancelled() => Refusal::new(Refusal::CANCELLED, "the server stopped"),
                () = reader.closed() => Refusal::new(Refusal::CANCELLED, "the client is gone"),
            }
        };
        tokio::select! {
            biased;
            ended = ended => Err(ended),
            done = self.run_in_turn(queries, planned) => done,
        }
    }

    async fn run_in_turn(&mut self, queries: &Queries, planned: &Planned) -> Result<()> {
        let _turn = match planned.is_metadata {
            true => Arc::clone(&queries.metadata).acquire_owned().await.map_err(stopping)?,
            false => queries.turn().await?,
        };
        let seconds = self.seconds_max.as_secs_f64();
        match tokio::time::timeout(self.seconds_max, self.send_rows(queries, planned)).await {
            Ok(done) => done,
            Err(_) => Err(Refusal::new(Refusal::CANCELLED, format!("the query was ended after {seconds} seconds"))
                .hint("serve.query_seconds_max is the limit")),
        }
    }

    async fn send_rows(&mut self, queries: &Queries, planned: &Planned) -> Result<()> {
        let executed = execute(&planned.ctx, planned.plan.clone(), queries.bytes_max).await;
        let mut rows = match self.unless_catalogue(planned, executed) {
            Some(rows) => rows?,
            None => return Ok(()),
        };
        while let Some(batch) = rows.next().await {
            let batch = match self.unless_catalogue(planned, batch.map_err(Refusal::from)) {
                Some(batch) => batch?,
                None => return Ok(()),
            };
            self.rows += batch.num_rows() as u64;
            if self.rows > queries.rows_max {
                let message = format!("the query returns more than {} rows", queries.rows_max);
                return Err(Refusal::new(Refusal::TOO_LARGE, message).hint("serve.query_rows_max is the limit"));
            }
            if batch.num_rows() > 0 && self.batches.send(batch).await.is_err() {
                return Err(Refusal::new(Refusal::CANCELLED, "the client is gone"));
            }
        }
        Ok(())
    }

    /// Returns `None` in place of a failure of a query of the catalogue, which is then answered without rows, as one that cannot be
    /// planned is.
    fn unless_catalogue<T>(&self, planned: &Planned, done: Result<T>) -> Option<Result<T>> {
        match &done {
            Err(refusal) if planned.answers_empty && self.rows == 0 && refusal.sqlstate != Refusal::OUT_OF_MEMORY => {
                tracing::debug!("a query of the catalogue is answered without rows: {}", refusal.failure);
                None
            }
            _ => Some(done),
        }
    }
}

/// Executes a plan within a memory limit of its own, on top of that of all queries together.
async fn execute(ctx: &SessionContext, plan: LogicalPlan, bytes_max: usize) -> Result<SendableRecordBatchStream> {
    let runtime = ctx.runtime_env();
    let pool = Arc::new(QueryPool::new(Arc::clone(&runtime.memory_pool), bytes_max));
    let runtime = RuntimeEnvBuilder::from_runtime_env(&runtime).with_memory_pool(pool).build_arc()?;
    let state = SessionStateBuilder::new_from_existing(ctx.state()).with_runtime_env(runtime).build();
    let tasks = state.task_ctx();
    let physical: Arc<dyn ExecutionPlan> =
        on_a_thread(async move { state.create_physical_plan(&plan).await.map_err(Refusal::from) }).await?;
    Ok(execute_stream(physical, tasks)?)
}

/// Refuses a plan that does more than read: statements that define or change something, write files or set the engine.
fn refuse_writing(plan: &LogicalPlan) -> Result<()> {
    let shows_more = match plan {
        LogicalPlan::Analyze(_) => Some("EXPLAIN ANALYZE"),
        LogicalPlan::Explain(explain) if explain.verbose => Some("EXPLAIN VERBOSE"),
        _ => None,
    };
    if let Some(statement) = shows_more {
        // Its figures count rows that are left out.
        return Err(Refusal::new(Refusal::NOT_ALLOWED, format!("{statement} is not allowed here"))
            .hint("EXPLAIN shows the plan"));
    }
    let reading = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    if reading.verify_plan(plan).is_ok() {
        return Ok(());
    }
    Err(Refusal::new(Refusal::READ_ONLY, "this connection only reads")
        .hint("`intentcast sql` defines views and writes files"))
}

/// Returns whether a plan reads no table.
fn reads_no_table(plan: &LogicalPlan) -> Result<bool> {
    let mut reads = false;
    plan.apply_with_subqueries(|node| {
        reads |= matches!(node, LogicalPlan::TableScan(_));
        Ok(if reads { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(!reads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_that_takes_too_long_is_ended() {
        let limit = Duration::from_millis(20);
        let refusal = within(limit, std::future::pending::<()>()).await.unwrap_err();
        assert_eq!((refusal.sqlstate, refusal.http_status()), (Refusal::CANCELLED, 504));
        assert!(refusal.failure.message.contains("longer than 0.02 seconds"), "{}", refusal.failure);
        assert_eq!(within(limit, async { 7 }).await.unwrap(), 7);
    }
}
