//! Renders jobs/nightly.toml and docs/reference/configuration.md from the declared settings.

use std::fmt::Write;

use super::declare::Setting;
use super::sections::Config;
use crate::failure::{Failure, Result};

const LINE_WIDTH: usize = 118;

/// Every setting with its default and a comment, as a settings file.
pub fn nightly_toml() -> Result<String> {
    let mut text = String::from(
        "# Every setting of intentcast with its default. Generated from src/config/ by `make docs`; a test compares them.\n\
         # Precedence: --set section.key=value, then INTENTCAST_SECTION__KEY, then a file like this one, then the defaults.\n\
         # A copy of this file fixes every setting that it contains: delete the lines that you don't want to change.\n",
    );
    let defaults = Defaults::new()?;
    for section in Config::declared() {
        write!(text, "\n{}[{}]\n", as_comment(&paragraph(section.about)), section.name).map_err(Failure::bug)?;
        for setting in &section.settings {
            let names: Vec<&str> = setting.choices.iter().map(|(name, _)| *name).collect();
            let choices = if names.is_empty() { String::new() } else { format!(" One of: {}.", names.join(", ")) };
            let comment = as_comment(&format!("{}{choices}{}", paragraph(setting.meaning), bounds(setting)));
            let default = defaults.get(section.name, setting.key)?;
            write!(text, "\n{comment}{} = {default}\n", setting.key).map_err(Failure::bug)?;
        }
    }
    Ok(text)
}

/// The configuration reference.
pub fn markdown() -> Result<String> {
    let mut text = String::from(
        "# Configuration\n\n\
         Generated from src/config/ by `make docs`; a test compares them. `jobs/nightly.toml` holds the same as a settings file.\n\n\
         `--set section.key=value` wins over the environment, which wins over the file of `--config`, which wins over the\n\
         default. In the environment a setting is `INTENTCAST_SECTION__KEY`: `INTENTCAST_SCORE__DEVICE=cpu`.\n",
    );
    let defaults = Defaults::new()?;
    for section in Config::declared() {
        let about = paragraph(section.about);
        write!(text, "\n## {}\n\n{about}\n\n| setting | default | what it does |\n|---|---|---|\n", section.name)
            .map_err(Failure::bug)?;
        for setting in &section.settings {
            let default = defaults.get(section.name, setting.key)?;
            let meaning = format!("{}{}{}", paragraph(setting.meaning), choices(setting), bounds(setting));
            let meaning = meaning.replace('|', "\\|");
            writeln!(text, "| `{}.{}` | `{default}` | {meaning} |", section.name, setting.key).map_err(Failure::bug)?;
        }
    }
    Ok(text)
}

/// The default configuration as TOML values.
struct Defaults(toml::Table);

impl Defaults {
    fn new() -> Result<Self> {
        let mut defaults = toml::Table::try_from(Config::default()).map_err(Failure::bug)?;
        // Secrets are not serialised.
        if let Some(s3) = defaults.get_mut("s3").and_then(toml::Value::as_table_mut) {
            s3.insert("secret_access_key".into(), toml::Value::String(String::new()));
        }
        Ok(Self(defaults))
    }

    fn get(&self, section: &str, key: &str) -> Result<String> {
        match self.0.get(section).and_then(|values| values.get(key)) {
            // Without an exponent: 0.00002, not 2e-5.
            Some(toml::Value::Float(value)) if value.fract() != 0.0 => Ok(value.to_string()),
            Some(value) => Ok(value.to_string()),
            None => Err(Failure::bug(format!("{section}.{key} has no default"))),
        }
    }
}

/// Joins the lines of a doc comment.
fn paragraph(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn bounds(setting: &Setting) -> String {
    setting.bounds.map_or(String::new(), |(low, high)| format!(" Range: {low} to {high}."))
}

fn choices(setting: &Setting) -> String {
    let choices = setting.choices.iter().map(|(name, meaning)| format!("`{name}` ({})", paragraph(meaning)));
    let choices: Vec<String> = choices.collect();
    if choices.is_empty() { String::new() } else { format!(" One of: {}.", choices.join(", ")) }
}

/// Breaks a paragraph into comment lines.
fn as_comment(paragraph: &str) -> String {
    let mut text = String::new();
    let mut line = String::from("#");
    for word in paragraph.split(' ') {
        if line.chars().count() + 1 + word.chars().count() > LINE_WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_file_holds_every_setting_with_its_default() {
        let rendered: toml::Table = nightly_toml().unwrap().parse().unwrap();
        assert_eq!(rendered, Defaults::new().unwrap().0);
    }
}
