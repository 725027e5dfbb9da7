//! The one place where settings are read, merged and checked: defaults < TOML file < `INTENTCAST_*` < flags.
//!
//! What comes out is [`Config`], resolved and valid; nothing below this file reads the environment or a settings file.
//! `jobs/nightly.toml` documents every setting with its default, and a test holds the two together.

pub mod networks;

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

use crate::failure::{Failure, Result};
use networks::{
    AmountLossName, Augmentation, BackboneName, ClassWeights, DemandNetworkName, FusionName, HeadName,
    ImageAugmentation, ImageNetworkName, ImageStrategy, LossName, NormStatistics, Precision, Pretraining, TextStrategy,
    Unlabelled,
};

/// Every setting of a job. Units are at the end of each name.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub lake: LakeConfig,
    pub output: OutputConfig,
    pub sql: SqlConfig,
    pub s3: S3Config,
    pub features: FeaturesConfig,
    pub intents: IntentsConfig,
    pub demand: DemandConfig,
    pub recommendation: RecommendationConfig,
    pub replenishment: ReplenishmentConfig,
    pub segment: SegmentConfig,
    pub model: ModelConfig,
    pub train: TrainConfig,
    pub table: TableConfig,
    pub text: TextConfig,
    pub image: ImageConfig,
    pub score: ScoreConfig,
    pub functions: FunctionsConfig,
    pub checks: ChecksConfig,
    pub engine: EngineConfig,
    pub lock: LockConfig,
    pub gc: GcConfig,
    /// `section.key` of every setting that a file, the environment or a flag gave: only the others yield to a lake's own.
    #[serde(skip)]
    pub given: BTreeSet<String>,
}

/// What the `dt` folder of an event file means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Partition {
    EventDateUtc,
    EventDateLocal,
    IngestDate,
    None,
}

/// How the arrival time of an event is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrival {
    Column,
    IngestDate,
    None,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LakeConfig {
    /// Root of the Parquet lake: `s3://…`, `file://…` or a plain path.
    pub uri: String,
    /// Folder under `sql/lakes/` that turns raw files into canonical views.
    pub name: String,
    pub time_zone: String,
    pub partition: Partition,
    pub arrival: Arrival,
    /// A time later than its partition (or than now, when partitions say nothing) by more than this is quarantined.
    pub time_tolerance_hours: u32,
    /// More bad rows than this share stops the night with exit code 4.
    pub quarantine_share_max: f64,
}

impl Default for LakeConfig {
    fn default() -> Self {
        Self {
            uri: String::new(),
            name: "canonical".into(),
            time_zone: "UTC".into(),
            partition: Partition::EventDateUtc,
            arrival: Arrival::Column,
            time_tolerance_hours: 24,
            quarantine_share_max: 0.01,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutputConfig {
    /// Root of everything written: `tables/`, `state/`, `models/`.
    pub uri: String,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SqlConfig {
    /// A folder of SQL files laid over the built-in ones, file by file; empty uses the built-in ones alone.
    pub folder: String,
}

/// S3 settings; what is empty here comes from the usual AWS environment, profile or instance role.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct S3Config {
    pub endpoint: String,
    pub region: String,
    pub access_key_id: String,
    #[serde(skip_serializing)]
    pub secret_access_key: String,
    /// Of `~/.aws/credentials` and `~/.aws/config`.
    pub profile: String,
    pub path_style: bool,
    pub allow_http: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FeaturesConfig {
    /// Events kept per user for the sequence encoder.
    pub last_events: u32,
    pub look_back_days: u32,
    /// Consent of users whose lake row says nothing.
    pub consent_default: bool,
}

impl Default for FeaturesConfig {
    fn default() -> Self {
        Self { last_events: 128, look_back_days: 90, consent_default: true }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IntentsConfig {
    pub horizon_days: u32,
    /// No event within this many days after the run date counts as churn.
    pub churn_days: u32,
}

impl Default for IntentsConfig {
    fn default() -> Self {
        Self { horizon_days: 7, churn_days: 28 }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DemandConfig {
    pub horizon_days: u32,
    pub history_days: u32,
    /// Items with fewer days since first seen get the stated fallback instead of the network.
    pub history_days_min: u32,
    pub network: DemandNetworkName,
    pub width: u32,
    pub layers: u32,
    /// Items that sell less than this a day get quantiles of a count distribution: whole units.
    pub slow_units_per_day: f64,
    /// How many past dates it learns from, `train.as_of_step_days` apart.
    pub as_of_dates: u32,
    /// Past dates, a horizon apart and before those that the network learns from, on which its quantiles are calibrated.
    pub calibration_dates: u32,
    /// Whether training gives the network what purchase intents of earlier nights promised, where there are such nights.
    pub intent_inputs: bool,
    /// Whether it reads the items' content vectors (pictures, videos), where most items have one.
    pub content_inputs: bool,
    /// Whether forecasts move towards the sum of purchase intents, as far as earlier nights have shown that it helps.
    pub reconcile_intents: bool,
}

impl Default for DemandConfig {
    fn default() -> Self {
        Self {
            horizon_days: 28,
            history_days: 112,
            history_days_min: 14,
            network: DemandNetworkName::default(),
            width: 48,
            layers: 1,
            slow_units_per_day: 0.5,
            as_of_dates: 4,
            calibration_dates: 3,
            intent_inputs: true,
            content_inputs: true,
            reconcile_intents: true,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecommendationConfig {
    pub top_k: u32,
    pub exclude_bought: bool,
}

impl Default for RecommendationConfig {
    fn default() -> Self {
        Self { top_k: 10, exclude_bought: true }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplenishmentConfig {
    /// For items whose inventory row has none.
    pub service_level: f64,
    pub lead_time_days: u32,
    pub review_period_days: u32,
}

impl Default for ReplenishmentConfig {
    fn default() -> Self {
        Self { service_level: 0.95, lead_time_days: 7, review_period_days: 1 }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SegmentConfig {
    /// Segments with fewer users than this are not published.
    pub users_min: u32,
}

impl Default for SegmentConfig {
    fn default() -> Self {
        Self { users_min: 20 }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Version to score with; empty means the champion.
    pub version: String,
    pub backbone: BackboneName,
    pub head: HeadName,
    pub loss: LossName,
    pub focal_gamma: f64,
    pub class_weights: ClassWeights,
    /// What part purchases have of the loss of intents and churn as it begins, where that is more than their own; 0 leaves it.
    pub purchase_share: f64,
    /// Loss of expected units and spend.
    pub amount_loss: AmountLossName,
    pub width: u32,
    pub layers: u32,
    pub heads: u32,
    pub item_buckets: u32,
    pub dropout: f64,
    /// Of AdamW, for the behaviour network: what few users teach is seldom worth a large weight.
    pub weight_decay: f64,
    /// Whether what items' pictures and videos say is an input, where the lake has vectors of them.
    pub content_inputs: bool,
    /// How what items show joins what they are.
    pub fusion: FusionName,
    /// A Hugging Face folder whose network reads titles, queries and reviews for the intents; none where empty.
    pub text_encoder: String,
    /// Tokens of a text that are read; 0 leaves it to the folder (512 at most, where it does not say).
    pub text_tokens_max: u32,
    /// A folder whose network reads `items.image` for the intents, in the place of `items.image_vector`; none where empty.
    pub image_encoder: String,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            version: String::new(),
            backbone: BackboneName::default(),
            head: HeadName::default(),
            loss: LossName::default(),
            focal_gamma: 2.0,
            class_weights: ClassWeights::default(),
            purchase_share: 0.5,
            amount_loss: AmountLossName::default(),
            width: 64,
            layers: 2,
            heads: 4,
            item_buckets: 20_000,
            dropout: 0.1,
            weight_decay: 0.3,
            content_inputs: true,
            fusion: FusionName::default(),
            text_encoder: String::new(),
            text_tokens_max: 0,
            image_encoder: String::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// How many past as-of dates feed the training set of users, `as_of_step_days` apart, at most.
    pub as_of_dates: u32,
    pub as_of_step_days: u32,
    pub epochs_max: u32,
    pub patience_epochs: u32,
    pub batch_rows: u32,
    pub rows_max: u32,
    /// Memory of the users that are learnt from, and as much again of the items; what does not fit waits in scratch files below `engine.spill_folder`.
    pub memory_bytes_max: u64,
    pub learning_rate: f64,
    /// Of all that is trained but the behaviour network, which has `model.weight_decay`.
    pub weight_decay: f64,
    /// How far a label is moved towards one half.
    pub label_smoothing: f64,
    /// The share of events whose item id is hidden, so that the rest of the event has to speak.
    pub item_dropout: f64,
    pub augmentation: Augmentation,
    /// Catalogues up to this size are ranked whole in every step; larger ones against a weighted sample.
    pub full_softmax_items_max: u32,
    pub pretraining: Pretraining,
    pub pretraining_epochs: u32,
    /// The share of users in the training split whose labels are used; the others' histories are unlabelled.
    pub labels_share: f64,
    pub unlabelled: Unlabelled,
    /// What the unlabelled users' loss weighs against the labelled ones'.
    pub unlabelled_weight: f64,
    pub seed: u64,
    /// A checkpoint after so many steps; 0 goes by time alone.
    pub checkpoint_steps: u32,
    /// A checkpoint after so long; 0 goes by steps alone.
    pub checkpoint_seconds: u32,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            as_of_dates: 12,
            as_of_step_days: 7,
            epochs_max: 12,
            patience_epochs: 3,
            batch_rows: 256,
            rows_max: 200_000,
            memory_bytes_max: 1 << 30,
            learning_rate: 1e-3,
            weight_decay: 0.01,
            label_smoothing: 0.0,
            item_dropout: 0.0,
            augmentation: Augmentation::default(),
            full_softmax_items_max: 8192,
            pretraining: Pretraining::default(),
            pretraining_epochs: 5,
            labels_share: 1.0,
            unlabelled: Unlabelled::default(),
            unlabelled_weight: 0.3,
            seed: 42,
            checkpoint_steps: 0,
            checkpoint_seconds: 120,
        }
    }
}

/// Of `train --task table`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TableConfig {
    /// One ASCII character between the fields of a CSV file.
    pub delimiter: String,
    /// The most frequent categories of a column that are told apart.
    pub categories_max: u32,
}

impl Default for TableConfig {
    fn default() -> Self {
        Self { delimiter: ",".into(), categories_max: 256 }
    }
}

/// Of `train --task text`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextConfig {
    /// What of the encoder is trained, or what beside it.
    pub strategy: TextStrategy,
    /// Of `all`: embeddings and so many of the first blocks keep their weights; 0 trains everything.
    pub frozen_layers: u32,
    /// Of `all`: a block's learning rate is so much of that of the block above it.
    pub layer_decay: f64,
    /// Of `lora`: dimensions of a difference.
    pub rank: u32,
    /// Of `lora`: a difference counts alpha / rank times.
    pub alpha: f64,
    /// Of `adapters`: their inner width.
    pub bottleneck: u32,
    /// Of `prefix`: learnt keys and values in front of a text.
    pub prefix_length: u32,
    /// Of pretrained weights.
    pub learning_rate: f64,
    /// Of the head, once it has learnt alone.
    pub head_learning_rate: f64,
    /// Of what a strategy adds; 0 takes what suits it: 0.0005 for lora, 0.001 for adapters, 0.005 for prefix.
    pub beside_learning_rate: f64,
    /// The share of all steps in which the learning rate rises; it falls in a line after that.
    pub warmup_share: f64,
    /// Gradients are clipped to this norm.
    pub gradient_norm_max: f64,
    /// Batches whose gradients make one step.
    pub accumulation_steps: u32,
    /// Tokens of a text that are read.
    pub max_length: u32,
    /// Epochs of guessing hidden words of the texts before any label is shown.
    pub masked_epochs: u32,
    /// Steps over all training rows in which the head learns alone, at most, for each penalty that is tried; 0 starts it at
    /// random.
    pub head_epochs_max: u32,
    /// Passes over the training rows after that; none for `frozen`.
    pub epochs_max: u32,
    /// Padded tokens of a training batch.
    pub batch_tokens_max: u32,
}

impl Default for TextConfig {
    fn default() -> Self {
        Self {
            strategy: TextStrategy::default(),
            frozen_layers: 0,
            layer_decay: 1.0,
            rank: 8,
            alpha: 16.0,
            bottleneck: 32,
            prefix_length: 16,
            learning_rate: 2e-5,
            head_learning_rate: 1e-4,
            beside_learning_rate: 0.0,
            warmup_share: 0.1,
            gradient_norm_max: 1.0,
            accumulation_steps: 1,
            max_length: 128,
            masked_epochs: 0,
            head_epochs_max: 200,
            epochs_max: 3,
            batch_tokens_max: 2048,
        }
    }
}

/// Of `train --task image`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageConfig {
    /// Without `--encoder`: what starts with random weights.
    pub network: ImageNetworkName,
    /// Without `--encoder`: the side of the square that it sees.
    pub side_pixels: u32,
    /// What of the encoder is trained beside the head.
    pub strategy: ImageStrategy,
    /// Of `all` with `--encoder`: the stem and so many of the first stages keep their weights; 0 trains everything.
    pub frozen_stages: u32,
    /// Of `all`: a stage's learning rate is so much of that of the stage above it.
    pub stage_decay: f64,
    /// By which statistics batch normalisation normalises in training.
    pub norm_statistics: NormStatistics,
    /// How a picture is changed each time that training shows it.
    pub augmentation: ImageAugmentation,
    /// Of the encoder's weights; 0 takes what suits them: 0.0001 with `--encoder`, 0.001 from random weights.
    pub learning_rate: f64,
    /// Of the head, once it has learnt alone.
    pub head_learning_rate: f64,
    /// The share of all steps in which the learning rate rises; it falls in a line after that.
    pub warmup_share: f64,
    /// Gradients are clipped to this norm.
    pub gradient_norm_max: f64,
    /// Batches whose gradients make one step.
    pub accumulation_steps: u32,
    /// Steps over all training rows in which the head learns alone, at most, for each penalty that is tried; 0 starts it at
    /// random.
    pub head_epochs_max: u32,
    /// Passes over the training rows after that; none for `frozen`.
    pub epochs_max: u32,
    /// Pictures of a training batch.
    pub batch_rows: u32,
}

impl Default for ImageConfig {
    fn default() -> Self {
        Self {
            network: ImageNetworkName::default(),
            side_pixels: 64,
            strategy: ImageStrategy::default(),
            frozen_stages: 0,
            stage_decay: 1.0,
            norm_statistics: NormStatistics::default(),
            augmentation: ImageAugmentation::default(),
            learning_rate: 0.0,
            head_learning_rate: 1e-3,
            warmup_share: 0.1,
            gradient_norm_max: 1.0,
            accumulation_steps: 1,
            head_epochs_max: 200,
            epochs_max: 10,
            batch_rows: 32,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScoreConfig {
    /// `cpu`, `cuda` (fails where there is none) or `auto` (may fall back, and says so once).
    pub device: String,
    /// Of text and image encoders. The machines of a cluster have to agree.
    pub precision: Precision,
    /// Padded tokens in one forward pass; 0 leaves it to the device ([`crate::score::devices::batch_tokens`]).
    pub batch_tokens_max: u32,
    /// Rows that the owners of the scoring service together pool before they sort by length and cut.
    pub pool_rows_max: u32,
    /// Threads that own the model, sharing its weights; 0 means one a core. A GPU has one.
    pub owner_threads: u32,
    /// Requests in flight per partition.
    pub in_flight_max: u32,
    /// Bytes of what each text or image network has said lately, kept for when SQL asks the same again; 0 keeps nothing.
    pub answers_bytes_max: u64,
}

impl Default for ScoreConfig {
    fn default() -> Self {
        Self {
            device: "auto".into(),
            precision: Precision::default(),
            batch_tokens_max: 0,
            pool_rows_max: 16_384,
            owner_threads: 0,
            in_flight_max: 2,
            answers_bytes_max: 64 << 20,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FunctionsConfig {
    /// Folders from which `CREATE FUNCTION … LANGUAGE TORCH` may load modules; none by default, as modules are programs.
    pub folders: Vec<String>,
    /// Numbers in one forward pass of a module: rows, times a row's numbers.
    pub batch_values_max: u32,
}

impl Default for FunctionsConfig {
    fn default() -> Self {
        Self { folders: Vec::new(), batch_values_max: 1 << 18 }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChecksConfig {
    /// Largest allowed change of the mean purchase probability against the night before, as a share.
    pub change_share_max: f64,
    pub scored_share_min: f64,
}

impl Default for ChecksConfig {
    fn default() -> Self {
        Self { change_share_max: 0.5, scored_share_min: 0.999 }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// `local`, or the address of a Ballista scheduler, `df://host:port`.
    pub cluster: String,
    /// 0 means one a core.
    pub partitions: u32,
    pub memory_bytes_max: u64,
    /// Parts of the users whose features are built one after another; 0 means as many as the memory asks for.
    pub user_parts: u32,
    /// Parts of the items whose histories are built one after another; 0 means as many as the memory asks for.
    pub item_parts: u32,
    pub spill_folder: String,
    pub batch_rows: u32,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            cluster: "local".into(),
            partitions: 0,
            memory_bytes_max: 1536 << 20,
            user_parts: 0,
            item_parts: 0,
            spill_folder: String::new(),
            batch_rows: 8192,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LockConfig {
    pub heartbeat_seconds: u32,
    pub expiry_seconds: u32,
}

impl Default for LockConfig {
    fn default() -> Self {
        Self { heartbeat_seconds: 10, expiry_seconds: 120 }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GcConfig {
    pub nights_kept: u32,
    pub orphan_age_hours: u32,
}

impl Default for GcConfig {
    fn default() -> Self {
        Self { nights_kept: 30, orphan_age_hours: 48 }
    }
}

impl Config {
    /// Merges `file`, `INTENTCAST_SECTION__KEY` variables and `key=value` overrides over the defaults, then checks.
    pub fn resolve(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &[(String, String)],
    ) -> Result<Config> {
        let mut root = match file {
            None => toml::Table::new(),
            Some(path) => {
                let text =
                    std::fs::read_to_string(path).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
                text.parse::<toml::Table>().map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?
            }
        };
        let defaults = toml::Table::try_from(Config::default()).map_err(Failure::bug)?;
        for (name, value) in environment {
            if let Some(key) = name.strip_prefix("INTENTCAST_") {
                set(&mut root, &defaults, &key.to_lowercase().replace("__", "."), &value).map_err(|f| f.at(&name))?;
            }
        }
        for (key, value) in overrides {
            set(&mut root, &defaults, key, value).map_err(|f| f.at("--set"))?;
        }
        let given = given(&root);
        let mut config: Config = root.try_into().map_err(|e| {
            let place = file.map_or("configuration".into(), |p| p.display().to_string());
            Failure::usage(format!("{place}: {}", e.to_string().trim_end()))
                .hint("jobs/nightly.toml lists every setting")
        })?;
        config.given = given;
        config.check()?;
        Ok(config)
    }

    /// This configuration with other values of some settings (`section.key`), checked.
    pub fn with(&self, settings: &[(String, String)]) -> Result<Config> {
        let mut root = toml::Table::try_from(self).map_err(Failure::bug)?;
        let defaults = root.clone();
        settings.iter().try_for_each(|(key, value)| set(&mut root, &defaults, key, value))?;
        let mut config: Config = root.try_into().map_err(|e| Failure::usage(e.to_string().trim_end().to_string()))?;
        // Secrets are not written out, and what was given is no setting.
        config.s3.secret_access_key.clone_from(&self.s3.secret_access_key);
        config.given.clone_from(&self.given);
        config.check()?;
        Ok(config)
    }

    /// The lake's time zone; `check` has made sure that it parses.
    pub fn time_zone(&self) -> chrono_tz::Tz {
        self.lake.time_zone.parse().unwrap_or(chrono_tz::UTC)
    }

    /// Worker partitions: the configured number, or one a core.
    pub fn partitions(&self) -> usize {
        match self.engine.partitions {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
            n => n as usize,
        }
    }

    /// Refuses values out of range; called again where a lake's own settings were merged in.
    pub fn check(&self) -> Result<()> {
        if self.lake.time_zone.parse::<chrono_tz::Tz>().is_err() {
            return Err(Failure::usage(format!(
                "lake.time_zone: expected an IANA zone such as Europe/London, got {:?}",
                self.lake.time_zone
            )));
        }
        within("lake.quarantine_share_max", self.lake.quarantine_share_max, 0.0, 1.0)?;
        within("replenishment.service_level", self.replenishment.service_level, 0.5, 0.9999)?;
        within("model.dropout", self.model.dropout, 0.0, 0.9)?;
        within("model.weight_decay", self.model.weight_decay, 0.0, 10.0)?;
        within("features.last_events", self.features.last_events.into(), 1.0, 4096.0)?;
        within("features.look_back_days", self.features.look_back_days.into(), 90.0, 3650.0)?;
        within("intents.horizon_days", self.intents.horizon_days.into(), 1.0, 90.0)?;
        within("demand.horizon_days", self.demand.horizon_days.into(), 1.0, 366.0)?;
        within("demand.history_days", self.demand.history_days.into(), 28.0, 1000.0)?;
        within("score.batch_tokens_max", self.score.batch_tokens_max.into(), 0.0, 1e7)?;
        within("score.owner_threads", self.score.owner_threads.into(), 0.0, 1024.0)?;
        within("functions.batch_values_max", self.functions.batch_values_max.into(), 1.0, 1e9)?;
        within("model.width", self.model.width.into(), 8.0, 4096.0)?;
        within("model.layers", self.model.layers.into(), 1.0, 64.0)?;
        within("model.focal_gamma", self.model.focal_gamma, 0.0, 10.0)?;
        within("model.purchase_share", self.model.purchase_share, 0.0, 0.9)?;
        within("demand.width", self.demand.width.into(), 4.0, 4096.0)?;
        within("demand.layers", self.demand.layers.into(), 1.0, 16.0)?;
        within("demand.as_of_dates", self.demand.as_of_dates.into(), 1.0, 520.0)?;
        within("demand.calibration_dates", self.demand.calibration_dates.into(), 0.0, 52.0)?;
        within("demand.slow_units_per_day", self.demand.slow_units_per_day, 0.0, 10.0)?;
        within("train.as_of_dates", self.train.as_of_dates.into(), 2.0, 520.0)?;
        within("train.epochs_max", self.train.epochs_max.into(), 1.0, 1e6)?;
        within("train.batch_rows", self.train.batch_rows.into(), 1.0, 1e6)?;
        within("train.learning_rate", self.train.learning_rate, 1e-8, 10.0)?;
        within("train.weight_decay", self.train.weight_decay, 0.0, 1.0)?;
        within("train.label_smoothing", self.train.label_smoothing, 0.0, 0.5)?;
        within("train.item_dropout", self.train.item_dropout, 0.0, 0.9)?;
        within("train.labels_share", self.train.labels_share, 0.0001, 1.0)?;
        within("train.pretraining_epochs", self.train.pretraining_epochs.into(), 1.0, 1e6)?;
        within("train.unlabelled_weight", self.train.unlabelled_weight, 0.0, 100.0)?;
        within("train.full_softmax_items_max", self.train.full_softmax_items_max.into(), 0.0, 1e6)?;
        within("table.categories_max", self.table.categories_max.into(), 1.0, 1e6)?;
        if self.table.delimiter.len() != 1 {
            return Err(Failure::usage(format!(
                "table.delimiter: expected one ASCII character, got {:?}",
                self.table.delimiter
            )));
        }
        self.text.check()?;
        self.image.check()?;
        self.model.check_losses()?;
        self.train.check_unlabelled(self.model.backbone)?;
        if !self.model.width.is_multiple_of(self.model.heads.max(1)) {
            return Err(Failure::usage(format!(
                "model.width: expected a multiple of model.heads ({}), got {}",
                self.model.heads, self.model.width
            )));
        }
        if !["cpu", "cuda", "auto"].contains(&self.score.device.as_str()) {
            return Err(Failure::usage(format!(
                "score.device: expected cpu, cuda or auto, got {:?}",
                self.score.device
            )));
        }
        if self.lock.expiry_seconds <= self.lock.heartbeat_seconds {
            return Err(Failure::usage(format!(
                "lock.expiry_seconds: expected more than lock.heartbeat_seconds ({}), got {}",
                self.lock.heartbeat_seconds, self.lock.expiry_seconds
            )));
        }
        Ok(())
    }
}

impl TextConfig {
    fn check(&self) -> Result<()> {
        within("text.layer_decay", self.layer_decay, 0.01, 1.0)?;
        within("text.rank", self.rank.into(), 1.0, 1024.0)?;
        within("text.alpha", self.alpha, 0.001, 1e4)?;
        within("text.bottleneck", self.bottleneck.into(), 1.0, 4096.0)?;
        within("text.prefix_length", self.prefix_length.into(), 1.0, 512.0)?;
        within("text.learning_rate", self.learning_rate, 1e-9, 1.0)?;
        within("text.head_learning_rate", self.head_learning_rate, 1e-9, 1.0)?;
        within("text.beside_learning_rate", self.beside_learning_rate, 0.0, 1.0)?;
        within("text.warmup_share", self.warmup_share, 0.0, 0.9)?;
        within("text.gradient_norm_max", self.gradient_norm_max, 1e-3, 1e6)?;
        within("text.accumulation_steps", self.accumulation_steps.into(), 1.0, 1e4)?;
        within("text.max_length", self.max_length.into(), 1.0, 8192.0)?;
        within("text.head_epochs_max", self.head_epochs_max.into(), 0.0, 1e4)?;
        within("text.epochs_max", self.epochs_max.into(), 1.0, 1e4)?;
        if self.strategy == TextStrategy::Frozen && self.head_epochs_max == 0 {
            return Err(Failure::usage(
                "text.head_epochs_max: expected at least 1, because text.strategy is frozen and nothing else learns, got 0",
            ));
        }
        within("text.batch_tokens_max", self.batch_tokens_max.into(), 1.0, 1e7)?;
        for (key, of, set) in
            [("text.frozen_layers", "0", self.frozen_layers > 0), ("text.layer_decay", "1", self.layer_decay < 1.0)]
        {
            if set && self.strategy != TextStrategy::All {
                return Err(Failure::usage(format!(
                    "{key}: expected {of}, because text.strategy is {}, which trains no pretrained weight",
                    networks::name_of(&self.strategy)
                ))
                .hint("set text.strategy=all"));
            }
        }
        Ok(())
    }
}

impl ImageConfig {
    fn check(&self) -> Result<()> {
        within("image.side_pixels", self.side_pixels.into(), 16.0, 512.0)?;
        within("image.frozen_stages", self.frozen_stages.into(), 0.0, 6.0)?;
        within("image.stage_decay", self.stage_decay, 0.01, 1.0)?;
        within("image.learning_rate", self.learning_rate, 0.0, 1.0)?;
        within("image.head_learning_rate", self.head_learning_rate, 1e-9, 1.0)?;
        within("image.warmup_share", self.warmup_share, 0.0, 0.9)?;
        within("image.gradient_norm_max", self.gradient_norm_max, 1e-3, 1e6)?;
        within("image.accumulation_steps", self.accumulation_steps.into(), 1.0, 1e4)?;
        within("image.head_epochs_max", self.head_epochs_max.into(), 0.0, 1e4)?;
        within("image.epochs_max", self.epochs_max.into(), 1.0, 1e4)?;
        // Statistics of one picture are none.
        within("image.batch_rows", self.batch_rows.into(), 4.0, 4096.0)?;
        if self.strategy == ImageStrategy::Frozen && self.head_epochs_max == 0 {
            return Err(Failure::usage(
                "image.head_epochs_max: expected at least 1, because image.strategy is frozen and nothing else learns, got 0",
            ));
        }
        for (key, of, set) in
            [("image.frozen_stages", "0", self.frozen_stages > 0), ("image.stage_decay", "1", self.stage_decay < 1.0)]
        {
            if set && self.strategy == ImageStrategy::Frozen {
                return Err(Failure::usage(format!(
                    "{key}: expected {of}, because image.strategy is frozen, which trains no weight of the encoder"
                ))
                .hint("set image.strategy=all"));
            }
        }
        if self.frozen_stages > 0 && self.norm_statistics == NormStatistics::Batch {
            return Err(Failure::usage(
                "image.norm_statistics: expected kept, because image.frozen_stages keeps stages as they are, got batch",
            ));
        }
        Ok(())
    }
}

/// `section.key` of every value of a settings file.
fn given(root: &toml::Table) -> BTreeSet<String> {
    let sections = root.iter().filter_map(|(section, values)| Some((section, values.as_table()?)));
    sections.flat_map(|(section, values)| values.keys().map(move |key| format!("{section}.{key}"))).collect()
}

/// The process's environment as UTF-8 pairs; the only place that reads it.
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect()
}

fn within(key: &str, value: f64, low: f64, high: f64) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Failure::usage(format!("{key}: expected {low} to {high}, got {value}")))
}

/// Sets `section.key`, read in the type that the default has, so that `--set model.version=7` stays a string.
fn set(root: &mut toml::Table, defaults: &toml::Table, key: &str, value: &str) -> Result<()> {
    let unknown = || Failure::usage(format!("unknown setting {key:?}")).hint("jobs/nightly.toml lists every setting");
    let (section, name) = key.split_once('.').ok_or_else(unknown)?;
    let default = match defaults.get(section).and_then(|s| s.get(name)) {
        Some(default) => default.clone(),
        None if key == "s3.secret_access_key" => toml::Value::String(String::new()),
        None => return Err(unknown()),
    };
    let wrong = |kind: &str| Failure::usage(format!("{key}: expected {kind}, got {value:?}"));
    let parsed = match default {
        toml::Value::String(_) => toml::Value::String(value.into()),
        toml::Value::Integer(_) => toml::Value::Integer(value.parse().map_err(|_| wrong("a whole number"))?),
        toml::Value::Float(_) => toml::Value::Float(value.parse().map_err(|_| wrong("a number"))?),
        toml::Value::Boolean(_) => toml::Value::Boolean(value.parse().map_err(|_| wrong("true or false"))?),
        toml::Value::Array(_) => toml::Value::Array(list(value).ok_or_else(|| wrong("a,b or [\"a\", \"b\"]"))?),
        _ => return Err(unknown()),
    };
    let section = root.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
    let table = section.as_table_mut().ok_or_else(unknown)?;
    table.insert(name.into(), parsed);
    Ok(())
}

/// Words with commas between them, or a list as settings files have it.
fn list(value: &str) -> Option<Vec<toml::Value>> {
    if value.trim_start().starts_with('[') {
        let table: toml::Table = format!("list = {value}").parse().ok()?;
        return table.get("list")?.as_array().filter(|parts| parts.iter().all(toml::Value::is_str)).cloned();
    }
    let parts = value.split(',').map(str::trim).filter(|part| !part.is_empty());
    Some(parts.map(|part| toml::Value::String(part.into())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.into(), value.into())
    }

    #[test]
    fn the_flag_wins_over_the_environment() {
        let environment = [pair("INTENTCAST_DEMAND__HORIZON_DAYS", "14"), pair("INTENTCAST_LAKE__URI", "/a")];
        let config = Config::resolve(None, environment, &[pair("lake.uri", "/b")]).unwrap();
        assert_eq!((config.demand.horizon_days, config.lake.uri.as_str()), (14, "/b"));
    }

    #[test]
    fn a_list_is_given_with_commas_or_as_a_settings_file_has_it() {
        let of = |given: &str| Config::resolve(None, [], &[pair("functions.folders", given)]);
        for given in ["/srv/a, s3://shop/b", r#"["/srv/a", 's3://shop/b']"#] {
            assert_eq!(of(given).unwrap().functions.folders, ["/srv/a", "s3://shop/b"], "{given}");
        }
        for given in [r#"["/srv/a""#, "[1, 2]", "[/srv/a]"] {
            let refused = of(given).unwrap_err();
            assert!(refused.message.contains("functions.folders: expected a,b or"), "{refused}");
        }
    }

    #[test]
    fn an_unknown_setting_is_named() {
        let failure = Config::resolve(None, [], &[pair("lake.url", "/b")]).unwrap_err();
        assert!(failure.to_string().contains("lake.url"), "{failure}");
    }

    #[test]
    fn a_value_out_of_range_says_the_range() {
        let failure = Config::resolve(None, [], &[pair("replenishment.service_level", "95")]).unwrap_err();
        assert!(failure.to_string().contains("expected 0.5 to 0.9999, got 95"), "{failure}");
    }

    #[test]
    fn the_documented_configuration_holds_every_setting_with_its_default() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs/nightly.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let documented: toml::Table = text.parse().unwrap();
        let mut defaults = toml::Table::try_from(Config::default()).unwrap();
        defaults["s3"].as_table_mut().unwrap().insert("secret_access_key".into(), toml::Value::String(String::new()));
        assert_eq!(documented, defaults);
    }
}
