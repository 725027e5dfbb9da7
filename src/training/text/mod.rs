//! `intentcast train --task text`: a pretrained encoder is taught labels of a text column.
//!
//! Rows come by `training::table`'s reader, `labels` says what is learnt and `goal` by which loss; `masked` may come first,
//! `probe` teaches the head alone, `strategy` says which weights learn further, `lesson` learns and measures. The model
//! goes to the registry as a text model (model/text/bundle.rs), which no night can take.

mod goal;
mod labels;
mod lbfgs;
mod lesson;
mod masked;
mod probe;
mod strategy;

use std::collections::BTreeMap;
use tch::{Device, nn};

use self::goal::Goal;
use self::labels::TextTargets;
use self::lesson::TextLesson;
use self::masked::Texts;
use super::fit::{self, Plan};
use super::journal::Journal;
use super::sets::Split;
use super::table::source::{self, Table};
use super::table::{OneThread, TableOptions};
use crate::config::Config;
use crate::config::networks::{TextStrategy, name_of};
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::model::bundle::{Registry, parameters};
use crate::model::text::bundle::{TEXT_FORMAT, TextCard, TextParts};
use crate::model::text::classifier::{Beside, TextClassifier, TextHead};
use crate::model::text::column;
use crate::model::text::folder::TextFolder;
use crate::progress;
use crate::score::devices;

/// With fewer rows to learn from, figures mean nothing.
const ROWS_MIN: usize = 20;
/// Networks of less width gain nothing from more threads than one.
const NARROW: i64 = 128;
/// Merged low-rank differences may change a probability by so much, and no more.
const MERGED_DIFFERENCE_MAX: f64 = 1e-4;

/// What `--task text` reads beside the table and its labels.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TextOptions {
    /// --task text: the column that is read. Rows without a text are left out.
    #[arg(long, value_name = "COLUMN")]
    pub text_column: Option<String>,
    /// --task text: a Hugging Face folder with the pretrained encoder, local or s3://…, or the text/ folder of an earlier
    /// text model.
    #[arg(long, value_name = "FOLDER")]
    pub encoder: Option<String>,
}

/// Teaches an encoder and writes a text model. Champion and nights stay as they are.
pub async fn run(config: &Config, table: &TableOptions, options: &TextOptions) -> Result<TextCard> {
    let registry = Registry(Location::open(&config.output.uri, &config.s3)?.folder("models"));
    let (Some(text_column), Some(encoder)) = (&options.text_column, &options.encoder) else {
        return Err(Failure::usage("train --task text: pass --text-column and --encoder"));
    };
    if let Some(flag) =
        [("--category", &table.category), ("--exclude", &table.exclude)].iter().find(|f| !f.1.is_empty())
    {
        return Err(Failure::usage(format!("{}: belongs to --task table; a text task reads one column", flag.0)));
    }
    if table.label.contains(text_column) {
        return Err(Failure::usage(format!(
            "--label: expected another column than --text-column, got {text_column:?}"
        )));
    }
    let place = Location::open(encoder, &config.s3)?;
    let folder = TextFolder::read(&place, Some(config.text.max_length as usize)).await;
    let folder = folder.map_err(|f| f.at("--encoder"))?;
    let rows = source::read_by(config, table, Some(text_column)).await?;
    let taught = teach(config, &rows, &folder, (text_column, &table.label))?;
    let card = TextCard {
        format: TEXT_FORMAT,
        version: String::new(),
        trained_at: chrono::Utc::now().to_rfc3339(),
        table: table.table.clone(),
        text_column: text_column.clone(),
        split: rows.split_by.clone(),
        encoder: encoder.clone(),
        encoder_hash: folder.hash.clone(),
        strategy: name_of(&config.text.strategy),
        kind: taught.targets.kind,
        labels: taught.targets.labels.clone(),
        beside: taught.beside,
        max_length: folder.tokenizer.max_length(),
        weights_hash: String::new(),
        figures: taught.figures,
        settings: serde_json::json!({ "model": config.model, "train": config.train, "text": config.text }),
    };
    let parts = TextParts {
        folder: &folder,
        encoder: strategy::taken(&taught.store, strategy::ENCODER)?,
        head: strategy::taken(&taught.store, strategy::HEAD)?,
        beside: strategy::taken(&taught.store, strategy::BESIDE)?,
    };
    registry.write_text(card, parts).await
}

/// What came of a training.
struct Taught {
    store: nn::VarStore,
    targets: TextTargets,
    beside: Beside,
    figures: BTreeMap<String, f64>,
}

fn teach(config: &Config, table: &Table, folder: &TextFolder, names: (&str, &[String])) -> Result<Taught> {
    let (text_column, labels) = names;
    let texts = column::texts(
        &format!("--text-column {text_column}"),
        table
            .rows
            .column_by_name(text_column)
            .ok_or_else(|| Failure::bug(format!("column {text_column} was not read")))?,
    )?;
    let mut texts: Vec<&str> = texts.iter().map(|text| text.as_deref().unwrap_or_default()).collect();
    // Behind the rows of the table: texts that teach words, and no label.
    let labelled = texts.len();
    let unlabelled = table.unlabelled.as_ref().map(|array| column::texts("--text-column", array)).transpose()?;
    texts.extend(unlabelled.iter().flatten().map(|text| text.as_deref().unwrap_or_default()));
    let ids = folder.tokenizer.ids(&texts)?;
    // Nothing can be learnt of a text without a token.
    let has_token = |rows: Vec<usize>| rows.into_iter().filter(|&row| !ids[row].is_empty()).collect::<Vec<usize>>();
    let [train, valid, test] = [Split::Train, Split::Valid, Split::Test].map(|part| has_token(table.rows_of(part)));
    enough(table, &train, &valid, &test)?;
    let targets = labels::read(config, table, labels, &train)?;
    let known = |rows: Vec<usize>| rows.into_iter().filter(|&row| targets.known[row]).collect::<Vec<usize>>();
    let parts = [train, known(valid), known(test)];

    let _one = (folder.shape.width < NARROW).then(OneThread::set);
    tch::manual_seed(config.train.seed as i64);
    let device = devices::choose(&config.score)?;
    let mut store = nn::VarStore::new(device);
    let mut network = folder.network(&(store.root() / strategy::ENCODER))?;
    let shape = network.shape.clone();
    let stepping = |store: &nn::VarStore| strategy::stepping(&config.text, &shape, store);
    let mut figures = BTreeMap::new();
    if config.text.masked_epochs > 0 {
        let train = [parts[0].clone(), has_token((labelled..ids.len()).collect())].concat();
        let texts = Texts { ids: &ids, train: &train, valid: &parts[1], tokenizer: &folder.tokenizer };
        figures.extend(masked::teach(config, &network, &mut store, texts, stepping)?);
    }
    let beside = strategy::prepare(&config.text, &mut network, &store)?;
    let sizes = (TextClassifier::width(folder), targets.labels.len());
    let head = TextHead::new(&(store.root() / strategy::HEAD), targets.kind, sizes);
    let mut classifier = TextClassifier::new(network, &folder.pooling, head, device);
    let trained: i64 = store.variables().values().filter(|w| w.requires_grad()).map(|w| w.numel() as i64).sum();
    let guessing: i64 = strategy::taken(&store, masked::PART)?.iter().map(|(_, w)| w.numel() as i64).sum();
    figures.insert("parameters".into(), (parameters(&store) - guessing) as f64);
    figures.insert("parameters_trained".into(), trained as f64);

    let seed = config.train.seed;
    let clock = std::time::Instant::now();
    let goal = Goal::new(&targets, &parts[0], config, device)?;
    if config.text.head_epochs_max > 0 {
        figures.extend(probe::teach(config, &classifier, &store, &goal, (&ids, [&parts[0], &parts[1]]))?);
    }
    let mut lesson = TextLesson::new(&classifier, &ids, &goal, &parts, (config, stepping(&store), device));
    // Of a frozen encoder, the head is all that learns, and it has learnt.
    let frozen = config.text.strategy == TextStrategy::Frozen;
    let plan = Plan {
        epochs_max: if frozen { 0 } else { config.text.epochs_max },
        patience_epochs: config.train.patience_epochs,
        learning_rate: config.text.learning_rate,
        weight_decay: config.train.weight_decay,
        seed,
    };
    let bar = progress::bar("text", 1);
    let fitted = fit::fit(&mut lesson, &mut store, &plan, &mut Journal::nowhere(), &bar)?;
    bar.finish_and_clear();
    figures.insert("epochs".into(), fitted.epochs.into());
    figures.insert("steps".into(), fitted.steps as f64);
    figures.insert("loss_valid".into(), fitted.loss);
    // The head's part is among them.
    figures.insert("train_seconds".into(), clock.elapsed().as_secs_f64());
    figures.extend(lesson.figures(&labels.join("_"), seed)?);
    if config.text.strategy == TextStrategy::Lora {
        let beside = lesson.evaluated(&parts[1])?;
        drop(lesson);
        classifier.network.merge_low_rank()?;
        let merged = merged_difference(&classifier, &beside, &parts[1], &ids, config)?;
        figures.insert("merged_difference".into(), merged);
    }
    for (name, rows) in ["rows_train", "rows_valid", "rows_test"].iter().zip(&parts) {
        figures.insert((*name).into(), rows.len() as f64);
    }
    figures.insert("rows_left_out".into(), table.left_out as f64);
    Ok(Taught { store, targets, beside, figures })
}

/// The largest difference of a validation row's probabilities before and after low-rank differences were merged.
fn merged_difference(
    classifier: &TextClassifier,
    before: &tch::Tensor,
    rows: &[usize],
    ids: &[Vec<i64>],
    config: &Config,
) -> Result<f64> {
    let rows: Vec<&[i64]> = rows.iter().map(|&row| ids[row].as_slice()).collect();
    let tokens_max = config.text.batch_tokens_max as usize;
    let after = classifier.in_batches(&rows, tokens_max, |rows| classifier.raw(rows, false))?;
    let of = |raw: &tch::Tensor| {
        let raw = raw.to_device(classifier.device());
        classifier.head.probabilities(&raw).to_device(Device::Cpu)
    };
    let difference = tch::no_grad(|| (of(before) - of(&after)).abs().max().double_value(&[]));
    if difference > MERGED_DIFFERENCE_MAX {
        return Err(Failure::bug(format!("merged low-rank differences changed a probability by {difference:e}")));
    }
    Ok(difference)
}

fn enough(table: &Table, train: &[usize], valid: &[usize], test: &[usize]) -> Result<()> {
    if train.len() >= ROWS_MIN && !valid.is_empty() && !test.is_empty() {
        return Ok(());
    }
    Err(Failure::input(format!(
        "training: expected at least {ROWS_MIN} rows to train on and some to validate and to test on, got {}, {} and {}; \
         {} rows lack a label or a text",
        train.len(),
        valid.len(),
        test.len(),
        table.left_out
    ))
    .hint("give it more rows; a --time-column needs at least three different times"))
}
