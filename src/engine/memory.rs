//! The engine's memory pool: greedy, but with a cap for each sort; and a limit for one query of a server.
//!
//! A night's plan holds two dozen aggregates, joins and sorts. Equal shares (a fair pool) starve the largest while most of
//! the pool is free; without any shares, one partition's sort takes the whole pool, and its sibling, which holds nothing to
//! spill yet, fails (docs/decisions/0002-one-greedy-memory-pool.md).

use datafusion::common::{Result, resources_datafusion_err};
use datafusion::execution::memory_pool::{
    GreedyMemoryPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Prefix of the names of the engine's sorts; the partition's number follows.
const SORT: &str = "ExternalSorter";

/// Prefix of the names of the engine's exchanges between partitions. An exchange that is refused memory spills its rows, and
/// with two spill files open it waits forever for a row that is in the other one (DataFusion 55.2, apache/datafusion#24883).
/// So exchanges get all that they request, and the pool does not count it: they hold few batches at a time, but request the
/// whole buffers that the batches are slices of, many times as much, which would starve the other operators.
const EXCHANGE: &str = "RepartitionExec";

/// A greedy pool in which one partition's sort holds at most `sort_bytes_max`. Aggregates have no cap: those of lists are
/// charged for whole shared buffers, many times what they hold, and spilling does not help them.
#[derive(Debug)]
pub(crate) struct CappedPool {
    all: GreedyMemoryPool,
    sort_bytes_max: usize,
}

impl CappedPool {
    /// Makes a pool that grants one sort at most half of it, shared by the sort's `partitions`.
    pub(crate) fn new(bytes_max: usize, partitions: usize) -> Self {
        Self { all: GreedyMemoryPool::new(bytes_max), sort_bytes_max: bytes_max / (2 * partitions.max(1)) }
    }
}

impl std::fmt::Display for CappedPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, at most {} bytes for one partition's sort", self.all, self.sort_bytes_max)
    }
}

impl MemoryPool for CappedPool {
    fn name(&self) -> &str {
        "capped"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.all.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.all.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        if !is_exchange(reservation) {
            self.all.grow(reservation, additional);
        }
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        if !is_exchange(reservation) {
            self.all.shrink(reservation, shrink);
        }
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        if is_exchange(reservation) {
            return Ok(());
        }
        let held = reservation.size();
        // The first request is granted whatever its size: the sort has nothing yet that it could spill.
        let sorts = reservation.consumer().name().starts_with(SORT);
        if sorts && held > 0 && held + additional > self.sort_bytes_max {
            return Err(resources_datafusion_err!(
                "{} holds {held} bytes, {additional} more would be over its share of {}: it spills",
                reservation.consumer().name(),
                self.sort_bytes_max
            ));
        }
        self.all.try_grow(reservation, additional)
    }

    fn reserved(&self) -> usize {
        self.all.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.all.memory_limit()
    }
}

/// Gives one query at most so many bytes of a pool that it shares with others. Exchanges are not counted here either.
#[derive(Debug)]
pub(crate) struct QueryPool {
    all: Arc<dyn MemoryPool>,
    held: AtomicUsize,
    bytes_max: usize,
}

impl QueryPool {
    pub(crate) fn new(all: Arc<dyn MemoryPool>, bytes_max: usize) -> Self {
        Self { all, held: AtomicUsize::new(0), bytes_max }
    }
}

impl std::fmt::Display for QueryPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, at most {} bytes for one query", self.all, self.bytes_max)
    }
}

impl MemoryPool for QueryPool {
    fn name(&self) -> &str {
        "query"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.all.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.all.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        if !is_exchange(reservation) {
            self.held.fetch_add(additional, Ordering::Relaxed);
        }
        self.all.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        if !is_exchange(reservation) {
            self.held.fetch_sub(shrink, Ordering::Relaxed);
        }
        self.all.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        if is_exchange(reservation) {
            return self.all.try_grow(reservation, additional);
        }
        let held = self.held.fetch_add(additional, Ordering::Relaxed);
        let grown = match held + additional > self.bytes_max {
            true => Err(resources_datafusion_err!(
                "the query holds {held} bytes, {additional} more would be over its limit of {} (serve.query_bytes_max)",
                self.bytes_max
            )),
            false => self.all.try_grow(reservation, additional),
        };
        if grown.is_err() {
            self.held.fetch_sub(additional, Ordering::Relaxed);
        }
        grown
    }

    fn reserved(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.bytes_max)
    }
}

fn is_exchange(reservation: &MemoryReservation) -> bool {
    reservation.consumer().name().starts_with(EXCHANGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::execution::runtime_env::RuntimeEnvBuilder;
    use datafusion::prelude::{SessionConfig, SessionContext};

    #[test]
    fn a_sort_leaves_room_for_its_sibling_but_a_join_has_no_cap() {
        let pool: Arc<dyn MemoryPool> = Arc::new(CappedPool::new(1000, 2));
        let sort = |n: usize| MemoryConsumer::new(format!("{SORT}[{n}]")).with_can_spill(true).register(&pool);
        let (one, two) = (sort(0), sort(1));
        one.try_grow(200).unwrap();
        assert!(one.try_grow(100).is_err(), "a sort that holds something spills at its share");
        two.try_grow(250).unwrap();
        let join = MemoryConsumer::new("join").register(&pool);
        join.try_grow(550).unwrap();
        assert!(join.try_grow(1).is_err(), "the pool itself is the limit of all");
    }

    #[test]
    fn a_query_has_a_limit_of_its_own_and_its_exchanges_have_none() {
        let all: Arc<dyn MemoryPool> = Arc::new(CappedPool::new(1000, 2));
        let pool: Arc<dyn MemoryPool> = Arc::new(QueryPool::new(Arc::clone(&all), 300));
        let join = MemoryConsumer::new("join").register(&pool);
        join.try_grow(250).unwrap();
        assert!(join.try_grow(100).is_err());
        MemoryConsumer::new(format!("{EXCHANGE}[0]")).register(&pool).try_grow(5000).unwrap();
        join.try_grow(50).unwrap();
        assert_eq!((pool.reserved(), all.reserved()), (300, 300));
        drop(join);
        assert_eq!((pool.reserved(), all.reserved()), (0, 0));
    }

    /// The query of apache/datafusion#24883, which hung in nearly every attempt.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn spilling_aggregates_finish() {
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(CappedPool::new(2 << 20, 2)));
        let settings = SessionConfig::new().with_target_partitions(2).with_batch_size(64);
        let ctx = SessionContext::new_with_config_rt(settings, runtime.build_arc().unwrap());
        let rows =
            "SELECT v % 13 AS g, md5(CAST(v % 337 AS VARCHAR)) AS trace_id FROM generate_series(1, 40000) AS s(v)";
        let rows = ctx.sql(rows).await.unwrap().cache().await.unwrap();
        ctx.register_table("t", rows.into_view()).unwrap();
        for _ in 0..8 {
            let query = ctx.sql("SELECT g, count(DISTINCT trace_id) AS n FROM t GROUP BY g").await.unwrap();
            let done = tokio::time::timeout(std::time::Duration::from_secs(60), query.collect()).await;
            let groups: usize = done.expect("stood still").unwrap().iter().map(|b| b.num_rows()).sum();
            assert_eq!(groups, 13);
        }
    }
}
