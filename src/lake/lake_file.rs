//! `<lake>/lake.toml`: settings that belong to a lake. They take precedence over the built-in defaults; flags, environment and
//! configuration files take precedence over them.
//!
//! `import` writes one, so that a verb needs no settings for such a lake; you can write one for your own lake by hand.

use serde::{Deserialize, Serialize};

use super::stores::Location;
use crate::config::{Arrival, Config, LakeConfig, Partition};
use crate::failure::{Failure, Result};

const NAME: &str = "lake.toml";

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LakeFile {
    lake: LakeSettings,
}

/// The settings that a lake file can have; those that it leaves out stay as configured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LakeSettings {
    /// Folder under `sql/lakes/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) time_zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) partition: Option<Partition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) arrival: Option<Arrival>,
}

impl LakeSettings {
    /// Replaces the settings of `lake` by these, except for the keys of `[lake]` that the user gave.
    pub(crate) fn apply(self, lake: &mut LakeConfig, given: impl Fn(&str) -> bool) {
        fn replace<T>(setting: &mut T, value: Option<T>, given: bool) {
            match value {
                Some(value) if !given => *setting = value,
                _ => {}
            }
        }
        replace(&mut lake.name, self.name, given("name"));
        replace(&mut lake.time_zone, self.time_zone, given("time_zone"));
        replace(&mut lake.partition, self.partition, given("partition"));
        replace(&mut lake.arrival, self.arrival, given("arrival"));
    }
}

/// Returns the configuration with the settings of the lake at `lake.uri`; unchanged if there is no lake or no file.
pub(crate) async fn with_lake_settings(mut config: Config) -> Result<Config> {
    if config.lake.uri.is_empty() {
        return Ok(config);
    }
    let location = Location::open(&config.lake.uri, &config.s3)?;
    let Some(bytes) = location.read_if_there(NAME).await? else { return Ok(config) };
    let place = location.display(&location.path(NAME));
    let refused = |why: String| {
        Failure::input(format!("{place}: {why}")).hint("it can have [lake] with name, time_zone, partition and arrival")
    };
    let text = std::str::from_utf8(&bytes).map_err(|e| refused(e.to_string()))?;
    let file: LakeFile = toml::from_str(text).map_err(|e| refused(e.to_string().trim_end().into()))?;
    let given = std::mem::take(&mut config.given);
    file.lake.apply(&mut config.lake, |key| given.contains(&format!("lake.{key}")));
    config.given = given;
    config.check().map_err(|f| refused(f.message))?;
    Ok(config)
}

/// Writes the file of the lake below `to`; `comment` is its first line.
pub(crate) async fn write(to: &Location, comment: &str, lake: LakeSettings) -> Result<()> {
    let text = toml::to_string(&LakeFile { lake }).map_err(Failure::bug)?;
    to.write(NAME, format!("# {comment}\n{text}")).await
}

/// Returns whether the lake has the file.
pub(crate) async fn exists(lake: &Location) -> Result<bool> {
    Ok(lake.read_if_there(NAME).await?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Config;

    async fn settled(name: &str, text: &str, set: &[(&str, &str)]) -> Result<LakeConfig> {
        let uri = format!("memory://lake-file-{name}/lake");
        let lake = Location::open(&uri, &S3Config::default()).unwrap();
        lake.write(NAME, text.to_string()).await.unwrap();
        let mut set: Vec<(String, String)> = set.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        set.push(("lake.uri".into(), uri));
        let environment = [("INTENTCAST_LAKE__ARRIVAL".to_string(), "ingest_date".to_string())];
        with_lake_settings(Config::resolve(None, environment, &set).unwrap()).await.map(|c| c.lake)
    }

    const TAOBAO: &str = "[lake]\nname = \"taobao\"\ntime_zone = \"Asia/Shanghai\"\npartition = \"event_date_local\"\narrival = \"none\"\n";

    #[tokio::test]
    async fn the_lake_wins_over_defaults_and_the_user_over_the_lake() {
        let lake = settled("wins", TAOBAO, &[("lake.time_zone", "UTC")]).await.unwrap();
        // UTC is the default too, but the user set it.
        assert_eq!((lake.name.as_str(), lake.time_zone.as_str()), ("taobao", "UTC"));
        assert_eq!((lake.partition, lake.arrival), (Partition::EventDateLocal, Arrival::IngestDate));
    }

    #[tokio::test]
    async fn an_unknown_key_or_zone_is_refused_with_the_file() {
        for text in ["[lake]\nuri = \"x\"\n", "[store]\n", "[lake]\ntime_zone = \"Mars\"\n", "[lake]\narrival = 1\n"] {
            let refused = settled("refused", text, &[]).await.unwrap_err();
            assert_eq!(refused.kind.exit_code(), 3, "{text}");
            assert!(refused.message.contains("memory://lake-file-refused/lake/lake.toml"), "{refused}");
        }
    }
}
