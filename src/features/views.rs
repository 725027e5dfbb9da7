//! Registers folders of SQL files as views, each after the ones that it reads.

use datafusion::error::DataFusionError;
use datafusion::execution::session_state::SessionState;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement;
use std::collections::BTreeMap;

use super::added_features::AddedFeatures;
use crate::failure::{Failure, Result};
use crate::sql_files::SqlFiles;

/// A file that is not registered yet.
struct ViewFile {
    /// The file's name in messages.
    place: String,
    query: Statement,
    /// Tables that the query reads, by bare name.
    reads: Vec<String>,
}

impl ViewFile {
    fn parse(state: &SessionState, place: String, text: &str) -> Result<Self> {
        let in_file = |e: DataFusionError| Failure::from(e).at(&place);
        let query = state.sql_to_statement(text, &state.config_options().sql_parser.dialect).map_err(in_file)?;
        let tables = state.resolve_table_references(&query).map_err(in_file)?;
        let reads = tables.iter().map(|table| table.table().to_string()).collect();
        Ok(Self { place, query, reads })
    }
}

/// Registers every file of `folders`; a name that is registered already is left as it is.
pub(crate) async fn register(ctx: &SessionContext, sql: &SqlFiles, folders: &[&str]) -> Result<()> {
    let added = AddedFeatures::find(sql);
    // Copying the state takes longer than planning a small file; its catalogue is shared, so it sees each view registered.
    let state = ctx.state();
    let mut pending: BTreeMap<String, ViewFile> = BTreeMap::new();
    for folder in folders {
        for (name, text) in sql.folder(folder) {
            let text = if name == "user_features" { added.join_to(text) } else { text.into() };
            pending.insert(name.into(), ViewFile::parse(&state, format!("sql/{folder}/{name}.sql"), &text)?);
        }
    }
    while !pending.is_empty() {
        let waits = |name: &String, file: &ViewFile| file.reads.iter().any(|r| r != name && pending.contains_key(r));
        let ready: Vec<String> =
            pending.iter().filter(|(name, file)| !waits(name, file)).map(|(name, _)| name.clone()).collect();
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
            let plan = state.statement_to_plan(file.query).await.map_err(|e| Failure::from(e).at(&file.place))?;
            let rows = ctx.execute_logical_plan(plan).await.map_err(|e| Failure::from(e).at(&file.place))?;
            ctx.register_table(name, rows.into_view())?;
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
