//! Features that a file of its own adds: every `features/user_feature_<name>.sql` is joined to `user_features`.
//!
//! Such a file has one row per `user_id`; its other columns follow the built-in ones, in the order of the files' names. A user
//! without a row has nulls; a file with several rows of a user is refused. So a folder of yours (`sql.folder`) adds a feature
//! without a copy of the built-in files.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
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
            let place = place(name);
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

/// A user's file that adds features. The files built into the binary are tested with it, so that no session checks them.
#[derive(Debug)]
pub(crate) struct OverlayFile(String);

impl OverlayFile {
    pub(crate) fn find(sql: &SqlFiles) -> Vec<Self> {
        let is_built_in =
            |name: &str, text: &str| SqlFiles::built_in(&format!("features/{name}")).is_ok_and(|t| t == text);
        let added = sql.folder("features").filter(|(name, text)| name.starts_with(PREFIX) && !is_built_in(name, text));
        added.map(|(name, _)| Self(name.into())).collect()
    }

    /// Returns the name of the file's view.
    pub(crate) fn view(&self) -> &str {
        &self.0
    }

    /// Returns the name of the file in messages.
    pub(crate) fn place(&self) -> String {
        place(&self.0)
    }

    /// Returns the query that counts the file's users, and those with several rows. Rows without a `user_id` join no user.
    pub(crate) fn count_sql(&self) -> String {
        format!(
            "SELECT count(*) AS users, count(*) FILTER (WHERE user_rows > 1) AS repeated FROM \
             (SELECT {KEY}, count(*) AS user_rows FROM {} WHERE {KEY} IS NOT NULL GROUP BY {KEY})",
            self.0
        )
    }

    /// Refuses a file with several rows of one user, by the rows of [`Self::count_sql`]. Like every refusal of such a file a
    /// usage failure (exit 2): its author acts, not the owner of the lake.
    pub(crate) fn refuse_repeated_users(&self, counted: &[RecordBatch]) -> Result<()> {
        let sum = |column: usize| -> i64 {
            counted.iter().flat_map(|rows| rows.column(column).as_primitive::<Int64Type>().values()).sum()
        };
        let (users, repeated) = (sum(0), sum(1));
        if repeated == 0 {
            return Ok(());
        }
        let message =
            format!("{}: expected one row per {KEY}, got several for {repeated} of {users} users", self.place());
        Err(Failure::usage(message).hint(format!("aggregate the columns and end the query with GROUP BY {KEY}")))
    }
}

fn place(name: &str) -> String {
    format!("sql/features/{name}.sql")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_added_files_the_query_stays_as_it_is() {
        assert_eq!(AddedFeatures(Vec::new()).join_to("SELECT 1"), "SELECT 1");
    }

    #[tokio::test]
    async fn a_file_with_several_rows_of_a_user_is_refused() {
        let ctx = SessionContext::new();
        for (values, repeated) in [
            ("('u1'), ('u2'), (NULL), (NULL)", None),
            ("('u1'), ('u2'), ('u1'), ('u3'), ('u1'), ('u2')", Some("got several for 2 of 3 users")),
        ] {
            let rows = ctx.sql(&format!("SELECT column1 AS user_id FROM (VALUES {values})")).await.unwrap();
            ctx.deregister_table("user_feature_a").unwrap();
            ctx.register_table("user_feature_a", rows.into_view()).unwrap();
            let file = OverlayFile("user_feature_a".into());
            let counted = ctx.sql(&file.count_sql()).await.unwrap().collect().await.unwrap();
            let refused = file.refuse_repeated_users(&counted).err();
            let expected =
                repeated.map(|got| format!("sql/features/user_feature_a.sql: expected one row per user_id, {got}"));
            assert_eq!(refused.map(|failure| failure.message), expected);
        }
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
