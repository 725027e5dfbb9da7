//! Makes a query engine session with the configured memory limit, spill folder and parallelism.
//!
//! The workspace adds functions, stores, the cluster and scoring to it; rooms that work on a lake ask the workspace for sessions.
//! Flat tables in training, imports and the executors of a cluster have no workspace and use this session as it is.

pub(crate) mod cooperative_joins;
pub(crate) mod error_place;
pub(crate) mod memory;
pub mod places;
pub(crate) mod request_rows;
pub(crate) mod scans;
pub(crate) mod schemas;

use datafusion::execution::SessionStateBuilder;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::TrackConsumersPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::config::Config;
use crate::failure::Result;
use crate::score::torch_functions::TorchFunctions;
use cooperative_joins::CooperativeJoins;
use memory::CappedPool;
use scans::Scans;

/// Makes a session within the configured memory that spills to the configured folder.
pub fn session(config: &Config) -> Result<SessionContext> {
    let pool = CappedPool::new(config.engine.memory_bytes_max as usize, config.partitions());
    let largest = NonZeroUsize::new(5).unwrap_or(NonZeroUsize::MIN);
    let mut runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(TrackConsumersPool::new(pool, largest)));
    if !config.engine.spill_folder.is_empty() {
        let folders = DiskManagerMode::Directories(vec![config.engine.spill_folder.clone().into()]);
        runtime = runtime.with_disk_manager_builder(DiskManagerBuilder::default().with_mode(folders));
    }
    let mut settings = SessionConfig::new()
        .with_target_partitions(config.partitions())
        .with_batch_size(config.engine.batch_rows as usize)
        .with_default_catalog_and_schema(schemas::CATALOG, schemas::BARE)
        .with_information_schema(true)
        .with_parquet_pruning(true)
        .with_extension(Arc::new(Scans::default()));
    let options = settings.options_mut();
    options.execution.parquet.pushdown_filters = true;
    options.execution.parquet.schema_force_view_types = false;
    // The default, nanoseconds, ends in 2262: later times of such a column would wrap to wrong ones.
    options.execution.parquet.coerce_int96 = Some("us".into());
    options.sql_parser.map_string_types_to_utf8view = false;
    // Sums of floats depend on order; ours are integers and decimals, so partitions may come in any order.
    options.execution.collect_statistics = false;
    // With it DataFusion 55.2 fails on a limit above a group by text ("Ordering direction required for DISTINCT with limit").
    options.optimizer.enable_distinct_aggregation_soft_limit = false;
    // Rows that are divided by user stay so when they are grouped by user and item.
    options.optimizer.subset_repartition_threshold = 1;
    // Sizes are known only of tables in memory: a catalogue of this size is joined without moving the events.
    options.optimizer.hash_join_single_partition_threshold = 64 << 20;
    options.optimizer.hash_join_single_partition_threshold_rows = 1 << 20;
    let state = SessionStateBuilder::new()
        .with_config(settings)
        .with_runtime_env(runtime.build_arc()?)
        .with_default_features()
        .with_physical_optimizer_rule(Arc::new(CooperativeJoins));
    let ctx = SessionContext::new_with_state(state.build());
    Ok(ctx.with_function_factory(Arc::new(TorchFunctions(Arc::new(config.clone())))))
}
