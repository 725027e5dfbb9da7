//! The two kinds of process of a cluster: one scheduler, and executors with the model and the stores.

use ballista_core::config::TaskSchedulingPolicy;
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

/// Bytes of one message: a stage's plan names its files.
const MESSAGE_BYTES_MAX: u32 = 64 << 20;

/// Where an executor listens and works.
#[derive(Debug, Clone, clap::Args)]
pub struct ExecutorPlace {
    /// The scheduler's HOST:PORT.
    #[arg(long, default_value = "127.0.0.1:50050")]
    pub scheduler: String,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    pub bind: String,
    /// The name or address by which the others reach this executor; --bind where left out.
    #[arg(long)]
    pub advertise: Option<String>,
    /// Port that serves shuffled rows.
    #[arg(long, default_value_t = 50051)]
    pub port: u16,
    /// Port that takes tasks.
    #[arg(long, default_value_t = 50052)]
    pub task_port: u16,
    /// Tasks at once; one a core where left out.
    #[arg(long)]
    pub tasks: Option<usize>,
    /// Folder of shuffled rows; a temporary one where left out.
    #[arg(long)]
    pub work_folder: Option<PathBuf>,
}

/// Serves until it is stopped.
pub async fn scheduler(config: &Config, bind: SocketAddr) -> Result<()> {
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

/// Serves until it is stopped.
pub async fn executor(config: &Config, place: &ExecutorPlace) -> Result<()> {
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
        override_runtime_producer: Some(Arc::new(move |_| Ok(Arc::clone(&runtime)))),
        override_physical_codec: Some(Arc::new(PlanCodec::new(models))),
        ..Default::default()
    };
    tracing::info!("executor listens on {}:{}, scheduler {}", place.bind, place.port, place.scheduler);
    start_executor_process(Arc::new(settings)).await.map_err(failed)
}

/// The engine's runtime, with the stores of lake and output known to it.
fn runtime(config: &Config) -> Result<Arc<RuntimeEnv>> {
    let runtime = engine::session(config)?.runtime_env();
    for uri in [&config.lake.uri, &config.output.uri] {
        let place = Location::open(uri, &config.s3)?;
        runtime.register_object_store(&place.store_url()?, place.store);
    }
    Ok(runtime)
}

fn failed(error: ballista_core::error::BallistaError) -> Failure {
    Failure::passing(error.to_string())
}
