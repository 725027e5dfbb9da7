//! The models that a process has loaded: one scoring service for each version, started once.

use std::collections::HashMap;
use tch::Device;
use tokio::sync::Mutex;

use super::service::ScoringService;
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::model::bundle::Registry;

/// Loads versions on demand; every session of a process shares one.
#[derive(Debug)]
pub struct Models {
    registry: Option<Registry>,
    config: Config,
    services: Mutex<HashMap<String, ScoringService>>,
}

impl Models {
    /// Without an output location there is no registry, and calls fail with what to do.
    pub fn new(config: &Config) -> Result<Self> {
        let registry = match config.output.uri.as_str() {
            "" => None,
            uri => Some(Registry(Location::open(uri, &config.s3)?.folder("models"))),
        };
        Ok(Self { registry, config: config.clone(), services: Mutex::default() })
    }

    /// The service of a version; empty means the configured one, or else the champion.
    pub async fn service(&self, version: &str) -> Result<ScoringService> {
        let registry = self.registry.as_ref().ok_or_else(|| {
            Failure::model("there is no model: no output location was given").hint("pass --output, where models/ lies")
        })?;
        let version = if version.is_empty() { self.config.model.version.as_str() } else { version };
        let version = registry.resolve(version).await?.version;
        // Held while loading, so that rivals wait for the one load instead of starting a second.
        let mut services = self.services.lock().await;
        if let Some(service) = services.get(&version) {
            return Ok(service.clone());
        }
        let bundle = registry.load(&version, device(&self.config.score.device)?).await?;
        let service = ScoringService::start(bundle, &self.config.score)?;
        services.insert(version, service.clone());
        Ok(service)
    }
}

/// `cpu`, `cuda` (fails where there is none) or `auto`.
pub fn device(wanted: &str) -> Result<Device> {
    match (wanted, tch::Cuda::is_available()) {
        ("cuda" | "auto", true) => Ok(Device::Cuda(0)),
        ("cuda", false) => Err(Failure::usage("score.device: expected a CUDA device, found none")
            .hint("set score.device=auto; `intentcast doctor` says why")),
        _ => Ok(Device::Cpu),
    }
}
