//! `intentcast train --task table`: labels learnt from the columns of a flat table alone, beside a regression on the same.
//!
//! `source` reads and splits, `labels` and `classes` say what is learnt, `lesson` learns and measures. The model goes to the registry
//! as a table model (model/table/bundle.rs), which no night can take.

mod classes;
mod csv;
pub(in crate::training) mod labels;
pub(in crate::training) mod lesson;
pub(in crate::training) mod source;

use std::collections::BTreeMap;
use tch::nn;

use self::lesson::TableLesson;
use self::source::Table;
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::model::bundle::Registry;
use crate::model::table::bundle::{TABLE_FORMAT, TableCard};
use crate::model::table::columns::TableColumns;
use crate::model::table::network::{HIDDEN, TableNetwork, TableShape};
use crate::model::weights::parameter_count;
use crate::progress;
use crate::score::devices;
use crate::training::datasets::Split;
use crate::training::fitting::{self, FitSettings, Journal, TrainingFingerprint, TrainingRun, TrainingTask};

/// Against users: more epochs, as a table has fewer rows, and each costs less.
const MORE: u32 = 4;
/// A regression takes larger steps than a network.
const REGRESSION_STEPS: f64 = 10.0;

/// What `--task table` reads and learns.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TableOptions {
    /// Every task but night: files or folders of CSV (with a header line) or Parquet, all of one kind.
    #[arg(long, value_name = "URI", num_args = 1..)]
    pub table: Vec<String>,
    /// Every task but night: a column to learn: true/false, 0/1 or yes/no (a probability), numbers (of a text or picture:
    /// classes), or other texts (classes). May be given again.
    #[arg(long, value_name = "COLUMN")]
    pub label: Vec<String>,
    /// --task table: a column of codes, whose numbers are no amounts; a label may be one. Text always is. May be given again.
    #[arg(long, value_name = "COLUMN")]
    pub category: Vec<String>,
    /// --task table: a column to leave out, such as an id or what is known only afterwards. May be given again.
    #[arg(long, value_name = "COLUMN")]
    pub exclude: Vec<String>,
    /// Every task but night: trains on the earliest 80 % of the rows by this column, tests on the last 10 %. Without it,
    /// rows are split by a hash of their contents, equal ones together.
    #[arg(long, value_name = "COLUMN")]
    pub time_column: Option<String>,
}

/// Trains on a table and writes a table model. Champion and nights stay as they are.
pub async fn run(config: &Config, options: &TableOptions) -> Result<TableCard> {
    let registry = Registry(Location::open(&config.output.uri, &config.s3)?.folder("models"));
    let table = source::read(config, options).await?;
    let settings = serde_json::json!({ "model": config.model, "train": config.train, "table": config.table });
    let mut fingerprint = TrainingFingerprint::new(config, &(TABLE_FORMAT, &config.table))?;
    table.fingerprint(options, &mut fingerprint)?;
    let mut run = TrainingRun::start(config, "table", fingerprint, settings.clone()).await?;
    let (card, store) = run.train(|journal| fit(config, options, &table, settings, journal))?;
    let card = registry.write_table(card, &store).await?;
    run.finish(Some(&card.version), &card.figures).await?;
    Ok(card)
}

fn fit(
    config: &Config,
    options: &TableOptions,
    table: &Table,
    settings: serde_json::Value,
    journal: &mut Journal,
) -> Result<(TableCard, nn::VarStore)> {
    let _one = OneThread::set();
    let parts = [Split::Train, Split::Valid, Split::Test].map(|part| table.rows_of(part));
    enough(config, &parts)?;
    let names = source::feature_names(&table.rows.schema(), options)?;
    let most = config.table.categories_max as usize;
    let columns = TableColumns::fit(&table.rows, &names, &options.category, &parts[0], most)?;
    let inputs = columns.transform(table.rows.num_rows(), |name| table.rows.column_by_name(name).cloned())?;
    let targets = labels::read(config, table, options, &parts[0])?;
    let device = devices::choose(&config.score)?;

    let mut learn = |hidden: &[i64], steps: f64| -> Result<(TableShape, nn::VarStore, BTreeMap<String, f64>)> {
        tch::manual_seed(config.train.seed as i64);
        let dropout = if hidden.is_empty() { 0.0 } else { config.model.dropout };
        let shape = TableShape::new(&columns, hidden, dropout, targets.len());
        let mut store = nn::VarStore::new(device);
        let network = TableNetwork::new(&store.root(), &shape);
        let mut lesson = TableLesson::new(&network, &inputs, &targets, &parts, config)?;
        let plan = FitSettings {
            epochs_max: config.train.epochs_max * MORE,
            patience_epochs: config.train.patience_epochs * MORE,
            learning_rate: config.train.learning_rate * steps,
            weight_decay: config.train.weight_decay,
            seed: config.train.seed,
        };
        let bar = progress::bar(lesson.name(), 1);
        let fitted = fitting::fit(&mut lesson, &mut store, &plan, journal, &bar)?;
        bar.finish_and_clear();
        let mut figures = lesson.figures(config.train.seed)?;
        figures.insert("epochs".into(), fitted.epochs.into());
        figures.insert("train_seconds".into(), fitted.seconds);
        figures.insert("parameters".into(), parameter_count(&store) as f64);
        Ok((shape, store, figures))
    };
    let (_, _, regression) = learn(&[], REGRESSION_STEPS)?;
    let (shape, store, mut figures) = learn(&HIDDEN, 1.0)?;
    figures.extend(regression.into_iter().map(|(name, value)| (format!("{name}_regression"), value)));
    for (name, rows) in ["rows_train", "rows_valid", "rows_test"].iter().zip(&parts) {
        figures.insert((*name).into(), rows.len() as f64);
    }
    journal.report_failures(&mut figures);
    let card = TableCard {
        format: TABLE_FORMAT,
        version: String::new(),
        trained_at: chrono::Utc::now().to_rfc3339(),
        table: options.table.clone(),
        split: table.split_by.clone(),
        columns,
        labels: targets.into_iter().map(|t| t.label).collect(),
        shape,
        weights_hash: String::new(),
        figures,
        settings,
    };
    Ok((card, store))
}

/// The network needs a whole batch, and figures need rows that it did not learn from.
fn enough(config: &Config, [train, valid, test]: &[Vec<usize>; 3]) -> Result<()> {
    let batch = config.train.batch_rows as usize;
    if train.len() < batch {
        return Err(Failure::input(format!(
            "training: expected at least {batch} rows to train on (train.batch_rows), got {}",
            train.len()
        ))
        .hint("give it more rows, or lower train.batch_rows"));
    }
    if valid.is_empty() || test.is_empty() {
        return Err(Failure::input(format!(
            "training: expected rows to validate and to test on, got {} and {}",
            valid.len(),
            test.len()
        ))
        .hint("give it more rows; a --time-column needs at least three different times"));
    }
    Ok(())
}

/// One thread within an operation, until dropped. Layers this small gain nothing from more, whose waiting for each other
/// takes longer than the work: on two busy cores, 3 s of training became 3 minutes.
pub(in crate::training) struct OneThread(i32);

impl OneThread {
    pub fn set() -> Self {
        let before = tch::get_num_threads();
        tch::set_num_threads(1);
        Self(before)
    }
}

impl Drop for OneThread {
    fn drop(&mut self) {
        tch::set_num_threads(self.0);
    }
}
