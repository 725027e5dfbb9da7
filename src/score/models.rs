//! The models that a process has loaded: one scoring service for each version, started once.

use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use tokio::sync::Mutex;

use super::devices;
use super::service::ScoringService;
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::model::bundle::{BundleCard, Registry};

/// One bundle for ever: a version may be trained anew, its weights' hash then differs. Travels in plans.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelRef {
    pub version: String,
    pub weights_hash: String,
}

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

    /// Which bundle a version names now; empty means the configured one, or else the champion.
    pub async fn pin(&self, version: &str) -> Result<ModelRef> {
        let card = self.card(version).await?;
        Ok(ModelRef { version: card.version, weights_hash: card.weights_hash })
    }

    /// The card of a version, without loading its weights; empty means the configured one, or else the champion.
    pub async fn card(&self, version: &str) -> Result<BundleCard> {
        let version = if version.is_empty() { self.config.model.version.as_str() } else { version };
        self.registry()?.resolve(version).await
    }

    /// The service of a version; empty means the configured one, or else the champion.
    pub async fn service(&self, version: &str) -> Result<ScoringService> {
        self.pinned(&self.pin(version).await?).await
    }

    /// Requests that one partition may have waiting.
    pub fn in_flight_max(&self) -> usize {
        (self.config.score.in_flight_max as usize).max(1)
    }

    /// The settings that this process loads models with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn registry(&self) -> Result<&Registry> {
        self.registry.as_ref().ok_or_else(|| {
            Failure::model("there is no model: no output location was given").hint("pass --output, where models/ lies")
        })
    }

    /// The service of exactly this bundle; refuses another one that goes by the same version.
    pub async fn pinned(&self, model: &ModelRef) -> Result<ScoringService> {
        let service = self.load(&model.version).await?;
        if service.card.weights_hash != model.weights_hash {
            return Err(Failure::model(format!(
                "model {}: the plan asks for weights {}, here they are {}",
                model.version, model.weights_hash, service.card.weights_hash
            ))
            .hint("every process must read the same models/ folder; restart those that loaded an older bundle"));
        }
        Ok(service)
    }

    async fn load(&self, version: &str) -> Result<ScoringService> {
        // Held while loading, so that rivals wait for the one load instead of starting a second.
        let mut services = self.services.lock().await;
        if let Some(service) = services.get(version) {
            return Ok(service.clone());
        }
        let bundle = self.registry()?.load(version, devices::choose(&self.config.score)?).await?;
        let service = ScoringService::start(bundle, &self.config.score)?;
        services.insert(version.into(), service.clone());
        Ok(service)
    }
}
