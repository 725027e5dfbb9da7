//! Features that a file of its own adds: every `features/user_feature_<name>.sql` is joined to `user_features`.
//!
//! Such a file has one row per `user_id`; its other columns follow the built-in ones, in the order of the files' names. A user
//! without a row has nulls. So a folder of yours (`sql.folder`) adds a feature without a copy of the built-in files.

use datafusion::prelude::SessionContext;
use std::collections::BTreeMap;

use crate::failure::{Failure, Result};
use crate::sql_files::SqlFiles;

const PREFIX: &str = "user_feature_";
const KEY: &str = "user_id";

/// The names of the added files, in order.
#[derive(Debug)]
pub(crate) struct AddedFeatures(Vec<String>);

impl AddedFeatures {
    pub(crate) fn find(sql: &SqlFiles) -> Self {
        Self(sql.folder("features").filter(|(name, _)| name.starts_with(PREFIX)).map(|(name, _)| name.into()).collect())
    }

    /// Returns the query of `user_features` with the added columns behind its own. The engine holds a join's first table in
    /// memory and streams the second, so the narrow added tables come first.
    pub(crate) fn join_to(&self, user_features: &str) -> String {
        if self.0.is_empty() {
            return user_features.into();
        }
        let query = user_features.trim_end().trim_end_matches(';');
        let mut columns = String::from("user_features.*");
        let mut from = format!("(\n{query}\n) AS user_features");
        for name in &self.0 {
            columns.push_str(&format!(", {name}.* EXCLUDE ({KEY})"));
            from = format!("{name} RIGHT JOIN ({from}) ON {name}.{KEY} = user_features.{KEY}");
        }
        format!("SELECT {columns}\nFROM {from}")
    }

    /// Refuses a file without `user_id` or with a column that `user_features` or another such file has. Expects the views that
    /// these files read to be registered.
    pub(crate) async fn check(&self, ctx: &SessionContext, sql: &SqlFiles) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let built_in = ctx.sql(sql.get("features/user_features")?).await?;
        let names = built_in.schema().fields().iter().map(|field| field.name().clone());
        let mut taken: BTreeMap<String, &str> = names.map(|column| (column, "user_features")).collect();
        for name in &self.0 {
            let place = format!("sql/features/{name}.sql");
            let view = ctx.table(name.as_str()).await?;
            let columns: Vec<&str> = view.schema().fields().iter().map(|field| field.name().as_str()).collect();
            if !columns.contains(&KEY) {
                return Err(Failure::usage(format!("{place}: no column {KEY}; it has {}", columns.join(", ")))
                    .hint("select user_id and the feature's columns, one row per user_id"));
            }
            for column in columns.into_iter().filter(|column| *column != KEY) {
                if let Some(owner) = taken.insert(column.into(), name) {
                    return Err(Failure::usage(format!("{place}: column {column} is in {owner} already"))
                        .hint("give the column another name"));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_added_files_the_query_stays_as_it_is() {
        assert_eq!(AddedFeatures(Vec::new()).join_to("SELECT 1"), "SELECT 1");
    }

    #[tokio::test]
    async fn added_columns_follow_and_missing_rows_are_null() {
        let ctx = SessionContext::new();
        for (name, text) in [
            ("user_feature_a", "SELECT 'u1' AS user_id, 7 AS a"),
            ("user_feature_b", "SELECT 'u2' AS user_id, 8 AS b, 9 AS c"),
        ] {
            ctx.register_table(name, ctx.sql(text).await.unwrap().into_view()).unwrap();
        }
        let added = AddedFeatures(vec!["user_feature_a".into(), "user_feature_b".into()]);
        let query =
            added.join_to("-- one row per user_id\nSELECT * FROM (VALUES ('u1', 1), ('u2', 2)) AS t(user_id, x);\n");
        let rows =
            ctx.sql(&format!("SELECT * FROM ({query}) ORDER BY user_id")).await.unwrap().collect().await.unwrap();
        let expected = "\
+---------+---+---+---+---+
| user_id | x | a | b | c |
+---------+---+---+---+---+
| u1      | 1 | 7 |   |   |
| u2      | 2 |   | 8 | 9 |
+---------+---+---+---+---+";
        assert_eq!(arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string(), expected);
    }
}
