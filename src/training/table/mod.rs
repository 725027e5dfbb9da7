//! `intentcast train --task table`: learns labels from the columns of a flat table, and a regression on the same
//! columns as the baseline.
//!
//! In: the columns of a [`FlatTable`]. Out: a table model in the registry (model/table/bundle.rs), which no night can
//! take.
//!
//! `labels` and `class_labels` read what is learnt as `targets`; `task` trains and evaluates the network, `trees` what stands next to it.

mod class_labels;
mod labels;
mod targets;
mod task;
mod trees;

use std::collections::BTreeMap;
use tch::{Device, nn};

use self::targets::Target;
use self::task::TableTask;
use self::trees::TrainedTrees;
use super::flat_table::{FlatTable, SingleThread, TableOptions, feature_names, read_all_columns};
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::model::registry::Registry;
use crate::model::table::bundle::{TABLE_FORMAT, TableCard, predictions};
use crate::model::table::columns::{TableColumns, TableInputs};
use crate::model::table::network::{HIDDEN, TableNetwork, TableShape};
use crate::model::table::trees::TableTrees;
use crate::model::weights::parameter_count;
use crate::progress;
use crate::score::devices;
use crate::training::fitting::{self, FitSettings, Journal, TrainingFingerprint, TrainingRun, TrainingTask};
use crate::training::trees::LightGbm;

/// Epochs compared with the networks of users: a table has fewer rows, and each costs less.
const EPOCHS_FACTOR: u32 = 4;
/// The learning rate of a regression compared with that of a network.
const REGRESSION_RATE_FACTOR: f64 = 10.0;

/// Trains a table model and writes it to the registry. It never becomes champion.
pub async fn train(config: &Config, options: &TableOptions) -> Result<TableCard> {
    let registry = Registry(Location::open(&config.output.uri, &config.s3)?.folder("models"));
    if config.table.trees {
        // Before anything is read or trained.
        LightGbm::open(&config.train)?;
    }
    let table = read_all_columns(config, options).await?;
    let settings = serde_json::json!({ "model": config.model, "train": config.train, "table": config.table });
    let mut fingerprint = TrainingFingerprint::new(config, &(TABLE_FORMAT, &config.table))?;
    table.add_to_fingerprint(options, &mut fingerprint)?;
    let mut run = TrainingRun::start(config, "table", fingerprint, settings.clone()).await?;
    let (card, store, trees) = run.train(|journal| train_both(config, options, &table, settings, journal))?;
    let card = registry.write_table(card, &store, &trees).await?;
    run.finish(Some(&card.version), &card.figures).await?;
    Ok(card)
}

/// Trains the baseline, the network and the trees, and makes the card.
fn train_both(
    config: &Config,
    options: &TableOptions,
    table: &FlatTable,
    settings: serde_json::Value,
    journal: &mut Journal,
) -> Result<(TableCard, nn::VarStore, TableTrees)> {
    let _single_thread = SingleThread::start();
    let rows = table.rows_by_split(|_| true);
    require_enough_rows(config, &rows)?;
    let names = feature_names(&table.rows.schema(), options)?;
    let categories_max = config.table.categories_max as usize;
    let columns = TableColumns::fit(&table.rows, &names, &options.category, &rows[0], categories_max)?;
    let inputs = columns.transform(table.rows.num_rows(), |name| table.rows.column_by_name(name).cloned())?;
    let targets = labels::read_targets(config, table, options, &rows[0])?;
    let device = devices::choose(&config.score)?;
    let data = TrainingData { config, rows: &rows, columns: &columns, inputs: &inputs, targets: &targets, device };

    let regression = data.train_network(&[], REGRESSION_RATE_FACTOR, journal)?;
    let network = data.train_network(&HIDDEN, 1.0, journal)?;
    let mut figures = network.figures;
    let trained = match config.table.trees {
        true => trees::train(config, &inputs, &targets, &rows, |rows, label| {
            predictions(&network.network, &inputs, rows, (label, targets[label].label.kind))
        })?,
        false => TrainedTrees::default(),
    };
    // Those of the blend replace the network's.
    figures.extend(trained.figures);
    figures.extend(regression.figures.into_iter().map(|(name, value)| (format!("{name}_regression"), value)));
    for (name, rows) in ["rows_train", "rows_valid", "rows_test"].iter().zip(&rows) {
        figures.insert((*name).into(), rows.len() as f64);
    }
    journal.report_failures(&mut figures);
    let card = TableCard {
        format: TABLE_FORMAT,
        version: String::new(),
        trained_at: chrono::Utc::now().to_rfc3339(),
        table: options.table.clone(),
        split: table.splits.description(),
        columns,
        labels: targets.into_iter().map(|target| target.label).collect(),
        shape: network.network.shape.clone(),
        weights_hash: String::new(),
        trees_hash: None,
        network_weights: trained.network_weights,
        figures,
        settings,
    };
    Ok((card, network.store, trained.trees))
}

struct TrainingData<'a> {
    config: &'a Config,
    /// The rows for training, validation and test.
    rows: &'a [Vec<usize>; 3],
    columns: &'a TableColumns,
    inputs: &'a TableInputs,
    targets: &'a [Target],
    device: Device,
}

struct TrainedNetwork {
    network: TableNetwork,
    store: nn::VarStore,
    figures: BTreeMap<String, f64>,
}

impl TrainingData<'_> {
    /// Trains a network with these hidden layers; `rate_factor` multiplies the learning rate.
    fn train_network(&self, hidden: &[i64], rate_factor: f64, journal: &mut Journal) -> Result<TrainedNetwork> {
        let train = &self.config.train;
        tch::manual_seed(train.seed as i64);
        let dropout = if hidden.is_empty() { 0.0 } else { self.config.model.dropout };
        let shape = TableShape::new(self.columns, hidden, dropout, self.targets.len());
        let mut store = nn::VarStore::new(self.device);
        let network = TableNetwork::new(&store.root(), &shape);
        let mut task = TableTask::new(&network, self.inputs, self.targets, self.rows, self.config)?;
        let fit_settings = FitSettings {
            epochs_max: train.epochs_max * EPOCHS_FACTOR,
            patience_epochs: train.patience_epochs * EPOCHS_FACTOR,
            learning_rate: train.learning_rate * rate_factor,
            weight_decay: train.weight_decay,
            seed: train.seed,
        };
        let bar = progress::bar(task.name(), 1);
        let fitted = fitting::fit(&mut task, &mut store, &fit_settings, journal, &bar)?;
        bar.finish_and_clear();
        let mut figures = task.test_figures(train.seed)?;
        figures.insert("epochs".into(), fitted.epochs.into());
        figures.insert("train_seconds".into(), fitted.seconds);
        figures.insert("parameters".into(), parameter_count(&store) as f64);
        drop(task);
        Ok(TrainedNetwork { network, store, figures })
    }
}

/// Refuses a table without a whole batch to train on, or without rows for validation or test.
fn require_enough_rows(config: &Config, [train, valid, test]: &[Vec<usize>; 3]) -> Result<()> {
    let batch_rows = config.train.batch_rows as usize;
    if train.len() < batch_rows {
        return Err(Failure::input(format!(
            "training: expected at least {batch_rows} rows to train on (train.batch_rows), got {}",
            train.len()
        ))
        .hint("add rows, or lower train.batch_rows"));
    }
    if valid.is_empty() || test.is_empty() {
        return Err(Failure::input(format!(
            "training: expected rows for validation and test, got {} and {}",
            valid.len(),
            test.len()
        ))
        .hint("add rows; a --time-column needs at least three different times"));
    }
    Ok(())
}
