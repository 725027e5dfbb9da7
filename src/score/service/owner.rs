//! A thread that owns a network and answers the requests of the service.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use tch::{Device, Kind, Tensor};
use tokio::sync::mpsc;

use super::counters::Counters;
use super::encoder_states::{EncoderState, EncoderStateCache};
use super::explanation::Explanation;
use super::item_index::ItemIndex;
use super::requests::{Answer, IntentScores, Request};
use super::shared_contents::SharedContents;
use crate::failure::{Failure, Result};
use crate::model::blend::Blender;
use crate::model::bundle::{Bundle, IndexedItem};
use crate::model::contents::Contents;
use crate::model::demand::{ItemForecast, ItemHistory};
use crate::model::inputs::{EventInput, UserInputs};
use crate::model::out_of_memory::retry_in_halves;
use crate::model::targets::OUTPUTS;
use crate::score::lock::lock;

pub(super) struct Owner {
    pub(crate) bundle: Bundle,
    pub(crate) pool_rows_max: usize,
    pub(crate) batch_tokens_max: usize,
    /// Threads of libtorch within one operation.
    pub(crate) threads: usize,
    pub(crate) counters: Arc<Counters>,
    pub(crate) states: Arc<Mutex<EncoderStateCache>>,
    pub(crate) contents: Arc<SharedContents>,
    pub(crate) blender: Blender,
}

impl Owner {
    /// Answers requests until all callers are gone.
    pub(super) fn serve(self, requests: &Mutex<mpsc::Receiver<Request>>) {
        // Both settings belong to the thread. The guard lasts as long as the thread: after a panic `tch::no_grad(closure)`
        // would leave gradients switched for good.
        tch::set_num_threads(self.threads as i32);
        let _no_gradients = tch::no_grad_guard();
        while let Some(taken) = self.take(requests) {
            let mut users = Vec::new();
            for request in taken {
                match request {
                    // A caller that is gone needs no answer.
                    Request::Items(items, answer) => {
                        answer.send(self.guarded(|| self.forecast(&items))).unwrap_or_default();
                    }
                    Request::Catalogue(items, answer) => {
                        answer.send(self.guarded(|| self.index(&items))).unwrap_or_default();
                    }
                    // A caller that is gone needs no answer, and this one takes long.
                    Request::Explain(_, _, answer) if answer.is_closed() => {}
                    Request::Explain(inputs, target, answer) => {
                        answer.send(self.guarded(|| self.explain(&inputs, target))).unwrap_or_default();
                    }
                    Request::OwnContents(inputs, contents, answer) => {
                        let scored = self.guarded(|| self.score(&inputs, 0..inputs.len(), &contents));
                        answer.send(scored).unwrap_or_default();
                    }
                    Request::Users(inputs, answer) => users.push((inputs, answer)),
                }
            }
            if !users.is_empty() {
                self.score_pool(users);
            }
        }
    }

    /// Waits for a request, then takes the others that wait, up to this owner's share; `None` when all callers are gone.
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

    /// Scores pooled requests. If the pool fails, scores each request alone, so that one bad user fails one request.
    fn score_pool(&self, requests: Vec<(UserInputs, Answer<IntentScores>)>) {
        self.counters.pools.fetch_add(1, Ordering::Relaxed);
        let sizes: Vec<usize> = requests.iter().map(|(i, _)| i.len()).collect();
        let mut pool = UserInputs::default();
        let mut answers = Vec::new();
        for (inputs, answer) in requests {
            pool.append(inputs);
            answers.push(answer);
        }
        let mut from = 0;
        // Read after the inputs were, so that it holds all of their rows.
        let contents = self.contents.now();
        match self.guarded(|| self.score(&pool, 0..pool.len(), &contents)) {
            Ok(all) => {
                let width = self.bundle.card.intent.width as usize;
                for (size, answer) in sizes.into_iter().zip(answers) {
                    let part = IntentScores {
                        scores: all.scores[from * OUTPUTS.len()..(from + size) * OUTPUTS.len()].to_vec(),
                        tastes: all.tastes[from * width..(from + size) * width].to_vec(),
                        members: all.members.rows(from..from + size),
                    };
                    answer.send(Ok(part)).unwrap_or_default();
                    from += size;
                }
            }
            Err(_) => {
                for (size, answer) in sizes.into_iter().zip(answers) {
                    answer.send(self.guarded(|| self.score(&pool, from..from + size, &contents))).unwrap_or_default();
                    from += size;
                }
            }
        }
    }

    /// Turns a panic of the bindings into an error, so that the thread survives it.
    fn guarded<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            // A panic can leave gradients switched on (`tch::with_grad` restores them only when it returns).
            std::mem::forget(tch::no_grad_guard());
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            Err(Failure::bug(format!("scoring: {}", text.lines().next().unwrap_or("panic"))))
        })
    }

    fn score(&self, pool: &UserInputs, rows: Range<usize>, contents: &Contents) -> Result<IntentScores> {
        let width = self.bundle.card.intent.width as usize;
        let keys: Vec<u128> = rows.clone().map(|r| pool.encoder_key(r, contents)).collect();
        let mut states: Vec<Option<EncoderState>> = {
            let mut cache = lock(&self.states);
            keys.iter().map(|&key| cache.find(key)).collect()
        };
        let mut missing: Vec<usize> = rows.clone().filter(|r| states[r - rows.start].is_none()).collect();
        self.counters.users_kept.fetch_add((rows.len() - missing.len()) as u64, Ordering::Relaxed);
        missing.sort_by_key(|&r| pool.events[r].len());
        let mut start = 0;
        while start < missing.len() {
            let end = self.batch_end(pool, &missing, start);
            let encoded = self.encode(pool, &missing[start..end], contents)?;
            let mut cache = lock(&self.states);
            for (i, &row) in missing[start..end].iter().enumerate() {
                let state: EncoderState = encoded[i * width..(i + 1) * width].into();
                cache.insert_used(keys[row - rows.start], Arc::clone(&state));
                states[row - rows.start] = Some(state);
            }
            start = end;
        }
        self.counters.users_encoded.fetch_add(missing.len() as u64, Ordering::Relaxed);

        let flat: Vec<f32> = states.iter().flatten().flat_map(|s| s.iter().copied()).collect();
        let states =
            Tensor::f_from_slice(&flat)?.f_view([rows.len() as i64, width as i64])?.f_to_device(self.bundle.device)?;
        let members: Vec<usize> = rows.clone().collect();
        let scaling = &self.bundle.card.scaling;
        let raw = self.bundle.intent().outputs_for_rows(&states, pool, &members, scaling, false)?;
        let mut scores = to_vec(&self.bundle.intent().scores(&raw, scaling)?)?;
        let features = self.bundle.card.features.0.len();
        let tabular = &pool.tabular[rows.start * features..rows.end * features];
        let tree_log_odds = self.bundle.trees().map(|trees| trees.log_odds(tabular)).unwrap_or_default();
        let members = self.blender.blend(&mut scores, tree_log_odds, tabular);
        let tastes = to_vec(&self.bundle.intent().user_vectors(&states))?;
        if let Some(at) = scores.iter().position(|s| !s.is_finite()) {
            let user = &pool.user_ids[rows.start + at / OUTPUTS.len()];
            return Err(Failure::model(format!("user {user}: {} is not finite", OUTPUTS[at % OUTPUTS.len()]))
                .hint("look at the user's row in user_features; an infinite price or count is the usual cause"));
        }
        // Counted last: each request of a pool that fails is scored again.
        self.counters.users_scored.fetch_add(rows.len() as u64, Ordering::Relaxed);
        Ok(IntentScores { scores, tastes, members })
    }

    /// The end of the batch that starts at `start`: padded to its longest (last) member, it fits the token budget.
    fn batch_end(&self, pool: &UserInputs, sorted: &[usize], start: usize) -> usize {
        let budget = self.batch_tokens_max;
        let mut end = start + 1;
        while end < sorted.len() && (end - start + 1) * pool.events[sorted[end]].len().max(1) <= budget {
            end += 1;
        }
        end
    }

    /// Encoder states, row-major [rows, width].
    fn encode(&self, pool: &UserInputs, rows: &[usize], contents: &Contents) -> Result<Vec<f32>> {
        retry_in_halves(rows, "users", &self.counters.batches_halved, &|rows: &[usize]| {
            self.counters.model_batches.fetch_add(1, Ordering::Relaxed);
            let events: Vec<&[EventInput]> = rows.iter().map(|&r| pool.events[r].as_slice()).collect();
            let network = self.bundle.intent();
            let batch = network.batch(&events, contents, self.bundle.device)?;
            to_vec(&network.encode_users(&batch, false)?)
        })
    }

    fn explain(&self, user: &UserInputs, target: usize) -> Result<Explanation> {
        let (network, scaling) = (self.bundle.intent(), &self.bundle.card.scaling);
        let events = user.events.first().ok_or_else(|| Failure::bug("expected one user to explain, got none"))?;
        let inputs = scaling.head_inputs(&user.tabular, &user.idle_log_hours)?.f_to_device(self.bundle.device)?;
        let batch = network.batch(&[events], &self.contents.now(), self.bundle.device)?;
        let shares = network.attributions(&batch, &inputs, target, self.batch_tokens_max)?;
        let trees = self.bundle.trees().and_then(|trees| trees.shares(&user.tabular, target));
        Ok(Explanation::new(shares, trees, self.blender.combination(target, &user.tabular)))
    }

    fn index(&self, items: &[IndexedItem]) -> Result<ItemIndex> {
        let vectors = self.bundle.catalogue_vectors(items, &self.contents.now())?;
        ItemIndex::new(items, &vectors, self.bundle.card.intent.width)
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
