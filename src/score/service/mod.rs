//! The scoring service of an intent and demand model: threads that own the network and pool the rows of all partitions.
//!
//! In: structs of features and histories, and catalogues of items. Out: scores, forecasts and item indexes. Requests wait in
//! one bounded queue. A free owner takes the waiting ones, up to its share of `score.pool_rows_max` rows, sorts the users to
//! encode by length, cuts padded batches of at most `score.batch_tokens_max` tokens (halved and retried when memory runs
//! out), runs the cheap heads for all users and answers each request in its own row order. `models` starts services; the
//! SQL functions and the night call them.
//!
//! On a CPU one single-threaded owner per core beats one owner with all cores: small matrices gain little from more threads,
//! and work other than matrix products (hashing, sorting, copying) runs in parallel too. All owners read the same weights.
//! A GPU has one owner.

mod counters;
pub(crate) mod encoder_states;
pub(crate) mod explanation;
pub(crate) mod item_index;
mod owner;
mod requests;
mod shared_contents;

use arrow::array::{Array, ArrayRef, AsArray, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use tch::Device;
use tokio::sync::{mpsc, oneshot};

use self::encoder_states::{EncoderStateCache, EncoderStates};
use self::explanation::Explanation;
use self::item_index::ItemIndex;
use self::owner::Owner;
use self::requests::Request;
use self::shared_contents::SharedContents;
use super::devices;
use super::load_cache::LoadCache;
use super::lock::lock;
use crate::config::{ScoreConfig, cores};
use crate::failure::{Failure, Result};
use crate::model::blend::Blender;
use crate::model::bundle::{Bundle, BundleCard, IndexedItem};
use crate::model::contents::{Contents, MODALITIES};
use crate::model::demand::{ItemForecast, ItemHistory};
use crate::model::inputs::UserInputs;

pub use self::counters::Counters;
pub use self::requests::IntentScores;

/// Item indexes in memory: a process that plans night after night would otherwise hold them all.
const INDEXES_MAX: usize = 4;
/// Requests that wait for an owner.
const QUEUE_REQUESTS: usize = 64;

/// The handle that operators hold; clones share the owner threads.
#[derive(Debug, Clone)]
pub struct ScoringService {
    pub(crate) card: Arc<BundleCard>,
    /// Hash of the weights, the trees and the blend.
    pub(crate) scoring_hash: Arc<str>,
    pub counters: Arc<Counters>,
    /// The bundle's items.
    items: ItemIndex,
    /// Indexes of sessions' catalogues.
    indexes: Arc<LoadCache<IndexKey, ItemIndex>>,
    queue: mpsc::Sender<Request>,
    states: Arc<Mutex<EncoderStateCache>>,
    contents: Arc<SharedContents>,
}

/// Hash of a catalogue, and how many vectors of each modality were in memory when it was indexed.
type IndexKey = (String, [usize; MODALITIES.len()]);

impl ScoringService {
    /// Starts the owner threads with a loaded bundle.
    pub fn start(bundle: Bundle, config: &ScoreConfig) -> Result<Self> {
        let items = ItemIndex::new(&bundle.items, &bundle.item_vectors, bundle.card.intent.width)?;
        let counters = Arc::new(Counters::default());
        let states = Arc::new(Mutex::new(EncoderStateCache::default()));
        let contents = Arc::new(SharedContents::default());
        let card = Arc::new(bundle.card.clone());
        let scoring_hash = card.scoring_hash()?.into();
        let owners = owner_threads(config, bundle.device);
        let batch_tokens_max = devices::batch_tokens(config, bundle.device);
        let (queue, requests) = mpsc::channel(QUEUE_REQUESTS);
        let requests = Arc::new(Mutex::new(requests));
        // Shared before the threads start: a tensor may move to a thread, but two threads must not reach one.
        let mut bundles = (1..owners).map(|_| bundle.share()).collect::<Result<Vec<_>>>()?;
        bundles.push(bundle);
        for bundle in bundles {
            let owner = Owner {
                bundle,
                // An owner that took all waiting requests would leave the others idle.
                pool_rows_max: (config.pool_rows_max as usize).div_ceil(owners),
                batch_tokens_max,
                threads: cores().div_ceil(owners),
                counters: Arc::clone(&counters),
                states: Arc::clone(&states),
                contents: Arc::clone(&contents),
                blender: Blender::new(&card.blend, &card.features),
            };
            let requests = Arc::clone(&requests);
            let started = std::thread::Builder::new().name("scoring".into()).spawn(move || owner.serve(&requests));
            started.map_err(|e| Failure::transient(format!("cannot start a thread for scoring: {e}")))?;
        }
        let indexes = Arc::new(LoadCache::new(INDEXES_MAX));
        Ok(Self { card, scoring_hash, counters, items, indexes, queue, states, contents })
    }

    /// Scores the users of `features` structs; an error names the first bad user.
    pub async fn score(&self, features: &StructArray) -> Result<IntentScores> {
        let contents = self.contents.now();
        let inputs = UserInputs::from_struct(features, &self.card.features, self.card.intent.item_buckets, &contents)?;
        self.ask(|answer| Request::Users(inputs, answer)).await
    }

    /// Scores users like [`Self::score`], with content vectors of their own besides the known ones.
    pub(crate) async fn score_with(&self, features: &StructArray, more: &Contents) -> Result<IntentScores> {
        let keys = content_keys(features)?;
        let mut contents = self.contents.now().subset(&keys);
        contents.extend(more);
        let inputs = UserInputs::from_struct(features, &self.card.features, self.card.intent.item_buckets, &contents)?;
        self.ask(|answer| Request::OwnContents(inputs, Box::new(contents), answer)).await
    }

    /// Says what a binary target of each user of `features` structs rests on. Each user is a request of its own, so that others are
    /// answered in between, and that none is computed once the caller is gone.
    pub(crate) async fn explain(&self, features: &StructArray, target: usize) -> Result<Vec<Explanation>> {
        let contents = self.contents.now();
        let mut explained = Vec::with_capacity(features.len());
        for row in 0..features.len() {
            let one = features.slice(row, 1);
            let inputs = UserInputs::from_struct(&one, &self.card.features, self.card.intent.item_buckets, &contents)?;
            explained.push(self.ask(|answer| Request::Explain(inputs, target, answer)).await?);
        }
        Ok(explained)
    }

    /// Forecasts the items of `history` structs.
    pub(crate) async fn forecast(&self, histories: &StructArray) -> Result<Vec<ItemForecast>> {
        let histories = ItemHistory::from_struct(histories)?;
        self.ask(|answer| Request::Items(histories, answer)).await
    }

    /// The items that the bundle knows.
    pub(crate) fn bundle_items(&self) -> ItemIndex {
        self.items.clone()
    }

    /// The index of a catalogue with a hash, which `load` loads unless it is cached.
    pub(crate) async fn index(
        &self,
        hash: &str,
        load: impl Future<Output = Result<Vec<IndexedItem>>> + Send,
    ) -> Result<ItemIndex> {
        let contents = self.contents.now();
        let key = (hash.to_string(), [0, 1, 2].map(|modality| contents.len(modality)));
        let index = async {
            let items = load.await?;
            self.ask(|answer| Request::Catalogue(items, answer)).await
        };
        self.indexes.get_or_load(key, Box::pin(index)).await
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<Result<T>>) -> Request) -> Result<T> {
        let stopped = || Failure::bug("the scoring service has stopped");
        let (answer, answered) = oneshot::channel();
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        self.queue.send(request(answer)).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }

    /// The content vectors that it scores with.
    pub(crate) fn contents(&self) -> &SharedContents {
        &self.contents
    }

    /// Adds encoder states of an earlier night to the cache.
    pub(crate) fn add_states(&self, states: EncoderStates) {
        lock(&self.states).add(states);
    }

    /// Empties the cache of encoder states and returns those that the users scored so far have needed: the next night may need
    /// them too. A million users' states are hundreds of megabytes.
    pub(crate) fn take_used_states(&self) -> EncoderStates {
        std::mem::take(&mut *lock(&self.states)).into_used()
    }
}

/// Number of owners: `score.owner_threads`, one per core where that is 0, and always one on a GPU.
fn owner_threads(config: &ScoreConfig, device: Device) -> usize {
    match (device.is_cuda(), config.owner_threads as usize) {
        (true, _) => 1,
        (false, 0) => cores(),
        (false, n) => n,
    }
}

/// The keys of all contents of the users' events, by modality.
fn content_keys(features: &StructArray) -> Result<[Vec<i64>; MODALITIES.len()]> {
    let missing = || Failure::model("the features lack recent");
    let recent =
        features.column_by_name("recent").and_then(|recent| recent.as_list_opt::<i32>()).ok_or_else(missing)?;
    let events = as_struct(recent.values())?;
    let mut keys = [const { Vec::new() }; MODALITIES.len()];
    for (keys, name) in keys.iter_mut().zip(MODALITIES) {
        let column = events.column_by_name(&format!("{name}_key")).ok_or_else(missing)?;
        let column = cast(column, &DataType::Int64)?;
        keys.extend(column.as_primitive::<Int64Type>().iter().flatten());
    }
    Ok(keys)
}

/// A struct column, whatever array an expression returned.
pub fn as_struct(array: &ArrayRef) -> Result<&StructArray> {
    array.as_struct_opt().ok_or_else(|| Failure::usage(format!("expected a struct, got {}", array.data_type())))
}
