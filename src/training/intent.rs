//! How the behaviour network learns: batches of users of near-equal lengths, their labels and next items, and figures
//! on users and dates that training never saw.

use indicatif::ProgressBar;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::time::Instant;
use tch::{Device, Kind, Tensor, nn};

use super::augment::Augmenter;
use super::fit::{self, Batches, Fitted, Lesson, Plan, Validation};
use super::journal::Journal;
use super::objective::{BINARY, Objective, check_labels};
use super::pretrain::PretrainingLesson;
use super::ranking::Catalogue;
use super::sets::{LABELS, Split, UserSet, rows_of};
use super::unlabelled;
use crate::config::Config;
use crate::config::networks::{Pretraining, Unlabelled};
use crate::failure::Result;
use crate::metrics::{auc, average_precision, bootstrap_interval};
use crate::model::bundle::{IndexedItem, parameters};
use crate::model::heads::INTENTS;
use crate::model::inputs::EventInput;
use crate::model::intent::{IntentNetwork, Raw, Scaling};

/// Padded tokens of a training batch; bounds memory whatever the lengths.
const TOKENS_MAX: usize = 16_384;
/// Users of one forward pass without gradients.
const EVALUATED_ROWS: usize = 128;
/// Users that are scored to see how fast it goes.
const TIMED_ROWS_MAX: usize = 8192;
/// What the ranking of next items weighs against the intents.
const RANKING_WEIGHT: f64 = 0.3;
const PURCHASE: usize = 4;
const BOOTSTRAP_ROUNDS: usize = 400;

/// What there is to learn from: earlier dates, and the newest one, held out; users are split besides.
#[derive(Debug, Clone, Copy)]
pub struct Users<'a> {
    pub train: &'a UserSet,
    pub held_out: &'a UserSet,
    pub items: &'a [IndexedItem],
    pub scaling: &'a Scaling,
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
    let all = rows_of(users.train.inputs.user_ids.iter(), Split::Train);
    let (rows, unlabelled): (Vec<usize>, Vec<usize>) =
        all.iter().partition(|&&row| is_labelled(&users.train.inputs.user_ids[row], config.train.labels_share));
    super::sets::enough("users in the training split", rows.len(), 20)?;
    check_labels(users.train, &rows, config.intents.horizon_days)?;
    let valid = rows_of(users.held_out.inputs.user_ids.iter(), Split::Valid);
    let pretrained = pretrain(network, store, users, (&all, &valid), config, journal, bar)?;
    let met = rows.iter().flat_map(|&r| &users.train.next_items[r]);
    let (buckets, full) = (network.shape.item_buckets, config.train.full_softmax_items_max);
    let mut lesson = IntentLesson {
        network,
        users,
        valid,
        unlabelled,
        teaching: (config.train.unlabelled, config.train.unlabelled_weight),
        base_rates: (0..BINARY).map(|k| users.train.positives(k, &rows) as f64 / rows.len() as f64).collect(),
        objective: Objective::of(&config.model, &config.train, users.train, &rows, device)?,
        catalogue: Catalogue::new(users.items, buckets, full, met, device)?,
        augmenter: Augmenter::of(&config.train),
        batch_rows: config.train.batch_rows as usize,
        device,
        rows,
    };
    let plan = Plan {
        epochs_max: config.train.epochs_max,
        patience_epochs: config.train.patience_epochs,
        learning_rate: config.train.learning_rate,
        weight_decay: config.train.weight_decay,
        seed: config.train.seed,
    };
    let fitted = fit::fit(&mut lesson, store, &plan, journal, bar)?;
    let mut figures = lesson.figures(config.train.seed)?;
    figures.insert("parameters_intent".into(), parameters(store) as f64);
    figures.insert("epochs_intent".into(), fitted.epochs.into());
    figures.insert("train_seconds_intent".into(), fitted.seconds);
    if let Some(pretrained) = pretrained {
        figures.insert("epochs_pretraining".into(), pretrained.epochs.into());
        figures.insert("loss_pretraining".into(), pretrained.loss);
        figures.insert("train_seconds_pretraining".into(), pretrained.seconds);
    }
    Ok(figures)
}

/// Teaches the encoder the histories of `all` users of the training split, labelled or not, where so configured.
fn pretrain(
    network: &IntentNetwork,
    store: &mut nn::VarStore,
    users: Users<'_>,
    (all, valid): (&[usize], &[usize]),
    config: &Config,
    journal: &mut Journal,
    bar: &ProgressBar,
) -> Result<Option<Fitted>> {
    let train = &config.train;
    let of = (train.batch_rows as usize, store.device(), train.seed);
    let (learnt, held_out) = ((users.train, all), (users.held_out, valid));
    let mut lesson = PretrainingLesson::new(network, train.pretraining, learnt, held_out, of);
    if train.pretraining == Pretraining::None || lesson.is_empty() {
        return Ok(None);
    }
    let plan = Plan {
        epochs_max: train.pretraining_epochs,
        patience_epochs: train.patience_epochs,
        learning_rate: train.learning_rate,
        weight_decay: train.weight_decay,
        seed: train.seed ^ 0x9e,
    };
    fit::fit(&mut lesson, store, &plan, journal, bar).map(Some)
}

/// Whether a user's labels are among the share that is used; a user is on one side at every date.
fn is_labelled(user_id: &str, labels_share: f64) -> bool {
    // Other bytes than the split and the parts look at.
    let hash = blake3::hash(user_id.as_bytes());
    let place = u32::from_le_bytes([16, 17, 18, 19].map(|byte| hash.as_bytes()[byte]));
    f64::from(place) < labels_share * 2f64.powi(32)
}

struct IntentLesson<'a> {
    network: &'a IntentNetwork,
    users: Users<'a>,
    rows: Vec<usize>,
    valid: Vec<usize>,
    /// Of the training split, the users whose labels are not looked at, and what they teach by which weight.
    unlabelled: Vec<usize>,
    teaching: (Unlabelled, f64),
    /// Of the intents and churn, the share of positives among the labelled.
    base_rates: Vec<f64>,
    objective: Objective,
    catalogue: Catalogue,
    augmenter: Augmenter,
    batch_rows: usize,
    device: Device,
}

impl Lesson for IntentLesson<'_> {
    type Batch = Vec<usize>;

    fn name(&self) -> &'static str {
        "intents"
    }

    fn samples(&self) -> usize {
        self.rows.len()
    }

    fn samples_of(&self, batch: &Vec<usize>) -> usize {
        batch.len()
    }

    fn batches(&self, mut rng: ChaCha8Rng, skip: u64) -> Result<Batches<Vec<usize>>> {
        let cut = batches(self.users.train, &self.rows, self.batch_rows, &mut rng);
        Ok(fit::left(cut, skip))
    }

    fn loss(&mut self, batch: &Vec<usize>, rng: &mut ChaCha8Rng) -> Result<Tensor> {
        let (set, scaling) = (self.users.train, self.users.scaling);
        let states = match self.augmenter.is_idle() {
            true => self.network.encode(&set.inputs, batch, self.device, true)?,
            false => {
                let changed: Vec<Vec<EventInput>> =
                    batch.iter().map(|&r| self.augmenter.apply(&set.inputs.events[r], rng)).collect();
                let slices: Vec<&[EventInput]> = changed.iter().map(Vec::as_slice).collect();
                self.network.encode_events(&slices, self.device, true)?
            }
        };
        let raw = self.network.outputs(&states, &set.inputs, batch, scaling, true)?;
        let labels = labels(set, batch, self.device)?;
        let loss = self.objective.loss(self.network.head.as_ref(), &raw, &labels, scaling, true);
        let loss = match self.taught(batch.len(), rng)? {
            Some(taught) => loss + taught * self.teaching.1,
            None => loss,
        };
        Ok(match self.catalogue.loss(self.network, &states, set, batch, rng)? {
            Some(ranking) => loss + ranking * RANKING_WEIGHT,
            None => loss,
        })
    }

    fn describe(&self, batch: &Vec<usize>) -> String {
        let first = batch.first().map_or("", |&r| self.users.train.inputs.user_ids[r].as_str());
        format!("{} users, the first {first}", batch.len())
    }

    /// The objective itself, so that what is stopped by is what is trained by, whatever the loss.
    fn validate(&mut self) -> Result<Option<Validation>> {
        if self.valid.is_empty() {
            return Ok(None);
        }
        let (set, scaling) = (self.users.held_out, self.users.scaling);
        let raw = self.raw(set, &self.valid)?;
        let labels = labels(set, &self.valid, self.device)?;
        let loss = self.objective.loss(self.network.head.as_ref(), &raw, &labels, scaling, false);
        let scores = columns(&self.network.scores(&raw, scaling)?)?;
        let purchase = auc(&scores[PURCHASE], &set.column(PURCHASE, &self.valid));
        let figures = purchase.map(|auc| ("auc_valid_purchase", auc)).into_iter().collect();
        Ok(Some(Validation { loss: loss.double_value(&[]), figures }))
    }
}

impl IntentLesson<'_> {
    /// What `n` users without labels teach; `None` where nobody is unlabelled or nothing is to be taught.
    fn taught(&self, n: usize, rng: &mut ChaCha8Rng) -> Result<Option<Tensor>> {
        if self.teaching.0 == Unlabelled::None || self.unlabelled.is_empty() {
            return Ok(None);
        }
        let (set, scaling) = (self.users.train, self.users.scaling);
        let rows: Vec<usize> = self.unlabelled.choose_multiple(rng, n).copied().collect();
        let teacher = self.network.scores(&self.raw(set, &rows)?, scaling)?;
        let changed: Vec<Vec<EventInput>> =
            rows.iter().map(|&r| Augmenter::ALL.apply(&set.inputs.events[r], rng)).collect();
        let slices: Vec<&[EventInput]> = changed.iter().map(Vec::as_slice).collect();
        let states = self.network.encode_events(&slices, self.device, true)?;
        let raw = self.network.outputs(&states, &set.inputs, &rows, scaling, true)?;
        let pupil = self.network.scores(&raw, scaling)?;
        let binary = |scores: &Tensor| scores.narrow(1, 0, BINARY as i64);
        Ok(Some(unlabelled::loss(self.teaching.0, &binary(&pupil), &binary(&teacher), &self.base_rates)))
    }

    /// Outputs for rows of a set, without gradients.
    fn raw(&self, set: &UserSet, rows: &[usize]) -> Result<Raw> {
        let _guard = tch::no_grad_guard();
        let mut parts = Vec::new();
        for chunk in rows.chunks(EVALUATED_ROWS) {
            let states = self.network.encode(&set.inputs, chunk, self.device, false)?;
            parts.push(self.network.outputs(&states, &set.inputs, chunk, self.users.scaling, false)?);
        }
        Raw::cat(&parts)
    }

    /// Of the test users at the newest date: AUC and average precision of each intent that has both classes (of
    /// purchase with 95 % intervals), the share of label vectors decoded whole, and users scored a second.
    fn figures(&self, seed: u64) -> Result<BTreeMap<String, f64>> {
        let set = self.users.held_out;
        let rows = rows_of(set.inputs.user_ids.iter(), Split::Test);
        let mut figures = BTreeMap::from([
            ("users_train".to_string(), self.rows.len() as f64),
            ("users_test".to_string(), rows.len() as f64),
        ]);
        figures.extend(self.validated()?);
        if rows.is_empty() {
            return Ok(figures);
        }
        let timed: Vec<usize> = (0..set.inputs.len().min(TIMED_ROWS_MAX)).collect();
        let clock = Instant::now();
        self.raw(set, &timed)?;
        figures.insert("users_scored_per_second".into(), timed.len() as f64 / clock.elapsed().as_secs_f64());

        let raw = self.raw(set, &rows)?;
        let scores = columns(&self.network.scores(&raw, self.users.scaling)?)?;
        for (k, name) in INTENTS.iter().chain(&["churn"]).enumerate() {
            let truth = set.column(k, &rows);
            for (figure, of) in [("auc", auc as fn(&[f64], &[bool]) -> Option<f64>), ("ap", average_precision)] {
                let Some(value) = of(&scores[k], &truth) else { continue };
                figures.insert(format!("{figure}_test_{name}"), value);
                if k == PURCHASE
                    && let Some((low, high)) = bootstrap_interval(&scores[k], &truth, of, BOOTSTRAP_ROUNDS, seed)
                {
                    figures.insert(format!("{figure}_test_{name}_low"), low);
                    figures.insert(format!("{figure}_test_{name}_high"), high);
                }
            }
        }
        let decoded = columns(&self.network.head.decode(&raw.intents))?;
        let right = |at: usize, row: usize| (0..INTENTS.len()).all(|k| (decoded[k][at] > 0.5) == set.is(k, row));
        let whole = rows.iter().enumerate().filter(|&(at, &row)| right(at, row)).count();
        figures.insert("intents_decoded_whole_test".into(), whole as f64 / rows.len() as f64);
        Ok(figures)
    }
}

impl IntentLesson<'_> {
    /// What a sweep goes by, on the validation users: the mean log loss of intents and churn, which is comparable whatever
    /// the loss that was trained by, and the AUC of purchase.
    fn validated(&self) -> Result<Vec<(String, f64)>> {
        let (set, rows) = (self.users.held_out, &self.valid);
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let scores = columns(&self.network.scores(&self.raw(set, rows)?, self.users.scaling)?)?;
        let mut sum = 0.0;
        for (k, probabilities) in scores.iter().enumerate().take(BINARY) {
            let surprise = |(p, happened): (&f64, bool)| -(if happened { *p } else { 1.0 - p }).max(1e-12).ln();
            sum += probabilities.iter().zip(set.column(k, rows)).map(surprise).sum::<f64>();
        }
        let mut found = vec![("log_loss_valid".to_string(), sum / (BINARY * rows.len()) as f64)];
        found
            .extend(auc(&scores[PURCHASE], &set.column(PURCHASE, rows)).map(|a| ("auc_valid_purchase".to_string(), a)));
        Ok(found)
    }
}

/// Shuffled batches of near-equal lengths within the token bound.
pub fn batches(set: &UserSet, rows: &[usize], batch_rows: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<usize>> {
    let mut order = rows.to_vec();
    order.shuffle(rng);
    let mut cut = Vec::new();
    for window in order.chunks_mut(batch_rows * 16) {
        window.sort_by_key(|&r| set.inputs.events[r].len());
        let mut batch: Vec<usize> = Vec::new();
        for &row in window.iter() {
            let length = set.inputs.events[row].len().max(1);
            if batch.len() == batch_rows || (batch.len() + 1) * length > TOKENS_MAX {
                cut.push(std::mem::take(&mut batch));
            }
            batch.push(row);
        }
        cut.push(batch);
    }
    cut.retain(|b| !b.is_empty());
    cut.shuffle(rng);
    cut
}

/// float32 [rows, 9].
fn labels(set: &UserSet, rows: &[usize], device: Device) -> Result<Tensor> {
    let n = LABELS.len();
    let flat: Vec<f32> = rows.iter().flat_map(|&r| set.labels[r * n..(r + 1) * n].iter().copied()).collect();
    Ok(Tensor::f_from_slice(&flat)?.f_view([rows.len() as i64, n as i64])?.f_to_device(device)?)
}

/// The columns of a matrix, as numbers.
fn columns(matrix: &Tensor) -> Result<Vec<Vec<f64>>> {
    let matrix = matrix.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?.f_transpose(0, 1)?.f_contiguous()?;
    let n = matrix.size()[0];
    (0..n).map(|c| Ok(Vec::<f64>::try_from(&matrix.f_get(c)?)?)).collect()
}
