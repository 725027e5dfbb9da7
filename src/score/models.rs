//! The models that a process has loaded: one scoring service (or table or text model) for each version, started once.

use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Mutex;

use super::devices;
use super::service::ScoringService;
use super::table::TableScorer;
use super::text::TextScorer;
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
    tables: Mutex<HashMap<String, Arc<TableScorer>>>,
    texts: Mutex<HashMap<String, Arc<TextScorer>>>,
    loaded: AtomicU64,
}

impl Models {
    /// Without an output location there is no registry, and calls fail with what to do.
    pub fn new(config: &Config) -> Result<Self> {
        let registry = match config.output.uri.as_str() {
            "" => None,
            uri => Some(Registry(Location::open(uri, &config.s3)?.folder("models"))),
        };
        let (services, tables, texts) = (Mutex::default(), Mutex::default(), Mutex::default());
        Ok(Self { registry, config: config.clone(), services, tables, texts, loaded: AtomicU64::new(0) })
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

    /// How often weights were read from the registry: once for each version that was called.
    pub fn loaded(&self) -> u64 {
        self.loaded.load(Ordering::Relaxed)
    }

    fn registry(&self) -> Result<&Registry> {
        self.registry.as_ref().ok_or_else(|| {
            Failure::model("there is no model: no output location was given").hint("pass --output, where models/ lies")
        })
    }

    /// The service of exactly this bundle; refuses another one that goes by the same version.
    pub async fn pinned(&self, model: &ModelRef) -> Result<ScoringService> {
        let service = self.load(&model.version).await?;
        refuse_other(model, &service.card.weights_hash)?;
        Ok(service)
    }

    /// Which weights a table model's version names now.
    pub async fn pin_table(&self, version: &str) -> Result<ModelRef> {
        let card = self.registry()?.table_card(version).await?;
        Ok(ModelRef { version: card.version, weights_hash: card.weights_hash })
    }

    /// Exactly this table model; refuses another one that goes by the same version.
    pub async fn pinned_table(&self, model: &ModelRef) -> Result<Arc<TableScorer>> {
        let mut tables = self.tables.lock().await;
        let table = match tables.get(&model.version) {
            Some(table) => Arc::clone(table),
            None => {
                let device = devices::choose(&self.config.score)?;
                let loaded = Arc::new(TableScorer::new(self.registry()?.load_table(&model.version, device).await?));
                self.count(&model.version);
                tables.insert(model.version.clone(), Arc::clone(&loaded));
                loaded
            }
        };
        refuse_other(model, &table.card.weights_hash)?;
        Ok(table)
    }

    /// Which weights a text model's version names now.
    pub async fn pin_text(&self, version: &str) -> Result<ModelRef> {
        let card = self.registry()?.text_card(version).await?;
        Ok(ModelRef { version: card.version, weights_hash: card.weights_hash })
    }

    /// Exactly this text model; refuses another one that goes by the same version.
    pub async fn pinned_text(&self, model: &ModelRef) -> Result<Arc<TextScorer>> {
        let mut texts = self.texts.lock().await;
        let text = match texts.get(&model.version) {
            Some(text) => Arc::clone(text),
            None => {
                let device = devices::choose(&self.config.score)?;
                let loaded = self.registry()?.load_text(&model.version, device).await?;
                let loaded = Arc::new(TextScorer::new(loaded, self.config.score.batch_tokens_max as usize));
                self.count(&model.version);
                texts.insert(model.version.clone(), Arc::clone(&loaded));
                loaded
            }
        };
        refuse_other(model, &text.card.weights_hash)?;
        Ok(text)
    }

    async fn load(&self, version: &str) -> Result<ScoringService> {
        // Held while loading, so that rivals wait for the one load instead of starting a second.
        let mut services = self.services.lock().await;
        if let Some(service) = services.get(version) {
            return Ok(service.clone());
        }
        let bundle = self.registry()?.load(version, devices::choose(&self.config.score)?).await?;
        self.count(version);
        let service = ScoringService::start(bundle, &self.config.score)?;
        services.insert(version.into(), service.clone());
        Ok(service)
    }

    fn count(&self, version: &str) {
        self.loaded.fetch_add(1, Ordering::Relaxed);
        tracing::info!("loaded model {version}");
    }
}

fn refuse_other(model: &ModelRef, here: &str) -> Result<()> {
    if model.weights_hash == here {
        return Ok(());
    }
    let ModelRef { version, weights_hash } = model;
    Err(Failure::model(format!("model {version}: the plan asks for weights {weights_hash}, here they are {here}"))
        .hint("every process must read the same models/ folder; restart those that loaded an older bundle"))
}
