//! Settings. They are read, merged and checked in one place ([`Config::resolve`]): defaults < TOML file < `INTENTCAST_*` <
//! flags.
//!
//! In: a settings file, the environment, `--set` flags. Out: [`Config`], resolved and checked. Only `lake.toml`, the usual AWS
//! variables and profiles (`lake`) are read elsewhere. To add a setting: declare it in the file of its section with comment,
//! default and bounds, then run `make docs`, which renders jobs/nightly.toml and docs/reference/configuration.md.

mod declare;
mod image;
mod lake;
mod machine;
mod model;
pub mod networks;
mod outputs;
pub mod render;
mod resolve;
mod table;
mod text;
mod train;

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

use crate::failure::Result;

pub use image::ImageConfig;
pub use lake::{Arrival, LakeConfig, OutputConfig, Partition, S3Config, SqlConfig};
pub use machine::{EngineConfig, FunctionsConfig, GcConfig, LockConfig, ScoreConfig};
pub use model::ModelConfig;
pub use outputs::{
    ChecksConfig, DemandConfig, FeaturesConfig, IntentsConfig, RecommendationConfig, ReplenishmentConfig, SegmentConfig,
};
pub use resolve::environment;
pub use table::TableConfig;
pub use text::TextConfig;
pub use train::TrainConfig;

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
            fn declared() -> Vec<declare::Section> {
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
    sql: SqlConfig,
    s3: S3Config,
    features: FeaturesConfig,
    intents: IntentsConfig,
    demand: DemandConfig,
    recommendation: RecommendationConfig,
    replenishment: ReplenishmentConfig,
    segment: SegmentConfig,
    model: ModelConfig,
    train: TrainConfig,
    table: TableConfig,
    text: TextConfig,
    image: ImageConfig,
    score: ScoreConfig,
    functions: FunctionsConfig,
    checks: ChecksConfig,
    engine: EngineConfig,
    lock: LockConfig,
    gc: GcConfig,
}

impl Config {
    /// Returns the lake's time zone, which [`Config::check`] has parsed before.
    pub fn time_zone(&self) -> chrono_tz::Tz {
        self.lake.time_zone.parse().unwrap_or(chrono_tz::UTC)
    }

    /// Returns the number of partitions: the configured number, or one per core.
    pub fn partitions(&self) -> usize {
        match self.engine.partitions {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
            n => n as usize,
        }
    }

    /// Refuses values out of bounds and settings that contradict each other. Called again after a lake's own settings were
    /// merged in.
    pub fn check(&self) -> Result<()> {
        self.check_bounds()?;
        self.lake.check()?;
        self.model.check()?;
        self.train.check(self.model.backbone)?;
        self.table.check()?;
        self.text.check()?;
        self.image.check()?;
        self.score.check()?;
        self.lock.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn resolved(pairs: &[(&str, &str)]) -> Result<Config> {
        let pairs: Vec<(String, String)> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        Config::resolve(None, [], &pairs)
    }

    #[test]
    fn a_value_out_of_bounds_is_refused_with_the_bounds() {
        let failure = resolved(&[("replenishment.service_level", "95")]).unwrap_err();
        assert!(
            failure.to_string().contains("replenishment.service_level: expected 0.5 to 0.9999, got 95"),
            "{failure}"
        );
        let failure = resolved(&[("demand.history_days", "27")]).unwrap_err();
        assert!(failure.to_string().contains("demand.history_days: expected 28 to 1000, got 27"), "{failure}");
    }

    #[test]
    fn defaults_are_valid_and_every_setting_is_described() {
        Config::default().check().unwrap();
        for section in Config::declared() {
            assert!(!section.about.trim().is_empty(), "{} has no description", section.name);
            for setting in section.settings {
                assert!(!setting.meaning.trim().is_empty(), "{}.{} has no description", section.name, setting.key);
            }
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        for section in Config::declared() {
            for setting in section.settings.iter().filter(|setting| !setting.choices.is_empty()) {
                let key = format!("{}.{}", section.name, setting.key);
                let failure = resolved(&[(&key, "mamba")]).unwrap_err();
                assert_eq!(failure.kind.exit_code(), 2);
                for (name, _) in setting.choices {
                    assert!(failure.message.contains(name), "{key}: {failure}");
                }
            }
        }
    }
}
