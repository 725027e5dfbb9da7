//! `intentcast train --task image`: trains an image encoder on the labels of pictures, from pretrained or random
//! weights.
//!
//! In: a column of a `FlatTable` with pictures or their paths, and optionally an encoder's folder. Out: an image model
//! in the registry (model/vision/bundle.rs), which no night can take.
//!
//! `picture_source` fetches pictures and `table_pictures` decodes them into a `square_store`; `initial_encoder` is
//! where training starts; `strategy` decides which weights are trained; `image_rows` provides the rows to
//! `training::labelled`, which trains and evaluates.

mod image_rows;
mod initial_encoder;
mod picture_source;
mod square_store;
mod strategy;
mod table_pictures;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::nn;

use self::image_rows::{CropBuilder, ImageRows};
use self::initial_encoder::InitialEncoder;
use self::picture_source::PictureSource;
use self::table_pictures::TablePictures;
use super::flat_table::{FlatTable, InputColumn, TableOptions, read_input_column};
use super::labelled::{
    ClassifierLoss, ClassifierPlan, HEAD, InputOptions, LabelTargets, count_weights, read_targets,
    refuse_flags_of_other_tasks, require_enough_rows, train_classifier, weights_of_group,
};
use crate::config::Config;
use crate::config::networks::{ImageStrategy, name_of};
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::model::labels::{HeadSizes, LabelHead};
use crate::model::registry::Registry;
use crate::model::vision::{IMAGE_FORMAT, ImageModelCard, ImageModelWeights};
use crate::score::devices;
use crate::training::fitting::{Journal, TrainingFingerprint, TrainingRun};

/// Trains an image model and writes it to the registry. It never becomes champion.
pub(crate) async fn train(
    config: &Config,
    table_options: &TableOptions,
    options: &InputOptions,
) -> Result<ImageModelCard> {
    let registry = Registry(Location::open(&config.output.uri, &config.s3)?.folder("models"));
    let Some(image_column) = &options.image_column else {
        return Err(Failure::usage("train --task image: pass --image-column"));
    };
    refuse_flags_of_other_tasks("image", table_options, &[("--text-column", options.text_column.is_some())])?;
    if table_options.label.contains(image_column) {
        return Err(Failure::usage(format!(
            "--label: expected another column than --image-column, got {image_column:?}"
        )));
    }
    let encoder = InitialEncoder::load(config, options.encoder.as_deref()).await?;
    let input =
        InputColumn { flag: "--image-column", name: image_column, description: "a picture", with_unlabelled: false };
    let mut table = read_input_column(config, table_options, input).await?;
    let source =
        PictureSource::new(config, table.column(image_column)?, &table_options.table, options.image_folder.as_deref())?;
    let pictures = Arc::new(TablePictures::load(config, &table, &source, &encoder.card.preprocess).await?);
    table.splits.use_keys(&pictures.keys);
    let settings = serde_json::json!({ "model": config.model, "train": config.train, "image": config.image });
    let mut fingerprint =
        TrainingFingerprint::new(config, &(IMAGE_FORMAT, &config.image, encoder.hash(), &pictures.keys))?;
    table.add_to_fingerprint(table_options, &mut fingerprint)?;
    let mut run = TrainingRun::start(config, "image", fingerprint, settings.clone()).await?;
    let training =
        ImageTraining { config, table: &table, pictures: &pictures, encoder: &encoder, labels: &table_options.label };
    let trained = run.train(|journal| training.train(journal))?;
    let card = ImageModelCard {
        format: IMAGE_FORMAT,
        version: String::new(),
        trained_at: chrono::Utc::now().to_rfc3339(),
        table: table_options.table.clone(),
        image_column: image_column.clone(),
        split: table.splits.description(),
        encoder: encoder.uri(),
        encoder_hash: encoder.hash(),
        strategy: name_of(&config.image.strategy),
        kind: trained.targets.kind,
        labels: trained.targets.labels.clone(),
        weights_hash: String::new(),
        figures: trained.figures,
        settings,
    };
    let weights = ImageModelWeights {
        encoder_card: &encoder.card,
        encoder: weights_of_group(&trained.store, strategy::ENCODER)?,
        head: weights_of_group(&trained.store, HEAD)?,
    };
    let card = registry.write_image(card, weights).await?;
    run.finish(Some(&card.version), &card.figures).await?;
    Ok(card)
}

struct ImageTraining<'a> {
    config: &'a Config,
    table: &'a FlatTable,
    pictures: &'a Arc<TablePictures>,
    encoder: &'a InitialEncoder,
    labels: &'a [String],
}

struct TrainedImage {
    store: nn::VarStore,
    targets: Arc<LabelTargets>,
    figures: BTreeMap<String, f64>,
}

impl ImageTraining<'_> {
    fn train(&self, journal: &mut Journal) -> Result<TrainedImage> {
        let config = self.config;
        let rows_with_pictures = self.table.rows_by_split(|row| self.pictures.has(row));
        require_enough_rows(&rows_with_pictures, &self.describe_ignored_rows())?;
        let targets = Arc::new(read_targets(config, self.table, self.labels, &rows_with_pictures[0])?);
        let [train, valid, test] = rows_with_pictures;
        let rows = [train, targets.known_rows(valid), targets.known_rows(test)];

        tch::manual_seed(config.train.seed as i64);
        let device = devices::choose(&config.score)?;
        let mut store = nn::VarStore::new(device);
        let network = self.encoder.network(&store)?;
        strategy::freeze_weights(&config.image, &self.encoder.card, &store)?;
        let sizes = HeadSizes { width: self.encoder.card.width(), labels: targets.labels.len() };
        let head = LabelHead::new(&(store.root() / HEAD), targets.kind, sizes);
        let mut figures = count_weights(&store, None)?;
        let image_rows = ImageRows {
            network: &network,
            head: &head,
            crops: CropBuilder {
                pictures: Arc::clone(self.pictures),
                preprocess: self.encoder.card.preprocess.clone(),
                augmentation: config.image.augmentation,
            },
            uses_batch_statistics: self.encoder.uses_batch_statistics,
            batch_rows: config.image.batch_rows as usize,
            device,
        };
        if self.encoder.has_random_weights() {
            image_rows.warm_up_statistics(&rows[0], &mut ChaCha8Rng::seed_from_u64(config.train.seed))?;
        }
        let loss = ClassifierLoss::new(&targets, &rows[0], config, device)?;
        let learning_rate = strategy::learning_rate(&config.image, self.encoder.has_random_weights());
        let plan = ClassifierPlan {
            loss: &loss,
            rows: &rows,
            head_epochs_max: config.image.head_epochs_max,
            // With a frozen encoder, only the head is trained.
            epochs_max: if config.image.strategy == ImageStrategy::Frozen { 0 } else { config.image.epochs_max },
            learning_rate,
            step_options: strategy::step_options(&config.image, &self.encoder.card, learning_rate, &store),
            column: &self.labels.join("_"),
        };
        figures.extend(train_classifier(config, &image_rows, &mut store, plan, journal)?);
        figures.insert("rows_left_out".into(), self.table.ignored_rows as f64);
        figures.insert("pictures_refused".into(), self.pictures.unreadable as f64);
        journal.report_failures(&mut figures);
        Ok(TrainedImage { store, targets, figures })
    }

    /// Says how many rows are ignored, and why.
    fn describe_ignored_rows(&self) -> String {
        let incomplete = format!("{} rows lack a label or a picture", self.table.ignored_rows);
        match &self.pictures.first_unreadable {
            None => incomplete,
            Some(first) => {
                let count = self.pictures.unreadable;
                format!("{incomplete}, {count} pictures cannot be read, first: {first}")
            }
        }
    }
}
