//! Batches of histories with the targets of pretraining, made on the CPU.

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;
use std::sync::Arc;
use tch::{Device, Tensor};

use crate::config::networks::Pretraining;
use crate::failure::Result;
use crate::model::contents::{ContentBatch, ContentRows, Contents, rows_tensor};
use crate::model::events::EventBatch;
use crate::model::inputs::EventInput;
use crate::training::datasets::{Augmenter, BlockRows, EVENTS_MIN, Split, UserColumns};
use crate::training::fitting::{BatchBuilder, StepSeeds};

/// The share of events that `masked` masks; at least one of every history.
const MASKED_SHARE: f64 = 0.15;
/// Item targets of one batch; bounds the matrix of scores.
const ITEM_TARGETS_MAX: usize = 1024;

/// Histories of some users with their targets.
pub(crate) struct HistoryBatch {
    pub(crate) users: usize,
    pub(crate) first_user: String,
    pub(crate) examples: Examples,
}

pub(crate) enum Examples {
    /// Histories, perhaps with masked events, and the events to predict.
    Prediction(EventBatch, EventTargets),
    /// Two augmented copies of each history.
    Contrast(EventBatch, EventBatch),
}

/// Events to predict.
pub(crate) struct EventTargets {
    /// int64 [events]: indices of the states that predict them, over the flattened padded batch.
    pub(crate) places: Tensor,
    /// int64 [events].
    pub(crate) types: Tensor,
    /// `None` where fewer than two different items could be predicted.
    pub(crate) items: Option<ItemTargets>,
}

/// Events whose items are to be predicted, among the items of the batch.
pub(crate) struct ItemTargets {
    /// int64 [events]: as in [`EventTargets`].
    pub(crate) places: Tensor,
    /// int64 [events]: index of each event's item in `items`.
    pub(crate) truth: Tensor,
    /// int64 [items]: buckets of ids.
    pub(crate) items: Tensor,
    /// int64 [items]: buckets of categories.
    pub(crate) categories: Tensor,
    pub(crate) contents: Vec<ContentBatch>,
}

/// Rows in a split whose histories are long enough.
pub(crate) fn rows_with_history(users: &UserColumns, wanted: Split) -> Vec<usize> {
    users.rows_in(wanted).into_iter().filter(|&row| users.event_count(row) >= EVENTS_MIN).collect()
}

/// Builds batches for one method of pretraining.
#[derive(Clone)]
pub(crate) struct HistoryBatchBuilder {
    pub(crate) method: Pretraining,
    pub(crate) events_max: i64,
    pub(crate) contents: Arc<Contents>,
}

impl HistoryBatchBuilder {
    pub(crate) fn build(&self, users: &UserColumns, rows: &[usize], rng: &mut ChaCha8Rng) -> Result<HistoryBatch> {
        let taken = users.take(rows)?;
        let decoded = taken.histories();
        let histories: Vec<&[EventInput]> = decoded.iter().map(Vec::as_slice).collect();
        let examples = match self.method {
            Pretraining::Masked | Pretraining::None => self.masked(&histories, rng)?,
            Pretraining::NextEvent => self.next_event(&histories, rng)?,
            Pretraining::Contrastive => {
                Examples::Contrast(self.augmented(&histories, rng)?, self.augmented(&histories, rng)?)
            }
        };
        Ok(HistoryBatch { users: rows.len(), first_user: taken.id(0).to_string(), examples })
    }

    fn event_batch(&self, histories: &[&[EventInput]]) -> Result<EventBatch> {
        EventBatch::from_sequences(histories, self.events_max, &self.contents, Device::Cpu)
    }

    fn masked(&self, histories: &[&[EventInput]], rng: &mut ChaCha8Rng) -> Result<Examples> {
        let longest = histories.iter().map(|h| h.len()).max().unwrap_or(1);
        let mut masked_histories = Vec::new();
        let mut places = Vec::new();
        let mut masked = Vec::new();
        for (row, history) in histories.iter().enumerate() {
            let mut events = history.to_vec();
            let always_masked = rng.random_range(0..events.len());
            for (at, event) in events.iter_mut().enumerate() {
                if at == always_masked || rng.random_bool(MASKED_SHARE) {
                    places.push((row * longest + at) as i64);
                    masked.push(history[at]);
                    *event = event.masked();
                }
            }
            masked_histories.push(events);
        }
        let slices: Vec<&[EventInput]> = masked_histories.iter().map(Vec::as_slice).collect();
        Ok(Examples::Prediction(self.event_batch(&slices)?, self.targets(&places, &masked, rng)?))
    }

    fn next_event(&self, histories: &[&[EventInput]], rng: &mut ChaCha8Rng) -> Result<Examples> {
        let longest = histories.iter().map(|h| h.len()).max().unwrap_or(1);
        let mut places = Vec::new();
        let mut next = Vec::new();
        for (row, history) in histories.iter().enumerate() {
            places.extend((0..history.len() - 1).map(|at| (row * longest + at) as i64));
            next.extend(&history[1..]);
        }
        Ok(Examples::Prediction(self.event_batch(histories)?, self.targets(&places, &next, rng)?))
    }

    fn augmented(&self, histories: &[&[EventInput]], rng: &mut ChaCha8Rng) -> Result<EventBatch> {
        let copies: Vec<Vec<EventInput>> = histories.iter().map(|h| Augmenter::ALL.augment(h, rng)).collect();
        self.event_batch(&copies.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    fn targets(&self, places: &[i64], events: &[EventInput], rng: &mut ChaCha8Rng) -> Result<EventTargets> {
        let types: Vec<i64> = events.iter().map(|e| e.event_type).collect();
        let items = self.item_targets(places, events, rng)?;
        Ok(EventTargets { places: Tensor::f_from_slice(places)?, types: Tensor::f_from_slice(&types)?, items })
    }

    fn item_targets(&self, places: &[i64], events: &[EventInput], rng: &mut ChaCha8Rng) -> Result<Option<ItemTargets>> {
        let mut with_item: Vec<usize> = (0..events.len()).filter(|&i| events[i].item != 0).collect();
        with_item.shuffle(rng);
        with_item.truncate(ITEM_TARGETS_MAX);
        let mut candidates = Vec::new();
        let mut index = HashMap::new();
        let mut candidate = |&i: &usize| -> i64 {
            let item = (events[i].item, events[i].category, events[i].contents);
            *index.entry(item).or_insert_with(|| {
                candidates.push(item);
                candidates.len() as i64 - 1
            })
        };
        let truth: Vec<i64> = with_item.iter().map(&mut candidate).collect();
        if candidates.len() < 2 {
            return Ok(None);
        }
        let items: Vec<i64> = candidates.iter().map(|&(item, _, _)| item).collect();
        let categories: Vec<i64> = candidates.iter().map(|&(_, category, _)| category).collect();
        let content_rows: Vec<ContentRows> = candidates.iter().map(|&(_, _, contents)| contents).collect();
        let item_places: Vec<i64> = with_item.iter().map(|&i| places[i]).collect();
        Ok(Some(ItemTargets {
            places: Tensor::f_from_slice(&item_places)?,
            truth: Tensor::f_from_slice(&truth)?,
            items: Tensor::f_from_slice(&items)?,
            categories: Tensor::f_from_slice(&categories)?,
            contents: self.contents.gather(&rows_tensor(&content_rows)?)?,
        }))
    }
}

/// Builds the batches of one epoch, with the random numbers of its steps.
pub(crate) struct HistoryBatches {
    pub(crate) builder: HistoryBatchBuilder,
    pub(crate) step_seeds: StepSeeds,
}

impl BatchBuilder for HistoryBatches {
    type Rows = UserColumns;
    type Batch = HistoryBatch;

    fn select_rows(&mut self, window: &UserColumns) -> Vec<usize> {
        rows_with_history(window, Split::Train)
    }

    fn tokens(&self, window: &UserColumns, row: usize) -> usize {
        window.event_count(row)
    }

    fn build(&self, window: &UserColumns, rows: &[usize], rng: &mut ChaCha8Rng) -> Result<HistoryBatch> {
        self.builder.build(window, rows, rng)
    }

    fn step_rng(&self, number: u64) -> Option<ChaCha8Rng> {
        Some(self.step_seeds.rng(number))
    }
}
