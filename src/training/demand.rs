//! The training loop of the demand network: pinball loss on days in stock, lead times drawn anew each step.

use indicatif::ProgressBar;
use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use tch::nn::OptimizerConfig;
use tch::{Device, Kind, Tensor, nn};

use super::intent::{restore, snapshot};
use super::sets::{ItemSet, Split, rows_of};
use crate::config::TrainConfig;
use crate::failure::Result;
use crate::metrics::pinball;
use crate::model::demand::{DemandNetwork, ItemHistory, LEVELS};

const BATCH_ITEMS: usize = 64;

/// Trains in place on `train` (earlier dates); returns figures on every item of `test` (the newest date).
pub fn train(
    network: &DemandNetwork,
    store: &mut nn::VarStore,
    train: &ItemSet,
    test: &ItemSet,
    config: &TrainConfig,
    bar: &ProgressBar,
) -> Result<BTreeMap<String, f64>> {
    let device = store.device();
    let long = |i: &ItemHistory| i.days_since_first_seen >= network.shape.history_days_min;
    let ids = || train.items.iter().map(|i| i.item_id.as_str());
    let usable = |rows: Vec<usize>| -> Vec<usize> { rows.into_iter().filter(|&r| long(&train.items[r])).collect() };
    let mut rows = usable(rows_of(ids(), Split::Train));
    rows.extend(usable(rows_of(ids(), Split::Test)));
    let mut valid = usable(rows_of(ids(), Split::Valid));
    let rows_max = (config.rows_max / 20).max(BATCH_ITEMS as u32) as usize;
    valid.shuffle(&mut ChaCha8Rng::seed_from_u64(config.seed));
    valid.truncate(rows_max / 4);
    super::sets::enough("item histories", rows.len(), 8)?;
    let mut optimizer =
        nn::AdamW { wd: config.weight_decay, ..Default::default() }.build(store, config.learning_rate * 3.0)?;
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed ^ 0xd3);
    let epochs = config.epochs_max * 3;
    let (mut best, mut worse) = ((f64::INFINITY, Vec::new()), 0);
    for epoch in 1..=epochs {
        optimizer.set_lr(config.learning_rate * 3.0 * (1.0 - 0.9 * f64::from(epoch) / f64::from(epochs)));
        rows.shuffle(&mut rng);
        let (mut sum, mut steps) = (0.0, 0.0f64);
        // A large catalogue has no need to be seen whole in every epoch.
        for batch in rows[..rows.len().min(rows_max)].chunks(BATCH_ITEMS) {
            let leads: Vec<i64> = batch.iter().map(|_| rng.random_range(1..=network.shape.horizon_days)).collect();
            let loss = loss(network, train, batch, &leads, device)?;
            optimizer.zero_grad();
            loss.f_backward()?;
            optimizer.clip_grad_norm(1.0);
            optimizer.step();
            sum += loss.double_value(&[]);
            steps += 1.0;
        }
        let leads: Vec<i64> =
            valid.iter().map(|&r| train.items[r].lead_time_days.min(network.shape.horizon_days)).collect();
        let valid_loss = match valid.is_empty() {
            true => sum / steps.max(1.0),
            false => tch::no_grad(|| loss(network, train, &valid, &leads, device))?.double_value(&[]),
        };
        bar.set_message(format!("epoch {epoch}: loss {:.4}, valid loss {valid_loss:.4}", sum / steps.max(1.0)));
        bar.inc(1);
        if valid_loss < best.0 - 1e-5 {
            best = (valid_loss, snapshot(store));
            worse = 0;
        } else {
            worse += 1;
            if worse >= config.patience_epochs * 3 {
                break;
            }
        }
    }
    restore(store, &best.1);
    tracing::info!("demand: valid loss {:.4}", best.0);
    figures(network, test, device)
}

/// Pinball over days and lead times in the unit of each item's scale (to its root, so that large items weigh more),
/// plus the Poisson deviance of the means. Days out of stock, and lead times with such a day, are left out.
fn loss(network: &DemandNetwork, set: &ItemSet, rows: &[usize], leads: &[i64], device: Device) -> Result<Tensor> {
    let items: Vec<&ItemHistory> = rows.iter().map(|&r| &set.items[r]).collect();
    let (daily, total) = network.forward(&items, leads, device)?;
    let (b, h) = (rows.len() as i64, network.shape.horizon_days);
    let (mut units, mut seen, mut sums, mut whole) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (&row, &lead) in rows.iter().zip(leads) {
        units.extend(set.units[row].iter().map(|&u| u as f32));
        seen.extend(set.in_stock[row].iter().map(|&s| f32::from(u8::from(s))));
        let lead = lead as usize;
        sums.push(set.units[row].iter().take(lead).sum::<f64>() as f32);
        whole.push(f32::from(u8::from(set.in_stock[row].iter().take(lead).all(|&s| s))));
    }
    let weight: Vec<f32> = items.iter().map(|i| i.scale().powf(-0.5) as f32).collect();
    let weight = Tensor::f_from_slice(&weight)?.f_view([b, 1])?.f_to_device(device)?;
    let units = Tensor::f_from_slice(&units)?.f_view([b, h])?.f_to_device(device)?;
    let seen = Tensor::f_from_slice(&seen)?.f_view([b, h])?.f_to_device(device)? * &weight;
    let sums = Tensor::f_from_slice(&sums)?.f_view([b])?.f_to_device(device)?;
    let span: Vec<f32> = leads.iter().map(|&l| (l as f32).powf(-0.5)).collect();
    let whole = Tensor::f_from_slice(&whole)?.f_to_device(device)?
        * weight.squeeze_dim(1)
        * Tensor::f_from_slice(&span)?.f_to_device(device)?;
    Ok(quantile_loss(&daily, &units, &seen)? + quantile_loss(&total, &sums, &whole)?)
}

/// Forecast [.., 8], actual [..], weight [..] → weighted mean over all.
fn quantile_loss(forecast: &Tensor, actual: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let levels: Vec<f32> = LEVELS.iter().map(|&l| l as f32).collect();
    let levels = Tensor::f_from_slice(&levels)?.f_to_device(forecast.device())?;
    let miss = actual.unsqueeze(-1) - forecast.narrow(-1, 1, 7);
    let pinball = (&miss * &levels).maximum(&(&miss * (&levels - 1.0))).mean_dim(-1i64, false, Kind::Float);
    let mean = forecast.select(-1, 0) + 1e-4;
    let poisson = &mean - actual * mean.log();
    Ok(((pinball + poisson * 0.1) * weight).sum(Kind::Float) / weight.sum(Kind::Float).clamp_min(1e-6))
}

/// Mean pinball over days in stock, all levels and items: the network beside seasonal naive (the same weekday of the
/// last week in stock), and how often the 90 % quantile covered.
fn figures(network: &DemandNetwork, test: &ItemSet, device: Device) -> Result<BTreeMap<String, f64>> {
    let (mut ours, mut naive, mut cells, mut covered) = (0.0, 0.0, 0.0f64, 0.0);
    let rows: Vec<usize> = (0..test.items.len()).collect();
    for chunk in rows.chunks(256) {
        let items: Vec<&ItemHistory> = chunk.iter().map(|&r| &test.items[r]).collect();
        let leads = vec![7; items.len()];
        let (daily, _) = tch::no_grad(|| network.forward(&items, &leads, device))?;
        let daily = Vec::<f32>::try_from(&daily.f_to_device(Device::Cpu)?.f_contiguous()?.f_view([-1])?)?;
        let h = network.shape.horizon_days as usize;
        for (i, &row) in chunk.iter().enumerate() {
            let item = &test.items[row];
            let short =
                item.days_since_first_seen < network.shape.history_days_min || item.units.iter().all(|&u| u == 0.0);
            let fallback = item.fallback(1);
            for day in 0..h {
                if !test.in_stock[row].get(day).copied().unwrap_or(false) {
                    continue;
                }
                let actual = test.units[row][day];
                let last_week = seasonal_naive(item, day);
                for (k, &level) in LEVELS.iter().enumerate() {
                    let quantile = if short { fallback[k + 1] } else { daily[(i * h + day) * 8 + k + 1].into() };
                    ours += pinball(level, quantile, actual);
                    naive += pinball(level, last_week, actual);
                    if level == 0.90 && actual <= quantile {
                        covered += 1.0;
                    }
                }
                cells += 1.0;
            }
        }
    }
    let cells = cells.max(1.0);
    let levels = LEVELS.len() as f64;
    Ok(BTreeMap::from([
        ("pinball_test".to_string(), ours / cells / levels),
        ("pinball_test_seasonal_naive".to_string(), naive / cells / levels),
        ("coverage_test_q90".to_string(), covered / cells),
    ]))
}

/// The same weekday of the last week whose day was in stock; zero without one.
fn seasonal_naive(item: &ItemHistory, day: usize) -> f64 {
    let n = item.units.len() as i64;
    let mut at = n + day as i64 - 7;
    while at >= 0 {
        if at < n && item.in_stock[at as usize] {
            return item.units[at as usize];
        }
        at -= 7;
    }
    0.0
}
