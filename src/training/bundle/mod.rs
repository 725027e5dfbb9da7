//! Trains the models of the night, the intent network and the demand network, and writes them as one bundle.
//!
//! `intentcast train` calls [`train_bundle`]. Past dates come in through the night's own SQL ([`gather_training_sets`]); out
//! goes a version in the registry below `<output>/models`, with its figures. A training that fails at any point writes no
//! card, so the champion and every other version stay as they were. A training that was killed resumes from its
//! checkpoints.

mod networks;
pub(crate) mod summary;
pub(crate) mod sweep;
mod training_sets;

pub use networks::fit_networks;
pub use training_sets::{TrainingSets, gather_training_sets};

use crate::config::Config;
use crate::failure::Result;
use crate::ids::RunDate;
use crate::lake::stores::Location;
use crate::model::bundle::{BundleCard, BundleParts, FORMAT, IMAGE_FOLDER, Registry, TEXT_FOLDER};
use crate::model::promotions::{Decision, Promotion};
use crate::training::fitting::TrainingRun;
use crate::training::trees::LightGbm;
use crate::workspace::Workspace;
use networks::card_settings;
use sweep::{Sweep, Trial};
use training_sets::TRAINING_SQL;

/// Makes a version the champion if there is none yet.
pub(crate) async fn promote_first(config: &Config, version: &str) -> Result<()> {
    let registry = Registry(Location::open(&config.output.uri, &config.s3)?.folder("models"));
    if registry.champion().await?.is_none() {
        registry.decide(&Promotion::new(Decision::First, version, None)).await?;
    }
    Ok(())
}

/// Returns the newest bundle that a training of `date` with these settings has written, from the workspace's SQL and the files that its
/// lake has now.
pub(crate) async fn find_bundle(workspace: &Workspace, date: RunDate) -> Result<Option<BundleCard>> {
    let config = &workspace.config;
    let sql_fingerprint = workspace.sql.fingerprint(&TRAINING_SQL);
    let input_fingerprint = workspace.plan_rollups(date).await?.input_fingerprint();
    let registry = Registry(Location::open(&config.output.uri, &config.s3)?.folder("models"));
    let settings = card_settings(config)?;
    let is_same = |card: &BundleCard| {
        let read = (&*card.sql_fingerprint, &*card.input_fingerprint);
        (card.format, &*card.labels_end, read, &card.settings)
            == (FORMAT, &*date.to_string(), (&*sql_fingerprint, &*input_fingerprint), &settings)
    };
    Ok(registry.versions().await?.into_iter().rfind(is_same))
}

/// Trains on events before `date` and writes a bundle. With a sweep, it is trained with the settings of the best trial; all trials
/// are returned too.
pub(crate) async fn train_bundle(
    config: &Config,
    date: RunDate,
    sweep: Option<&Sweep>,
) -> Result<(BundleCard, Vec<Trial>)> {
    if config.intents.trees || (config.demand.enabled && config.demand.trees) {
        // Before the lake is read, which may take minutes.
        LightGbm::open(&config.train)?;
    }
    let sets = gather_training_sets(config, date).await?;
    let output = Location::open(&config.output.uri, &config.s3)?;
    let day = date.to_string().replace('-', "");
    let (best_config, trials) = match sweep {
        Some(sweep) => {
            let kind = format!("sweep-{day}");
            let train_trial = async |trial_config: &Config| {
                // Trials are compared on the validation set, and their models are not kept.
                let mut trial_config = trial_config.clone();
                trial_config.train.refit_epochs = 0;
                let trial_config = &trial_config;
                let mut run = start_run(trial_config, &kind, &sets).await?;
                let (card, _) = run.train(|journal| fit_networks(trial_config, &sets, journal))?;
                run.finish(None, &card.figures).await?;
                Ok(card.figures)
            };
            sweep.search(config, &sweep.trials_folder(config, &sets, &output)?, train_trial).await?
        }
        None => (config.clone(), Vec::new()),
    };
    let registry = Registry(output.folder("models"));
    let mut run = start_run(&best_config, &day, &sets).await?;
    let (trained_card, networks) = run.train(|journal| fit_networks(&best_config, &sets, journal))?;
    let encoders = encoder_folders(&trained_card, &best_config)?;
    let parts = BundleParts { networks: &networks, items: &sets.index, contents: &sets.contents, encoders: &encoders };
    let card = registry.write(trained_card, parts).await?;
    run.finish(Some(&card.version), &card.figures).await?;
    Ok((card, trials))
}

async fn start_run<'a>(config: &'a Config, kind: &str, sets: &TrainingSets) -> Result<TrainingRun<'a>> {
    TrainingRun::start(config, kind, sets.fingerprint(config)?, card_settings(config)?).await
}

/// Folders of the encoders that the bundle includes, by their names in it.
fn encoder_folders(card: &BundleCard, config: &Config) -> Result<Vec<(&'static str, Location)>> {
    let mut folders = Vec::new();
    if let Some(text) = &card.text {
        folders.push((TEXT_FOLDER, Location::open(&text.source, &config.s3)?));
    }
    if let Some(image) = &card.image {
        folders.push((IMAGE_FOLDER, Location::open(&image.source, &config.s3)?));
    }
    Ok(folders)
}
