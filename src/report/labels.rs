//! Texts of the report by language.

use std::collections::BTreeMap;

use crate::config::Language;
use crate::failure::{Failure, Result};

const ENGLISH: &str = include_str!("labels/en.toml");
const CHINESE: &str = include_str!("labels/zh.toml");

/// The texts of one language, by key.
#[derive(Debug)]
pub(super) struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Reads the texts that are built into the binary.
    pub(super) fn load(language: Language) -> Result<Self> {
        let text = match language {
            Language::English => ENGLISH,
            Language::Chinese => CHINESE,
        };
        toml::from_str(text).map(Self).map_err(|e| Failure::bug(format!("labels of {language:?}: {e}")))
    }

    /// Returns the language's tag (BCP 47), by which a browser writes numbers and dates.
    pub(super) fn tag(language: Language) -> &'static str {
        match language {
            Language::English => "en",
            Language::Chinese => "zh",
        }
    }

    /// Returns one text.
    pub(super) fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    /// Returns all texts.
    pub(super) fn all(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::targets::OUTPUTS;
    use std::collections::BTreeSet;

    /// Returns the `{names}` of a text.
    fn names(text: &str) -> BTreeSet<&str> {
        text.split('{').skip(1).filter_map(|part| part.split_once('}')).map(|(name, _)| name).collect()
    }

    #[test]
    fn the_languages_have_the_same_texts() {
        let (english, chinese) = (Labels::load(Language::English).unwrap(), Labels::load(Language::Chinese).unwrap());
        assert!(english.0.keys().eq(chinese.0.keys()));
        for (key, text) in &english.0 {
            assert!(!text.trim().is_empty() && !chinese.get(key).trim().is_empty(), "{key} is empty");
            assert_eq!(names(text), names(chinese.get(key)), "{key}");
        }
    }

    #[test]
    fn the_page_uses_texts_that_exist_and_no_text_is_unused() {
        let labels = Labels::load(Language::English).unwrap();
        let (page, script) = (include_str!("assets/page.html"), include_str!("assets/page.js"));
        let in_page = page.split("label.").skip(1).map(|rest| rest.split([' ', '}']).next().unwrap());
        let used: BTreeSet<&str> = in_page.collect();
        let missing: Vec<&&str> = used.iter().filter(|key| !labels.0.contains_key(**key)).collect();
        assert!(missing.is_empty(), "page.html: {missing:?}");
        let called = script.split("t(\"").skip(1).map(|rest| rest.split('"').next().unwrap());
        let missing: Vec<&str> = called.filter(|key| !labels.0.contains_key(*key)).collect();
        assert!(missing.is_empty(), "page.js: {missing:?}");
        let intents = include_str!("../../sql/report/intent_days.sql");
        for output in OUTPUTS.iter().filter(|output| output.starts_with("p_")) {
            assert!(labels.0.contains_key(*output), "src/report/labels/ lacks {output}");
            assert!(intents.contains(&format!("avg({output})")), "sql/report/intent_days.sql lacks {output}");
        }
        let (workbook, reason) = (include_str!("workbook.rs"), include_str!("reason.rs"));
        let is_used = |key: &&String| {
            let quoted = format!("\"{key}\"");
            let computed = key.starts_with("kind_") || key.starts_with("p_");
            used.contains(key.as_str())
                || [script, workbook, reason].iter().any(|file| file.contains(&quoted))
                || computed
        };
        let unused: Vec<&String> = labels.0.keys().filter(|key| !is_used(key)).collect();
        assert!(unused.is_empty(), "{unused:?}");
    }
}
