//! `intentcast train --task image`: an encoder of pictures is taught labels, from weights of a folder or from random ones.
//!
//! Rows come by `training::table`'s reader and their pictures by `pictures`; `strategy` says which weights learn,
//! `training::labelled` teaches and measures through `reader`. The model goes to the registry as an image model
//! (model/vision/bundle.rs), which no night can take.

mod pictures;
mod reader;
mod strategy;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::nn;

use self::pictures::{Pictures, Source};
use self::reader::{Crops, ImageReader};
use super::labelled::goal::Goal;
use super::labelled::labels::{self, Targets};
use super::labelled::{self, InputOptions, Teaching, parts};
use super::table::TableOptions;
use super::table::source::{self, Only, Table};
use crate::config::networks::{ImageNetworkName, ImageStrategy, NormStatistics, name_of};
use crate::config::{Config, ImageConfig};
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::model::bundle::Registry;
use crate::model::labels::{HeadSizes, LabelHead};
use crate::model::vision::{
    Architecture, IMAGE_FORMAT, ImageEncoderCard, ImageFolder, ImageModelCard, ImageModelWeights, ImageNetwork,
    Preprocess,
};
use crate::score::devices;
use crate::training::fitting::{Journal, TrainingFingerprint, TrainingRun};

/// Teaches an encoder and writes an image model. Champion and nights stay as they are.
pub async fn run(config: &Config, table: &TableOptions, options: &InputOptions) -> Result<ImageModelCard> {
    let registry = Registry(Location::open(&config.output.uri, &config.s3)?.folder("models"));
    let Some(image_column) = &options.image_column else {
        return Err(Failure::usage("train --task image: pass --image-column"));
    };
    labelled::refuse_others("image", table, &[("--text-column", options.text_column.is_some())])?;
    if table.label.contains(image_column) {
        return Err(Failure::usage(format!(
            "--label: expected another column than --image-column, got {image_column:?}"
        )));
    }
    let start = Start::of(config, options.encoder.as_deref()).await?;
    let only = Only { flag: "--image-column", column: image_column, what: "a picture", spare: false };
    let mut rows = source::read_by(config, table, Some(only)).await?;
    let array = rows.rows.column_by_name(image_column);
    let array = array.ok_or_else(|| Failure::bug(format!("column {image_column} was not read")))?;
    let source = Source::of(config, array, &table.table, options.image_folder.as_deref())?;
    let pictures = Arc::new(Pictures::read(config, &rows, &source, &start.card.preprocess).await?);
    rows.split_by_keys(&pictures.keys);
    let (encoder, encoder_hash) = match &start.folder {
        Some((uri, folder)) => (uri.clone(), folder.hash.clone()),
        None => (String::new(), String::new()),
    };
    let settings = serde_json::json!({ "model": config.model, "train": config.train, "image": config.image });
    let mut fingerprint =
        TrainingFingerprint::new(config, &(IMAGE_FORMAT, &config.image, &encoder_hash, &pictures.keys))?;
    rows.fingerprint(table, &mut fingerprint)?;
    let mut run = TrainingRun::start(config, "image", fingerprint, settings.clone()).await?;
    let taught = run.train(|journal| teach(config, &rows, (&pictures, &start), &table.label, journal))?;
    let card = ImageModelCard {
        format: IMAGE_FORMAT,
        version: String::new(),
        trained_at: chrono::Utc::now().to_rfc3339(),
        table: table.table.clone(),
        image_column: image_column.clone(),
        split: rows.split_by.clone(),
        encoder,
        encoder_hash,
        strategy: name_of(&config.image.strategy),
        kind: taught.targets.kind,
        labels: taught.targets.labels.clone(),
        weights_hash: String::new(),
        figures: taught.figures,
        settings,
    };
    let parts = ImageModelWeights {
        encoder_card: &start.card,
        encoder: parts::taken(&taught.store, strategy::ENCODER)?,
        head: parts::taken(&taught.store, parts::HEAD)?,
    };
    let card = registry.write_image(card, parts).await?;
    run.finish(Some(&card.version), &card.figures).await?;
    Ok(card)
}

/// What training begins with: a folder of `--encoder`, or a card for random weights.
struct Start {
    card: ImageEncoderCard,
    folder: Option<(String, ImageFolder)>,
    batch_statistics: bool,
}

impl Start {
    async fn of(config: &Config, encoder: Option<&str>) -> Result<Self> {
        let statistics = config.image.norm_statistics;
        let Some(uri) = encoder else {
            refuse_of_folders(&config.image)?;
            return Ok(Self { card: fresh(&config.image), folder: None, batch_statistics: true });
        };
        let folder = ImageFolder::load(&Location::open(uri, &config.s3)?).await.map_err(|f| f.at("--encoder"))?;
        let batch_statistics = statistics == NormStatistics::Batch;
        Ok(Self { card: folder.card.clone(), folder: Some((uri.to_string(), folder)), batch_statistics })
    }

    /// The network with its weights, below `image` in a store that holds nothing else yet.
    fn network(&self, store: &nn::VarStore) -> Result<ImageNetwork> {
        let network = ImageNetwork::new(&(store.root() / strategy::ENCODER), &self.card);
        if let Some((_, folder)) = &self.folder {
            let (weights, _) = folder.network(store.device()).map_err(|f| f.at("--encoder"))?;
            let weights = weights.variables();
            let _guard = tch::no_grad_guard();
            for (name, mut variable) in store.variables() {
                let own = weights.get(parts::part(&name).1);
                variable.f_copy_(own.ok_or_else(|| Failure::bug(format!("{name} was not read")))?)?;
            }
        }
        Ok(network)
    }
}

/// Settings that mean something of a folder's weights alone.
fn refuse_of_folders(config: &ImageConfig) -> Result<()> {
    for (setting, set) in [
        ("image.strategy: expected all, got frozen", config.strategy == ImageStrategy::Frozen),
        ("image.norm_statistics: expected auto or batch, got kept", config.norm_statistics == NormStatistics::Kept),
        ("image.frozen_stages: expected 0, got more", config.frozen_stages > 0),
    ] {
        if set {
            return Err(Failure::usage(format!("{setting}, because without --encoder all weights are random"))
                .hint("pass --encoder and a folder of weights"));
        }
    }
    Ok(())
}

/// What lies around the crop, so that it can be moved, is an eighth of its side, as in torchvision's presets.
fn fresh(config: &ImageConfig) -> ImageEncoderCard {
    let architecture = match config.network {
        ImageNetworkName::Cnn => Architecture::Cnn,
        ImageNetworkName::Resnet18 => Architecture::ResNet18,
        ImageNetworkName::Resnet34 => Architecture::ResNet34,
        ImageNetworkName::Resnet50 => Architecture::ResNet50,
    };
    let crop = i64::from(config.side_pixels);
    ImageEncoderCard::new(architecture, Preprocess { resize: crop + crop / 8, crop, ..Default::default() })
}

/// What came of a training.
struct Taught {
    store: nn::VarStore,
    targets: Arc<Targets>,
    figures: BTreeMap<String, f64>,
}

fn teach(
    config: &Config,
    table: &Table,
    (pictures, start): (&Arc<Pictures>, &Start),
    names: &[String],
    journal: &mut Journal,
) -> Result<Taught> {
    let [train, valid, test] = labelled::parts_of(table, |row| pictures.has(row));
    labelled::enough([&train, &valid, &test], &lacks(table, pictures))?;
    let targets = Arc::new(labels::read(config, table, names, &train)?);
    let known = |rows: Vec<usize>| rows.into_iter().filter(|&row| targets.known[row]).collect::<Vec<usize>>();
    let rows = [train, known(valid), known(test)];

    tch::manual_seed(config.train.seed as i64);
    let device = devices::choose(&config.score)?;
    let mut store = nn::VarStore::new(device);
    let network = start.network(&store)?;
    strategy::prepare(&config.image, &start.card, &store)?;
    let sizes = HeadSizes { width: start.card.width(), labels: targets.labels.len() };
    let head = LabelHead::new(&(store.root() / parts::HEAD), targets.kind, sizes);
    let mut figures = labelled::count_weights(&store, None)?;
    let reader = ImageReader {
        network: &network,
        head: &head,
        crops: Crops {
            pictures: Arc::clone(pictures),
            preprocess: start.card.preprocess.clone(),
            augmentation: config.image.augmentation,
        },
        batch_statistics: start.batch_statistics,
        batch_rows: config.image.batch_rows as usize,
        device,
    };
    if start.folder.is_none() {
        reader.settle(&rows[0], &mut ChaCha8Rng::seed_from_u64(config.train.seed))?;
    }
    let goal = Goal::new(&targets, &rows[0], config, device)?;
    let learning_rate = strategy::learning_rate(&config.image, start.folder.is_none());
    let teaching = Teaching {
        parts: &rows,
        head_epochs_max: config.image.head_epochs_max,
        // Of a frozen encoder, the head is all that learns.
        epochs_max: if config.image.strategy == ImageStrategy::Frozen { 0 } else { config.image.epochs_max },
        learning_rate,
        step_options: strategy::step_options(&config.image, &start.card, learning_rate, &store),
        column: &names.join("_"),
    };
    figures.extend(labelled::teach(config, &reader, &mut store, &goal, teaching, journal)?);
    figures.insert("rows_left_out".into(), table.left_out as f64);
    figures.insert("pictures_refused".into(), pictures.refused as f64);
    journal.report_failures(&mut figures);
    Ok(Taught { store, targets, figures })
}

/// How many rows are left out, and why.
fn lacks(table: &Table, pictures: &Pictures) -> String {
    let lack = format!("{} rows lack a label or a picture", table.left_out);
    match &pictures.first_refused {
        None => lack,
        Some(first) => format!("{lack}, {} pictures can not be read, the first: {first}", pictures.refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_weights_have_room_around_the_crop_and_no_settings_of_folders() {
        let card = fresh(&ImageConfig { network: ImageNetworkName::Resnet18, side_pixels: 224, ..Default::default() });
        assert_eq!((card.preprocess.resize, card.preprocess.crop, card.width()), (252, 224, 512));
        refuse_of_folders(&ImageConfig::default()).unwrap();
        for config in [
            ImageConfig { strategy: ImageStrategy::Frozen, ..Default::default() },
            ImageConfig { norm_statistics: NormStatistics::Kept, ..Default::default() },
            ImageConfig { frozen_stages: 1, ..Default::default() },
        ] {
            let refused = refuse_of_folders(&config).unwrap_err();
            assert!(refused.kind.exit_code() == 2 && refused.message.contains("without --encoder"), "{refused}");
        }
    }
}
