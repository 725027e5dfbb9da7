//! The models and encoders that a process has loaded, each once, by kind and version.

use futures::future::BoxFuture;
use std::any::{Any, TypeId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::model_ref::ModelRef;
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::model::bundle::{BundleCard, IMAGE_FOLDER, Registry, TEXT_FOLDER, check_encoder_hash};
use crate::model::cards::Card;
use crate::model::promotions::NEWEST;
use crate::score::contents::ContentStore;
use crate::score::devices;
use crate::score::encoders::{SharedImageEncoder, SharedTextEncoder};
use crate::score::load_cache::LoadCache;
use crate::score::permitted::permitted_folder;
use crate::score::service::ScoringService;

/// Models, and encoders, that a process holds at once.
const LOADED_MAX: usize = 16;

/// Loads models on demand; all sessions of a process share one.
#[derive(Debug)]
pub struct Models {
    output: Option<Location>,
    config: Config,
    /// By type and version (or folder).
    loaded: LoadCache<(TypeId, String), Arc<dyn Any + Send + Sync>>,
    loads: AtomicU64,
}

impl Models {
    /// Models of the configured output. Without an output there is no registry, and calls fail with what to do.
    pub fn new(config: &Config) -> Result<Self> {
        let output = match config.output.uri.as_str() {
            "" => None,
            uri => Some(Location::open(uri, &config.s3)?),
        };
        Ok(Self { output, config: config.clone(), loaded: LoadCache::new(LOADED_MAX), loads: AtomicU64::new(0) })
    }

    /// The settings that models are loaded with.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Requests that one partition may have waiting.
    pub(crate) fn in_flight_max(&self) -> usize {
        (self.config.score.in_flight_max as usize).max(1)
    }

    /// Returns how many times a model was loaded from the registry.
    pub fn loaded(&self) -> u64 {
        self.loads.load(Ordering::Relaxed)
    }

    /// The card of a version, without loading its weights; empty means the configured version, or else the champion.
    pub(crate) async fn card(&self, version: &str) -> Result<BundleCard> {
        let version = if version.is_empty() { self.config.model.version.as_str() } else { version };
        self.registry()?.resolve(version).await
    }

    /// The card of the model with which nights score a second time (`promotion.shadow_version`); `None` without one, and where it is
    /// their `own`.
    pub(crate) async fn shadow_card(&self, own: &BundleCard) -> Result<Option<BundleCard>> {
        let named = match self.config.promotion.shadow_version.as_str() {
            "" => None,
            NEWEST => self.registry()?.challengers(&own.version).await?.pop(),
            version => Some(self.card(version).await.map_err(|failure| failure.at("promotion.shadow_version"))?),
        };
        Ok(named.filter(|card| card.version != own.version))
    }

    /// The weights that a version has now; empty as for [`Self::card`].
    pub(crate) async fn pin(&self, version: &str) -> Result<ModelRef> {
        let card = self.card(version).await?;
        let hash = card.scoring_hash()?;
        Ok(ModelRef::new(card.version, hash))
    }

    /// The weights that a version of a table, text or image model has now.
    pub(crate) async fn pin_card<C: Card>(&self, version: &str) -> Result<ModelRef> {
        let card: C = self.registry()?.card_of(version).await?;
        Ok(ModelRef::new(card.version().into(), card.weights_hash().into()))
    }

    /// The service of a version, with the content vectors of the output in memory; empty as for [`Self::card`].
    pub async fn service(&self, version: &str) -> Result<ScoringService> {
        let service = self.load_service(&self.pin(version).await?).await?;
        if let Some(store) = self.content_store(&service.card)? {
            service.contents().read(&store, &store.fingerprint().await?).await?;
        }
        Ok(service)
    }

    /// The service of exactly these weights, with whatever content vectors it has in memory.
    pub(crate) async fn load_service(&self, model: &ModelRef) -> Result<ScoringService> {
        let load = async {
            let bundle = self.registry()?.load(&model.version, self.device()?).await?;
            self.count_load(&model.version);
            ScoringService::start(bundle, &self.config.score)
        };
        let service: Arc<ScoringService> =
            self.get_or_load_pinned(model, Box::pin(load), |service| &service.scoring_hash).await?;
        Ok(service.as_ref().clone())
    }

    /// The model of type `T` of a version, which `load` loads unless it is cached.
    pub(crate) async fn get_or_load<T: Any + Send + Sync>(
        &self,
        version: &str,
        load: BoxFuture<'_, Result<T>>,
    ) -> Result<Arc<T>> {
        let load = async { Ok(Arc::new(load.await?) as Arc<dyn Any + Send + Sync>) };
        let model = self.loaded.get_or_load((TypeId::of::<T>(), version.into()), Box::pin(load)).await?;
        model.downcast().map_err(|_| Failure::bug(format!("model {version}: its cache holds another type")))
    }

    /// The model of type `T` with exactly the pinned weights, which `load` loads unless it is cached.
    pub(crate) async fn get_or_load_pinned<T: Any + Send + Sync>(
        &self,
        pinned: &ModelRef,
        load: BoxFuture<'_, Result<T>>,
        weights_hash: fn(&T) -> &str,
    ) -> Result<Arc<T>> {
        let model = self.get_or_load(&pinned.version, load).await?;
        pinned.refuse_other(weights_hash(&model))?;
        Ok(model)
    }

    /// Counts and logs the load of a model from the registry.
    pub(crate) fn count_load(&self, version: &str) {
        self.loads.fetch_add(1, Ordering::Relaxed);
        tracing::info!("loaded model {version}");
    }

    /// The folder of versions.
    pub(crate) fn registry(&self) -> Result<Registry> {
        Ok(Registry(self.output()?.folder("models")))
    }

    /// The device that models are loaded on.
    pub(crate) fn device(&self) -> Result<tch::Device> {
        devices::choose(&self.config.score)
    }

    pub(super) fn output(&self) -> Result<&Location> {
        self.output.as_ref().ok_or_else(|| {
            Failure::model("no model: no output location was given")
                .hint("pass --output, the folder that holds models/")
        })
    }

    /// The content vectors that a model reads; `None` where it reads none.
    pub(super) fn content_store(&self, card: &BundleCard) -> Result<Option<ContentStore>> {
        Ok(ContentStore::for_model(self.output()?, card, self.config.score.precision))
    }

    /// The name of an encoder: as given, or the version that [`Self::card`] finds.
    pub(crate) async fn encoder_name(&self, named: &str) -> Result<String> {
        if named.is_empty() { Ok(self.card("").await?.version) } else { Ok(named.into()) }
    }

    /// A text encoder: the `text/` folder of a version, or the URI of a Hugging Face folder that the configuration allows.
    pub(crate) async fn text_encoder(&self, named: &str) -> Result<Arc<SharedTextEncoder>> {
        let open = async {
            let (folder, tokens_max, trained) = match named.contains('/') {
                true => (permitted_folder(named, &self.config)?, self.config.model.text_tokens_max, None),
                false => {
                    let text = self.card(named).await?.text.ok_or_else(|| no_encoder(named, "text"))?;
                    (self.registry()?.0.folder(&format!("{named}/{TEXT_FOLDER}")), text.tokens_max, Some(text.hash))
                }
            };
            let encoder = SharedTextEncoder::open(&folder, tokens_max, &self.config, self.device()?).await?;
            if let Some(trained) = trained {
                check_encoder_hash(named, TEXT_FOLDER, &trained, &encoder.hash)?;
            }
            tracing::info!("loaded the text encoder of {named}");
            Ok(encoder)
        };
        self.get_or_load(named, Box::pin(open)).await
    }

    /// An image encoder: the `image/` folder of a version, or the URI of a folder that the configuration allows.
    pub(crate) async fn image_encoder(&self, named: &str) -> Result<Arc<SharedImageEncoder>> {
        let open = async {
            let (folder, trained) = match named.contains('/') {
                true => (permitted_folder(named, &self.config)?, None),
                false => {
                    let image = self.card(named).await?.image.ok_or_else(|| no_encoder(named, "image"))?;
                    (self.registry()?.0.folder(&format!("{named}/{IMAGE_FOLDER}")), Some(image.hash))
                }
            };
            let encoder = SharedImageEncoder::open(&folder, self.device()?, &self.config.score).await?;
            if let Some(trained) = trained {
                check_encoder_hash(named, IMAGE_FOLDER, &trained, &encoder.hash)?;
            }
            tracing::info!("loaded the image encoder of {named}");
            Ok(encoder)
        };
        self.get_or_load(named, Box::pin(open)).await
    }
}

fn no_encoder(version: &str, modality: &str) -> Failure {
    Failure::model(format!("model {version}: has no {modality} encoder"))
        .hint(format!("name a folder, or train with model.{modality}_encoder"))
}
