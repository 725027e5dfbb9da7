//! Comments on tables and columns, each read from its one declaration: the table's specification, or its SQL file.
//!
//! The first line of a file is the comment on its view, a comment at the end of a line that on the column which the line names.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer, Whitespace};
use std::collections::BTreeMap;

use crate::failure::Result;
use crate::features::added_features::OverlayFile;
use crate::lake::VIEWS;
use crate::sql_files::SqlFiles;
use crate::tables::schemas;

/// Comments on one table and its columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Description {
    pub(crate) table: Option<String>,
    pub(crate) columns: BTreeMap<String, String>,
}

impl Description {
    /// Reads the comments of a SQL file.
    pub(crate) fn from_sql(text: &str) -> Self {
        let first = text.lines().next().and_then(|line| line.strip_prefix("--"));
        let mut columns = BTreeMap::new();
        // The line's last token, blanks and commas left out.
        let mut name = None;
        for token in Tokenizer::new(&GenericDialect {}, text).tokenize().unwrap_or_default() {
            match token {
                Token::Whitespace(Whitespace::SingleLineComment { comment, .. }) => {
                    if let Some(name) = name.take() {
                        columns.insert(name, comment.trim().to_string());
                    }
                }
                Token::Whitespace(Whitespace::Newline) => name = None,
                Token::Whitespace(_) | Token::Comma => {}
                Token::Word(word) => name = Some(word.value),
                _ => name = None,
            }
        }
        Self { table: first.map(|line| as_sentence(line.trim())), columns }
    }
}

/// Comments on the tables of a session, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Descriptions(BTreeMap<String, Description>);

impl Descriptions {
    /// Reads the comments on published tables, views of the lake, of features and of the report.
    pub(crate) fn read(sql: &SqlFiles) -> Result<Self> {
        let mut all = BTreeMap::new();
        for folder in ["state", "features", "report"] {
            all.extend(sql.folder(folder).map(|(name, text)| (name.to_string(), Description::from_sql(text))));
        }
        for name in VIEWS {
            // A lake's own SQL has the same columns.
            let canonical = SqlFiles::built_in(&format!("lakes/canonical/{name}"))?;
            all.insert(name.into(), Description::from_sql(canonical));
        }
        let mut features = all.remove("user_features").unwrap_or_default();
        for file in OverlayFile::find(sql) {
            let added = all.get(file.view()).into_iter().flat_map(|described| described.columns.clone());
            features.columns.extend(added.filter(|(column, _)| column != "user_id"));
        }
        all.insert("user_features".into(), features.clone());
        features.columns.insert("features".into(), "what score_intents takes: a struct of a user's features".into());
        features.table = Some("One row per user: the argument of score_intents.".into());
        all.insert("model_input".into(), features);
        for spec in schemas::specs() {
            let columns = spec.columns.iter().map(|column| (column.name.into(), column.meaning.into()));
            let described =
                Description { table: Some(format!("One row per {}.", spec.grain)), columns: columns.collect() };
            all.insert(format!("{}_history", spec.name), described.clone());
            all.insert(spec.name.into(), described);
        }
        Ok(Self(all))
    }

    pub(crate) fn get(&self, table: &str) -> Option<&Description> {
        self.0.get(table)
    }
}

/// Returns the functions of intentcast as docs/sql.md lists them: how each is called, and what it returns.
pub(crate) fn functions() -> Vec<(String, String)> {
    let rows = include_str!("../../docs/sql.md").lines().filter(|line| line.starts_with("| `"));
    let functions = rows.filter_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let returns = without_links(cells.get(2)?).replace('`', "");
        Some(cells[0].split('`').filter(|part| part.contains('(')).map(move |call| (call.to_string(), returns.clone())))
    });
    functions.flatten().collect()
}

/// Returns a text of Markdown with the words of its links alone.
fn without_links(text: &str) -> String {
    let mut made = String::new();
    let mut rest = text;
    while let Some((before, link)) = rest.split_once('[') {
        made.push_str(before);
        match link.split_once("](").and_then(|(words, after)| Some((words, after.split_once(')')?.1))) {
            Some((words, after)) if !words.contains(']') => {
                made.push_str(words);
                rest = after;
            }
            _ => {
                made.push('[');
                rest = link;
            }
        }
    }
    made + rest
}

/// Begins with a capital and ends with a full stop.
fn as_sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str().trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn comments_are_those_beside_the_columns() {
        let text = "-- one row per user_id: what happened\n-- More about it.\nWITH a AS (SELECT b FROM c)\nSELECT\n    \
                    user_id, -- who\n    coalesce(x, 0) AS \"Größe\", -- metres\n    y -- the last\nFROM a\n\
                    -- of nothing\nWHERE z = '-- no comment' -- nor this";
        let described = Description::from_sql(text);
        assert_eq!(described.table.as_deref(), Some("One row per user_id: what happened."));
        let columns: Vec<_> = described.columns.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert_eq!(columns, [("Größe", "metres"), ("user_id", "who"), ("y", "the last")]);
    }

    #[test]
    fn functions_are_those_of_the_document() {
        let functions: BTreeMap<String, String> = functions().into_iter().collect();
        assert_eq!(functions["local_hour(ts)"], "date and hour in lake.time_zone");
        assert!(functions["explain_user('id' [, 'intent'])"].contains("explain_intents"));
        let classify = &functions["classify_text(text, version [, label])"];
        assert!(classify.starts_with("list of struct label, probability;"), "{classify}");
        assert_eq!(without_links("a [b](c) [d] (e) [f](g)"), "a b [d] (e) f");
        assert!(functions.len() > 20, "{functions:?}");
    }

    #[test]
    fn every_column_of_the_lake_and_of_the_features_has_a_comment() {
        let sql = SqlFiles::load(&Config::default()).unwrap();
        let descriptions = Descriptions::read(&sql).unwrap();
        for name in VIEWS {
            let raw = sql.get(&format!("lakes/canonical/raw_{name}")).unwrap();
            let raw = raw.lines().filter_map(|line| line.strip_prefix("    ")?.split(' ').next());
            let described = &descriptions.get(name).unwrap().columns;
            let without: Vec<&str> = raw.filter(|column| !described.contains_key(*column)).collect();
            assert!(without.is_empty() && !described.is_empty(), "{name}: {without:?}");
        }
        // The contract's columns and user_id, last_at, last_queries, recent.
        assert_eq!(descriptions.get("user_features").unwrap().columns.len(), 86 + 4);
        assert!(descriptions.get("intent_history").unwrap().columns.contains_key("p_purchase"));
    }
}
