//! Starts the two kinds of process of a cluster: one scheduler, and executors with the model and the stores.

use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::registry::BallistaFunctionRegistry;
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::{SchedulerConfig, TaskDistributionPolicy};
use ballista_scheduler::scheduler_process::start_server;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::runtime_env::RuntimeEnv;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::codec::PlanCodec;
use crate::config::Config;
use crate::engine;
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::score::models::Models;

/// Largest message in bytes: a stage's plan names its files.
const MESSAGE_BYTES_MAX: u32 = 64 << 20;

/// Addresses, task slots and folder of an executor.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ExecutorPlace {
    /// Connect to the scheduler at this address.
    #[arg(long, default_value = "127.0.0.1:50050", value_name = "HOST:PORT")]
    pub(crate) scheduler: String,
    /// Listen on this address.
    #[arg(long, default_value = "127.0.0.1", value_name = "HOST")]
    pub(crate) bind: String,
    /// Tell other processes to reach this executor by this name or address [default: --bind].
    #[arg(long, value_name = "HOST")]
    pub(crate) advertise: Option<String>,
    /// Serve shuffled rows on this port.
    #[arg(long, default_value_t = 50051)]
    pub(crate) port: u16,
    /// Accept tasks on this port.
    #[arg(long, default_value_t = 50052)]
    pub(crate) task_port: u16,
    /// Run this many tasks at once [default: one per core].
    #[arg(long)]
    pub(crate) tasks: Option<usize>,
    /// Store shuffled rows in this folder [default: a temporary one].
    #[arg(long, value_name = "FOLDER")]
    pub(crate) work_folder: Option<PathBuf>,
}

/// Runs the scheduler until it is stopped.
pub(crate) async fn scheduler(config: &Config, bind: SocketAddr) -> Result<()> {
    let mut settings = SchedulerConfig::default()
        .with_hostname(bind.ip().to_string())
        .with_port(bind.port())
        .with_scheduler_policy(TaskSchedulingPolicy::PushStaged)
        .with_task_distribution(TaskDistributionPolicy::RoundRobin)
        .with_grpc_server_max_decoding_message_size(MESSAGE_BYTES_MAX)
        .with_grpc_server_max_encoding_message_size(MESSAGE_BYTES_MAX)
        .with_grpc_client_max_message_size(MESSAGE_BYTES_MAX);
    settings.bind_host = bind.ip().to_string();
    settings.override_physical_codec = Some(Arc::new(PlanCodec::new(Arc::new(Models::new(config)?))));
    let runtime = runtime(config)?;
    settings.override_session_builder = Some(Arc::new(move |session| {
        let state = SessionStateBuilder::new_with_default_features().with_config(session);
        Ok(state.with_runtime_env(Arc::clone(&runtime)).build())
    }));
    let cluster = BallistaCluster::new_from_config(&settings).await.map_err(failed)?;
    tracing::info!("scheduler listens on {bind}");
    start_server(cluster, bind, Arc::new(settings)).await.map_err(failed)
}

/// Runs an executor until it is stopped.
pub(crate) async fn executor(config: &Config, place: &ExecutorPlace) -> Result<()> {
    let (host, port) = place
        .scheduler
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse().ok()?)))
        .ok_or_else(|| Failure::usage(format!("--scheduler: expected HOST:PORT, got {:?}", place.scheduler)))?;
    let models = Arc::new(Models::new(config)?);
    let runtime = runtime(config)?;
    let settings = ExecutorProcessConfig {
        bind_host: place.bind.clone(),
        external_host: Some(place.advertise.clone().unwrap_or_else(|| place.bind.clone())),
        port: place.port,
        grpc_port: place.task_port,
        scheduler_host: host.into(),
        scheduler_port: port,
        scheduler_connect_timeout_seconds: 30,
        vcores: place.tasks.unwrap_or_else(|| config.partitions()),
        task_scheduling_policy: TaskSchedulingPolicy::PushStaged,
        work_dir: place.work_folder.as_ref().map(|f| f.display().to_string()),
        grpc_max_decoding_message_size: MESSAGE_BYTES_MAX,
        grpc_max_encoding_message_size: MESSAGE_BYTES_MAX,
        memory_pool_size: Some(config.engine.memory_bytes_max),
        // Ballista's own registry lacks the functions of lists and maps.
        override_function_registry: Some(Arc::new(BallistaFunctionRegistry::from(&engine::session(config)?.state()))),
        override_runtime_producer: Some(Arc::new(move |_| Ok(Arc::clone(&runtime)))),
        override_physical_codec: Some(Arc::new(PlanCodec::new(models))),
        ..Default::default()
    };
    tracing::info!("executor listens on {}:{}, scheduler {}", place.bind, place.port, place.scheduler);
    start_executor_process(Arc::new(settings)).await.map_err(failed)
}

/// Makes the engine's runtime with the stores of lake and output registered.
fn runtime(config: &Config) -> Result<Arc<RuntimeEnv>> {
    let runtime = engine::session(config)?.runtime_env();
    for uri in [&config.lake.uri, &config.output.uri] {
        let place = Location::open(uri, &config.s3)?;
        runtime.register_object_store(&place.store_url()?, place.store);
    }
    Ok(runtime)
}

fn failed(error: ballista_core::error::BallistaError) -> Failure {
    Failure::transient(error.to_string())
}
