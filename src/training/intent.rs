//! The training loop of the intent network: AdamW (Loshchilov and Hutter 2019), warm-up, clipping, early stopping.

use indicatif::ProgressBar;
use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, HashMap};
use tch::nn::OptimizerConfig;
use tch::{Device, Kind, Tensor, nn};

use super::sets::{Split, UserSet, rows_of};
use crate::config::TrainConfig;
use crate::failure::Result;
use crate::metrics::{auc, log_loss};
use crate::model::bundle::IndexedItem;
use crate::model::intent::{IntentNetwork, Scaling, loss, to_scores};

/// Padded tokens of a training batch; bounds memory whatever the lengths.
const TOKENS_MAX: usize = 16_384;
/// Items that one step ranks against the one that was met.
const CANDIDATES: usize = 512;
const INTENTS: [&str; 7] = ["view", "search", "favorite", "cart", "purchase", "review", "churn"];

/// Trains in place. `train` holds the earlier dates, `held_out` the newest one; users are split besides.
/// Returns figures of the test users at the newest date.
pub fn train(
    network: &IntentNetwork,
    store: &mut nn::VarStore,
    sets: (&UserSet, &UserSet),
    items: &[IndexedItem],
    scaling: &Scaling,
    config: &TrainConfig,
    bar: &ProgressBar,
) -> Result<BTreeMap<String, f64>> {
    let (train, held_out) = sets;
    let device = store.device();
    let rows = rows_of(train.inputs.user_ids.iter(), Split::Train);
    let valid = rows_of(held_out.inputs.user_ids.iter(), Split::Valid);
    let test = rows_of(held_out.inputs.user_ids.iter(), Split::Test);
    super::sets::enough("users in the training split", rows.len(), 20)?;
    let mut optimizer =
        nn::AdamW { wd: config.weight_decay, ..Default::default() }.build(store, config.learning_rate)?;
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    let all: Vec<(i64, i64)> = items.iter().map(|i| i.buckets(network.shape.item_buckets)).collect();
    let index: HashMap<&str, (i64, i64)> =
        items.iter().zip(&all).map(|(i, buckets)| (i.item_id.as_str(), *buckets)).collect();

    let steps_total = (config.epochs_max as usize * rows.len().div_ceil(config.batch_rows as usize)).max(1) as f64;
    let (mut step, mut best, mut worse) = (0f64, (f64::INFINITY, Vec::new()), 0);
    for epoch in 1..=config.epochs_max {
        let mut sum = 0.0;
        let batches = batches(train, &rows, config.batch_rows as usize, &mut rng);
        for batch in &batches {
            step += 1.0;
            let warm = (step / (0.05 * steps_total)).min(1.0);
            let decay = 0.5 * (1.0 + (std::f64::consts::PI * (step / steps_total).min(1.0)).cos());
            optimizer.set_lr(config.learning_rate * warm * decay.max(0.05));
            let states = network.encode(&train.inputs, batch, device, true)?;
            let raw = network.head(&states, &train.inputs, batch, scaling, true)?;
            let mut total = loss(&raw, &labels(train, batch, device)?, scaling);
            if let Some(ranking) = ranking_loss(network, &states, train, batch, &index, &all, &mut rng)? {
                total += ranking * 0.3;
            }
            optimizer.zero_grad();
            total.f_backward()?;
            optimizer.clip_grad_norm(1.0);
            optimizer.step();
            sum += total.double_value(&[]);
            bar.inc(1);
        }
        let (valid_loss, valid_auc) = evaluate(network, held_out, &valid, scaling, device)?;
        let message = format!(
            "epoch {epoch}: loss {:.4}, valid loss {valid_loss:.4}, valid AUC of purchase {}",
            sum / batches.len().max(1) as f64,
            valid_auc.get("purchase").map_or("-".into(), |a| format!("{a:.4}")),
        );
        bar.set_message(message.clone());
        tracing::info!("{message}");
        if valid_loss < best.0 - 1e-5 {
            best = (valid_loss, snapshot(store));
            worse = 0;
        } else {
            worse += 1;
            if worse >= config.patience_epochs {
                break;
            }
        }
    }
    restore(store, &best.1);
    let (_, figures) = evaluate(network, held_out, &test, scaling, device)?;
    let mut named: BTreeMap<String, f64> = figures.into_iter().map(|(k, v)| (format!("auc_test_{k}"), v)).collect();
    named.insert("users_train".into(), rows.len() as f64);
    named.insert("users_test".into(), test.len() as f64);
    Ok(named)
}

/// Shuffled batches of near-equal lengths within the token bound.
fn batches(set: &UserSet, rows: &[usize], batch_rows: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<usize>> {
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

fn labels(set: &UserSet, rows: &[usize], device: Device) -> Result<Tensor> {
    let flat: Vec<f32> = rows.iter().flat_map(|&r| set.labels[r * 9..(r + 1) * 9].iter().copied()).collect();
    Ok(Tensor::f_from_slice(&flat)?.f_view([rows.len() as i64, 9])?.f_to_device(device)?)
}

/// Cross-entropy of the item that was met against sampled ones (sampled softmax, Jean et al. 2015).
fn ranking_loss(
    network: &IntentNetwork,
    states: &Tensor,
    set: &UserSet,
    batch: &[usize],
    index: &HashMap<&str, (i64, i64)>,
    all: &[(i64, i64)],
    rng: &mut ChaCha8Rng,
) -> Result<Option<Tensor>> {
    let (mut at, mut met) = (Vec::new(), Vec::new());
    for (i, &row) in batch.iter().enumerate() {
        let known: Vec<(i64, i64)> =
            set.next_items[row].iter().filter_map(|item| index.get(item.as_str()).copied()).collect();
        if !known.is_empty() {
            at.push(i as i64);
            met.push(known[rng.random_range(0..known.len())]);
        }
    }
    if at.is_empty() || all.len() < 2 {
        return Ok(None);
    }
    let mut candidates: Vec<(i64, i64)> = match all.len() <= CANDIDATES {
        true => all.to_vec(),
        false => (0..CANDIDATES).map(|_| all[rng.random_range(0..all.len())]).collect(),
    };
    candidates.extend(&met);
    candidates.sort_unstable();
    candidates.dedup();
    let target: Vec<i64> = met.iter().filter_map(|m| candidates.binary_search(m).ok()).map(|p| p as i64).collect();
    let device = states.device();
    let (ids, categories): (Vec<i64>, Vec<i64>) = candidates.into_iter().unzip();
    let (vectors, bias) = network.items(
        &Tensor::f_from_slice(&ids)?.f_to_device(device)?,
        &Tensor::f_from_slice(&categories)?.f_to_device(device)?,
    );
    let users = network.taste(&states.index_select(0, &Tensor::f_from_slice(&at)?.f_to_device(device)?));
    let logits = users.f_matmul(&vectors.transpose(0, 1))? + bias;
    Ok(Some(logits.cross_entropy_for_logits(&Tensor::f_from_slice(&target)?.f_to_device(device)?)))
}

/// Mean log loss over the seven probabilities, and the AUC of each that has both classes.
fn evaluate(
    network: &IntentNetwork,
    set: &UserSet,
    rows: &[usize],
    scaling: &Scaling,
    device: Device,
) -> Result<(f64, BTreeMap<String, f64>)> {
    let scores = scores(network, set, rows, scaling, device)?;
    let (mut total, mut aucs) = (0.0, BTreeMap::new());
    for (k, name) in INTENTS.iter().enumerate() {
        let p: Vec<f64> = scores.iter().skip(k).step_by(9).map(|&s| s.into()).collect();
        let y: Vec<bool> = rows.iter().map(|&r| set.labels[r * 9 + k] > 0.5).collect();
        total += log_loss(&p, &y);
        aucs.extend(auc(&p, &y).map(|a| (name.to_string(), a)));
    }
    Ok((total / INTENTS.len() as f64, aucs))
}

/// Scores of rows, row-major [rows, 9].
pub fn scores(
    network: &IntentNetwork,
    set: &UserSet,
    rows: &[usize],
    scaling: &Scaling,
    device: Device,
) -> Result<Vec<f32>> {
    let mut all = Vec::new();
    tch::no_grad(|| -> Result<()> {
        for chunk in rows.chunks(128) {
            let states = network.encode(&set.inputs, chunk, device, false)?;
            let raw = network.head(&states, &set.inputs, chunk, scaling, false)?;
            let flat = to_scores(&raw, scaling)
                .f_to_device(Device::Cpu)?
                .f_to_kind(Kind::Float)?
                .f_contiguous()?
                .f_view([-1])?;
            all.extend(Vec::<f32>::try_from(&flat)?);
        }
        Ok(())
    })?;
    Ok(all)
}

/// Copies of all weights.
pub fn snapshot(store: &nn::VarStore) -> Vec<(String, Tensor)> {
    store.variables().into_iter().map(|(name, t)| (name, t.detach().copy())).collect()
}

/// Puts copied weights back.
pub fn restore(store: &mut nn::VarStore, weights: &[(String, Tensor)]) {
    let mut variables = store.variables();
    tch::no_grad(|| {
        for (name, saved) in weights {
            if let Some(variable) = variables.get_mut(name) {
                variable.copy_(saved);
            }
        }
    });
}
