//! Self-supervised pretraining: the encoder learns from histories alone, before it sees any label.
//!
//! - `masked` predicts masked events from those around them (BERT4Rec, Sun et al. 2019, arXiv:1904.06690).
//! - `next_event` predicts each event from the ones before it (SASRec, Kang and McAuley 2018, arXiv:1808.09781).
//! - `contrastive` makes two augmented copies of one history more similar to each other than to those of other users
//!   (CL4SRec, Xie et al. 2022; the loss is NT-Xent, Chen et al. 2020, arXiv:2002.05709, equation 1).
//!
//! In come blocks of users; out go the encoder's weights. Pretraining has no weights of its own, so all that it learns
//! stays: event types are predicted through their embeddings, items through the taste and item vectors that recommend,
//! against the other items of the batch. `intents` calls.

mod history_batches;
mod nt_xent;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;
use tch::{Device, Tensor};

use crate::config::networks::Pretraining;
use crate::failure::Result;
use crate::model::contents::Contents;
use crate::model::events::EventBatch;
use crate::model::intent::IntentNetwork;
use crate::training::datasets::{Split, UserBlocks};
use crate::training::fitting::{BatchLoss, Batches, Epoch, EpochSize, TrainingTask, Validation, batches_of_blocks};
use history_batches::{EventTargets, Examples, HistoryBatch, HistoryBatchBuilder, HistoryBatches, rows_with_history};
use nt_xent::nt_xent;

/// The users to pretrain on.
#[derive(Clone, Copy)]
pub(crate) struct HistoryData<'a> {
    /// Users to train on: those of the training split with enough events, labelled or not.
    pub(crate) users: &'a Arc<UserBlocks>,
    /// Number of histories that are used.
    pub(crate) histories: usize,
    /// Users whose validation split decides on early stopping.
    pub(crate) held_out: &'a UserBlocks,
    pub(crate) contents: &'a Arc<Contents>,
}

#[derive(Clone, Copy)]
pub(crate) struct PretrainingOptions {
    pub(crate) method: Pretraining,
    pub(crate) batch_rows: usize,
    pub(crate) device: Device,
    /// Seed of the validation batches.
    pub(crate) seed: u64,
}

pub(crate) struct PretrainingTask<'a> {
    network: &'a IntentNetwork,
    data: HistoryData<'a>,
    options: PretrainingOptions,
    builder: HistoryBatchBuilder,
}

impl<'a> PretrainingTask<'a> {
    pub(crate) fn new(network: &'a IntentNetwork, data: HistoryData<'a>, options: PretrainingOptions) -> Self {
        let builder = HistoryBatchBuilder {
            method: options.method,
            events_max: network.shape.events_max,
            contents: Arc::clone(data.contents),
        };
        Self { network, data, options, builder }
    }

    fn loss_of(&self, batch: &HistoryBatch, train: bool) -> Result<Tensor> {
        let encode = |events: &EventBatch| self.network.encode_users(&events.to(self.options.device)?, train);
        match &batch.examples {
            Examples::Prediction(events, targets) => {
                let states = self.network.event_states(&events.to(self.options.device)?, train)?;
                let flattened = states.f_contiguous()?.f_view([-1, self.network.shape.width])?;
                self.prediction_loss(&flattened, targets)
            }
            Examples::Contrast(one, other) => Ok(nt_xent(&encode(one)?, &encode(other)?)),
        }
    }

    /// Cross-entropy of the type of each target, and of its item among the items of the batch, by the flattened states. Both
    /// weigh the same, however few events have an item.
    fn prediction_loss(&self, states: &Tensor, targets: &EventTargets) -> Result<Tensor> {
        let on_device = |ids: &Tensor| ids.f_to_device(self.options.device);
        let states_at = |places: &Tensor| -> Result<Tensor> { Ok(states.f_index_select(0, &on_device(places)?)?) };
        let types = self.network.event_type_logits(&states_at(&targets.places)?);
        let type_loss = types.cross_entropy_for_logits(&on_device(&targets.types)?);
        let Some(items) = &targets.items else { return Ok(type_loss) };
        let contents =
            items.contents.iter().map(|vectors| vectors.to(self.options.device)).collect::<Result<Vec<_>>>()?;
        let (vectors, bias) =
            self.network.items(&on_device(&items.items)?, &on_device(&items.categories)?, &contents)?;
        let taste = self.network.user_vectors(&states_at(&items.places)?);
        let scores = taste.f_matmul(&vectors.transpose(0, 1))? + bias;
        Ok(type_loss + scores.cross_entropy_for_logits(&on_device(&items.truth)?))
    }
}

impl TrainingTask for PretrainingTask<'_> {
    type Batch = HistoryBatch;

    fn name(&self) -> &'static str {
        "pretraining"
    }

    fn samples_per_epoch(&self) -> usize {
        self.data.histories
    }

    fn batch_samples(&self, batch: &HistoryBatch) -> usize {
        batch.users
    }

    fn batches(&self, epoch: Epoch) -> Result<Batches<HistoryBatch>> {
        let size = EpochSize { batch_rows_max: self.options.batch_rows, samples_max: usize::MAX };
        let builder = HistoryBatches { builder: self.builder.clone(), step_seeds: epoch.step_seeds.clone() };
        batches_of_blocks(self.data.users, builder, size, epoch)
    }

    fn loss(&mut self, batch: &HistoryBatch, _: &mut ChaCha8Rng) -> Result<BatchLoss> {
        Ok(self.loss_of(batch, true)?.into())
    }

    fn describe_batch(&self, batch: &HistoryBatch) -> String {
        format!("{} histories, the first of user {}", batch.users, batch.first_user)
    }

    /// Masks the same events and makes the same copies each time, so that epochs can be compared.
    fn validate(&mut self) -> Result<Option<Validation>> {
        let _guard = tch::no_grad_guard();
        let mut rng = ChaCha8Rng::seed_from_u64(self.options.seed);
        let mut sum = 0.0;
        let mut users = 0;
        for window in self.data.held_out.each_window() {
            let window = window?;
            for rows in rows_with_history(&window, Split::Valid).chunks(self.options.batch_rows) {
                let batch = self.builder.build(&window, rows, &mut rng)?;
                let loss = self.loss_of(&batch, false)?.double_value(&[]);
                sum += loss * rows.len() as f64;
                users += rows.len();
            }
        }
        Ok((users > 0).then(|| Validation { loss: sum / users as f64, figures: Vec::new() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::networks::{BackboneName, HeadName};
    use crate::model::contents::ContentRows;
    use crate::model::inputs::EventInput;
    use crate::model::shape::IntentShape;
    use crate::training::datasets::user_columns::tests::{day, random};
    use crate::training::datasets::{LabelledUsers, UserColumns};
    use tch::nn::{self, OptimizerConfig};

    fn network(backbone: BackboneName, store: &nn::VarStore) -> IntentNetwork {
        let tiny = IntentShape::tiny(backbone, HeadName::Sigmoid);
        let shape = IntentShape { width: 16, item_buckets: 20, events_max: 32, ..tiny };
        IntentNetwork::new(&store.root(), &shape)
    }

    /// Users who visit the same ten items in turn, each from another start.
    fn walkers(users: usize) -> LabelledUsers {
        let event = |i: usize| EventInput {
            event_type: 1 + (i % 2) as i64,
            item: 1 + (i % 10) as i64,
            category: 1,
            contents: ContentRows::default(),
            reals: [0.0; 8],
        };
        let mut labelled = random(users, 0, 1);
        labelled.inputs.events = (0..users).map(|u| (u..u + 12).map(event).collect()).collect();
        labelled
    }

    fn blocks(labelled: &LabelledUsers) -> Arc<UserBlocks> {
        Arc::new(UserBlocks::in_memory(UserColumns::from_users(labelled, 1, day()).unwrap()).unwrap())
    }

    /// The validation loss before and after some epochs.
    fn losses(method: Pretraining, backbone: BackboneName) -> (f64, f64) {
        tch::manual_seed(3);
        let store = nn::VarStore::new(Device::Cpu);
        let (network, users) = (network(backbone, &store), blocks(&walkers(60)));
        let contents = Arc::new(Contents::default());
        let data = HistoryData { users: &users, histories: 48, held_out: &users, contents: &contents };
        let options = PretrainingOptions { method, batch_rows: 32, device: Device::Cpu, seed: 1 };
        let mut task = PretrainingTask::new(&network, data, options);
        let mut optimizer = nn::AdamW::default().build(&store, 0.01).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let before = task.validate().unwrap().unwrap().loss;
        for epoch in 0..60 {
            let mut batches = task.batches(Epoch::first(epoch)).unwrap();
            let loss = task.loss(&batches.next().unwrap().unwrap(), &mut rng).unwrap().trained;
            optimizer.backward_step(&loss);
        }
        (before, task.validate().unwrap().unwrap().loss)
    }

    #[test]
    fn each_method_lowers_the_loss_on_held_out_users() {
        for (method, backbone) in [
            (Pretraining::Masked, BackboneName::Transformer),
            (Pretraining::NextEvent, BackboneName::Causal),
            (Pretraining::NextEvent, BackboneName::Gru),
        ] {
            let (before, after) = losses(method, backbone);
            assert!(after < before - 1.0, "{method:?}, {backbone:?}: {before} {after}");
        }
        let (before, after) = losses(Pretraining::Contrastive, BackboneName::Transformer);
        assert!(after < before, "contrastive: {before} {after}");
    }

    #[test]
    fn short_histories_are_left_out() {
        let mut labelled = walkers(60);
        labelled.inputs.events.iter_mut().skip(1).step_by(2).for_each(|events| events.truncate(1));
        let users = blocks(&labelled);
        let store = nn::VarStore::new(Device::Cpu);
        let (network, contents) = (network(BackboneName::Causal, &store), Arc::new(Contents::default()));
        let data = HistoryData { users: &users, histories: 30, held_out: &users, contents: &contents };
        let method = Pretraining::NextEvent;
        let options = PretrainingOptions { method, batch_rows: 8, device: Device::Cpu, seed: 1 };
        let task = PretrainingTask::new(&network, data, options);
        let mut used = 0;
        for batch in task.batches(Epoch::first(1)).unwrap().map(Result::unwrap) {
            let Examples::Prediction(events, _) = &batch.examples else { panic!("copies, not events") };
            assert!(Vec::<i64>::try_from(&events.lengths).unwrap().iter().all(|length| *length == 12));
            used += batch.users;
        }
        assert!((15..=30).contains(&used), "{used}");
    }
}
