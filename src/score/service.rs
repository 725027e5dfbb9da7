//! The one scoring service of a process: threads that own the model and pool the rows of all partitions.
//!
//! Requests wait in one bounded queue. A free owner takes what is there, up to its share of `score.pool_rows_max` rows,
//! sorts the users to encode by length, cuts padded batches of at most `score.batch_tokens_max` tokens (halved and tried
//! again when memory runs out), runs the cheap heads for everybody and answers each request in its own row order.
//!
//! On a CPU one owner a core with one thread each beats one owner with all cores: small matrices gain little from more
//! threads, and what is not a matrix product (hashing, sorting, copying) runs side by side too. All owners read the same
//! weights. A GPU has one owner.

use arrow::array::{ArrayRef, StructArray};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tch::{Device, Kind, Tensor};
use tokio::sync::{mpsc, oneshot};

use super::catalogue;
use super::content_store::{ContentStore, ReadContents};
use super::devices;
use super::recommend::ItemIndex;
use crate::config::ScoreConfig;
use crate::failure::{Failure, FailureKind, Result};
use crate::lake::stores::Location;
use crate::model::bundle::{Bundle, BundleCard, IndexedItem};
use crate::model::contents::Contents;
use crate::model::demand::ItemHistory;
use crate::model::inputs::{EventInput, UserInputs};
use crate::model::intent::OUTPUTS;
use crate::model::out_of_memory::retry_in_halves;

pub use crate::model::demand::ItemForecast;

/// Catalogues that a service holds at once.
const CATALOGUES_MAX: usize = 4;

/// What the service has done since it started.
#[derive(Debug, Default)]
pub struct Counters {
    pub requests: AtomicU64,
    pub pools: AtomicU64,
    pub model_batches: AtomicU64,
    /// Batches that did not fit into memory.
    pub batches_halved: AtomicU64,
    pub users_scored: AtomicU64,
    pub users_encoded: AtomicU64,
    pub users_kept: AtomicU64,
    pub items_forecast: AtomicU64,
}

impl Counters {
    pub fn get(&self, counter: impl Fn(&Self) -> &AtomicU64) -> u64 {
        counter(self).load(Ordering::Relaxed)
    }
}

/// Encoder outputs by the hash of their exact inputs; valid for one encoder.
pub type KeptStates = HashMap<u128, Arc<[f32]>>;

/// Scores of users in row order: row-major [users, 9], and taste vectors [users, width].
#[derive(Debug)]
pub struct IntentScores {
    pub scores: Vec<f32>,
    pub tastes: Vec<f32>,
}

enum Request {
    Users(UserInputs, oneshot::Sender<Result<IntentScores>>),
    Items(Vec<ItemHistory>, oneshot::Sender<Result<Vec<ItemForecast>>>),
    Catalogue(Vec<IndexedItem>, oneshot::Sender<Result<ItemIndex>>),
}

impl Request {
    fn rows(&self) -> usize {
        match self {
            Self::Users(inputs, _) => inputs.len(),
            Self::Items(items, _) => items.len(),
            Self::Catalogue(items, _) => items.len(),
        }
    }
}

/// The handle that operators hold; cloning shares the owner threads.
#[derive(Debug, Clone)]
pub struct ScoringService {
    pub card: Arc<BundleCard>,
    pub counters: Arc<Counters>,
    /// The bundle's own items.
    items: ItemIndex,
    /// Of sessions' catalogues, by their hash and that of the contents that there were.
    catalogues: Arc<tokio::sync::Mutex<HashMap<(String, String), ItemIndex>>>,
    queue: mpsc::Sender<Request>,
    kept: Arc<Mutex<Kept>>,
    contents: SharedContents,
}

/// What users' events show; rows are only ever added to it.
type SharedContents = Arc<Mutex<ReadContents>>;

/// States taken over from earlier nights or made by this process, and whether a user has needed them here.
type Kept = HashMap<u128, (Arc<[f32]>, bool)>;

impl ScoringService {
    /// Starts the owner threads with a loaded bundle.
    pub fn start(bundle: Bundle, config: &ScoreConfig) -> Result<Self> {
        let items = ItemIndex::of(&bundle.items, &bundle.item_vectors, bundle.card.intent.width)?;
        let counters = Arc::new(Counters::default());
        let (queue, requests) = mpsc::channel(64);
        let kept = Arc::new(Mutex::new(Kept::default()));
        let contents = SharedContents::default();
        let card = Arc::new(bundle.card.clone());
        let (owners, batch_tokens_max) = (owners(config, bundle.device), devices::batch_tokens(config, bundle.device));
        let requests = Arc::new(Mutex::new(requests));
        // Handed over before the threads start: a tensor may move to a thread, but not be reached from two.
        let mut bundles = (1..owners).map(|_| bundle.share()).collect::<Result<Vec<_>>>()?;
        bundles.push(bundle);
        for bundle in bundles {
            let owner = Owner {
                bundle,
                // An owner that took all that waits would leave the others idle.
                pool_rows_max: (config.pool_rows_max as usize).div_ceil(owners),
                batch_tokens_max,
                threads: cores().div_ceil(owners),
                counters: Arc::clone(&counters),
                kept: Arc::clone(&kept),
                contents: Arc::clone(&contents),
            };
            let requests = Arc::clone(&requests);
            let started = std::thread::Builder::new().name("scoring".into()).spawn(move || owner.serve(&requests));
            started.map_err(|e| Failure::passing(format!("no thread for scoring: {e}")))?;
        }
        let catalogues = Arc::default();
        Ok(Self { card, counters, items, catalogues, queue, kept, contents })
    }

    /// Scores the users of `features` structs; the error names the first bad user.
    pub async fn score(&self, features: &StructArray) -> Result<IntentScores> {
        let contents = contents_of(&self.contents);
        let inputs = UserInputs::from_struct(features, &self.card.features, self.card.intent.item_buckets, &contents)?;
        let (answer, answered) = oneshot::channel();
        self.send(Request::Users(inputs, answer)).await?;
        answered.await.map_err(|_| stopped())?
    }

    /// Forecasts the items of `history` structs.
    pub async fn forecast(&self, histories: &StructArray) -> Result<Vec<ItemForecast>> {
        let (answer, answered) = oneshot::channel();
        self.send(Request::Items(ItemHistory::from_struct(histories)?, answer)).await?;
        answered.await.map_err(|_| stopped())?
    }

    /// The items that `recommend` ranks: those of a catalogue that is kept below `output`, or, without a hash, the bundle's.
    pub async fn items_of(&self, output: &Location, hash: &str) -> Result<ItemIndex> {
        if hash.is_empty() {
            return Ok(self.items.clone());
        }
        // Held while loading, so that partitions wait for one load.
        let mut catalogues = self.catalogues.lock().await;
        let key = (hash.to_string(), lock(&self.contents).fingerprint.clone());
        if let Some(index) = catalogues.get(&key) {
            return Ok(index.clone());
        }
        let (answer, answered) = oneshot::channel();
        self.send(Request::Catalogue(catalogue::read(output, hash).await?, answer)).await?;
        let index = answered.await.map_err(|_| stopped())??;
        // A process that plans night after night would otherwise hold them all.
        if catalogues.len() >= CATALOGUES_MAX {
            catalogues.clear();
        }
        catalogues.insert(key, index.clone());
        Ok(index)
    }

    async fn send(&self, request: Request) -> Result<()> {
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        self.queue.send(request).await.map_err(|_| stopped())
    }

    /// Reads what the store has had added, until it holds at least the files that a plan names.
    pub async fn read_contents(&self, store: &ContentStore, fingerprint: &str) -> Result<()> {
        let before = lock(&self.contents).clone();
        if before.fingerprint != fingerprint {
            let mut read = store.read(&before).await?;
            read.fingerprint = fingerprint.into();
            tracing::info!("{} bytes of contents", read.contents.bytes());
            *lock(&self.contents) = read;
        }
        Ok(())
    }

    /// Takes over states of an earlier night.
    pub fn keep(&self, states: KeptStates) {
        let mut kept = lock(&self.kept);
        kept.extend(states.into_iter().map(|(key, state)| (key, (state, false))));
    }

    /// Hands over the states that users scored so far have needed: what the next night may find useful. The service
    /// forgets all of them; a million users' are hundreds of megabytes.
    pub fn take_used_states(&self) -> KeptStates {
        let kept = std::mem::take(&mut *lock(&self.kept));
        kept.into_iter().filter(|(_, (_, used))| *used).map(|(key, (state, _))| (key, state)).collect()
    }
}

fn contents_of(shared: &SharedContents) -> Arc<Contents> {
    Arc::clone(&lock(shared).contents)
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn stopped() -> Failure {
    Failure::bug("the scoring service has stopped")
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Owner threads: `score.owner_threads`, one a core where that is 0, one alone on a GPU.
fn owners(config: &ScoreConfig, device: Device) -> usize {
    match (device.is_cuda(), config.owner_threads as usize) {
        (true, _) => 1,
        (false, 0) => cores(),
        (false, n) => n,
    }
}

struct Owner {
    bundle: Bundle,
    pool_rows_max: usize,
    batch_tokens_max: usize,
    /// Threads of libtorch within one operation.
    threads: usize,
    counters: Arc<Counters>,
    kept: Arc<Mutex<Kept>>,
    contents: SharedContents,
}

impl Owner {
    fn serve(self, requests: &Mutex<mpsc::Receiver<Request>>) {
        // Both are kept a thread. The guard lasts as long as the thread: `tch::no_grad(closure)` would leave gradients
        // on or off for good if the closure panicked.
        tch::set_num_threads(self.threads as i32);
        let _no_gradients = tch::no_grad_guard();
        while let Some(taken) = self.take(requests) {
            let mut users = Vec::new();
            for request in taken {
                match request {
                    // A caller that has gone away needs no answer.
                    Request::Items(items, answer) => {
                        answer.send(self.guarded(|| self.forecast(&items))).unwrap_or_default();
                    }
                    Request::Catalogue(items, answer) => {
                        answer.send(self.guarded(|| self.index(&items))).unwrap_or_default();
                    }
                    Request::Users(inputs, answer) => users.push((inputs, answer)),
                }
            }
            if !users.is_empty() {
                self.score_pool(users);
            }
        }
    }

    /// Waits for a request, then takes what else is there, up to this owner's share; `None` when all callers are gone.
    fn take(&self, requests: &Mutex<mpsc::Receiver<Request>>) -> Option<Vec<Request>> {
        let mut queue = lock(requests);
        let mut taken = vec![queue.blocking_recv()?];
        let mut rows = taken[0].rows();
        while rows < self.pool_rows_max
            && let Ok(request) = queue.try_recv()
        {
            rows += request.rows();
            taken.push(request);
        }
        Some(taken)
    }

    /// Scores pooled requests; where the pool fails, each request is tried alone, so that one bad user fails one request.
    fn score_pool(&self, requests: Vec<(UserInputs, oneshot::Sender<Result<IntentScores>>)>) {
        self.counters.pools.fetch_add(1, Ordering::Relaxed);
        let sizes: Vec<usize> = requests.iter().map(|(i, _)| i.len()).collect();
        let mut pool = UserInputs::default();
        let mut answers = Vec::new();
        for (inputs, answer) in requests {
            pool.append(inputs);
            answers.push(answer);
        }
        let mut from = 0;
        match self.guarded(|| self.score(&pool, 0..pool.len())) {
            Ok(all) => {
                let width = self.bundle.card.intent.width as usize;
                for (size, answer) in sizes.into_iter().zip(answers) {
                    let part = IntentScores {
                        scores: all.scores[from * OUTPUTS.len()..(from + size) * OUTPUTS.len()].to_vec(),
                        tastes: all.tastes[from * width..(from + size) * width].to_vec(),
                    };
                    answer.send(Ok(part)).unwrap_or_default();
                    from += size;
                }
            }
            Err(_) => {
                for (size, answer) in sizes.into_iter().zip(answers) {
                    answer.send(self.guarded(|| self.score(&pool, from..from + size))).unwrap_or_default();
                    from += size;
                }
            }
        }
    }

    /// A panic of the bindings becomes a typed error; the thread goes on.
    fn guarded<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            Err(Failure::bug(format!("scoring: {}", text.lines().next().unwrap_or("panic"))))
        })
    }

    fn score(&self, pool: &UserInputs, rows: std::ops::Range<usize>) -> Result<IntentScores> {
        let width = self.bundle.card.intent.width as usize;
        // At least what the inputs were read with: their rows mean the same.
        let contents = contents_of(&self.contents);
        let keys: Vec<u128> = rows.clone().map(|r| pool.encoder_key(r, &contents)).collect();
        let mut states: Vec<Option<Arc<[f32]>>> = {
            let mut kept = lock(&self.kept);
            let mut find = |key| {
                let (state, used) = kept.get_mut(key)?;
                *used = true;
                Some(Arc::clone(state))
            };
            keys.iter().map(&mut find).collect()
        };
        let mut missing: Vec<usize> = rows.clone().filter(|r| states[r - rows.start].is_none()).collect();
        self.counters.users_kept.fetch_add((rows.len() - missing.len()) as u64, Ordering::Relaxed);
        missing.sort_by_key(|&r| pool.events[r].len());
        let mut start = 0;
        while start < missing.len() {
            let end = self.cut(pool, &missing, start);
            let encoded = self.encode(pool, &missing[start..end], &contents)?;
            let mut kept = lock(&self.kept);
            for (i, &row) in missing[start..end].iter().enumerate() {
                let state: Arc<[f32]> = encoded[i * width..(i + 1) * width].into();
                kept.insert(keys[row - rows.start], (Arc::clone(&state), true));
                states[row - rows.start] = Some(state);
            }
            start = end;
        }
        self.counters.users_encoded.fetch_add(missing.len() as u64, Ordering::Relaxed);

        let flat: Vec<f32> = states.iter().flatten().flat_map(|s| s.iter().copied()).collect();
        let states =
            Tensor::f_from_slice(&flat)?.f_view([rows.len() as i64, width as i64])?.f_to_device(self.bundle.device)?;
        let of_pool: Vec<usize> = rows.clone().collect();
        let scaling = &self.bundle.card.scaling;
        let raw = self.bundle.intent().outputs_for_rows(&states, pool, &of_pool, scaling, false)?;
        let scores = to_vec(&self.bundle.intent().scores(&raw, scaling)?)?;
        let tastes = to_vec(&self.bundle.intent().user_vectors(&states))?;
        if let Some(at) = scores.iter().position(|s| !s.is_finite()) {
            let user = &pool.user_ids[rows.start + at / OUTPUTS.len()];
            return Err(Failure::new(
                FailureKind::Model,
                format!("user {user}: {} is not finite", OUTPUTS[at % OUTPUTS.len()]),
            )
            .hint("look at the user's row in user_features; an infinite price or count is the usual cause"));
        }
        // Not before: of a pool that fails, each request is scored again.
        self.counters.users_scored.fetch_add(rows.len() as u64, Ordering::Relaxed);
        Ok(IntentScores { scores, tastes })
    }

    /// The end of the batch that starts at `start`: padded to its longest (last) member, within the token budget.
    fn cut(&self, pool: &UserInputs, sorted: &[usize], start: usize) -> usize {
        let budget = self.batch_tokens_max;
        let mut end = start + 1;
        while end < sorted.len() && (end - start + 1) * pool.events[sorted[end]].len().max(1) <= budget {
            end += 1;
        }
        end
    }

    /// States row by row, [rows, width].
    fn encode(&self, pool: &UserInputs, rows: &[usize], contents: &Contents) -> Result<Vec<f32>> {
        retry_in_halves(rows, "users", &self.counters.batches_halved, &|rows: &[usize]| {
            self.counters.model_batches.fetch_add(1, Ordering::Relaxed);
            let events: Vec<&[EventInput]> = rows.iter().map(|&r| pool.events[r].as_slice()).collect();
            let network = self.bundle.intent();
            let batch = network.batch(&events, contents, self.bundle.device)?;
            to_vec(&network.encode_users(&batch, false)?)
        })
    }

    fn index(&self, items: &[IndexedItem]) -> Result<ItemIndex> {
        let vectors = self.bundle.catalogue_vectors(items, &contents_of(&self.contents))?;
        ItemIndex::of(items, &vectors, self.bundle.card.intent.width)
    }

    fn forecast(&self, items: &[ItemHistory]) -> Result<Vec<ItemForecast>> {
        let forecasts = self.bundle.demand().forecast(items, self.bundle.device)?;
        self.counters.items_forecast.fetch_add(items.len() as u64, Ordering::Relaxed);
        Ok(forecasts)
    }
}

fn to_vec(tensor: &Tensor) -> Result<Vec<f32>> {
    let flat = tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?.f_view([-1])?;
    Ok(Vec::<f32>::try_from(&flat)?)
}

/// A struct column, from whatever array an expression gave.
pub fn as_struct(array: &ArrayRef) -> Result<&StructArray> {
    use arrow::array::AsArray;
    array.as_struct_opt().ok_or_else(|| Failure::usage(format!("expected a struct, got {}", array.data_type())))
}
