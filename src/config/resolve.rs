//! Merges defaults, a settings file, the environment and flags into a checked [`Config`].

use std::collections::BTreeSet;
use std::path::Path;

use super::sections::Config;
use crate::failure::{Failure, Result};

const LIST_HINT: &str = "jobs/nightly.toml lists every setting";

impl Config {
    /// Merges `file`, `INTENTCAST_SECTION__KEY` variables and `key=value` overrides over the defaults, then checks.
    pub fn resolve(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &[(String, String)],
    ) -> Result<Config> {
        let mut root = match file {
            Some(path) => read_file(path)?,
            None => toml::Table::new(),
        };
        let defaults = toml::Table::try_from(Config::default()).map_err(Failure::bug)?;
        for (name, value) in environment {
            if let Some(key) = name.strip_prefix("INTENTCAST_") {
                let key = key.to_lowercase().replace("__", ".");
                set(&mut root, &defaults, &key, &value).map_err(|failure| failure.at(&name))?;
            }
        }
        for (key, value) in overrides {
            set(&mut root, &defaults, key, value).map_err(|failure| failure.at("--set"))?;
        }
        let given = given_keys(&root);
        let mut config: Config = root.try_into().map_err(|error: toml::de::Error| {
            let place = file.map_or("configuration".into(), |path| path.display().to_string());
            Failure::usage(format!("{place}: {}", error.to_string().trim_end())).hint(LIST_HINT)
        })?;
        config.given = given;
        config.check()?;
        Ok(config)
    }

    /// Returns this configuration with other values of some settings (`section.key`), checked.
    pub(crate) fn with(&self, settings: &[(String, String)]) -> Result<Config> {
        let mut root = toml::Table::try_from(self).map_err(Failure::bug)?;
        let defaults = root.clone();
        for (key, value) in settings {
            set(&mut root, &defaults, key, value)?;
        }
        let mut config: Config = root
            .try_into()
            .map_err(|error: toml::de::Error| Failure::usage(error.to_string().trim_end().to_string()))?;
        // Neither is part of the serialised configuration.
        config.s3.secret_access_key.clone_from(&self.s3.secret_access_key);
        config.given.clone_from(&self.given);
        config.check()?;
        Ok(config)
    }
}

/// Returns the environment's variables that are UTF-8. No other function reads the environment.
pub(crate) fn environment() -> Vec<(String, String)> {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect()
}

fn read_file(path: &Path) -> Result<toml::Table> {
    let text = std::fs::read_to_string(path).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
    text.parse().map_err(|e| Failure::usage(format!("{}: {e}", path.display())))
}

/// Returns `section.key` of every value in a settings file.
fn given_keys(root: &toml::Table) -> BTreeSet<String> {
    let mut given = BTreeSet::new();
    for (section, values) in root {
        let keys = values.as_table().into_iter().flat_map(toml::Table::keys);
        given.extend(keys.map(|key| format!("{section}.{key}")));
    }
    given
}

/// Sets `section.key`, parsed as the type of the default, so that `--set model.version=7` stays a string.
fn set(root: &mut toml::Table, defaults: &toml::Table, key: &str, value: &str) -> Result<()> {
    let unknown = || Failure::usage(format!("unknown setting {key:?}")).hint(LIST_HINT);
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
        toml::Value::Array(_) => toml::Value::Array(parse_list(value).ok_or_else(|| wrong("a,b or [\"a\", \"b\"]"))?),
        _ => return Err(unknown()),
    };
    let values = root.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
    values.as_table_mut().ok_or_else(unknown)?.insert(name.into(), parsed);
    Ok(())
}

/// Parses words separated by commas, or a list as a settings file has it.
fn parse_list(value: &str) -> Option<Vec<toml::Value>> {
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
    use crate::config::tests::resolved;

    #[test]
    fn the_flag_wins_over_the_environment() {
        let pair = |key: &str, value: &str| (key.to_string(), value.to_string());
        let environment = [pair("INTENTCAST_DEMAND__HORIZON_DAYS", "14"), pair("INTENTCAST_LAKE__URI", "/a")];
        let config = Config::resolve(None, environment, &[pair("lake.uri", "/b")]).unwrap();
        assert_eq!((config.demand.horizon_days, config.lake.uri.as_str()), (14, "/b"));
    }

    #[test]
    fn a_list_is_given_with_commas_or_as_a_settings_file_has_it() {
        for given in ["/srv/a, s3://shop/b", r#"["/srv/a", 's3://shop/b']"#] {
            let config = resolved(&[("functions.folders", given)]).unwrap();
            assert_eq!(config.functions.folders, ["/srv/a", "s3://shop/b"], "{given}");
        }
        for given in [r#"["/srv/a""#, "[1, 2]", "[/srv/a]"] {
            let refused = resolved(&[("functions.folders", given)]).unwrap_err();
            assert!(refused.message.contains("functions.folders: expected a,b or"), "{refused}");
        }
    }

    #[test]
    fn an_unknown_setting_is_named() {
        let failure = resolved(&[("lake.url", "/b")]).unwrap_err();
        assert!(failure.to_string().contains("lake.url"), "{failure}");
    }
}
