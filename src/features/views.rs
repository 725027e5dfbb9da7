//! Registers folders of SQL files as views, each after the ones that it reads.

use datafusion::prelude::SessionContext;
use datafusion::sql::parser::DFParser;
use datafusion::sql::resolve::resolve_table_references;
use std::collections::BTreeMap;

use super::added_features::AddedFeatures;
use crate::failure::{Failure, Result};
use crate::sql_files::SqlFiles;

/// A file that is not registered yet.
struct ViewFile {
    /// The file's name in messages.
    place: String,
    text: String,
}

/// Registers every file of `folders`; a name that is registered already is left as it is.
pub(crate) async fn register(ctx: &SessionContext, sql: &SqlFiles, folders: &[&str]) -> Result<()> {
    let added = AddedFeatures::find(sql);
    let mut pending: BTreeMap<String, ViewFile> = BTreeMap::new();
    for folder in folders {
        for (name, text) in sql.folder(folder) {
            let text = if name == "user_features" { added.join_to(text) } else { text.into() };
            pending.insert(name.into(), ViewFile { place: format!("sql/{folder}/{name}.sql"), text });
        }
    }
    while !pending.is_empty() {
        let mut ready = Vec::new();
        for (name, file) in &pending {
            let reads = tables_read(&file.text).map_err(|f| f.at(&file.place))?;
            if !reads.iter().any(|read| read != name && pending.contains_key(read)) {
                ready.push(name.clone());
            }
        }
        if ready.is_empty() {
            let names: Vec<_> = pending.keys().map(String::as_str).collect();
            return Err(Failure::usage(format!("sql: circular dependency between views: {}", names.join(", "))));
        }
        for name in ready {
            let Some(file) = pending.remove(&name) else { continue };
            if ctx.table_exist(name.as_str())? {
                continue;
            }
            if name == "user_features" {
                added.check(ctx, sql).await?;
            }
            let plan = ctx.sql(&file.text).await.map_err(|e| Failure::from(e).at(&file.place))?;
            ctx.register_table(name, plan.into_view())?;
        }
    }
    Ok(())
}

/// Registers one file, by its path without extension, in place of what is registered now.
pub(crate) async fn register_one(ctx: &SessionContext, sql: &SqlFiles, path: &str) -> Result<()> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let plan = ctx.sql(sql.get(path)?).await.map_err(|e| Failure::from(e).at(format!("sql/{path}.sql")))?;
    ctx.deregister_table(name)?;
    ctx.register_table(name, plan.into_view())?;
    Ok(())
}

/// Returns the tables that a query reads, by bare name.
fn tables_read(text: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for statement in DFParser::parse_sql(text)? {
        let (tables, _) = resolve_table_references(&statement, true)?;
        names.extend(tables.iter().map(|table| table.table().to_string()));
    }
    Ok(names)
}
