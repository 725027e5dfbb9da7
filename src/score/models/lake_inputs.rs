//! The parts of its session's lake that a scoring call reads: vectors of contents, and the items to recommend.
//!
//! Nights bring both into the output before they score. In any other session the first call that is executed does so, or,
//! in a session with [`ContentWrites::SessionOnly`], makes them in memory. Planning does neither.

use datafusion::prelude::SessionContext;
use std::sync::Arc;
use tokio::sync::OnceCell;

use super::loaded_models::Models;
use super::model_ref::ModelRef;
use crate::failure::{Failure, Result};
use crate::ids::RunDate;
use crate::model::bundle::{BundleCard, IndexedItem};
use crate::model::contents::{Contents, IMAGE, TEXT};
use crate::score::contents::refresh::{self, Refreshed};
use crate::score::contents::store::UsedKeys;
use crate::score::contents::{ContentStore, VectorSink, catalogue};
use crate::score::load_cache::LoadCache;
use crate::score::service::{ScoringService, item_index::ItemIndex};

/// Models whose content vectors a session refreshes.
const MODELS_MAX: usize = 8;

/// The place for vectors and items of a session's lake that the output lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentWrites {
    /// The output, where later sessions and other processes find them.
    Output,
    /// Memory: the session only reads the output.
    SessionOnly,
}

/// Parts of the lake that a function reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LakeInputs {
    None,
    Contents,
    ContentsAndItems,
}

/// The refreshed inputs of a session. Travels in the session's configuration and is dropped with it. A session's lake does not
/// change, so each input is refreshed once.
#[derive(Debug)]
pub(crate) struct SessionLake {
    content_writes: ContentWrites,
    /// By the hash of the weights that read the vectors.
    contents: LoadCache<String, SessionContents>,
    items: OnceCell<SessionItems>,
}

impl SessionLake {
    pub(crate) fn new(content_writes: ContentWrites) -> Self {
        Self { content_writes, contents: LoadCache::new(MODELS_MAX), items: OnceCell::new() }
    }

    /// The inputs of an installed session.
    fn of_session(ctx: &SessionContext) -> Result<Arc<Self>> {
        let found = ctx.copied_config().get_extension();
        found.ok_or_else(|| Failure::bug("scoring is not installed in this session"))
    }
}

#[derive(Debug, Clone, Default)]
struct SessionContents {
    /// Fingerprint of the files in the output.
    fingerprint: String,
    /// Vectors that are in no file.
    in_memory: Option<Arc<Contents>>,
}

#[derive(Debug, Clone, Default)]
struct SessionItems {
    /// Empty where the bundle's items are to be recommended.
    hash: String,
    /// Items that are in no file.
    in_memory: Option<Arc<Vec<IndexedItem>>>,
}

/// A model with what its call reads of the lake.
#[derive(Debug, Clone)]
pub(crate) struct ModelInputs {
    pub(crate) model: ModelRef,
    contents: Option<Arc<Contents>>,
    items: Option<Arc<Vec<IndexedItem>>>,
}

impl From<ModelRef> for ModelInputs {
    /// Everything that a plan names is in the output.
    fn from(model: ModelRef) -> Self {
        Self { model, contents: None, items: None }
    }
}

impl Models {
    /// Brings the content vectors that a model reads, and the items to recommend, of the session's lake into the output. For
    /// a `night`, records which keys its lake has. Returns how many vectors were added.
    pub(crate) async fn refresh_contents(
        &self,
        ctx: &SessionContext,
        card: &BundleCard,
        night: Option<RunDate>,
    ) -> Result<usize> {
        let (_, added) = self.session_contents(ctx, card, night).await?;
        self.session_items(ctx).await?;
        Ok(added)
    }

    /// The inputs of a call that this process executes in a session.
    pub(crate) async fn inputs(
        &self,
        model: &ModelRef,
        reads: LakeInputs,
        ctx: &SessionContext,
    ) -> Result<ModelInputs> {
        let mut inputs = ModelInputs::from(model.clone());
        if reads != LakeInputs::None {
            let card = self.load_service(model).await?.card;
            let (contents, _) = self.session_contents(ctx, &card, None).await?;
            (inputs.model.contents, inputs.contents) = (contents.fingerprint, contents.in_memory);
        }
        if reads == LakeInputs::ContentsAndItems {
            let items = self.session_items(ctx).await?;
            (inputs.model.catalogue, inputs.items) = (items.hash, items.in_memory);
        }
        Ok(inputs)
    }

    /// The model of a call that other processes execute, with inputs from the output. A read-only session cannot send vectors
    /// or items that the output lacks.
    pub(crate) async fn inputs_in_output(
        &self,
        model: &ModelRef,
        reads: LakeInputs,
        ctx: &SessionContext,
    ) -> Result<ModelRef> {
        let content_writes = SessionLake::of_session(ctx)?.content_writes;
        if content_writes == ContentWrites::Output || reads == LakeInputs::None {
            return Ok(self.inputs(model, reads, ctx).await?.model);
        }
        let mut pinned = model.clone();
        if let Some(store) = self.content_store(&self.card(&model.version).await?)? {
            pinned.contents = store.fingerprint().await?;
            tracing::info!("{}: scoring with the content vectors that nights have written", model.version);
        }
        if reads == LakeInputs::ContentsAndItems {
            let hash = self.session_items(ctx).await?.hash;
            match hash.is_empty() || catalogue::exists(self.output()?, &hash).await? {
                true => pinned.catalogue = hash,
                false => {
                    tracing::warn!("no night has written the items of this lake: recommending those of the training")
                }
            }
        }
        Ok(pinned)
    }

    /// The service of a call, with the content vectors that it reads in memory.
    pub(crate) async fn service_with_contents(&self, inputs: &ModelInputs) -> Result<ScoringService> {
        let service = self.load_service(&inputs.model).await?;
        if let Some(store) = self.content_store(&service.card)? {
            service.contents().read(&store, &inputs.model.contents).await?;
        }
        if let Some(contents) = &inputs.contents {
            service.contents().add(contents).await;
        }
        Ok(service)
    }

    /// The items that a call of `recommend` ranks.
    pub(crate) async fn items(&self, inputs: &ModelInputs) -> Result<ItemIndex> {
        let service = self.service_with_contents(inputs).await?;
        match (&inputs.items, inputs.model.catalogue.as_str()) {
            (_, "") => Ok(service.bundle_items()),
            (Some(items), hash) => service.index(hash, async { Ok(items.as_ref().clone()) }).await,
            (None, hash) => service.index(hash, catalogue::load(self.output()?, hash)).await,
        }
    }

    /// The content vectors of a session's lake for a model, and how many of them this call added.
    async fn session_contents(
        &self,
        ctx: &SessionContext,
        card: &BundleCard,
        night: Option<RunDate>,
    ) -> Result<(SessionContents, usize)> {
        let Some(store) = self.content_store(card)? else { return Ok(Default::default()) };
        if !ctx.table_exist("item_vectors")? {
            return Ok((SessionContents { fingerprint: store.fingerprint().await?, in_memory: None }, 0));
        }
        let lake = SessionLake::of_session(ctx)?;
        let mut added = 0;
        let refresh = async {
            let mut sink = match lake.content_writes {
                ContentWrites::Output => VectorSink::files(&store),
                ContentWrites::SessionOnly => VectorSink::memory(&store),
            };
            let (keys, new) = self.add_contents(ctx, card, &store, &mut sink).await?;
            added = new;
            let in_memory = sink.into_memory().map(Arc::new);
            if let (Some(run_date), None) = (night, &in_memory) {
                store.record_used_keys(run_date, &keys).await?;
            }
            Ok(SessionContents { fingerprint: store.fingerprint().await?, in_memory })
        };
        let contents = lake.contents.get_or_load(card.weights_hash.clone(), Box::pin(refresh)).await?;
        Ok((contents, added))
    }

    /// Adds the vectors that the store lacks of the session's lake. Returns the keys of the lake, and how many were added.
    async fn add_contents(
        &self,
        ctx: &SessionContext,
        card: &BundleCard,
        store: &ContentStore,
        sink: &mut VectorSink<'_>,
    ) -> Result<(UsedKeys, usize)> {
        let known = store.contents().await?;
        let Refreshed { mut keys, mut added } = refresh::add_lake_vectors(ctx, store, &known, sink).await?;
        if card.text.is_some() {
            let encoder = self.text_encoder(&card.version).await?;
            let texts = refresh::add_texts(ctx, &encoder, &known, sink).await?;
            keys[TEXT] = texts.keys;
            added += texts.added;
        }
        if card.image.is_some() {
            let encoder = self.image_encoder(&card.version).await?;
            let images = refresh::add_images(ctx, &encoder, &known, sink).await?;
            keys[IMAGE] = images.keys;
            added += images.added;
        }
        Ok((keys, added))
    }

    /// The items that a session's lake has to recommend. There are none, so that the bundle's items are recommended, in a
    /// session without a lake and in a lake without recent interactions.
    async fn session_items(&self, ctx: &SessionContext) -> Result<SessionItems> {
        if !ctx.table_exist(catalogue::VIEW)? {
            return Ok(SessionItems::default());
        }
        let lake = SessionLake::of_session(ctx)?;
        let load = async || {
            let items = catalogue::session_items(ctx).await?;
            if items.is_empty() {
                return Ok(SessionItems::default());
            }
            match lake.content_writes {
                ContentWrites::Output => {
                    Ok(SessionItems { hash: catalogue::save(self.output()?, &items).await?, in_memory: None })
                }
                ContentWrites::SessionOnly => {
                    Ok(SessionItems { hash: catalogue::hash(&items)?, in_memory: Some(Arc::new(items)) })
                }
            }
        };
        lake.items.get_or_try_init(load).await.cloned()
    }
}
