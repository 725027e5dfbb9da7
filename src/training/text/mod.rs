//! `intentcast train --task text`: fine-tunes a pretrained encoder on the labels of a text column.
//!
//! In: a column of a `FlatTable` and a Hugging Face folder. Out: a text model in the registry (model/text/bundle.rs),
//! which no night can take.
//!
//! `masked_words` may first pretrain on the shop's texts; `strategy` decides which weights are trained; `text_rows`
//! provides the rows to `training::labelled`, which trains and evaluates.

mod masked_words;
mod strategy;
mod text_rows;

use std::collections::BTreeMap;
use std::sync::Arc;
use tch::{Tensor, nn};

use self::masked_words::MaskedTexts;
use self::text_rows::{TextRows, TokenIds};
use super::flat_table::{FlatTable, InputColumn, SingleThread, TableOptions, read_input_column};
use super::labelled::{
    ClassifierLoss, ClassifierPlan, HEAD, InputOptions, LabelTargets, RowEncoder, count_weights, evaluate_logits,
    read_targets, refuse_flags_of_other_tasks, require_enough_rows, train_classifier, weights_of_group,
};
use crate::config::Config;
use crate::config::networks::{TextStrategy, name_of};
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::model::labels::{HeadSizes, LabelHead};
use crate::model::registry::Registry;
use crate::model::text::bundle::{TEXT_FORMAT, TextCard, TextModelWeights};
use crate::model::text::classifier::{AddedModules, TextClassifier};
use crate::model::text::folder::TextFolder;
use crate::model::text::text_column;
use crate::score::devices;
use crate::training::fitting::{Journal, TrainingFingerprint, TrainingRun};

/// Narrower networks gain nothing from more threads than one.
const SINGLE_THREAD_WIDTH: i64 = 128;
/// The largest change of a probability that merging low-rank differences may cause.
const MERGED_DIFFERENCE_MAX: f64 = 1e-5;

/// Trains a text model and writes it to the registry. It never becomes champion.
pub(crate) async fn train(config: &Config, table_options: &TableOptions, options: &InputOptions) -> Result<TextCard> {
    let registry = Registry(Location::open(&config.output.uri, &config.s3)?.folder("models"));
    let (Some(text_column), Some(encoder)) = (&options.text_column, &options.encoder) else {
        return Err(Failure::usage("train --task text: pass --text-column and --encoder"));
    };
    let image_flags =
        [("--image-column", options.image_column.is_some()), ("--image-folder", options.image_folder.is_some())];
    refuse_flags_of_other_tasks("text", table_options, &image_flags)?;
    if table_options.label.contains(text_column) {
        return Err(Failure::usage(format!(
            "--label: expected another column than --text-column, got {text_column:?}"
        )));
    }
    let location = Location::open(encoder, &config.s3)?;
    let loaded = TextFolder::load(&location, Some(config.text.max_length as usize)).await;
    let folder = loaded.map_err(|f| f.at("--encoder"))?;
    let input = InputColumn {
        flag: "--text-column",
        name: text_column,
        description: "a text",
        with_unlabelled: config.text.masked_epochs > 0,
    };
    let table = read_input_column(config, table_options, input).await?;
    let settings = serde_json::json!({ "model": config.model, "train": config.train, "text": config.text });
    let mut fingerprint = TrainingFingerprint::new(config, &(TEXT_FORMAT, &config.text, &folder.hash))?;
    table.add_to_fingerprint(table_options, &mut fingerprint)?;
    let mut run = TrainingRun::start(config, "text", fingerprint, settings.clone()).await?;
    let training = TextTraining { config, table: &table, folder: &folder, text_column, labels: &table_options.label };
    let trained = run.train(|journal| training.train(journal))?;
    let card = TextCard {
        format: TEXT_FORMAT,
        version: String::new(),
        trained_at: chrono::Utc::now().to_rfc3339(),
        table: table_options.table.clone(),
        text_column: text_column.clone(),
        split: table.splits.description(),
        encoder: encoder.clone(),
        encoder_hash: folder.hash.clone(),
        strategy: name_of(&config.text.strategy),
        kind: trained.targets.kind,
        labels: trained.targets.labels.clone(),
        added_modules: trained.added_modules,
        max_length: folder.tokenizer.max_length(),
        weights_hash: String::new(),
        figures: trained.figures,
        settings,
    };
    let weights = TextModelWeights {
        folder: &folder,
        encoder: weights_of_group(&trained.store, strategy::ENCODER)?,
        head: weights_of_group(&trained.store, HEAD)?,
        added: weights_of_group(&trained.store, strategy::ADDED)?,
    };
    let card = registry.write_text(card, weights).await?;
    run.finish(Some(&card.version), &card.figures).await?;
    Ok(card)
}

struct TextTraining<'a> {
    config: &'a Config,
    table: &'a FlatTable,
    folder: &'a TextFolder,
    text_column: &'a str,
    labels: &'a [String],
}

struct TrainedText {
    store: nn::VarStore,
    targets: Arc<LabelTargets>,
    added_modules: AddedModules,
    figures: BTreeMap<String, f64>,
}

impl TextTraining<'_> {
    fn train(&self, journal: &mut Journal) -> Result<TrainedText> {
        let config = self.config;
        let ids = Arc::new(self.tokenize()?);
        let rows_with_tokens = self.table.rows_by_split(|row| !ids[row].is_empty());
        let ignored = format!("{} rows lack a label or a text", self.table.ignored_rows);
        require_enough_rows(&rows_with_tokens, &ignored)?;
        let targets = Arc::new(read_targets(config, self.table, self.labels, &rows_with_tokens[0])?);
        let [train, valid, test] = rows_with_tokens;
        let rows = [train, targets.known_rows(valid), targets.known_rows(test)];

        let _single_thread = (self.folder.shape.width < SINGLE_THREAD_WIDTH).then(SingleThread::start);
        tch::manual_seed(config.train.seed as i64);
        let device = devices::choose(&config.score)?;
        let mut store = nn::VarStore::new(device);
        let mut network = self.folder.network(&(store.root() / strategy::ENCODER))?;
        let shape = network.shape.clone();
        let mut figures = BTreeMap::new();
        if config.text.masked_epochs > 0 {
            let texts = MaskedTexts {
                ids: Arc::clone(&ids),
                train: self.masked_training_rows(&rows[0], &ids),
                valid: &rows[1],
                tokenizer: &self.folder.tokenizer,
            };
            figures.extend(masked_words::pretrain(config, &network, &mut store, texts, journal)?);
            // Later random numbers must not depend on whether this or an earlier process pretrained.
            tch::manual_seed(config.train.seed as i64);
        }
        let added_modules = strategy::prepare(&config.text, &mut network, &store)?;
        let sizes = HeadSizes { width: TextClassifier::width(self.folder), labels: targets.labels.len() };
        let head = LabelHead::new(&(store.root() / HEAD), targets.kind, sizes);
        let mut classifier = TextClassifier::new(network, &self.folder.pooling, head, device);
        figures.extend(count_weights(&store, Some(masked_words::GROUP))?);

        let loss = ClassifierLoss::new(&targets, &rows[0], config, device)?;
        let plan = ClassifierPlan {
            loss: &loss,
            rows: &rows,
            head_epochs_max: config.text.head_epochs_max,
            // With a frozen encoder, only the head is trained.
            epochs_max: if config.text.strategy == TextStrategy::Frozen { 0 } else { config.text.epochs_max },
            learning_rate: config.text.learning_rate,
            step_options: strategy::step_options(&config.text, &shape, &store),
            column: &self.labels.join("_"),
        };
        let tokens_max = config.text.batch_tokens_max as usize;
        let encoder = TextRows { classifier: &classifier, ids: Arc::clone(&ids), tokens_max };
        figures.extend(train_classifier(config, &encoder, &mut store, plan, journal)?);
        if config.text.strategy == TextStrategy::Lora {
            let before = probabilities(&encoder, &rows[1])?;
            classifier.network.merge_low_rank()?;
            let merged = TextRows { classifier: &classifier, ids, tokens_max };
            let after = probabilities(&merged, &rows[1])?;
            figures.insert("merged_difference".into(), merged_difference(&before, &after)?);
        }
        figures.insert("rows_left_out".into(), self.table.ignored_rows as f64);
        journal.report_failures(&mut figures);
        Ok(TrainedText { store, targets, added_modules, figures })
    }

    /// Returns the token ids of the table's rows, followed by those of the unlabelled texts.
    fn tokenize(&self) -> Result<TokenIds> {
        let labelled = text_column::read_texts(
            &format!("--text-column {}", self.text_column),
            self.table.column(self.text_column)?,
        )?;
        let unlabelled = match &self.table.unlabelled {
            Some(column) => text_column::read_texts("--text-column", column)?,
            None => Vec::new(),
        };
        let texts: Vec<&str> =
            labelled.iter().chain(&unlabelled).map(|text| text.as_deref().unwrap_or_default()).collect();
        self.folder.tokenizer.ids(&texts)
    }

    /// Returns the training rows, and the unlabelled texts with a token.
    fn masked_training_rows(&self, train: &[usize], ids: &[Vec<i64>]) -> Vec<usize> {
        let unlabelled = (self.table.rows.num_rows()..ids.len()).filter(|&row| !ids[row].is_empty());
        train.iter().copied().chain(unlabelled).collect()
    }
}

fn probabilities(encoder: &TextRows<'_>, rows: &[usize]) -> Result<Tensor> {
    let logits = evaluate_logits(encoder, rows)?;
    Ok(tch::no_grad(|| encoder.head().probabilities(&logits)))
}

/// Returns the largest change of a validation row's probabilities by merging low-rank differences.
fn merged_difference(before: &Tensor, after: &Tensor) -> Result<f64> {
    let difference = tch::no_grad(|| (before - after).abs().max().double_value(&[]));
    if difference > MERGED_DIFFERENCE_MAX {
        return Err(Failure::bug(format!("merging low-rank differences changed a probability by {difference:e}")));
    }
    Ok(difference)
}
