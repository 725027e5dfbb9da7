//! The engine's memory pool: who asks gets, but no sort may take everything.
//!
//! A night's plan holds two dozen aggregates, joins and sorts. Equal shares (a fair pool) starve the largest while the pool
//! lies idle; no shares at all let one partition's sort take the whole pool, and its sibling, which holds nothing that it
//! could spill, fails (docs/decisions/0002-one-greedy-memory-pool.md).

use datafusion::common::{Result, resources_datafusion_err};
use datafusion::execution::memory_pool::{
    GreedyMemoryPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};

/// How the engine's sorts are called, before the partition's number.
const SORT: &str = "ExternalSorter";

/// How its exchanges between partitions are called. One that is refused memory writes its rows to spill files, and with two
/// of those open it waits for ever for a row that lies in the other one (DataFusion 55.2, apache/datafusion#24883). So
/// exchanges always get what they ask, and the pool does not count it: they hold few batches at a time, but ask for the
/// whole buffers that these are slices of, many times as much, and everybody else would starve.
const EXCHANGE: &str = "RepartitionExec";

/// A greedy pool in which one partition's sort holds at most `sort_bytes_max`. Aggregates are not held to a share: those of
/// lists are charged for whole shared buffers, many times what they hold, and spilling does not help them.
#[derive(Debug)]
pub struct CappedPool {
    all: GreedyMemoryPool,
    sort_bytes_max: usize,
}

impl CappedPool {
    /// Half of the pool for one sort, shared by its `partitions`.
    pub fn new(bytes_max: usize, partitions: usize) -> Self {
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
        if !exchanges(reservation) {
            self.all.grow(reservation, additional);
        }
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        if !exchanges(reservation) {
            self.all.shrink(reservation, shrink);
        }
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        if exchanges(reservation) {
            return Ok(());
        }
        let held = reservation.size();
        // The first request is granted whatever its size: nothing is there yet that could be spilled for it.
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

fn exchanges(reservation: &MemoryReservation) -> bool {
    reservation.consumer().name().starts_with(EXCHANGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::execution::runtime_env::RuntimeEnvBuilder;
    use datafusion::prelude::{SessionConfig, SessionContext};
    use std::sync::Arc;

    #[test]
    fn a_sort_leaves_room_for_its_sibling_and_a_join_may_take_what_is_there() {
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

    /// The query of apache/datafusion#24883, which stood still for ever in nearly every attempt.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn aggregates_that_spill_come_to_an_end() {
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
