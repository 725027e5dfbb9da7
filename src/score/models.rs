//! The models that a process has loaded: one scoring service (or table or text model) for each version, started once.

use datafusion::prelude::SessionContext;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Mutex;

use super::content_store::ContentStore;
use super::devices;
use super::embedding::SharedEncoder;
use super::modules;
use super::service::ScoringService;
use super::table::TableScorer;
use super::text::TextScorer;
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::model::bundle::{BundleCard, Registry, TEXT_FOLDER};

/// One bundle for ever: a version may be trained anew, its weights' hash then differs. Travels in plans.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelRef {
    pub version: String,
    pub weights_hash: String,
    /// Of the files of contents that there were; empty for a model that reads none.
    #[serde(default)]
    pub contents: String,
}

/// Loads versions on demand; every session of a process shares one.
#[derive(Debug)]
pub struct Models {
    output: Option<Location>,
    config: Config,
    services: Mutex<HashMap<String, ScoringService>>,
    tables: Mutex<HashMap<String, Arc<TableScorer>>>,
    texts: Mutex<HashMap<String, Arc<TextScorer>>>,
    loaded: AtomicU64,
    /// Sessions and weights whose catalogue's contents are all in the store.
    refreshed: Mutex<HashSet<(String, String)>>,
    /// By where they lie.
    text_encoders: Mutex<HashMap<String, Arc<SharedEncoder>>>,
}

impl Models {
    /// Without an output location there is no registry, and calls fail with what to do.
    pub fn new(config: &Config) -> Result<Self> {
        let output = match config.output.uri.as_str() {
            "" => None,
            uri => Some(Location::open(uri, &config.s3)?),
        };
        let (services, tables, texts, refreshed) =
            (Mutex::default(), Mutex::default(), Mutex::default(), Mutex::default());
        let (text_encoders, loaded) = (Mutex::default(), AtomicU64::new(0));
        Ok(Self { output, config: config.clone(), services, tables, texts, refreshed, text_encoders, loaded })
    }

    /// Which bundle a version names now; empty means the configured one, or else the champion.
    pub async fn pin(&self, version: &str) -> Result<ModelRef> {
        let card = self.card(version).await?;
        let contents = match ContentStore::of_model(self.output()?, &card) {
            Some(store) => store.fingerprint().await?,
            None => String::new(),
        };
        Ok(ModelRef { version: card.version, weights_hash: card.weights_hash, contents })
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

    /// Sees to it, once a session, that the store holds all contents of the session's lake that a model reads; returns how
    /// many were added. A session's lake does not change.
    pub async fn refresh_contents(&self, ctx: &SessionContext, card: &BundleCard) -> Result<usize> {
        let Some(store) = ContentStore::of_model(self.output()?, card) else { return Ok(0) };
        // Held while adding, so that rivals wait for it.
        let mut refreshed = self.refreshed.lock().await;
        let session = (ctx.session_id(), card.weights_hash.clone());
        if refreshed.contains(&session) || !ctx.table_exist("item_vectors")? {
            return Ok(0);
        }
        let known = store.contents().await?;
        let mut added = store.add_vectors(ctx, &known).await?;
        if card.text.is_some() {
            added += store.add_texts(ctx, &self.text_encoder(&card.version).await?, &known).await?.1;
        }
        refreshed.insert(session);
        Ok(added)
    }

    /// Takes the store as it is for this session: whoever only looks at plans writes nothing.
    pub async fn leave_contents(&self, ctx: &SessionContext, card: &BundleCard) {
        self.refreshed.lock().await.insert((ctx.session_id(), card.weights_hash.clone()));
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

    fn output(&self) -> Result<&Location> {
        self.output.as_ref().ok_or_else(|| {
            Failure::model("there is no model: no output location was given").hint("pass --output, where models/ lies")
        })
    }

    fn registry(&self) -> Result<Registry> {
        Ok(Registry(self.output()?.folder("models")))
    }

    /// The service of exactly this bundle; refuses another one that goes by the same version.
    pub async fn pinned(&self, model: &ModelRef) -> Result<ScoringService> {
        let service = self.load(&model.version).await?;
        refuse_other(model, &service.card.weights_hash)?;
        if let Some(store) = ContentStore::of_model(self.output()?, &service.card) {
            service.read_contents(&store, &model.contents).await?;
        }
        Ok(service)
    }

    /// Which weights a table model's version names now.
    pub async fn pin_table(&self, version: &str) -> Result<ModelRef> {
        let card = self.registry()?.table_card(version).await?;
        Ok(ModelRef { version: card.version, weights_hash: card.weights_hash, contents: String::new() })
    }

    /// The text encoder that `embed_text` names: a version of the registry with a `text/` folder (empty: as for
    /// [`Self::card`]), or the URI of a Hugging Face folder that the configuration allows.
    pub async fn pin_encoder(&self, named: &str) -> Result<ModelRef> {
        let version = match named {
            "" => self.card("").await?.version,
            other => other.into(),
        };
        let encoder = self.text_encoder(&version).await?;
        Ok(ModelRef { version, weights_hash: encoder.hash.clone(), contents: String::new() })
    }

    /// Exactly this text encoder; refuses another one of the same place.
    pub async fn pinned_encoder(&self, model: &ModelRef) -> Result<Arc<SharedEncoder>> {
        let encoder = self.text_encoder(&model.version).await?;
        refuse_other(model, &encoder.hash)?;
        Ok(encoder)
    }

    async fn text_encoder(&self, named: &str) -> Result<Arc<SharedEncoder>> {
        let mut encoders = self.text_encoders.lock().await;
        if let Some(encoder) = encoders.get(named) {
            return Ok(Arc::clone(encoder));
        }
        let (folder, tokens_max) = match named.contains('/') {
            true => (modules::permitted_folder(named, &self.config)?, self.config.model.text_tokens_max),
            false => {
                let card = self.card(named).await?;
                let text = card.text.ok_or_else(|| {
                    Failure::model(format!("model {named}: has no text encoder"))
                        .hint("name a folder, or train with model.text_encoder")
                })?;
                (self.registry()?.0.folder(&format!("{named}/{TEXT_FOLDER}")), text.tokens_max)
            }
        };
        let device = devices::choose(&self.config.score)?;
        let encoder = SharedEncoder::open(&folder, tokens_max, &self.config, device).await?;
        tracing::info!("loaded the text encoder of {named}");
        encoders.insert(named.into(), Arc::clone(&encoder));
        Ok(encoder)
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
        Ok(ModelRef { version: card.version, weights_hash: card.weights_hash, contents: String::new() })
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
    let ModelRef { version, weights_hash, .. } = model;
    Err(Failure::model(format!("model {version}: the plan asks for weights {weights_hash}, here they are {here}"))
        .hint("every process must read the same models/ folder; restart those that loaded an older bundle"))
}
