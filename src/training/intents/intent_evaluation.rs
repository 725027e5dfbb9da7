//! Evaluation of the intent network on held-out users: scores next to labels, and the figures of a training.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

use crate::failure::Result;
use crate::metrics::{auc, average_precision, bootstrap_interval, log_loss};
use crate::model::contents::Contents;
use crate::model::intent::{IntentNetwork, RawOutputs};
use crate::model::scaling::Scaling;
use crate::model::targets::{BINARY, CHURN, INTENTS, PURCHASE, TARGETS};
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

/// Everything that scoring users needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Evaluator<'a> {
    pub(crate) network: &'a IntentNetwork,
    pub(crate) scaling: &'a Scaling,
    pub(crate) contents: &'a Contents,
    pub(crate) device: Device,
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

    /// Runs the network on rows without gradients and passes each batch with its outputs to `take`. Users of similar length
    /// share a batch, as in scoring.
    fn run(
        self,
        users: &UserColumns,
        mut rows: Vec<usize>,
        mut take: impl FnMut(&UserColumns, RawOutputs) -> Result<()>,
    ) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let Self { network, scaling, contents, device } = self;
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
    /// The published scores, one column for each of the nine outputs.
    score_columns: Vec<Vec<f64>>,
}

impl Evaluation {
    /// Scores the users of a split; `None` if there are none.
    pub(crate) fn try_new(evaluator: Evaluator<'_>, users: &UserBlocks, wanted: Split) -> Result<Option<Self>> {
        let mut raw_batches = Vec::new();
        let mut label_batches = Vec::new();
        for window in users.each_window() {
            let window = window?;
            let rows = window.rows_in(wanted);
            evaluator.run(&window, rows, |batch, raw| {
                raw_batches.push(raw);
                label_batches.push(batch.labels_tensor()?.f_to_device(evaluator.device)?);
                Ok(())
            })?;
        }
        if raw_batches.is_empty() {
            return Ok(None);
        }
        let raw = RawOutputs::cat(&raw_batches)?;
        let labels = Tensor::f_cat(&label_batches, 0)?;
        let score_columns = tch::no_grad(|| columns(&evaluator.network.scores(&raw, evaluator.scaling)?))?;
        Ok(Some(Self { raw, label_columns: columns(&labels)?, labels, score_columns }))
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
        let rows = self.known_rows(label);
        rows.map(|row| (self.score_columns[label][row], self.label_columns[label][row] > 0.5)).unzip()
    }

    pub(crate) fn auc_purchase(&self) -> Option<f64> {
        let (scores, classes) = self.scores_and_classes(PURCHASE);
        auc(&scores, &classes)
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

    /// AUC and average precision of the intents and of churn, where both classes are present, with 95 % intervals for
    /// purchase and churn; and the share of users whose intents are all decoded right.
    pub(crate) fn figures(&self, network: &IntentNetwork, seed: u64) -> Result<BTreeMap<String, f64>> {
        let mut figures = BTreeMap::new();
        let metrics: [(&str, Metric); 2] = [("auc", auc), ("ap", average_precision)];
        for (label, name) in TARGETS[..BINARY].iter().map(|target| target.name).enumerate() {
            let (scores, classes) = self.scores_and_classes(label);
            for (figure, metric) in metrics {
                let Some(value) = metric(&scores, &classes) else { continue };
                figures.insert(format!("{figure}_test_{name}"), value);
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
