//! The sections of the configuration, and the checks of all of them together.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

use super::declare::Section;
use super::image::ImageConfig;
use super::lake::{LakeConfig, OutputConfig, PrivacyConfig, S3Config, SqlConfig};
use super::machine::{EngineConfig, EraseConfig, FunctionsConfig, GcConfig, LockConfig, ScoreConfig, cores};
use super::model::ModelConfig;
use super::outputs::{
    ChecksConfig, DemandConfig, FeaturesConfig, IntentsConfig, RecommendationConfig, ReplenishmentConfig, ReportConfig,
    SegmentConfig,
};
use super::serve::ServeConfig;
use super::table::TableConfig;
use super::text::TextConfig;
use super::train::{PromotionConfig, TrainConfig};
use crate::failure::Result;

macro_rules! sections {
    ($($name:ident: $type:ty,)+) => {
        /// Every setting of a job, by section. Units are at the end of each name.
        #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Config {
            $(pub $name: $type,)+
            /// `section.key` of every setting that a file, the environment or a flag gave. A lake's own `lake.toml` replaces
            /// only the others.
            #[serde(skip)]
            pub given: BTreeSet<String>,
        }

        impl Config {
            pub(super) fn declared() -> Vec<Section> {
                vec![$(<$type>::declared(stringify!($name))),+]
            }

            fn check_bounds(&self) -> Result<()> {
                $(self.$name.check_bounds(stringify!($name))?;)+
                Ok(())
            }
        }
    };
}

sections! {
    lake: LakeConfig,
    output: OutputConfig,
    privacy: PrivacyConfig,
    sql: SqlConfig,
    s3: S3Config,
    features: FeaturesConfig,
    intents: IntentsConfig,
    demand: DemandConfig,
    recommendation: RecommendationConfig,
    replenishment: ReplenishmentConfig,
    segment: SegmentConfig,
    report: ReportConfig,
    model: ModelConfig,
    train: TrainConfig,
    promotion: PromotionConfig,
    table: TableConfig,
    text: TextConfig,
    image: ImageConfig,
    score: ScoreConfig,
    functions: FunctionsConfig,
    checks: ChecksConfig,
    engine: EngineConfig,
    lock: LockConfig,
    gc: GcConfig,
    erase: EraseConfig,
    serve: ServeConfig,
}

impl Config {
    /// Returns the lake's time zone, which [`Config::check`] has parsed before.
    pub(crate) fn time_zone(&self) -> chrono_tz::Tz {
        self.lake.time_zone.parse().unwrap_or(chrono_tz::UTC)
    }

    /// Returns the number of partitions: the configured number, or one per core.
    pub(crate) fn partitions(&self) -> usize {
        match self.engine.partitions {
            0 => cores(),
            n => n as usize,
        }
    }

    /// Refuses values out of bounds and settings that contradict each other. Called again after a lake's own settings were
    /// merged in.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_bounds()?;
        self.lake.check()?;
        self.model.check()?;
        self.train.check(self.model.backbone)?;
        self.table.check()?;
        self.text.check()?;
        self.image.check()?;
        self.score.check()?;
        self.serve.check()?;
        self.lock.check()
    }
}
