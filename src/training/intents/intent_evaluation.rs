//! Evaluation on held-out users: the network's scores, the trees' and the published ones next to labels, and the figures of a
//! training.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

use super::blend_weights::MemberScores;
use crate::failure::Result;
use crate::metrics::{
    auc, average_precision, best_f1_threshold, bootstrap_interval, brier_score, expected_calibration_error, log_loss,
};
use crate::model::blend::{Activity, Blend, logit, sigmoid};
use crate::model::contents::Contents;
use crate::model::intent::{IntentNetwork, RawOutputs};
use crate::model::scaling::Scaling;
use crate::model::targets::{BINARY, CHURN, INTENTS, PURCHASE, TARGETS};
use crate::model::trees::IntentTrees;
use crate::training::datasets::{BlockRows, Split, UserBlocks, UserColumns};

/// Users of one forward pass without gradients.
const BATCH_ROWS: usize = 128;
/// Users that are scored to measure the speed.
const TIMED_ROWS_MAX: usize = 8192;
const TIMED_PASSES_MAX: usize = 8;
const TIMED_MAX: Duration = Duration::from_millis(500);
const BOOTSTRAP_ROUNDS: usize = 400;

/// A metric of scores and classes; `None` where a class is missing.
type Metric = fn(&[f64], &[bool]) -> Option<f64>;

/// The metrics of a training, by the beginning of their figures' names.
const METRICS: [(&str, Metric); 5] = [
    ("auc", auc),
    ("ap", average_precision),
    ("log_loss", |scores, classes| Some(log_loss(scores, classes))),
    ("brier", |scores, classes| Some(brier_score(scores, classes))),
    ("ece", |scores, classes| Some(expected_calibration_error(scores, classes))),
];

/// Everything that scoring users needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Evaluator<'a> {
    pub(crate) network: &'a IntentNetwork,
    pub(crate) scaling: &'a Scaling,
    pub(crate) contents: &'a Contents,
    pub(crate) device: Device,
    /// The trees to score the same users with.
    pub(crate) trees: Option<&'a IntentTrees>,
    pub(crate) activity: Activity,
}

impl Evaluator<'_> {
    /// Users scored per second, on the first window of users: the fastest of a few passes, because other load only slows.
    pub(crate) fn users_per_second(self, users: &UserBlocks) -> Result<Option<f64>> {
        let Some(window) = users.each_window().next().transpose()? else { return Ok(None) };
        let rows: Vec<usize> = (0..window.len().min(TIMED_ROWS_MAX)).collect();
        let started = Instant::now();
        let mut best = f64::INFINITY;
        for _ in 0..TIMED_PASSES_MAX {
            let clock = Instant::now();
            self.run(&window, rows.clone(), |_, _| Ok(()))?;
            best = best.min(clock.elapsed().as_secs_f64());
            if started.elapsed() > TIMED_MAX {
                break;
            }
        }
        Ok((!rows.is_empty()).then(|| rows.len() as f64 / best))
    }

    /// Passes the users in batches with their tastes, float32 [users, width] on the CPU, to `take`.
    pub(super) fn each_taste(
        &self,
        users: &UserColumns,
        mut take: impl FnMut(&UserColumns, &Tensor) -> Result<()>,
    ) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let mut rows: Vec<usize> = (0..users.len()).collect();
        rows.sort_by_key(|&row| users.event_count(row));
        for batch_rows in rows.chunks(BATCH_ROWS) {
            let batch = users.take(batch_rows)?;
            let events = batch.events(self.network.shape.events_max, self.contents)?.to(self.device)?;
            let tastes = self.network.user_vectors(&self.network.encode_users(&events, false)?);
            take(&batch, &tastes.f_to_device(Device::Cpu)?)?;
        }
        Ok(())
    }

    /// Runs the network on rows without gradients and passes each batch with its outputs to `take`. Users of similar length
    /// share a batch, as in scoring.
    fn run(
        self,
        users: &UserColumns,
        mut rows: Vec<usize>,
        mut take: impl FnMut(&UserColumns, RawOutputs) -> Result<()>,
    ) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let Self { network, scaling, contents, device, .. } = self;
        rows.sort_by_key(|&row| users.event_count(row));
        for batch_rows in rows.chunks(BATCH_ROWS) {
            let batch = users.take(batch_rows)?;
            let events = batch.events(network.shape.events_max, contents)?.to(device)?;
            let states = network.encode_users(&events, false)?;
            let tabular = batch.scaled_features(scaling)?.f_to_device(device)?;
            take(&batch, network.outputs(&states, &tabular, false)?)?;
        }
        Ok(())
    }
}

/// The users of a split with the outputs of the network; their order does not matter.
#[derive(Debug)]
pub(crate) struct Evaluation {
    pub(crate) raw: RawOutputs,
    /// float32 [users, targets], in the order of the outputs; NaN where a label is unknown or masked.
    pub(crate) labels: Tensor,
    /// `labels` as columns.
    label_columns: Vec<Vec<f64>>,
    /// The network's scores, one column for each of the nine outputs.
    network_columns: Vec<Vec<f64>>,
    /// The published scores: the network's until [`Self::blend`].
    score_columns: Vec<Vec<f64>>,
    /// Scored with trees: their log-odds, row-major [users, binary targets].
    tree_log_odds: Vec<f64>,
    /// The activity class and the id of each user.
    classes: Vec<usize>,
    user_ids: Vec<String>,
}

impl Evaluation {
    /// Scores the users of a split; `None` if there are none.
    pub(crate) fn try_new(evaluator: Evaluator<'_>, users: &UserBlocks, wanted: Split) -> Result<Option<Self>> {
        let mut raw_batches = Vec::new();
        let mut label_batches = Vec::new();
        let (mut tree_log_odds, mut classes, mut user_ids) = (Vec::new(), Vec::new(), Vec::new());
        for window in users.each_window() {
            let window = window?;
            let rows = window.rows_in(wanted);
            evaluator.run(&window, rows, |batch, raw| {
                raw_batches.push(raw);
                label_batches.push(batch.labels_tensor()?.f_to_device(evaluator.device)?);
                if let Some(trees) = evaluator.trees {
                    tree_log_odds.extend(trees.log_odds(batch.tabular()));
                    let features = batch.features().max(1);
                    let class = |row: &[f32]| evaluator.activity.class(row).unwrap_or_default();
                    classes.extend(batch.tabular().chunks(features).map(class));
                    user_ids.extend((0..batch.len()).map(|row| batch.id(row).to_string()));
                }
                Ok(())
            })?;
        }
        if raw_batches.is_empty() {
            return Ok(None);
        }
        let raw = RawOutputs::cat(&raw_batches)?;
        let labels = Tensor::f_cat(&label_batches, 0)?;
        let network_columns = tch::no_grad(|| columns(&evaluator.network.scores(&raw, evaluator.scaling)?))?;
        Ok(Some(Self {
            raw,
            label_columns: columns(&labels)?,
            labels,
            score_columns: network_columns.clone(),
            network_columns,
            tree_log_odds,
            classes,
            user_ids,
        }))
    }

    /// The members' log-odds of the users whose label of a binary target is known.
    pub(super) fn member_scores(&self, target: usize) -> Vec<MemberScores<'_>> {
        let scores = |row: usize| MemberScores {
            user_id: &self.user_ids[row],
            class: self.classes[row],
            network: logit(self.network_columns[target][row]),
            trees: self.tree_log_odds[row * BINARY + target],
            label: self.label_columns[target][row] > 0.5,
        };
        self.known_rows(target).map(scores).collect()
    }

    /// Replaces the published scores by those of a blend.
    pub(super) fn blend(&mut self, blend: &Blend) {
        for (target, of_target) in TARGETS[..BINARY].iter().enumerate() {
            let Some(weights) = blend.0.get(of_target.name) else { continue };
            for (row, score) in self.score_columns[target].iter_mut().enumerate() {
                let network = logit(self.network_columns[target][row]);
                *score = weights.probability(self.classes[row], network, self.tree_log_odds[row * BINARY + target]);
            }
        }
    }

    /// Rows for which a label is known.
    fn known_rows(&self, label: usize) -> impl Iterator<Item = usize> {
        let labels = &self.label_columns[label];
        (0..labels.len()).filter(|&row| !labels[row].is_nan())
    }

    /// Number of users whose purchase label is known.
    pub(crate) fn users(&self) -> usize {
        self.known_rows(PURCHASE).count()
    }

    /// Scores and classes of a label, where it is known.
    fn scores_and_classes(&self, label: usize) -> (Vec<f64>, Vec<bool>) {
        self.scores_of(label, |row| self.score_columns[label][row])
    }

    fn scores_of(&self, label: usize, score: impl Fn(usize) -> f64) -> (Vec<f64>, Vec<bool>) {
        self.known_rows(label).map(|row| (score(row), self.label_columns[label][row] > 0.5)).unzip()
    }

    /// The probabilities of each member of a blend, by the member's name, where the label is known.
    fn member_columns(&self, label: usize) -> Vec<(&'static str, Vec<f64>)> {
        let (network, _) = self.scores_of(label, |row| self.network_columns[label][row]);
        let (trees, _) = self.scores_of(label, |row| sigmoid(self.tree_log_odds[row * BINARY + label]));
        vec![("network", network), ("trees", trees)]
    }

    pub(crate) fn auc_purchase(&self) -> Option<f64> {
        let (scores, classes) = self.scores_and_classes(PURCHASE);
        auc(&scores, &classes)
    }

    /// The probability above which each intent, and churn, is predicted with the highest F1.
    pub(crate) fn thresholds(&self) -> BTreeMap<String, f64> {
        let threshold = |label: usize| {
            let (scores, classes) = self.scores_and_classes(label);
            Some((TARGETS[label].threshold_name(), best_f1_threshold(&scores, &classes)?))
        };
        (0..BINARY).filter_map(threshold).collect()
    }

    /// Mean log loss over intents and churn; comparable whatever loss the network was trained with.
    pub(crate) fn log_loss(&self) -> f64 {
        let loss_of = |label: usize| {
            let (scores, classes) = self.scores_and_classes(label);
            (!classes.is_empty()).then(|| log_loss(&scores, &classes))
        };
        let losses: Vec<f64> = (0..BINARY).filter_map(loss_of).collect();
        losses.iter().sum::<f64>() / losses.len() as f64
    }

    /// AUC, average precision, log loss, Brier score and expected calibration error of the intents and of churn, where both
    /// classes are present: of the published scores, with 95 % intervals for purchase and churn, and of each member of a blend.
    /// The log loss of the training users' share of positives. The share of users whose intents are all decoded right.
    pub(crate) fn figures(
        &self,
        network: &IntentNetwork,
        blend: &Blend,
        base_rates: &[f64],
        seed: u64,
    ) -> Result<BTreeMap<String, f64>> {
        let mut figures = BTreeMap::new();
        for (label, name) in TARGETS[..BINARY].iter().map(|target| target.name).enumerate() {
            let (scores, classes) = self.scores_and_classes(label);
            if classes.iter().all(|&class| class) || !classes.iter().any(|&class| class) {
                continue;
            }
            let base_rate = log_loss(&vec![base_rates[label]; classes.len()], &classes);
            figures.insert(format!("log_loss_test_{name}_base_rate"), base_rate);
            let members = if blend.0.contains_key(name) { self.member_columns(label) } else { Vec::new() };
            for (figure, metric) in METRICS {
                let Some(value) = metric(&scores, &classes) else { continue };
                figures.insert(format!("{figure}_test_{name}"), value);
                for (member, scores) in &members {
                    if let Some(value) = metric(scores, &classes) {
                        figures.insert(format!("{figure}_test_{name}_{member}"), value);
                    }
                }
                if (label == PURCHASE || label == CHURN as usize)
                    && let Some((low, high)) = bootstrap_interval(&scores, &classes, metric, BOOTSTRAP_ROUNDS, seed)
                {
                    figures.insert(format!("{figure}_test_{name}_low"), low);
                    figures.insert(format!("{figure}_test_{name}_high"), high);
                }
            }
        }
        let decoded = columns(&network.head.decode(&self.raw.intents))?;
        let all_right = |row: &usize| {
            (0..INTENTS.len()).all(|label| (decoded[label][*row] > 0.5) == (self.label_columns[label][*row] > 0.5))
        };
        let whole = self.known_rows(PURCHASE).filter(all_right).count();
        figures.insert("intents_decoded_whole_test".into(), whole as f64 / self.users() as f64);
        Ok(figures)
    }
}

/// The columns of a matrix.
fn columns(matrix: &Tensor) -> Result<Vec<Vec<f64>>> {
    let transposed = matrix.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?.f_transpose(0, 1)?.f_contiguous()?;
    let n = transposed.size()[0];
    (0..n).map(|c| Ok(Vec::<f64>::try_from(&transposed.f_get(c)?)?)).collect()
}
