//! The models that a process has loaded: one scoring service (or table, text or image model) for each version, started once.

use datafusion::prelude::SessionContext;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Mutex;

use super::catalogue;
use super::content_store::ContentStore;
use super::devices;
use super::embedding::SharedEncoder;
use super::images::ImageScorer;
use super::modules;
use super::pictures::SharedImageEncoder;
use super::recommend::ItemIndex;
use super::service::ScoringService;
use super::table::TableScorer;
use super::text::TextScorer;
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::ids::RunDate;
use crate::lake::stores::Location;
use crate::model::bundle::{BundleCard, IMAGE_FOLDER, Registry, TEXT_FOLDER, check_encoder_hash};
use crate::model::contents::{IMAGE, TEXT};

/// One bundle for ever: a version may be trained anew, its weights' hash then differs. Travels in plans.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelRef {
    pub version: String,
    pub weights_hash: String,
    /// Of the files of contents that there were; empty for a model that reads none.
    #[serde(default)]
    pub contents: String,
    /// Of the items that `recommend` ranks; empty for the bundle's own.
    #[serde(default)]
    pub catalogue: String,
}

impl ModelRef {
    fn of(version: String, weights_hash: String) -> Self {
        Self { version, weights_hash, contents: String::new(), catalogue: String::new() }
    }
}

/// Loads versions on demand; every session of a process shares one.
#[derive(Debug)]
pub struct Models {
    output: Option<Location>,
    config: Config,
    services: Loads<ScoringService>,
    tables: Loads<Arc<TableScorer>>,
    texts: Loads<Arc<TextScorer>>,
    images: Loads<Arc<ImageScorer>>,
    loaded: AtomicU64,
    /// Sessions and weights whose catalogue's contents are all in the store.
    refreshed: Mutex<HashSet<(String, String)>>,
    /// Of sessions, by their id; empty where the bundle's items are to be recommended.
    catalogues: Loads<String>,
    /// By where they lie.
    text_encoders: Loads<Arc<SharedEncoder>>,
    image_encoders: Loads<Arc<SharedImageEncoder>>,
}

/// What a process has loaded of one kind, by name.
#[derive(Debug)]
struct Loads<T>(Mutex<HashMap<String, T>>);

impl<T> Default for Loads<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Loads<T> {
    async fn get(&self, name: &str, load: impl Future<Output = Result<T>>) -> Result<T> {
        // Held while loading, so that rivals wait for the one load instead of starting a second.
        let mut loaded = self.0.lock().await;
        if let Some(known) = loaded.get(name) {
            return Ok(known.clone());
        }
        let new = load.await?;
        loaded.insert(name.into(), new.clone());
        Ok(new)
    }
}

impl Models {
    /// Without an output location there is no registry, and calls fail with what to do.
    pub fn new(config: &Config) -> Result<Self> {
        let output = match config.output.uri.as_str() {
            "" => None,
            uri => Some(Location::open(uri, &config.s3)?),
        };
        Ok(Self {
            output,
            config: config.clone(),
            services: Loads::default(),
            tables: Loads::default(),
            texts: Loads::default(),
            images: Loads::default(),
            loaded: AtomicU64::new(0),
            refreshed: Mutex::default(),
            catalogues: Loads::default(),
            text_encoders: Loads::default(),
            image_encoders: Loads::default(),
        })
    }

    /// Which bundle a version names now; empty means the configured one, or else the champion.
    pub async fn pin(&self, version: &str) -> Result<ModelRef> {
        let card = self.card(version).await?;
        let contents = match self.content_store(&card)? {
            Some(store) => store.fingerprint().await?,
            None => String::new(),
        };
        Ok(ModelRef { contents, ..ModelRef::of(card.version, card.weights_hash) })
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

    /// Sees to it, once a session, that the store holds all contents of the session's lake that a model reads. A session's
    /// lake does not change. For a `night` it is noted which they are. Returns how many were added.
    pub async fn refresh_contents(
        &self,
        ctx: &SessionContext,
        card: &BundleCard,
        night: Option<RunDate>,
    ) -> Result<usize> {
        let Some(store) = self.content_store(card)? else { return Ok(0) };
        // Held while adding, so that rivals wait for it.
        let mut refreshed = self.refreshed.lock().await;
        let session = (ctx.session_id(), card.weights_hash.clone());
        if refreshed.contains(&session) || !ctx.table_exist("item_vectors")? {
            return Ok(0);
        }
        let known = store.contents().await?;
        let (mut keys, mut added) = store.add_vectors(ctx, &known).await?;
        if card.text.is_some() {
            let (texts, new) = store.add_texts(ctx, &self.text_encoder(&card.version).await?, &known).await?;
            (keys[TEXT], added) = (texts, added + new);
        }
        if card.image.is_some() {
            let (pictures, new) = store.add_pictures(ctx, &self.image_encoder(&card.version).await?, &known).await?;
            (keys[IMAGE], added) = (pictures, added + new);
        }
        if let Some(run_date) = night {
            store.note(run_date, &keys).await?;
        }
        refreshed.insert(session);
        Ok(added)
    }

    /// Takes the store as it is for this session: whoever only looks at plans writes nothing.
    pub async fn leave_contents(&self, ctx: &SessionContext, card: &BundleCard) {
        self.refreshed.lock().await.insert((ctx.session_id(), card.weights_hash.clone()));
        self.catalogues.0.lock().await.insert(ctx.session_id(), String::new());
    }

    /// The hash of the items that a session's lake has to recommend, which are kept for whoever runs its plans; empty for a
    /// session without a lake, or of a lake where nobody met anything of late.
    pub async fn catalogue(&self, ctx: &SessionContext) -> Result<String> {
        let keep = async {
            let items = match ctx.table_exist(catalogue::VIEW)? {
                true => catalogue::of_session(ctx).await?,
                false => Vec::new(),
            };
            if items.is_empty() { Ok(String::new()) } else { catalogue::keep(self.output()?, &items).await }
        };
        self.catalogues.get(&ctx.session_id(), keep).await
    }

    /// The items that a plan's `recommend` ranks.
    pub async fn items(&self, model: &ModelRef) -> Result<ItemIndex> {
        self.pinned(model).await?.items_of(self.output()?, &model.catalogue).await
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

    /// What a model reads of contents; `None` where it reads none.
    fn content_store(&self, card: &BundleCard) -> Result<Option<ContentStore>> {
        Ok(ContentStore::of_model(self.output()?, card, self.config.score.precision))
    }

    fn registry(&self) -> Result<Registry> {
        Ok(Registry(self.output()?.folder("models")))
    }

    /// The service of exactly this bundle; refuses another one that goes by the same version.
    pub async fn pinned(&self, model: &ModelRef) -> Result<ScoringService> {
        let service = self.load(&model.version).await?;
        refuse_other(model, &service.card.weights_hash)?;
        if let Some(store) = self.content_store(&service.card)? {
            service.read_contents(&store, &model.contents).await?;
        }
        Ok(service)
    }

    /// Which weights a table model's version names now.
    pub async fn pin_table(&self, version: &str) -> Result<ModelRef> {
        let card = self.registry()?.table_card(version).await?;
        Ok(ModelRef::of(card.version, card.weights_hash))
    }

    /// The text encoder that `embed_text` names: a version of the registry with a `text/` folder (empty: as for
    /// [`Self::card`]), or the URI of a Hugging Face folder that the configuration allows.
    pub async fn pin_encoder(&self, named: &str) -> Result<ModelRef> {
        let version = self.named_or_champion(named).await?;
        let encoder = self.text_encoder(&version).await?;
        Ok(ModelRef::of(version, encoder.hash.clone()))
    }

    async fn named_or_champion(&self, named: &str) -> Result<String> {
        if named.is_empty() { Ok(self.card("").await?.version) } else { Ok(named.into()) }
    }

    /// Exactly this text encoder; refuses another one of the same place.
    pub async fn pinned_encoder(&self, model: &ModelRef) -> Result<Arc<SharedEncoder>> {
        let encoder = self.text_encoder(&model.version).await?;
        refuse_other(model, &encoder.hash)?;
        Ok(encoder)
    }

    async fn text_encoder(&self, named: &str) -> Result<Arc<SharedEncoder>> {
        let open = async {
            let (folder, tokens_max, trained) = match named.contains('/') {
                true => (modules::permitted_folder(named, &self.config)?, self.config.model.text_tokens_max, None),
                false => {
                    let text = self.card(named).await?.text.ok_or_else(|| has_none(named, "text"))?;
                    (self.registry()?.0.folder(&format!("{named}/{TEXT_FOLDER}")), text.tokens_max, Some(text.hash))
                }
            };
            let device = devices::choose(&self.config.score)?;
            let encoder = SharedEncoder::open(&folder, tokens_max, &self.config, device).await?;
            if let Some(trained) = trained {
                check_encoder_hash(named, TEXT_FOLDER, &trained, &encoder.hash)?;
            }
            tracing::info!("loaded the text encoder of {named}");
            Ok(encoder)
        };
        self.text_encoders.get(named, open).await
    }

    /// The image encoder that `embed_image` names, as [`Self::pin_encoder`] does for texts.
    pub async fn pin_image_encoder(&self, named: &str) -> Result<ModelRef> {
        let version = self.named_or_champion(named).await?;
        let encoder = self.image_encoder(&version).await?;
        Ok(ModelRef::of(version, encoder.hash.clone()))
    }

    /// Exactly this image encoder; refuses another one of the same place.
    pub async fn pinned_image_encoder(&self, model: &ModelRef) -> Result<Arc<SharedImageEncoder>> {
        let encoder = self.image_encoder(&model.version).await?;
        refuse_other(model, &encoder.hash)?;
        Ok(encoder)
    }

    async fn image_encoder(&self, named: &str) -> Result<Arc<SharedImageEncoder>> {
        let open = async {
            let (folder, trained) = match named.contains('/') {
                true => (modules::permitted_folder(named, &self.config)?, None),
                false => {
                    let image = self.card(named).await?.image.ok_or_else(|| has_none(named, "image"))?;
                    (self.registry()?.0.folder(&format!("{named}/{IMAGE_FOLDER}")), Some(image.hash))
                }
            };
            let score = &self.config.score;
            let encoder = SharedImageEncoder::open(&folder, devices::choose(score)?, score).await?;
            if let Some(trained) = trained {
                check_encoder_hash(named, IMAGE_FOLDER, &trained, &encoder.hash)?;
            }
            tracing::info!("loaded the image encoder of {named}");
            Ok(encoder)
        };
        self.image_encoders.get(named, open).await
    }

    /// Exactly this table model; refuses another one that goes by the same version.
    pub async fn pinned_table(&self, model: &ModelRef) -> Result<Arc<TableScorer>> {
        let load = async {
            let device = devices::choose(&self.config.score)?;
            let loaded = Arc::new(TableScorer::new(self.registry()?.load_table(&model.version, device).await?));
            self.count(&model.version);
            Ok(loaded)
        };
        let table = self.tables.get(&model.version, load).await?;
        refuse_other(model, &table.card.weights_hash)?;
        Ok(table)
    }

    /// Which weights a text model's version names now.
    pub async fn pin_text(&self, version: &str) -> Result<ModelRef> {
        let card = self.registry()?.text_card(version).await?;
        Ok(ModelRef::of(card.version, card.weights_hash))
    }

    /// Exactly this text model; refuses another one that goes by the same version.
    pub async fn pinned_text(&self, model: &ModelRef) -> Result<Arc<TextScorer>> {
        let load = async {
            let device = devices::choose(&self.config.score)?;
            let loaded = self.registry()?.load_text(&model.version, device).await?;
            self.count(&model.version);
            let tokens_max = devices::batch_tokens(&self.config.score, device);
            Ok(Arc::new(TextScorer::new(loaded, tokens_max, &self.config.score)))
        };
        let text = self.texts.get(&model.version, load).await?;
        refuse_other(model, &text.card.weights_hash)?;
        Ok(text)
    }

    /// Which weights an image model's version names now.
    pub async fn pin_image(&self, version: &str) -> Result<ModelRef> {
        let card = self.registry()?.image_card(version).await?;
        Ok(ModelRef::of(card.version, card.weights_hash))
    }

    /// Exactly this image model; refuses another one that goes by the same version.
    pub async fn pinned_image(&self, model: &ModelRef) -> Result<Arc<ImageScorer>> {
        let load = async {
            let loaded = self.registry()?.load_image(&model.version, devices::choose(&self.config.score)?).await?;
            self.count(&model.version);
            Ok(Arc::new(ImageScorer::new(loaded, &self.config.score)))
        };
        let image = self.images.get(&model.version, load).await?;
        refuse_other(model, &image.card.weights_hash)?;
        Ok(image)
    }

    async fn load(&self, version: &str) -> Result<ScoringService> {
        let load = async {
            let bundle = self.registry()?.load(version, devices::choose(&self.config.score)?).await?;
            self.count(version);
            ScoringService::start(bundle, &self.config.score)
        };
        self.services.get(version, load).await
    }

    fn count(&self, version: &str) {
        self.loaded.fetch_add(1, Ordering::Relaxed);
        tracing::info!("loaded model {version}");
    }
}

fn has_none(version: &str, of: &str) -> Failure {
    Failure::model(format!("model {version}: has no {of} encoder"))
        .hint(format!("name a folder, or train with model.{of}_encoder"))
}

fn refuse_other(model: &ModelRef, here: &str) -> Result<()> {
    if model.weights_hash == here {
        return Ok(());
    }
    let ModelRef { version, weights_hash, .. } = model;
    Err(Failure::model(format!("model {version}: the plan asks for weights {weights_hash}, here they are {here}"))
        .hint("every process must read the same models/ folder; restart those that loaded an older bundle"))
}
