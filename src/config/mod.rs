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
mod sections;
mod serve;
mod table;
mod text;
mod train;

pub use lake::{Partition, S3Config};
pub use machine::{GcConfig, LockConfig, ScoreConfig};
pub use outputs::{ChecksConfig, DemandConfig, IntentsConfig};
pub use sections::Config;
pub use train::TrainConfig;

pub(crate) use image::ImageConfig;
pub(crate) use lake::{Arrival, LakeConfig};
pub(crate) use machine::{Retrain, cores};
pub(crate) use model::ModelConfig;
pub(crate) use outputs::Language;
pub(crate) use resolve::environment;
pub(crate) use serve::{Role, ServedUser, UserIds};
pub(crate) use text::TextConfig;
pub(crate) use train::PromotionConfig;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Result;

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
