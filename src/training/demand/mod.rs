//! Trains the demand network: pinball loss on days in stock, the likelihood of counts for slow items, and lead times that
//! are drawn at each step.
//!
//! In come items by purpose ([`ItemDatasets`]) and the untrained network; out go its weights, its calibration and figures
//! on the test date, next to those of a seasonal naive forecast. `bundle` calls [`require_histories`] and [`train`].

mod calibration;
mod demand_accuracy;
mod demand_losses;
mod demand_task;
mod item_batches;
mod rate_prior;

use indicatif::ProgressBar;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use tch::{Device, nn};

use crate::config::{DemandConfig, TrainConfig};
use crate::failure::{Failure, Result};
use crate::model::demand::{DemandNetwork, DemandPattern};
use crate::model::weights::parameter_count;
use crate::training::datasets::{
    BlockRows, ItemBlocks, ItemColumns, ItemDatasets, ItemStatistics, Split, is_forecast_by_network,
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
/// With fewer histories of items there is nothing to train on.
const HISTORIES_MIN: usize = 8;

/// The items of a training and their statistics.
#[derive(Debug, Clone, Copy)]
pub struct DemandData<'a> {
    pub items: &'a ItemDatasets,
    pub statistics: &'a ItemStatistics,
}

/// Trains and calibrates in place. Returns figures on every item of the test date. Once they are computed, the test date
/// joins the dates that the published calibration follows from.
pub fn train(
    network: &mut DemandNetwork,
    store: &mut nn::VarStore,
    data: DemandData<'_>,
    config: &TrainConfig,
    journal: &mut Journal,
    bar: &ProgressBar,
) -> Result<BTreeMap<String, f64>> {
    let DemandData { items, statistics } = data;
    let device = store.device();
    let rows_max = (config.rows_max / EPOCH_FRACTION).max(BATCH_ITEMS as u32) as usize;
    let mut validation_rng = ChaCha8Rng::seed_from_u64(config.seed ^ 0xca);
    let validation = items.train.sample(rows_max / 4, &mut validation_rng, |items| items.rows_in(Split::Valid))?;
    let forecast_validation = validation.take(&validation.rows_with_pattern(is_forecast_by_network))?;
    let new_items = items.new_items();
    network.shape.prior = fit_rate_prior(&new_items.before_test, DemandPattern::New)?;
    network.shape.dormant_prior = fit_rate_prior(&[&items.train, &items.calibration], DemandPattern::Dormant)?;

    let mut task = DemandTask {
        network: &*network,
        items: &items.train,
        samples: statistics.training_rows.min(rows_max),
        validation: forecast_validation,
        device,
    };
    let summary = fitting::fit(&mut task, store, &fit_settings(config), journal, bar)?;

    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    let mut outcomes = ForecastOutcomes::default();
    match items.calibration.is_empty() {
        // Without calibration dates, other items of the training dates stand in.
        true => outcomes.add(network, &validation, device, &mut rng)?,
        false => outcomes.add(network, &sample_known(&items.calibration, rows_max, &mut rng)?, device, &mut rng)?,
    }
    replace_new_items(&mut outcomes, network, &new_items.before_test, device, &mut rng)?;
    network.shape.calibration = outcomes.calibration();
    let pinball_valid = demand_accuracy::mean_pinball(network, &validation, device)?;
    let mut figures = demand_accuracy::figures(network, &items.test, device, config.seed)?;

    if !items.calibration.is_empty() {
        outcomes.add(network, &sample_known(&items.test, rows_max, &mut rng)?, device, &mut rng)?;
        network.shape.prior = fit_rate_prior(&new_items.newest, DemandPattern::New)?;
        replace_new_items(&mut outcomes, network, &new_items.newest, device, &mut rng)?;
        network.shape.calibration = outcomes.calibration();
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
         younger lake lower demand.horizon_days; with 7 it is {} days",
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
        let none = ItemStatistics { training_rows: 0, content_dims: 0, intent_days_share: 0.0, closed_days: false };
        let config = DemandConfig { horizon_days: 28, history_days_min: 14, ..DemandConfig::default() };
        let failure = require_histories(&none, &config).unwrap_err();
        assert_eq!(failure.kind.exit_code(), 3);
        let hint = failure.hint.unwrap();
        assert!(hint.contains("first seen 70 days before the training date"), "{hint}");
        assert!(hint.ends_with("lower demand.horizon_days; with 7 it is 28 days"), "{hint}");
    }
}
