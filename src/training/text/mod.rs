//! `intentcast train --task text`: a pretrained encoder is taught labels of a text column.
//!
//! Rows come by `training::table`'s reader; `masked` may come first, `strategy` says which weights learn; `training::labelled`
//! teaches and measures through `reader`. The model goes to the registry as a text model (model/text/bundle.rs), which no
//! night can take.

mod masked;
mod reader;
mod strategy;

use std::collections::BTreeMap;
use std::sync::Arc;
use tch::{Tensor, nn};

use self::masked::Texts;
use self::reader::TextReader;
use super::labelled::goal::Goal;
use super::labelled::labels::{self, Targets};
use super::labelled::{self, InputOptions, Reader, Teaching, lesson, parts};
use super::table::source::{self, Only, Table};
use super::table::{OneThread, TableOptions};
use crate::config::Config;
use crate::config::networks::{TextStrategy, name_of};
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::model::bundle::Registry;
use crate::model::labels::{HeadSizes, LabelHead};
use crate::model::text::bundle::{TEXT_FORMAT, TextCard, TextModelWeights};
use crate::model::text::classifier::{AddedModules, TextClassifier};
use crate::model::text::folder::TextFolder;
use crate::model::text::text_column;
use crate::score::devices;
use crate::training::fitting::{Journal, TrainingFingerprint, TrainingRun};

/// Networks of less width gain nothing from more threads than one.
const NARROW: i64 = 128;
/// Merged low-rank differences may change a probability by so much, and no more.
const MERGED_DIFFERENCE_MAX: f64 = 1e-5;

/// Teaches an encoder and writes a text model. Champion and nights stay as they are.
pub async fn run(config: &Config, table: &TableOptions, options: &InputOptions) -> Result<TextCard> {
    let registry = Registry(Location::open(&config.output.uri, &config.s3)?.folder("models"));
    let (Some(text_column), Some(encoder)) = (&options.text_column, &options.encoder) else {
        return Err(Failure::usage("train --task text: pass --text-column and --encoder"));
    };
    let of_images =
        [("--image-column", options.image_column.is_some()), ("--image-folder", options.image_folder.is_some())];
    labelled::refuse_others("text", table, &of_images)?;
    if table.label.contains(text_column) {
        return Err(Failure::usage(format!(
            "--label: expected another column than --text-column, got {text_column:?}"
        )));
    }
    let place = Location::open(encoder, &config.s3)?;
    let folder = TextFolder::load(&place, Some(config.text.max_length as usize)).await;
    let folder = folder.map_err(|f| f.at("--encoder"))?;
    let spare = config.text.masked_epochs > 0;
    let only = Only { flag: "--text-column", column: text_column, what: "a text", spare };
    let rows = source::read_by(config, table, Some(only)).await?;
    let settings = serde_json::json!({ "model": config.model, "train": config.train, "text": config.text });
    let mut fingerprint = TrainingFingerprint::new(config, &(TEXT_FORMAT, &config.text, &folder.hash))?;
    rows.fingerprint(table, &mut fingerprint)?;
    let mut run = TrainingRun::start(config, "text", fingerprint, settings.clone()).await?;
    let taught = run.train(|journal| teach(config, &rows, &folder, (text_column, &table.label), journal))?;
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
        added_modules: taught.beside,
        max_length: folder.tokenizer.max_length(),
        weights_hash: String::new(),
        figures: taught.figures,
        settings,
    };
    let parts = TextModelWeights {
        folder: &folder,
        encoder: parts::taken(&taught.store, strategy::ENCODER)?,
        head: parts::taken(&taught.store, parts::HEAD)?,
        added: parts::taken(&taught.store, strategy::ADDED)?,
    };
    let card = registry.write_text(card, parts).await?;
    run.finish(Some(&card.version), &card.figures).await?;
    Ok(card)
}

/// What came of a training.
struct Taught {
    store: nn::VarStore,
    targets: Arc<Targets>,
    beside: AddedModules,
    figures: BTreeMap<String, f64>,
}

fn teach(
    config: &Config,
    table: &Table,
    folder: &TextFolder,
    (text_column, labels): (&str, &[String]),
    journal: &mut Journal,
) -> Result<Taught> {
    let texts = text_column::read_texts(
        &format!("--text-column {text_column}"),
        table
            .rows
            .column_by_name(text_column)
            .ok_or_else(|| Failure::bug(format!("column {text_column} was not read")))?,
    )?;
    let mut texts: Vec<&str> = texts.iter().map(|text| text.as_deref().unwrap_or_default()).collect();
    // Behind the rows of the table: texts that teach words, and no label.
    let labelled = texts.len();
    let unlabelled =
        table.unlabelled.as_ref().map(|array| text_column::read_texts("--text-column", array)).transpose()?;
    texts.extend(unlabelled.iter().flatten().map(|text| text.as_deref().unwrap_or_default()));
    let ids = Arc::new(folder.tokenizer.ids(&texts)?);
    // Nothing can be learnt of a text without a token.
    let has_token = |row: usize| !ids[row].is_empty();
    let [train, valid, test] = labelled::parts_of(table, has_token);
    labelled::enough([&train, &valid, &test], &format!("{} rows lack a label or a text", table.left_out))?;
    let targets = Arc::new(labels::read(config, table, labels, &train)?);
    let known = |rows: Vec<usize>| rows.into_iter().filter(|&row| targets.known[row]).collect::<Vec<usize>>();
    let rows = [train, known(valid), known(test)];

    let _one = (folder.shape.width < NARROW).then(OneThread::set);
    tch::manual_seed(config.train.seed as i64);
    let device = devices::choose(&config.score)?;
    let mut store = nn::VarStore::new(device);
    let mut network = folder.network(&(store.root() / strategy::ENCODER))?;
    let shape = network.shape.clone();
    let step_options = |store: &nn::VarStore| strategy::step_options(&config.text, &shape, store);
    let mut figures = BTreeMap::new();
    if config.text.masked_epochs > 0 {
        let unlabelled = (labelled..ids.len()).filter(|&row| has_token(row));
        let train: Vec<usize> = rows[0].iter().copied().chain(unlabelled).collect();
        let texts = Texts { ids: Arc::clone(&ids), train: &train, valid: &rows[1], tokenizer: &folder.tokenizer };
        figures.extend(masked::teach(config, &network, &mut store, texts, step_options, journal)?);
        // What is drawn from here on must not depend on whether words were guessed in this process or in one before it.
        tch::manual_seed(config.train.seed as i64);
    }
    let beside = strategy::prepare(&config.text, &mut network, &store)?;
    let sizes = HeadSizes { width: TextClassifier::width(folder), labels: targets.labels.len() };
    let head = LabelHead::new(&(store.root() / parts::HEAD), targets.kind, sizes);
    let mut classifier = TextClassifier::new(network, &folder.pooling, head, device);
    figures.extend(labelled::count_weights(&store, Some(masked::PART))?);

    let goal = Goal::new(&targets, &rows[0], config, device)?;
    let teaching = Teaching {
        parts: &rows,
        head_epochs_max: config.text.head_epochs_max,
        // Of a frozen encoder, the head is all that learns.
        epochs_max: if config.text.strategy == TextStrategy::Frozen { 0 } else { config.text.epochs_max },
        learning_rate: config.text.learning_rate,
        step_options: step_options(&store),
        column: &labels.join("_"),
    };
    let tokens_max = config.text.batch_tokens_max as usize;
    let reader = TextReader { classifier: &classifier, ids: Arc::clone(&ids), tokens_max };
    figures.extend(labelled::teach(config, &reader, &mut store, &goal, teaching, journal)?);
    if config.text.strategy == TextStrategy::Lora {
        let before = probabilities(&reader, &rows[1])?;
        classifier.network.merge_low_rank()?;
        let reader = TextReader { classifier: &classifier, ids, tokens_max };
        figures.insert("merged_difference".into(), merged_difference(&before, &probabilities(&reader, &rows[1])?)?);
    }
    figures.insert("rows_left_out".into(), table.left_out as f64);
    journal.report_failures(&mut figures);
    Ok(Taught { store, targets, beside, figures })
}

fn probabilities(reader: &TextReader<'_>, rows: &[usize]) -> Result<Tensor> {
    let raw = lesson::evaluated(reader, rows)?;
    Ok(tch::no_grad(|| reader.head().probabilities(&raw)))
}

/// The largest difference of a validation row's probabilities before and after low-rank differences were merged.
fn merged_difference(before: &Tensor, after: &Tensor) -> Result<f64> {
    let difference = tch::no_grad(|| (before - after).abs().max().double_value(&[]));
    if difference > MERGED_DIFFERENCE_MAX {
        return Err(Failure::bug(format!("merged low-rank differences changed a probability by {difference:e}")));
    }
    Ok(difference)
}
