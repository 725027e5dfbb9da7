//! Sessions over hand-made lakes: a night's and a training's, without a model.

use datafusion::prelude::SessionContext;
use intentcast::config::Config;
use intentcast::failure::Result;
use intentcast::features::{Scope, parts::Part, rollups::Rollups};
use intentcast::ids::RunDate;
use intentcast::score::models::Models;
use intentcast::workspace::{Access, Workspace};
use std::path::Path;
use std::sync::Arc;

/// Returns the default configuration with these locations.
pub fn config(lake: &Path, output: &Path) -> Config {
    let uri = |p: &Path| p.display().to_string();
    Config::resolve(None, [], &[("lake.uri".into(), uri(lake)), ("output.uri".into(), uri(output))]).unwrap()
}

/// Opens the session of a night, and its rollups.
pub async fn night_session(config: &Config, date: &str) -> Result<(SessionContext, Rollups)> {
    let date: RunDate = date.parse()?;
    let workspace = Workspace::open(config, Arc::new(Models::new(config)?), Access::ReadWrite).await?;
    let rollups = workspace.rollups(date).await?;
    let ctx = workspace.session_as_of(&rollups, Scope::night(date)).await?;
    Ok((ctx, rollups))
}

/// Runs a query and prints its rows as a table.
pub async fn table(ctx: &SessionContext, query: &str) -> String {
    let rows = ctx.sql(query).await.unwrap().collect().await.unwrap();
    arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string()
}

/// Opens a training session as of `run_date` whose labels end at `labels_end`.
pub async fn training_session(config: &Config, run_date: &str, labels_end: &str) -> SessionContext {
    let (run_date, labels_end) = (run_date.parse().unwrap(), labels_end.parse().unwrap());
    let models = Arc::new(Models::new(config).unwrap());
    let workspace = Workspace::open(config, models, Access::ReadWrite).await.unwrap();
    let rollups = workspace.rollups(labels_end).await.unwrap();
    let scope = Scope { run_date, labels_end, users: Part::ALL, items: Part::ALL };
    workspace.session_as_of(&rollups, scope).await.unwrap()
}
