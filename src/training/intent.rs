//! How the behaviour network learns: batches of users of near-equal lengths, their labels and next items, and figures
//! on users and dates that training never saw.

use indicatif::ProgressBar;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::{Device, Tensor, nn};

use super::augment::Augmenter;
use super::base_rates::start_at_base_rates;
use super::columns::Rows;
use super::evaluation::{self, Judge, Judged};
use super::fit::{self, Batches, Epoch, Fitted, Lesson, Loss, Plan, Stepping, Validation};
use super::journal::Journal;
use super::loader::{self, Measure, Recipe, TOKENS_MAX};
use super::objective::{BINARY, Objective};
use super::pretrain::PretrainingLesson;
use super::ranking::Catalogue;
use super::sets::{Split, is_labelled};
use super::survey::Survey;
use super::unlabelled;
use super::unmet;
use super::user_columns::{UserBlocks, UserColumns};
use crate::config::Config;
use crate::config::networks::{LossName, Pretraining, Unlabelled};
use crate::failure::Result;
use crate::model::bundle::IndexedItem;
use crate::model::contents::{Contents, MODALITIES};
use crate::model::events::EventBatch;
use crate::model::inputs::EventInput;
use crate::model::intent::IntentNetwork;
use crate::model::scaling::Scaling;
use crate::model::weights::parameter_count;

/// What the ranking of next items weighs against the intents.
const RANKING_WEIGHT: f64 = 0.3;

/// What there is to learn from: earlier dates, and the newest one, held out; users are split besides.
#[derive(Debug, Clone, Copy)]
pub struct Users<'a> {
    pub train: &'a Arc<UserBlocks>,
    pub survey: &'a Survey,
    pub held_out: &'a UserBlocks,
    pub items: &'a [IndexedItem],
    pub contents: &'a Arc<Contents>,
}

/// Trains in place. Returns figures of the test users at the newest date.
pub fn train(
    network: &IntentNetwork,
    store: &mut nn::VarStore,
    users: Users<'_>,
    config: &Config,
    journal: &mut Journal,
    bar: &ProgressBar,
) -> Result<BTreeMap<String, f64>> {
    let device = store.device();
    let pretrained = pretrain(network, store, users, config, journal, bar)?;
    match config.model.loss {
        LossName::Bce | LossName::Focal | LossName::Crf => start_at_base_rates(store, users.survey)?,
        // Where a head says no to everybody, the overlap has no gradient.
        LossName::Iou => {}
    }
    let sizes = (network.shape.item_buckets, config.train.full_softmax_items_max);
    let mut lesson = IntentLesson {
        network,
        users,
        config,
        base_rates: users.survey.base_rates(),
        objective: Objective::of(&config.model, &config.train, users.survey, device)?,
        catalogue: Catalogue::new(users.items, users.contents, sizes, &users.survey.met, device)?,
        device,
        rates: content_rates(network, store),
    };
    let plan = Plan {
        epochs_max: config.train.epochs_max,
        patience_epochs: config.train.patience_epochs,
        learning_rate: config.train.learning_rate,
        weight_decay: config.model.weight_decay,
        seed: config.train.seed,
    };
    let fitted = fit::fit(&mut lesson, store, &plan, journal, bar)?;
    let mut met = users.survey.item_buckets_met.clone();
    met.resize(network.shape.item_buckets as usize + 1, false);
    users.items.iter().for_each(|item| met[item.buckets(network.shape.item_buckets).0 as usize] = true);
    unmet::hide(store, &met)?;
    let mut figures = lesson.figures()?;
    figures.insert("parameters_intent".into(), parameter_count(store) as f64);
    figures.insert("epochs_intent".into(), fitted.epochs.into());
    figures.insert("train_seconds_intent".into(), fitted.seconds);
    if let Some(pretrained) = pretrained {
        figures.insert("epochs_pretraining".into(), pretrained.epochs.into());
        figures.insert("loss_pretraining".into(), pretrained.loss);
        figures.insert("train_seconds_pretraining".into(), pretrained.seconds);
    }
    Ok(figures)
}

/// How fast the maps of contents learn, by weight. Contents have length one, so that a number of theirs is 1 / √dims, where other
/// inputs are near one: Adam's steps, which know no scale, would move what a content says √dims less far.
fn content_rates(network: &IntentNetwork, store: &nn::VarStore) -> BTreeMap<String, f64> {
    let dims_of: BTreeMap<String, i64> =
        MODALITIES.iter().map(|name| format!("content_{name}")).zip(network.shape.content_dims).collect();
    let rate = |weight: &String| {
        let dims = weight.split('.').find_map(|part| dims_of.get(part)).filter(|_| !weight.ends_with("bias"))?;
        Some((weight.clone(), (*dims as f64).sqrt()))
    };
    store.variables().keys().filter_map(rate).collect()
}

/// Teaches the encoder the histories of all users of the training split, labelled or not, where so configured.
fn pretrain(
    network: &IntentNetwork,
    store: &mut nn::VarStore,
    users: Users<'_>,
    config: &Config,
    journal: &mut Journal,
    bar: &ProgressBar,
) -> Result<Option<Fitted>> {
    let train = &config.train;
    let histories = users.survey.histories;
    if train.pretraining == Pretraining::None || histories == 0 {
        return Ok(None);
    }
    let of = (train.batch_rows as usize, store.device(), train.seed);
    let held_out = (users.held_out, users.contents);
    let mut lesson = PretrainingLesson::new(network, train.pretraining, (users.train, histories), held_out, of);
    let plan = Plan {
        epochs_max: train.pretraining_epochs,
        patience_epochs: train.patience_epochs,
        learning_rate: train.learning_rate,
        weight_decay: config.model.weight_decay,
        seed: train.seed ^ 0x9e,
    };
    fit::fit(&mut lesson, store, &plan, journal, bar).map(Some)
}

/// Some users' inputs and labels, on the CPU.
struct UserBatch {
    first_user: String,
    users: usize,
    events: EventBatch,
    /// As [`Scaling::tensor`] makes it.
    tabular: Tensor,
    /// float32 [users, 9].
    labels: Tensor,
    /// Which users met an item, and its place in the index.
    met: Option<(Tensor, Tensor)>,
    unlabelled: Option<UnlabelledBatch>,
}

/// Users whose labels are not looked at: as they are, for the teacher, and changed, for the pupil.
struct UnlabelledBatch {
    events: EventBatch,
    changed: EventBatch,
    tabular: Tensor,
}

/// How these batches are made.
struct UserRecipe {
    scaling: Scaling,
    contents: Arc<Contents>,
    augmenter: Augmenter,
    events_max: i64,
    labels_share: f64,
    teaching: Unlabelled,
    /// Of the window, in the training split.
    unlabelled: Vec<usize>,
}

impl Recipe for UserRecipe {
    type Rows = UserColumns;
    type Batch = UserBatch;

    fn open(&mut self, window: &UserColumns) -> Vec<usize> {
        let all = window.rows_of(Split::Train).into_iter();
        let (labelled, unlabelled) = all.partition(|&row| is_labelled(window.id(row), self.labels_share));
        self.unlabelled = unlabelled;
        labelled
    }

    fn tokens(&self, window: &UserColumns, row: usize) -> usize {
        window.length(row)
    }

    fn batch(&self, window: &UserColumns, rows: &[usize], rng: &mut ChaCha8Rng) -> Result<UserBatch> {
        let users = window.take(rows)?;
        let draws: Vec<f64> = rows.iter().map(|_| rng.random()).collect();
        Ok(UserBatch {
            first_user: users.id(0).to_string(),
            users: rows.len(),
            events: match self.augmenter.is_idle() {
                true => users.events(self.events_max, &self.contents)?,
                false => self.changed(&users, &self.augmenter, rng)?,
            },
            tabular: users.scaled(&self.scaling)?,
            labels: users.labels_tensor()?,
            met: users.met(&draws)?,
            unlabelled: self.unlabelled(window, rows.len(), rng)?,
        })
    }
}

impl UserRecipe {
    /// As many users without labels, within the token bound; `None` where there are none or nothing is to be taught.
    fn unlabelled(&self, window: &UserColumns, n: usize, rng: &mut ChaCha8Rng) -> Result<Option<UnlabelledBatch>> {
        let mut rows: Vec<usize> = match self.teaching {
            Unlabelled::None => return Ok(None),
            _ => self.unlabelled.choose_multiple(rng, n).copied().collect(),
        };
        let longest = rows.iter().map(|&row| window.length(row)).max().unwrap_or(0).max(1);
        rows.truncate((TOKENS_MAX / longest).max(1));
        if rows.is_empty() {
            return Ok(None);
        }
        let users = window.take(&rows)?;
        Ok(Some(UnlabelledBatch {
            events: users.events(self.events_max, &self.contents)?,
            changed: self.changed(&users, &Augmenter::ALL, rng)?,
            tabular: users.scaled(&self.scaling)?,
        }))
    }

    fn changed(&self, users: &UserColumns, by: &Augmenter, rng: &mut ChaCha8Rng) -> Result<EventBatch> {
        let changed: Vec<Vec<EventInput>> = users.histories().iter().map(|events| by.apply(events, rng)).collect();
        let slices: Vec<&[EventInput]> = changed.iter().map(Vec::as_slice).collect();
        EventBatch::from_sequences(&slices, self.events_max, &self.contents, Device::Cpu)
    }
}

struct IntentLesson<'a> {
    network: &'a IntentNetwork,
    users: Users<'a>,
    config: &'a Config,
    /// Of the intents and churn, the share of positives among the labelled.
    base_rates: Vec<f64>,
    objective: Objective,
    catalogue: Catalogue,
    device: Device,
    /// As [`Stepping::rates`].
    rates: BTreeMap<String, f64>,
}

impl Lesson for IntentLesson<'_> {
    type Batch = UserBatch;

    fn name(&self) -> &'static str {
        "intents"
    }

    fn samples(&self) -> usize {
        self.users.survey.labelled
    }

    fn samples_of(&self, batch: &UserBatch) -> usize {
        batch.users
    }

    fn stepping(&self) -> Stepping {
        Stepping { rates: self.rates.clone(), ..Stepping::default() }
    }

    fn batches(&self, epoch: Epoch) -> Result<Batches<UserBatch>> {
        let train = &self.config.train;
        let recipe = UserRecipe {
            scaling: self.users.survey.scaling.clone(),
            contents: Arc::clone(self.users.contents),
            augmenter: Augmenter::of(train),
            events_max: self.network.shape.events_max,
            labels_share: train.labels_share,
            teaching: train.unlabelled,
            unlabelled: Vec::new(),
        };
        let measure = Measure { rows_max: train.batch_rows as usize, samples_max: usize::MAX };
        loader::batches(self.users.train, recipe, measure, epoch)
    }

    fn loss(&mut self, batch: &UserBatch, rng: &mut ChaCha8Rng) -> Result<Loss> {
        let states = self.network.encode_users(&batch.events.to(self.device)?, true)?;
        let raw = self.network.outputs(&states, &batch.tabular.f_to_device(self.device)?, true)?;
        let labels = batch.labels.f_to_device(self.device)?;
        let measured = self.objective.loss(self.network.head.as_ref(), &raw, &labels, self.scaling(), true);
        // A tensor of its own, so that adding to it leaves what is measured as it is.
        let mut loss = &measured * 1.0;
        if let Some(unlabelled) = &batch.unlabelled {
            loss += self.taught(unlabelled)? * self.config.train.unlabelled_weight;
        }
        if let Some((at, met)) = &batch.met
            && let Some(ranking) = self.catalogue.loss(self.network, &states, (at, met), rng)?
        {
            loss += ranking * RANKING_WEIGHT;
        }
        Ok(Loss { learnt: loss, measured: Some(measured.detach()) })
    }

    fn describe(&self, batch: &UserBatch) -> String {
        format!("{} users, the first {}", batch.users, batch.first_user)
    }

    /// The objective itself, so that what is stopped by is what is trained by, whatever the loss.
    fn validate(&mut self) -> Result<Option<Validation>> {
        let Some(judged) = self.judged(Split::Valid)? else { return Ok(None) };
        let _guard = tch::no_grad_guard();
        let loss = self.objective.loss(self.network.head.as_ref(), &judged.raw, &judged.labels, self.scaling(), false);
        let figures = judged.auc_purchase().map(|auc| ("auc_valid_purchase", auc)).into_iter().collect();
        Ok(Some(Validation { loss: loss.double_value(&[]), figures }))
    }
}

impl IntentLesson<'_> {
    fn scaling(&self) -> &Scaling {
        &self.users.survey.scaling
    }

    fn judge(&self) -> Judge<'_> {
        let contents = self.users.contents.as_ref();
        Judge { network: self.network, scaling: self.scaling(), contents, device: self.device }
    }

    fn judged(&self, split: Split) -> Result<Option<Judged>> {
        Judged::of(self.judge(), self.users.held_out, split)
    }

    /// What users without labels teach.
    fn taught(&self, batch: &UnlabelledBatch) -> Result<Tensor> {
        let tabular = batch.tabular.f_to_device(self.device)?;
        let scores = |events: &EventBatch, train: bool| -> Result<Tensor> {
            let states = self.network.encode_users(&events.to(self.device)?, train)?;
            let raw = self.network.outputs(&states, &tabular, train)?;
            Ok(self.network.scores(&raw, self.scaling())?.narrow(1, 0, BINARY as i64))
        };
        let teacher = tch::no_grad(|| scores(&batch.events, false))?;
        let pupil = scores(&batch.changed, true)?;
        Ok(unlabelled::loss(self.config.train.unlabelled, &pupil, &teacher, &self.base_rates))
    }

    /// Of the test users at the newest date; of the validation users, what a sweep goes by.
    fn figures(&self) -> Result<BTreeMap<String, f64>> {
        let mut figures = BTreeMap::from([
            ("users_train".to_string(), self.users.survey.labelled as f64),
            // How often a window of `train.memory_bytes_max` is read anew in an epoch.
            ("windows_train".to_string(), self.users.train.windows(None).len() as f64),
        ]);
        if let Some(judged) = self.judged(Split::Valid)? {
            figures.insert("log_loss_valid".into(), judged.log_loss());
            figures.extend(judged.auc_purchase().map(|auc| ("auc_valid_purchase".to_string(), auc)));
        }
        let pace = evaluation::users_per_second(self.judge(), self.users.held_out)?;
        figures.extend(pace.map(|pace| ("users_scored_per_second".to_string(), pace)));
        let judged = self.judged(Split::Test)?;
        figures.insert("users_test".into(), judged.as_ref().map_or(0, Judged::users) as f64);
        if let Some(judged) = judged {
            figures.extend(judged.figures(self.network, self.config.train.seed)?);
        }
        Ok(figures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::networks::{BackboneName, FusionName, HeadName};
    use crate::model::shape::IntentShape;

    #[test]
    fn what_reads_contents_learns_faster_the_more_numbers_they_have() {
        let store = nn::VarStore::new(Device::Cpu);
        let tiny = IntentShape::tiny(BackboneName::Gru, HeadName::Sigmoid);
        let shape = IntentShape { content_dims: [0, 16, 4], fusion: FusionName::Gate, ..tiny };
        let network = IntentNetwork::new(&(store.root() / "intent"), &shape);
        let rates = content_rates(&network, &store);
        let of = |name: &str| (format!("intent.{name}"), if name.contains("image") { 4.0 } else { 2.0 });
        let maps = ["content_image.weight", "content_video.query", "content_video.value.weight"];
        assert_eq!(rates, BTreeMap::from(maps.map(of)));
    }
}
