//! Registers folders of SQL files as views, each after the ones that it reads.

use datafusion::prelude::SessionContext;
use datafusion::sql::parser::DFParser;
use datafusion::sql::resolve::resolve_table_references;
use std::collections::BTreeMap;

use crate::failure::{Failure, Result};
use crate::sql_files::SqlFiles;

/// Registers every file of `folders`; a name that is registered already is left as it is.
pub async fn register(ctx: &SessionContext, sql: &SqlFiles, folders: &[&str]) -> Result<()> {
    let mut waiting: BTreeMap<String, (String, &str)> = BTreeMap::new();
    for folder in folders {
        for (name, text) in sql.folder(folder) {
            waiting.insert(name.into(), (format!("sql/{folder}/{name}.sql"), text));
        }
    }
    while !waiting.is_empty() {
        let mut ready = Vec::new();
        for (name, (place, text)) in &waiting {
            let reads = reads(text).map_err(|f| f.at(place))?;
            if !reads.iter().any(|r| r != name && waiting.contains_key(r)) {
                ready.push(name.clone());
            }
        }
        if ready.is_empty() {
            let names: Vec<_> = waiting.keys().map(String::as_str).collect();
            return Err(Failure::usage(format!("sql: these views read one another in a circle: {}", names.join(", "))));
        }
        for name in ready {
            let Some((place, text)) = waiting.remove(&name) else { continue };
            if !ctx.table_exist(name.as_str())? {
                let plan = ctx.sql(text).await.map_err(|e| Failure::from(e).at(&place))?;
                ctx.register_table(name, plan.into_view())?;
            }
        }
    }
    Ok(())
}

/// Registers one file, by its path without extension, over what is registered now.
pub async fn register_one(ctx: &SessionContext, sql: &SqlFiles, path: &str) -> Result<()> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let plan = ctx.sql(sql.get(path)?).await.map_err(|e| Failure::from(e).at(format!("sql/{path}.sql")))?;
    ctx.deregister_table(name)?;
    ctx.register_table(name, plan.into_view())?;
    Ok(())
}

/// The tables that a query reads, by bare name.
fn reads(text: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for statement in DFParser::parse_sql(text)? {
        let (tables, _) = resolve_table_references(&statement, true)?;
        names.extend(tables.iter().map(|t| t.table().to_string()));
    }
    Ok(names)
}
