//! `intentcast sql`: runs statements or opens a prompt, over lake, features, published tables and functions.

use async_trait::async_trait;
use clap::Args;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::command::{Command, Needs, Places};
use super::format::Format;
use super::prompt::Prompt;
use super::shell::Shell;
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::ids::RunDate;
use crate::lake;
use crate::publish::lock;
use crate::score::models::Models;
use crate::sql_files::SqlFiles;
use crate::workspace::{Access, Workspace};

/// Query the lake, features, published tables and functions; opens a prompt without -c or -f.
///
/// Reads the state that the nights left. Rollups that are missing for --date are built in the spill folder for this session
/// only; nothing is written below the output unless --refresh is given.
#[derive(Debug, Args)]
pub struct Sql {
    #[command(flatten)]
    places: Places,
    /// Run these `;`-separated statements and exit.
    // A file of SQL begins with a comment, and a comment with hyphens.
    #[arg(short = 'c', long = "command", value_name = "QUERY", allow_hyphen_values = true)]
    query: Option<String>,
    /// Run the statements of this file and exit.
    #[arg(short = 'f', long = "file", value_name = "FILE", conflicts_with = "query")]
    file: Option<PathBuf>,
    /// Set the value of as_of() [default: latest published night, else the day after the newest event files].
    #[arg(long, value_name = "YYYY-MM-DD")]
    date: Option<RunDate>,
    /// Write missing rollups below the output, where later nights and sessions reuse them.
    #[arg(long)]
    refresh: bool,
    /// Print rows in this format.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[async_trait(?Send)]
impl Command for Sql {
    fn needs(&self) -> Needs<'_> {
        Needs::lake_and_models(&self.places)
    }

    async fn run(&self, config: &Config) -> Result<()> {
        // Before the lake is listed, so that a misspelt name fails at once.
        let place = self.file.as_deref().unwrap_or(Path::new("")).display();
        let text = match &self.file {
            Some(file) => Some(std::fs::read_to_string(file).map_err(|e| Failure::usage(format!("{place}: {e}")))?),
            None => None,
        };
        let access = if self.refresh { Access::ReadWrite } else { Access::ReadOnly };
        let workspace = Workspace::open(config, Arc::new(Models::new(config)?), access).await?;
        let writing = match self.refresh {
            true => Some(lock::begin_writing(workspace.output()?, "refresh", &config.lock).await?),
            false => None,
        };
        let opened = workspace.query_session(self.date).await;
        if let Some(writing) = writing {
            writing.end_writing().await?;
        }
        let shell = Shell {
            ctx: opened?,
            format: self.format,
            views: view_names(&workspace.sql),
            has_nights: !workspace.nights().is_empty(),
            workspace: Some(workspace),
        };
        match (&self.query, text) {
            (Some(query), _) => shell.run(query).await,
            (None, Some(text)) => shell.run(&text).await.map_err(|failure| failure.at(place)),
            (None, None) => Prompt::new(&shell).run().await,
        }
    }
}

/// Names of the views that exist only with a lake and an output.
fn view_names(sql: &SqlFiles) -> BTreeSet<String> {
    let folders = ["rollups", "state", "features", "labels", "score"];
    let files = folders.iter().flat_map(|folder| sql.folder(folder)).map(|(name, _)| name.to_string());
    files.chain(lake::VIEWS.map(String::from)).collect()
}
