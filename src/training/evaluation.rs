//! What the behaviour network says of users that it does not learn from, beside what came: figures of training.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

use super::columns::Rows;
use super::objective::BINARY;
use super::sets::{PURCHASE, Split};
use super::user_columns::{UserBlocks, UserColumns};
use crate::failure::Result;
use crate::metrics::{auc, average_precision, bootstrap_interval, log_loss};
use crate::model::contents::Contents;
use crate::model::heads::INTENTS;
use crate::model::intent::{CHURN, IntentNetwork, RawOutputs};
use crate::model::scaling::Scaling;

/// Users of one forward pass without gradients.
const EVALUATED_ROWS: usize = 128;
/// Users that are scored to see how fast it goes.
const TIMED_ROWS_MAX: usize = 8192;
const TIMED_PASSES_MAX: usize = 8;
const TIMED_MAX: Duration = Duration::from_millis(500);
const BOOTSTRAP_ROUNDS: usize = 400;

/// Users of a split with the network's outputs, in an order that does not matter.
#[derive(Debug)]
pub struct Judged {
    pub raw: RawOutputs,
    /// float32 [users, 9], beside the outputs; NaN where a label is not for these users.
    pub labels: Tensor,
    /// The same as columns.
    labels_by_name: Vec<Vec<f64>>,
    /// Of the nine outputs, as published.
    scores: Vec<Vec<f64>>,
}

/// All that scores users.
#[derive(Debug, Clone, Copy)]
pub struct Judge<'a> {
    pub network: &'a IntentNetwork,
    pub scaling: &'a Scaling,
    pub contents: &'a Contents,
    pub device: Device,
}

impl Judged {
    /// `None` where nobody is in the split.
    pub fn of(judge: Judge<'_>, users: &UserBlocks, wanted: Split) -> Result<Option<Self>> {
        let (mut raw, mut labels) = (Vec::new(), Vec::new());
        for window in users.each() {
            let window = window?;
            let rows = window.rows_of(wanted);
            outputs(judge, &window, rows, |part, of| {
                raw.push(of);
                labels.push(part.labels_tensor()?.f_to_device(judge.device)?);
                Ok(())
            })?;
        }
        if raw.is_empty() {
            return Ok(None);
        }
        let (raw, labels) = (RawOutputs::cat(&raw)?, Tensor::f_cat(&labels, 0)?);
        let scores = tch::no_grad(|| columns(&judge.network.scores(&raw, judge.scaling)?))?;
        Ok(Some(Self { raw, labels_by_name: columns(&labels)?, labels, scores }))
    }

    /// Of whom a label is known.
    fn rows(&self, label: usize) -> impl Iterator<Item = usize> {
        let labels = &self.labels_by_name[label];
        (0..labels.len()).filter(|&row| !labels[row].is_nan())
    }

    /// Those whose purchases are known.
    pub fn users(&self) -> usize {
        self.rows(PURCHASE).count()
    }

    /// Scores and truth of a label, of those of whom it is known.
    fn told(&self, label: usize) -> (Vec<f64>, Vec<bool>) {
        self.rows(label).map(|row| (self.scores[label][row], self.labels_by_name[label][row] > 0.5)).unzip()
    }

    pub fn auc_purchase(&self) -> Option<f64> {
        let (scores, truth) = self.told(PURCHASE);
        auc(&scores, &truth)
    }

    /// Over intents and churn; comparable whatever the loss that was trained by.
    pub fn log_loss(&self) -> f64 {
        let of = |label: usize| {
            let (scores, truth) = self.told(label);
            (!truth.is_empty()).then(|| log_loss(&scores, &truth))
        };
        let losses: Vec<f64> = (0..BINARY).filter_map(of).collect();
        losses.iter().sum::<f64>() / losses.len() as f64
    }

    /// AUC and average precision of each intent and of churn that have both classes (of purchase and churn with 95 % intervals), and the share of
    /// label vectors decoded whole.
    pub fn figures(&self, network: &IntentNetwork, seed: u64) -> Result<BTreeMap<String, f64>> {
        let mut figures = BTreeMap::new();
        for (k, name) in INTENTS.iter().chain(&["churn"]).enumerate() {
            let (scores, truth) = self.told(k);
            for (figure, of) in [("auc", auc as fn(&[f64], &[bool]) -> Option<f64>), ("ap", average_precision)] {
                let Some(value) = of(&scores, &truth) else { continue };
                figures.insert(format!("{figure}_test_{name}"), value);
                if (k == PURCHASE || k == CHURN as usize)
                    && let Some((low, high)) = bootstrap_interval(&scores, &truth, of, BOOTSTRAP_ROUNDS, seed)
                {
                    figures.insert(format!("{figure}_test_{name}_low"), low);
                    figures.insert(format!("{figure}_test_{name}_high"), high);
                }
            }
        }
        let decoded = columns(&network.head.decode(&self.raw.intents))?;
        let right =
            |row: &usize| (0..INTENTS.len()).all(|k| (decoded[k][*row] > 0.5) == (self.labels_by_name[k][*row] > 0.5));
        let whole = self.rows(PURCHASE).filter(right).count();
        figures.insert("intents_decoded_whole_test".into(), whole as f64 / self.users() as f64);
        Ok(figures)
    }
}

/// Users scored a second, of the first window's: in the fastest of a few passes, as whatever else the machine does only slows.
pub fn users_per_second(judge: Judge<'_>, users: &UserBlocks) -> Result<Option<f64>> {
    let Some(window) = users.each().next().transpose()? else { return Ok(None) };
    let rows: Vec<usize> = (0..window.len().min(TIMED_ROWS_MAX)).collect();
    let (started, mut best) = (Instant::now(), f64::INFINITY);
    for _ in 0..TIMED_PASSES_MAX {
        let clock = Instant::now();
        outputs(judge, &window, rows.clone(), |_, _| Ok(()))?;
        best = best.min(clock.elapsed().as_secs_f64());
        if started.elapsed() > TIMED_MAX {
            break;
        }
    }
    Ok((!rows.is_empty()).then(|| rows.len() as f64 / best))
}

/// Outputs for rows, without gradients, batch by batch; users of like length together, as scoring has them.
fn outputs(
    judge: Judge<'_>,
    users: &UserColumns,
    mut rows: Vec<usize>,
    mut take: impl FnMut(&UserColumns, RawOutputs) -> Result<()>,
) -> Result<()> {
    let _guard = tch::no_grad_guard();
    let Judge { network, scaling, contents, device } = judge;
    rows.sort_by_key(|&row| users.length(row));
    for rows in rows.chunks(EVALUATED_ROWS) {
        let part = users.take(rows)?;
        let states = network.encode_users(&part.events(network.shape.events_max, contents)?.to(device)?, false)?;
        let raw = network.outputs(&states, &part.scaled(scaling)?.f_to_device(device)?, false)?;
        take(&part, raw)?;
    }
    Ok(())
}

/// The columns of a matrix, as numbers.
fn columns(matrix: &Tensor) -> Result<Vec<Vec<f64>>> {
    let matrix = matrix.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?.f_transpose(0, 1)?.f_contiguous()?;
    let n = matrix.size()[0];
    (0..n).map(|c| Ok(Vec::<f64>::try_from(&matrix.f_get(c)?)?)).collect()
}
