//! Reads the files that sentence-transformers adds to a Hugging Face folder: the modules after the network, pooling,
//! and maximum length. A folder without them is pooled by the mean.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::pooling::{Pooling, PoolingMode};
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SentenceTransformersFiles {
    /// The path of the network's files: empty for the folder itself; older folders have a subfolder.
    pub(crate) transformer: String,
    pub(crate) pooling: Pooling,
    /// The width that the pooling expects.
    pub(crate) pooled_width: Option<i64>,
    pub(crate) max_length: Option<usize>,
    /// The files that were read, by their paths below the folder.
    pub(crate) files: Vec<(String, Bytes)>,
}

#[derive(Debug, Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

impl Module {
    /// The class without its package, which differs between versions.
    fn class(&self) -> &str {
        self.kind.rsplit('.').next().unwrap_or_default()
    }
}

impl SentenceTransformersFiles {
    pub(crate) async fn load(folder: &Location) -> Result<Self> {
        let mut files = Self {
            transformer: String::new(),
            pooling: Pooling::default(),
            pooled_width: None,
            max_length: None,
            files: Vec::new(),
        };
        if let Some(bytes) = folder.read_if_there("modules.json").await? {
            let modules = parse_modules(&bytes).map_err(|f| f.at(format!("{}modules.json", folder.url)))?;
            files.transformer = modules[0].path.clone();
            files.files.push(("modules.json".into(), bytes));
            if let Some(pooling) = modules.get(1) {
                let subfolder = subfolder(folder, &pooling.path);
                let at = format!("{}config.json", subfolder.url);
                let bytes = subfolder.read_if_there("config.json").await?;
                let bytes =
                    bytes.ok_or_else(|| Failure::model(format!("{at}: not found, though modules.json names it")))?;
                (files.pooling.modes, files.pooled_width) = parse_pooling(&bytes).map_err(|f| f.at(at))?;
                files.files.push((path_below(&pooling.path, "config.json"), bytes));
            }
            files.pooling.normalise = modules.len() == 3;
        }
        if let Some(bytes) = folder.read_if_there("config_sentence_transformers.json").await? {
            let at = format!("{}config_sentence_transformers.json", folder.url);
            refuse_default_prompt(&bytes).map_err(|f| f.at(at))?;
            files.files.push(("config_sentence_transformers.json".into(), bytes));
        }
        let subfolder = subfolder(folder, &files.transformer);
        for family in ["bert", "roberta", "distilbert"] {
            let name = format!("sentence_{family}_config.json");
            if let Some(bytes) = subfolder.read_if_there(&name).await? {
                files.max_length = parse_max_length(&bytes).map_err(|f| f.at(format!("{}{name}", subfolder.url)))?;
                files.files.push((path_below(&files.transformer, &name), bytes));
            }
        }
        Ok(files)
    }
}

/// Returns the folder below `path`, or the folder itself if the path is empty.
pub(crate) fn subfolder(folder: &Location, path: &str) -> Location {
    if path.is_empty() { folder.clone() } else { folder.folder(path) }
}

/// Returns the path of a file in the folder that [`subfolder`] gives.
pub(crate) fn path_below(path: &str, name: &str) -> String {
    match path.trim_matches('/') {
        "" => name.into(),
        trimmed => format!("{trimmed}/{name}"),
    }
}

fn parse_modules(bytes: &[u8]) -> Result<Vec<Module>> {
    let modules: Vec<Module> = serde_json::from_slice(bytes).map_err(|e| Failure::model(e.to_string()))?;
    let known = ["Transformer", "Pooling", "Normalize"];
    for (i, module) in modules.iter().enumerate() {
        if known.get(i) != Some(&module.class()) {
            return Err(Failure::model(format!(
                "module {i}: expected Transformer, then Pooling, then Normalize, got {}",
                module.class()
            ))
            .hint("compute the vectors elsewhere and add them to the items as a column"));
        }
    }
    if modules.is_empty() {
        return Err(Failure::model("expected a Transformer module, got none"));
    }
    Ok(modules)
}

/// Parses the modes and their width in `1_Pooling/config.json`.
fn parse_pooling(bytes: &[u8]) -> Result<(Vec<PoolingMode>, Option<i64>)> {
    let config: Map<String, Value> = serde_json::from_slice(bytes).map_err(|e| Failure::model(e.to_string()))?;
    let mut enabled = Vec::new();
    for (name, _) in config.iter().filter(|(_, value)| **value == Value::Bool(true)) {
        let Some(mode) = name.strip_prefix("pooling_mode_") else { continue };
        match PoolingMode::NAMES.iter().position(|(known, _)| *known == mode) {
            Some(index) => enabled.push(index),
            None => {
                let known = PoolingMode::NAMES.map(|(known, _)| known).join(", ");
                return Err(Failure::model(format!("expected pooling modes among {known}, got {mode}")));
            }
        }
    }
    if enabled.is_empty() {
        return Err(Failure::model("expected an enabled pooling mode, got none"));
    }
    enabled.sort_unstable();
    let modes = enabled.into_iter().map(|index| PoolingMode::NAMES[index].1).collect();
    Ok((modes, config.get("word_embedding_dimension").and_then(Value::as_i64)))
}

/// Refuses folders that put a prompt in front of every text: vectors without it would differ.
fn refuse_default_prompt(bytes: &[u8]) -> Result<()> {
    let config: Map<String, Value> = serde_json::from_slice(bytes).map_err(|e| Failure::model(e.to_string()))?;
    match config.get("default_prompt_name") {
        None | Some(Value::Null) => Ok(()),
        Some(name) => Err(Failure::model(format!("default_prompt_name: expected none, got {name}"))
            .hint("set it to null and prepend the prompt to the texts in SQL")),
    }
}

fn parse_max_length(bytes: &[u8]) -> Result<Option<usize>> {
    #[derive(Deserialize)]
    struct Config {
        max_seq_length: Option<usize>,
        #[serde(default)]
        do_lower_case: bool,
    }
    let config: Config = serde_json::from_slice(bytes).map_err(|e| Failure::model(e.to_string()))?;
    if config.do_lower_case {
        return Err(Failure::model("do_lower_case: expected false, got true")
            .hint("add a lower-casing normalizer to tokenizer.json instead"));
    }
    Ok(config.max_seq_length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(class: &str) -> Value {
        serde_json::json!({"path": "", "type": format!("sentence_transformers.models.{class}")})
    }

    fn refused(classes: &[&str]) -> String {
        let list = Value::from_iter(classes.iter().map(|class| module(class)));
        parse_modules(list.to_string().as_bytes()).unwrap_err().message
    }

    #[test]
    fn unsupported_modules_are_refused_by_name() {
        let expected = "module 2: expected Transformer, then Pooling, then Normalize, got Dense";
        assert_eq!(refused(&["Transformer", "Pooling", "Dense"]), expected);
        assert!(refused(&["CLIPModel"]).ends_with("got CLIPModel"));
        assert!(refused(&["Transformer", "Pooling", "Normalize", "Dense"]).starts_with("module 3"));
        assert!(refused(&[]).ends_with("expected a Transformer module, got none"));
    }

    #[test]
    fn pooling_modes_are_ordered_and_unknown_ones_refused() {
        let parse = |text: &str| parse_pooling(text.as_bytes());
        let both =
            r#"{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true, "word_embedding_dimension": 8}"#;
        assert_eq!(parse(both).unwrap(), (vec![PoolingMode::Cls, PoolingMode::Mean], Some(8)));
        let unknown = parse(r#"{"pooling_mode_attention": true}"#).unwrap_err();
        assert!(unknown.message.ends_with("got attention"), "{unknown}");
        assert!(parse(r#"{"pooling_mode_mean_tokens": false}"#).unwrap_err().message.ends_with("got none"));
    }

    #[test]
    fn a_default_prompt_is_refused() {
        assert!(refuse_default_prompt(br#"{"prompts": {"query": "q: "}, "default_prompt_name": null}"#).is_ok());
        let refused = refuse_default_prompt(br#"{"default_prompt_name": "query"}"#).unwrap_err();
        assert_eq!(refused.message, "default_prompt_name: expected none, got \"query\"");
    }

    #[test]
    fn a_maximum_length_is_parsed_and_lower_casing_refused() {
        assert_eq!(parse_max_length(br#"{"max_seq_length": 256, "do_lower_case": false}"#).unwrap(), Some(256));
        assert_eq!(parse_max_length(br#"{"max_seq_length": null}"#).unwrap(), None);
        assert!(parse_max_length(br#"{"do_lower_case": true}"#).unwrap_err().message.starts_with("do_lower_case"));
    }
}
