//! What a folder of sentence-transformers says beside the network: which modules follow it, how states are pooled, how many
//! tokens are read. A folder without these files is pooled by the mean.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::pooling::{Pool, Pooling};
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;

#[derive(Debug, Clone, PartialEq)]
pub struct SentenceFiles {
    /// Where the network's own files are: the folder itself, or in older folders one below.
    pub transformer: String,
    pub pooling: Pooling,
    /// The width that the pooling is made for.
    pub pooled_width: Option<i64>,
    pub max_length: Option<usize>,
    /// The files that said so, by their names below the folder.
    pub files: Vec<(String, Bytes)>,
}

#[derive(Debug, Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

impl Module {
    /// The class alone: the packages in front of it have moved over time.
    fn class(&self) -> &str {
        self.kind.rsplit('.').next().unwrap_or_default()
    }
}

impl SentenceFiles {
    pub async fn read(folder: &Location) -> Result<Self> {
        let mut files = Self {
            transformer: String::new(),
            pooling: Pooling::default(),
            pooled_width: None,
            max_length: None,
            files: Vec::new(),
        };
        if let Some(bytes) = folder.read_if_there("modules.json").await? {
            let modules = modules(&bytes).map_err(|f| f.at(format!("{}modules.json", folder.url)))?;
            files.transformer = modules[0].path.clone();
            files.files.push(("modules.json".into(), bytes));
            if let Some(pooling) = modules.get(1) {
                let below = below(folder, &pooling.path);
                let at = format!("{}config.json", below.url);
                let bytes = below.read_if_there("config.json").await?;
                let bytes =
                    bytes.ok_or_else(|| Failure::model(format!("{at}: not found, though modules.json names it")))?;
                (files.pooling.pools, files.pooled_width) = pools(&bytes).map_err(|f| f.at(at))?;
                files.files.push((named_below(&pooling.path, "config.json"), bytes));
            }
            files.pooling.normalise = modules.len() == 3;
        }
        if let Some(bytes) = folder.read_if_there("config_sentence_transformers.json").await? {
            let at = format!("{}config_sentence_transformers.json", folder.url);
            without_prompt(&bytes).map_err(|f| f.at(at))?;
            files.files.push(("config_sentence_transformers.json".into(), bytes));
        }
        let below = below(folder, &files.transformer);
        for family in ["bert", "roberta", "distilbert"] {
            let name = format!("sentence_{family}_config.json");
            if let Some(bytes) = below.read_if_there(&name).await? {
                files.max_length = max_length(&bytes).map_err(|f| f.at(format!("{}{name}", below.url)))?;
                files.files.push((named_below(&files.transformer, &name), bytes));
            }
        }
        Ok(files)
    }
}

/// The folder itself where the path is empty.
pub fn below(folder: &Location, path: &str) -> Location {
    if path.is_empty() { folder.clone() } else { folder.folder(path) }
}

/// The name of a file of the folder that [`below`] gives.
pub fn named_below(path: &str, name: &str) -> String {
    match path.trim_matches('/') {
        "" => name.into(),
        path => format!("{path}/{name}"),
    }
}

fn modules(bytes: &[u8]) -> Result<Vec<Module>> {
    let modules: Vec<Module> = serde_json::from_slice(bytes).map_err(|e| Failure::model(e.to_string()))?;
    let known = ["Transformer", "Pooling", "Normalize"];
    for (i, module) in modules.iter().enumerate() {
        if known.get(i) != Some(&module.class()) {
            return Err(Failure::model(format!(
                "module {i}: expected Transformer, then Pooling, then Normalize, got {}",
                module.class()
            ))
            .hint("make the vectors outside and bring them as a column of the items"));
        }
    }
    if modules.is_empty() {
        return Err(Failure::model("expected a Transformer, got no module"));
    }
    Ok(modules)
}

/// Pools and their width out of `1_Pooling/config.json`.
fn pools(bytes: &[u8]) -> Result<(Vec<Pool>, Option<i64>)> {
    let config: Map<String, Value> = serde_json::from_slice(bytes).map_err(|e| Failure::model(e.to_string()))?;
    let mut on = Vec::new();
    for (name, _) in config.iter().filter(|(_, value)| **value == Value::Bool(true)) {
        let Some(mode) = name.strip_prefix("pooling_mode_") else { continue };
        match Pool::NAMES.iter().position(|(known, _)| *known == mode) {
            Some(place) => on.push(place),
            None => {
                let known = Pool::NAMES.map(|(known, _)| known).join(", ");
                return Err(Failure::model(format!("expected pooling modes among {known}, got {mode}")));
            }
        }
    }
    if on.is_empty() {
        return Err(Failure::model("expected a pooling mode that is true, got none"));
    }
    on.sort_unstable();
    let pools = on.into_iter().map(|place| Pool::NAMES[place].1).collect();
    Ok((pools, config.get("word_embedding_dimension").and_then(Value::as_i64)))
}

/// Some folders put words in front of every text; read without them, their vectors would be others.
fn without_prompt(bytes: &[u8]) -> Result<()> {
    let config: Map<String, Value> = serde_json::from_slice(bytes).map_err(|e| Failure::model(e.to_string()))?;
    match config.get("default_prompt_name") {
        None | Some(Value::Null) => Ok(()),
        Some(name) => Err(Failure::model(format!("default_prompt_name: expected none, got {name}"))
            .hint("set it to null, and put the prompt in front of the texts in SQL")),
    }
}

fn max_length(bytes: &[u8]) -> Result<Option<usize>> {
    #[derive(Deserialize)]
    struct Config {
        max_seq_length: Option<usize>,
        #[serde(default)]
        do_lower_case: bool,
    }
    let config: Config = serde_json::from_slice(bytes).map_err(|e| Failure::model(e.to_string()))?;
    if config.do_lower_case {
        return Err(Failure::model("do_lower_case: expected false, got true")
            .hint("put lower-casing into tokenizer.json, as a normalizer"));
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
        modules(list.to_string().as_bytes()).unwrap_err().message
    }

    #[test]
    fn modules_that_are_not_built_are_refused_by_name() {
        let expected = "module 2: expected Transformer, then Pooling, then Normalize, got Dense";
        assert_eq!(refused(&["Transformer", "Pooling", "Dense"]), expected);
        assert!(refused(&["CLIPModel"]).ends_with("got CLIPModel"));
        assert!(refused(&["Transformer", "Pooling", "Normalize", "Dense"]).starts_with("module 3"));
        assert!(refused(&[]).ends_with("got no module"));
    }

    #[test]
    fn pooling_modes_are_read_in_their_order_and_unknown_ones_refused() {
        let read = |text: &str| pools(text.as_bytes());
        let both =
            r#"{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true, "word_embedding_dimension": 8}"#;
        assert_eq!(read(both).unwrap(), (vec![Pool::Cls, Pool::Mean], Some(8)));
        let unknown = read(r#"{"pooling_mode_attention": true}"#).unwrap_err();
        assert!(unknown.message.ends_with("got attention"), "{unknown}");
        assert!(read(r#"{"pooling_mode_mean_tokens": false}"#).unwrap_err().message.ends_with("got none"));
    }

    #[test]
    fn a_prompt_that_nobody_would_see_is_refused() {
        assert!(without_prompt(br#"{"prompts": {"query": "q: "}, "default_prompt_name": null}"#).is_ok());
        let refused = without_prompt(br#"{"default_prompt_name": "query"}"#).unwrap_err();
        assert_eq!(refused.message, "default_prompt_name: expected none, got \"query\"");
    }

    #[test]
    fn a_length_is_read_and_lower_casing_refused() {
        assert_eq!(max_length(br#"{"max_seq_length": 256, "do_lower_case": false}"#).unwrap(), Some(256));
        assert_eq!(max_length(br#"{"max_seq_length": null}"#).unwrap(), None);
        assert!(max_length(br#"{"do_lower_case": true}"#).unwrap_err().message.starts_with("do_lower_case"));
    }
}
