//! Batches of users: inputs, labels and next items, and for semi-supervised learning users without labels.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;
use tch::{Device, Tensor};

use crate::config::networks::Unlabelled;
use crate::failure::Result;
use crate::model::contents::Contents;
use crate::model::events::EventBatch;
use crate::model::inputs::EventInput;
use crate::model::scaling::Scaling;
use crate::model::targets::{LABELS, PURCHASE};
use crate::training::datasets::{Augmenter, BlockRows, Split, UserColumns, is_in_share};
use crate::training::fitting::{BatchBuilder, TOKENS_MAX};

/// Inputs and labels of some users, on the CPU.
pub(crate) struct UserBatch {
    pub(crate) first_user: String,
    pub(crate) users: usize,
    pub(crate) events: EventBatch,
    /// Scaled features, see [`Scaling::head_inputs`].
    pub(crate) tabular: Tensor,
    /// float32 [users, 9].
    pub(crate) labels: Tensor,
    pub(crate) next_items: Option<NextItems>,
    pub(crate) unlabelled: Option<UnlabelledBatch>,
}

/// One next item for each user who has any.
pub(crate) struct NextItems {
    /// int64: indices of the users in the batch.
    pub(crate) users: Tensor,
    /// int64: positions of their items in the item index.
    pub(crate) items: Tensor,
}

/// Users whose labels are not used.
pub(crate) struct UnlabelledBatch {
    /// Their histories, for the teacher.
    pub(crate) events: EventBatch,
    /// Augmented histories, for the student.
    pub(crate) augmented: EventBatch,
    pub(crate) tabular: Tensor,
}

/// Builds batches of users.
pub(crate) struct UserBatchBuilder {
    pub(crate) scaling: Scaling,
    pub(crate) contents: Arc<Contents>,
    pub(crate) augmenter: Augmenter,
    pub(crate) events_max: i64,
    /// Splits whose users are trained on.
    pub(crate) splits: &'static [Split],
    pub(crate) labels_share: f64,
    pub(crate) unlabelled: Unlabelled,
    /// Rows of the window in these splits whose labels are not used.
    pub(crate) unlabelled_rows: Vec<usize>,
}

impl BatchBuilder for UserBatchBuilder {
    type Rows = UserColumns;
    type Batch = UserBatch;

    fn select_rows(&mut self, window: &UserColumns) -> Vec<usize> {
        let all = self.splits.iter().flat_map(|&split| window.rows_in(split)).filter(|&row| has_intents(window, row));
        let (labelled, unlabelled) = all.partition(|&row| is_in_share(window.id(row), self.labels_share));
        self.unlabelled_rows = unlabelled;
        labelled
    }

    fn tokens(&self, window: &UserColumns, row: usize) -> usize {
        window.event_count(row)
    }

    fn build(&self, window: &UserColumns, rows: &[usize], rng: &mut ChaCha8Rng) -> Result<UserBatch> {
        let users = window.take(rows)?;
        let draws: Vec<f64> = rows.iter().map(|_| rng.random()).collect();
        let events = match self.augmenter.changes_nothing() {
            true => users.events(self.events_max, &self.contents)?,
            false => self.augmented_events(&users, &self.augmenter, rng)?,
        };
        let next_items = users.sample_next_items(&draws)?;
        Ok(UserBatch {
            first_user: users.id(0).to_string(),
            users: rows.len(),
            events,
            tabular: users.scaled_features(&self.scaling)?,
            labels: users.labels_tensor()?,
            next_items: next_items.map(|(rows_with_item, items)| NextItems { users: rows_with_item, items }),
            unlabelled: self.unlabelled_batch(window, rows.len(), rng)?,
        })
    }
}

/// Returns whether the intents of a row are known. Of held-out rows only churn may be, which the objective does not allow for.
fn has_intents(users: &UserColumns, row: usize) -> bool {
    !users.labels()[row * LABELS.len() + PURCHASE].is_nan()
}

/// Returns whether batches of labelled users have a row.
pub(super) fn is_trained_on(users: &UserColumns, row: usize, labels_share: f64) -> bool {
    has_intents(users, row) && is_in_share(users.id(row), labels_share)
}

impl UserBatchBuilder {
    /// Draws `users` users without labels, fewer if the token bound asks for it. `None` if there are none or they are not
    /// used.
    fn unlabelled_batch(
        &self,
        window: &UserColumns,
        users: usize,
        rng: &mut ChaCha8Rng,
    ) -> Result<Option<UnlabelledBatch>> {
        let mut rows: Vec<usize> = match self.unlabelled {
            Unlabelled::None => return Ok(None),
            Unlabelled::Consistency | Unlabelled::PseudoLabels => {
                self.unlabelled_rows.choose_multiple(rng, users).copied().collect()
            }
        };
        let longest = rows.iter().map(|&row| window.event_count(row)).max().unwrap_or(0).max(1);
        rows.truncate((TOKENS_MAX / longest).max(1));
        if rows.is_empty() {
            return Ok(None);
        }
        let taken = window.take(&rows)?;
        Ok(Some(UnlabelledBatch {
            events: taken.events(self.events_max, &self.contents)?,
            augmented: self.augmented_events(&taken, &Augmenter::ALL, rng)?,
            tabular: taken.scaled_features(&self.scaling)?,
        }))
    }

    fn augmented_events(&self, users: &UserColumns, augmenter: &Augmenter, rng: &mut ChaCha8Rng) -> Result<EventBatch> {
        let copies: Vec<Vec<EventInput>> =
            users.histories().iter().map(|events| augmenter.augment(events, rng)).collect();
        let slices: Vec<&[EventInput]> = copies.iter().map(Vec::as_slice).collect();
        EventBatch::from_sequences(&slices, self.events_max, &self.contents, Device::Cpu)
    }
}
