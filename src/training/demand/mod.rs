//! Trains what forecasts demand: the network (pinball loss on days in stock, the likelihood of counts for slow items, and lead times
//! that are drawn at each step), the trees, and their blend.
//!
//! In come items by purpose ([`ItemDatasets`]) and the untrained network; out go its weights, the trees, the blend, the calibration and
//! figures on the test date, next to those of a seasonal naive forecast. `bundle` calls [`require_histories`] and [`train`].

mod blend_weights;
mod calibration;
mod demand_accuracy;
mod demand_losses;
mod demand_task;
mod item_batches;
mod rate_prior;
mod tree_member;

use indicatif::ProgressBar;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tch::{Device, nn};

use crate::config::{Config, DemandConfig, TrainConfig};
use crate::failure::{Failure, Result};
use crate::model::demand::{DemandNetwork, DemandPattern};
use crate::model::weights::parameter_count;
use crate::training::datasets::{
    BlockRows, ItemBlocks, ItemColumns, ItemDatasets, ItemStatistics, Split, is_forecast_by_network, training_rows,
};
use crate::training::fitting::{self, FitSettings, Journal};
use calibration::ForecastOutcomes;
use demand_task::DemandTask;
use item_batches::BATCH_ITEMS;
use rate_prior::fit_rate_prior;

/// Factor on epochs, patience and learning rate of the intents: there are far fewer items than users.
const MORE: u32 = 3;
/// Share of `train.rows_max` that an epoch sees, as one in so many: a large catalogue need not be seen whole each epoch.
const EPOCH_FRACTION: u32 = 20;
/// Learning rate of the refit, as a factor of that of the training: the weights are good already.
const REFIT_RATE: f64 = 0.3;
/// With fewer histories of items there is nothing to train on.
const HISTORIES_MIN: usize = 8;

/// The items of a training and their statistics.
#[derive(Debug, Clone, Copy)]
pub struct DemandData<'a> {
    pub items: &'a ItemDatasets,
    pub statistics: &'a ItemStatistics,
}

/// Trains and calibrates in place. Returns figures on every item of the test date. Once they are computed, network and trees learn from
/// the calibration and test dates too, and the published calibration follows from the outcomes of both.
pub fn train(
    network: &mut DemandNetwork,
    store: &mut nn::VarStore,
    data: DemandData<'_>,
    config: &Config,
    journal: &mut Journal,
    bar: &ProgressBar,
) -> Result<BTreeMap<String, f64>> {
    let DemandData { items, statistics } = data;
    let settings = &config.train;
    let device = store.device();
    let rows_max = (settings.rows_max / EPOCH_FRACTION).max(BATCH_ITEMS as u32) as usize;
    // First, because what is wrong with the library or the rows shows within seconds.
    let trees = match config.demand.trees {
        true => tree_member::train(network, items, settings)?,
        false => None,
    };
    let mut validation_rng = ChaCha8Rng::seed_from_u64(settings.seed ^ 0xca);
    let validation = items.train.sample(rows_max / 4, &mut validation_rng, |items| items.rows_in(Split::Valid))?;
    let forecast_validation = validation.take(&validation.rows_with_pattern(is_forecast_by_network))?;
    let new_items = items.new_items();
    network.shape.prior = fit_rate_prior(&new_items.before_test, DemandPattern::New)?;
    network.shape.dormant_prior = fit_rate_prior(&[&items.train, &items.calibration], DemandPattern::Dormant)?;

    let mut task = DemandTask {
        network: &*network,
        items: &items.train,
        samples: statistics.training_rows.min(rows_max),
        validation: Some(forecast_validation),
        device,
        refit: false,
    };
    let summary = fitting::fit(&mut task, store, &fit_settings(settings), journal, bar)?;

    let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
    // Without calibration dates, other items of the training dates stand in.
    let known = match items.calibration.is_empty() {
        true => validation.clone(),
        false => sample_known(&items.calibration, rows_max, &mut rng)?,
    };
    let mut figures = BTreeMap::new();
    if let Some((trees, tree_figures)) = trees {
        network.trees = Some(Arc::new(trees));
        network.shape.blend = blend_weights::fit(network, &known, device)?;
        figures.extend(tree_figures);
    }
    let mut outcomes = ForecastOutcomes::default();
    outcomes.add(network, &known, device, &mut rng)?;
    replace_new_items(&mut outcomes, network, &new_items.before_test, device, &mut rng)?;
    network.shape.calibration = outcomes.calibration();
    let pinball_valid = demand_accuracy::pinball_of(network, &validation, device)?;
    figures.extend(demand_accuracy::figures(network, &items.test, device, settings.seed)?);

    if !items.calibration.is_empty() {
        outcomes.add(network, &sample_known(&items.test, rows_max, &mut rng)?, device, &mut rng)?;
        network.shape.prior = fit_rate_prior(&new_items.newest, DemandPattern::New)?;
        replace_new_items(&mut outcomes, network, &new_items.newest, device, &mut rng)?;
        network.shape.calibration = outcomes.calibration();
    }
    if settings.refit_epochs > 0 {
        let seconds = refit(network, store, items, settings, rows_max, journal, bar)?;
        figures.insert("train_seconds_demand_refit".into(), seconds);
    }
    if let Some(pinball) = pinball_valid {
        figures.insert("pinball_valid".into(), pinball);
    }
    figures.insert("parameters_demand".into(), parameter_count(store) as f64);
    figures.insert("epochs_demand".into(), summary.epochs.into());
    figures.insert("train_seconds_demand".into(), summary.seconds);
    figures.insert("items_train".into(), statistics.training_rows as f64);
    // How many windows of `train.memory_bytes_max` an epoch would read if it saw every item.
    figures.insert("windows_train_demand".into(), items.train.windows(None).len() as f64);
    Ok(figures)
}

/// Lets network and trees learn from all dates. Returns the seconds that it took.
fn refit(
    network: &mut DemandNetwork,
    store: &mut nn::VarStore,
    items: &ItemDatasets,
    settings: &TrainConfig,
    rows_max: usize,
    journal: &mut Journal,
    bar: &ProgressBar,
) -> Result<f64> {
    let clock = Instant::now();
    if let Some(judged) = network.trees.take() {
        network.trees = Some(Arc::new(tree_member::refit(network, items, &judged, settings)?));
    }
    let all = Arc::new(ItemBlocks::union(&[items.train.as_ref(), &items.calibration, &items.test])?);
    let mut samples = 0;
    for window in all.each_window() {
        samples += training_rows(&window?).len();
    }
    let epochs = settings.refit_epochs * MORE;
    let fit = FitSettings {
        epochs_max: epochs,
        patience_epochs: epochs,
        learning_rate: fit_settings(settings).learning_rate * REFIT_RATE,
        weight_decay: settings.weight_decay,
        seed: settings.seed ^ 0xd7,
    };
    let mut task = DemandTask {
        network: &*network,
        items: &all,
        samples: samples.min(rows_max),
        validation: None,
        device: store.device(),
        refit: true,
    };
    fitting::fit(&mut task, store, &fit, journal, bar)?;
    Ok(clock.elapsed().as_secs_f64())
}

fn fit_settings(config: &TrainConfig) -> FitSettings {
    FitSettings {
        epochs_max: config.epochs_max * MORE,
        patience_epochs: config.patience_epochs * MORE,
        learning_rate: config.learning_rate * f64::from(MORE),
        weight_decay: config.weight_decay,
        seed: config.seed ^ 0xd3,
    }
}

/// Refuses too few histories. Called before anything is trained, because the intents take far longer.
pub(crate) fn require_histories(statistics: &ItemStatistics, config: &DemandConfig) -> Result<()> {
    let histories = statistics.training_rows;
    if histories >= HISTORIES_MIN {
        return Ok(());
    }
    Err(Failure::input(format!(
        "training: expected at least {HISTORIES_MIN} histories of items that sell, got {histories}; an item counts at each \
         of {} past dates if it sold in the {} days before and was first seen at least {} days before",
        config.as_of_dates, config.history_days, config.history_days_min
    ))
    .hint(format!(
        "raise demand.as_of_dates, lower demand.history_days_min, or train on a lake with more items, days or purchases; items \
         must be first seen {} days before the training date (twice demand.horizon_days and demand.history_days_min): in a \
         younger lake lower demand.horizon_days; with 7 it is {} days; or train without demand (demand.enabled=false)",
        2 * config.horizon_days + config.history_days_min,
        2 * 7 + config.history_days_min
    )))
}

/// Draws at most `rows_max` items that are not new.
fn sample_known(items: &ItemBlocks, rows_max: usize, rng: &mut ChaCha8Rng) -> Result<ItemColumns> {
    items.sample(rows_max, rng, |items| items.rows_with_pattern(|pattern| pattern != DemandPattern::New))
}

/// Replaces the outcomes of new items by those of the new items in `blocks`.
fn replace_new_items(
    outcomes: &mut ForecastOutcomes,
    network: &DemandNetwork,
    blocks: &[&ItemBlocks],
    device: Device,
    rng: &mut ChaCha8Rng,
) -> Result<()> {
    outcomes.remove(DemandPattern::New);
    for window in blocks.iter().flat_map(|items| items.each_window()) {
        let items = window?;
        outcomes.add(
            network,
            &items.take(&items.rows_with_pattern(|pattern| pattern == DemandPattern::New))?,
            device,
            rng,
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_young_lake_is_told_the_days_it_needs_and_the_setting() {
        let none = ItemStatistics {
            training_rows: 0,
            content_dims: 0,
            intent_days_share: 0.0,
            closed_days: false,
            as_of_days: 0,
        };
        let config = DemandConfig { horizon_days: 28, history_days_min: 14, ..DemandConfig::default() };
        let failure = require_histories(&none, &config).unwrap_err();
        assert_eq!(failure.kind.exit_code(), 3);
        let hint = failure.hint.unwrap();
        assert!(hint.contains("first seen 70 days before the training date"), "{hint}");
        assert!(hint.contains("lower demand.horizon_days; with 7 it is 28 days"), "{hint}");
        assert!(hint.ends_with("or train without demand (demand.enabled=false)"), "{hint}");
    }
}
