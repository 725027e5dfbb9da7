//! The training task of the intent network.

use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::{Device, Tensor, nn};

use super::blend_weights;
use super::intent_data::IntentData;
use super::intent_evaluation::{Evaluation, Evaluator};
use super::latest_items;
use super::next_item_loss::NextItemLoss;
use super::objective::Objective;
use super::semi_supervised;
use super::user_batches::{UnlabelledBatch, UserBatch, UserBatchBuilder};
use crate::config::Config;
use crate::failure::Result;
use crate::model::blend::{Activity, Blend};
use crate::model::contents::MODALITIES;
use crate::model::events::EventBatch;
use crate::model::intent::IntentNetwork;
use crate::model::latest_items::LatestItems;
use crate::model::scaling::Scaling;
use crate::model::targets::{BINARY, TARGETS};
use crate::model::trees::IntentTrees;
use crate::training::datasets::{Augmenter, Split, UserBlocks};
use crate::training::fitting::{
    BatchLoss, Batches, Epoch, EpochSize, StepOptions, TrainingTask, Validation, batches_of_blocks,
};

/// Weight of the next-item loss against the intents.
const NEXT_ITEM_WEIGHT: f64 = 0.3;

pub(crate) struct IntentTask<'a> {
    network: &'a IntentNetwork,
    data: IntentData<'a>,
    config: &'a Config,
    /// Share of positives of each intent and of churn, among the labelled users.
    base_rates: Vec<f64>,
    objective: Objective,
    next_item_loss: NextItemLoss,
    /// Set for the training that follows the figures: the users, and how many of their rows are labelled.
    refit: Option<(Arc<UserBlocks>, usize)>,
    device: Device,
    /// Factors of learning rates, as in [`StepOptions::rate_factors`].
    rate_factors: BTreeMap<String, f64>,
}

impl<'a> IntentTask<'a> {
    pub(crate) fn new(
        network: &'a IntentNetwork,
        store: &nn::VarStore,
        data: IntentData<'a>,
        config: &'a Config,
    ) -> Result<Self> {
        let device = store.device();
        Ok(Self {
            network,
            data,
            config,
            base_rates: data.statistics.base_rates(),
            objective: Objective::new(&config.model, &config.train, data.statistics, device)?,
            next_item_loss: NextItemLoss::new(
                data,
                network.shape.item_buckets,
                config.train.full_softmax_items_max,
                device,
            )?,
            refit: None,
            device,
            rate_factors: content_rate_factors(network, store),
        })
    }

    pub(crate) fn item_buckets(&self) -> u64 {
        self.network.shape.item_buckets
    }

    /// Trains on these users of all splits from now on, without validation. `labelled` of their rows are trained on.
    pub(crate) fn refit_on(&mut self, users: Arc<UserBlocks>, labelled: usize) {
        self.refit = Some((users, labelled));
    }

    fn scaling(&self) -> &Scaling {
        &self.data.statistics.scaling
    }

    fn evaluator(&self) -> Evaluator<'_> {
        Evaluator {
            network: self.network,
            scaling: self.scaling(),
            contents: self.data.contents.as_ref(),
            device: self.device,
            trees: None,
            activity: Activity::new(self.data.contract),
        }
    }

    /// The loss of users without labels.
    fn unlabelled_loss(&self, batch: &UnlabelledBatch) -> Result<Tensor> {
        let tabular = batch.tabular.f_to_device(self.device)?;
        let scores = |events: &EventBatch, train: bool| -> Result<Tensor> {
            let states = self.network.encode_users(&events.to(self.device)?, train)?;
            let raw = self.network.outputs(&states, &tabular, train)?;
            Ok(self.network.scores(&raw, self.scaling())?.narrow(1, 0, BINARY as i64))
        };
        let teacher = tch::no_grad(|| scores(&batch.events, false))?;
        let student = scores(&batch.augmented, true)?;
        Ok(semi_supervised::loss(self.config.train.unlabelled, &student, &teacher, &self.base_rates))
    }

    /// Learns how likely the next item is one of the last events'; returns it with figures of the test users.
    pub(crate) fn latest_items(&self) -> Result<(Option<LatestItems>, BTreeMap<String, f64>)> {
        latest_items::learn(&self.evaluator(), self.data, self.config.train.seed)
    }

    /// Learns the blend of the network with the trees on the validation users. Returns it with figures of the test users at the
    /// newest date, and those of the validation users that a sweep compares by.
    pub(crate) fn blend_and_figures(&self, trees: Option<&IntentTrees>) -> Result<(Blend, BTreeMap<String, f64>)> {
        let evaluate =
            |split: Split| Evaluation::try_new(Evaluator { trees, ..self.evaluator() }, self.data.held_out, split);
        let mut blend = Blend::default();
        let mut figures = BTreeMap::from([
            ("users_train".to_string(), self.data.statistics.labelled as f64),
            // How many windows of `train.memory_bytes_max` an epoch reads.
            ("windows_train".to_string(), self.data.train.windows(None).len() as f64),
        ]);
        let valid = evaluate(Split::Valid)?;
        for target in (0..BINARY).filter(|&target| trees.is_some_and(|trees| trees.has(target))) {
            // Without validation users the weights are equal.
            let users = valid.as_ref().map(|valid| valid.member_scores(target)).unwrap_or_default();
            blend.0.insert(TARGETS[target].name.into(), blend_weights::fit(&users));
        }
        if let Some(mut valid) = valid {
            valid.blend(&blend);
            figures.insert("log_loss_valid".into(), valid.log_loss());
            if let Some(auc) = valid.auc_purchase() {
                figures.insert("auc_valid_purchase".into(), auc);
            }
            figures.extend(valid.thresholds());
        }
        if let Some(users_per_second) = self.evaluator().users_per_second(self.data.held_out)? {
            figures.insert("users_scored_per_second".into(), users_per_second);
        }
        let test = evaluate(Split::Test)?;
        figures.insert("users_test".into(), test.as_ref().map_or(0, Evaluation::users) as f64);
        if let Some(mut test) = test {
            test.blend(&blend);
            figures.extend(test.figures(self.network, &blend, &self.base_rates, self.config.train.seed)?);
        }
        Ok((blend, figures))
    }
}

impl TrainingTask for IntentTask<'_> {
    type Batch = UserBatch;

    fn name(&self) -> &'static str {
        if self.refit.is_some() { "refit" } else { "intents" }
    }

    fn samples_per_epoch(&self) -> usize {
        self.refit.as_ref().map_or(self.data.statistics.labelled, |(_, labelled)| *labelled)
    }

    fn batch_samples(&self, batch: &UserBatch) -> usize {
        batch.users
    }

    fn step_options(&self) -> StepOptions {
        StepOptions { rate_factors: self.rate_factors.clone(), ..StepOptions::default() }
    }

    fn batches(&self, epoch: Epoch) -> Result<Batches<UserBatch>> {
        let train = &self.config.train;
        let builder = UserBatchBuilder {
            scaling: self.scaling().clone(),
            contents: Arc::clone(self.data.contents),
            augmenter: Augmenter::from_config(train),
            events_max: self.network.shape.events_max,
            splits: if self.refit.is_some() { &[Split::Train, Split::Valid, Split::Test] } else { &[Split::Train] },
            labels_share: train.labels_share,
            unlabelled: train.unlabelled,
            unlabelled_rows: Vec::new(),
        };
        let size = EpochSize { batch_rows_max: train.batch_rows as usize, samples_max: usize::MAX };
        batches_of_blocks(self.refit.as_ref().map_or(self.data.train, |(users, _)| users), builder, size, epoch)
    }

    fn loss(&mut self, batch: &UserBatch, rng: &mut ChaCha8Rng) -> Result<BatchLoss> {
        let states = self.network.encode_users(&batch.events.to(self.device)?, true)?;
        let raw = self.network.outputs(&states, &batch.tabular.f_to_device(self.device)?, true)?;
        let labels = batch.labels.f_to_device(self.device)?;
        let label_loss = self.objective.loss(self.network.head.as_ref(), &raw, &labels, self.scaling(), true);
        // A new tensor, so that adding to it in place leaves the reported loss as it is.
        let mut loss = &label_loss * 1.0;
        if let Some(unlabelled) = &batch.unlabelled {
            loss += self.unlabelled_loss(unlabelled)? * self.config.train.unlabelled_weight;
        }
        if let Some(next_items) = &batch.next_items
            && let Some(next_item_loss) = self.next_item_loss.loss(self.network, &states, next_items, rng)?
        {
            loss += next_item_loss * NEXT_ITEM_WEIGHT;
        }
        Ok(BatchLoss { trained: loss, reported: Some(label_loss.detach()) })
    }

    fn describe_batch(&self, batch: &UserBatch) -> String {
        format!("{} users, the first {}", batch.users, batch.first_user)
    }

    /// Validates by the training objective itself, whatever the loss.
    fn validate(&mut self) -> Result<Option<Validation>> {
        if self.refit.is_some() {
            return Ok(None);
        }
        let Some(valid) = Evaluation::try_new(self.evaluator(), self.data.held_out, Split::Valid)? else {
            return Ok(None);
        };
        let _guard = tch::no_grad_guard();
        let head = self.network.head.as_ref();
        let loss = self.objective.loss(head, &valid.raw, &valid.labels, self.scaling(), false);
        let figures = valid.auc_purchase().map(|auc| ("auc_valid_purchase", auc)).into_iter().collect();
        Ok(Some(Validation { loss: loss.double_value(&[]), figures }))
    }
}

/// Rate factors of the weights that map contents. Content vectors have length one, so their numbers are about 1 / √dims
/// while other inputs are near one. Adam's steps do not depend on scale, so without the factor √dims contents would move
/// the output that much less.
fn content_rate_factors(network: &IntentNetwork, store: &nn::VarStore) -> BTreeMap<String, f64> {
    let dims_by_layer: BTreeMap<String, i64> =
        MODALITIES.iter().map(|name| format!("content_{name}")).zip(network.shape.content_dims).collect();
    let factor = |weight: &String| {
        let dims = weight.split('.').find_map(|part| dims_by_layer.get(part)).filter(|_| !weight.ends_with("bias"))?;
        Some((weight.clone(), (*dims as f64).sqrt()))
    };
    store.variables().keys().filter_map(factor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::networks::{BackboneName, FusionName, HeadName};
    use crate::model::shape::IntentShape;

    #[test]
    fn content_weights_get_the_square_root_of_their_dimensions() {
        let store = nn::VarStore::new(Device::Cpu);
        let tiny = IntentShape::tiny(BackboneName::Gru, HeadName::Sigmoid);
        let shape = IntentShape { content_dims: [0, 16, 4], fusion: FusionName::Gate, ..tiny };
        let network = IntentNetwork::new(&(store.root() / "intent"), &shape);
        let expected = |name: &str| (format!("intent.{name}"), if name.contains("image") { 4.0 } else { 2.0 });
        let maps = ["content_image.weight", "content_video.query", "content_video.value.weight"];
        assert_eq!(content_rate_factors(&network, &store), BTreeMap::from(maps.map(expected)));
    }
}
