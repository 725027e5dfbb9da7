//! `intentcast sql`: runs statements or opens a prompt, over lake, features, published tables and functions.

use async_trait::async_trait;
use clap::Args;
use datafusion::common::TableReference;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::command::{Command, Needs, Places};
use super::format::{self, Format};
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::ids::RunDate;
use crate::lake;
use crate::score::{models::Models, torch_functions};
use crate::sql_files::SqlFiles;
use crate::tables::schemas::NIGHT_TABLES;
use crate::workspace::{Access, Workspace};

/// Least similarity (Jaro-Winkler, 0 to 1) of a name that an error suggests.
const SIMILARITY_MIN: f64 = 0.7;

/// Query the lake, features, published tables and functions; opens a prompt without -c.
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
        let access = if self.refresh { Access::ReadWrite } else { Access::ReadOnly };
        let workspace = Workspace::open(config, Arc::new(Models::new(config)?), access).await?;
        let shell = Shell {
            ctx: workspace.query_session(self.date).await?,
            format: self.format,
            views: view_names(&workspace.sql),
            has_nights: !workspace.nights().is_empty(),
            workspace: Some(workspace),
        };
        match &self.query {
            Some(query) => shell.run(query).await,
            None => shell.prompt().await,
        }
    }
}

/// Names of the views that exist only with a lake and an output.
fn view_names(sql: &SqlFiles) -> BTreeSet<String> {
    let folders = ["rollups", "state", "features", "labels", "score"];
    let files = folders.iter().flat_map(|folder| sql.folder(folder)).map(|(name, _)| name.to_string());
    files.chain(lake::VIEWS.map(String::from)).collect()
}

/// A session and how its rows are printed.
pub struct Shell {
    pub ctx: SessionContext,
    pub format: Format,
    /// Names of the views that a session with lake and output has; errors explain their absence.
    pub views: BTreeSet<String>,
    /// False before the first published night.
    pub has_nights: bool,
    /// The workspace that opened the session; none in tests of functions alone.
    pub workspace: Option<Workspace>,
}

impl Shell {
    /// Runs `;`-separated statements in order and prints their rows to standard output.
    pub async fn run(&self, text: &str) -> Result<()> {
        let statements = DFParser::parse_sql(text)?;
        if statements.is_empty() {
            return Err(Failure::usage("expected a query, got nothing"));
        }
        for statement in statements {
            let plan = self.plan(statement).await?;
            if let Some(workspace) = &self.workspace
                && reads_user_features(&plan)?
            {
                workspace.check_added_features(&self.ctx).await?;
            }
            let rows = self.ctx.execute_logical_plan(plan).await?;
            // CREATE and DROP have no columns, and nothing to print.
            if !rows.schema().fields().is_empty() {
                format::print_rows(rows, self.format).await?;
            }
        }
        Ok(())
    }

    async fn plan(&self, statement: Statement) -> Result<LogicalPlan> {
        let tables = tables_of_query(&statement)?;
        self.explain_empty_tables(&tables);
        let planned = match self.ctx.state().statement_to_plan(statement).await {
            Ok(plan) => torch_functions::check_statement(&self.ctx, plan),
            Err(error) => Err(error.into()),
        };
        match (planned, self.find_missing(&tables)?) {
            (Err(_), Some(missing)) => Err(self.explain_missing(missing)),
            (planned, _) => planned,
        }
    }

    fn find_missing<'a>(&self, tables: &'a [TableReference]) -> Result<Option<&'a TableReference>> {
        for table in tables {
            if !self.ctx.table_exist(table.clone())? {
                return Ok(Some(table));
            }
        }
        Ok(None)
    }

    fn explain_missing(&self, missing: &TableReference) -> Failure {
        let name = missing.table();
        if self.views.contains(name) {
            return Failure::usage(format!("table `{name}` not found: this session has no lake or no output"))
                .hint("pass --lake URI and --output URI");
        }
        let known = self.ctx.state().schema_for_ref(missing.clone()).map(|schema| schema.table_names());
        let known = known.unwrap_or_default().into_iter().map(|table| (strsim::jaro_winkler(name, &table), table));
        let nearest = known.filter(|(similarity, _)| *similarity >= SIMILARITY_MIN);
        match nearest.max_by(|a, b| a.0.total_cmp(&b.0)) {
            Some((_, nearest)) => Failure::usage(format!("table `{name}` not found; did you mean `{nearest}`?")),
            None => Failure::usage(format!("table `{name}` not found")),
        }
        .hint("SHOW TABLES lists all tables")
    }

    /// Says why published tables are empty before the first night.
    fn explain_empty_tables(&self, tables: &[TableReference]) {
        if self.has_nights {
            return;
        }
        let published = |table: &&TableReference| {
            let name = table.table();
            NIGHT_TABLES.contains(&name.strip_suffix("_history").unwrap_or(name))
        };
        for table in tables.iter().filter(published) {
            let name = table.table();
            eprintln!(
                "note: `{name}` is empty: no night is published yet; `intentcast nightly --date D` publishes one"
            );
        }
    }

    /// Reads statements until end of input; an error is printed and the prompt continues.
    async fn prompt(&self) -> Result<()> {
        let mut editor = rustyline::DefaultEditor::new().map_err(|e| Failure::bug(format!("no prompt: {e}")))?;
        eprintln!("tables: SHOW TABLES; columns: DESCRIBE name; end: Ctrl-D");
        let mut pending = String::new();
        loop {
            match editor.readline(if pending.is_empty() { "intentcast> " } else { "        ... " }) {
                Ok(line) => pending.push_str(&format!("{line}\n")),
                Err(rustyline::error::ReadlineError::Interrupted) => pending.clear(),
                Err(_) => return Ok(()),
            }
            let text = pending.trim();
            if matches!(text, "\\q" | "exit" | "quit") {
                return Ok(());
            }
            if let Some(sql) = text.strip_suffix(';') {
                editor.add_history_entry(text).unwrap_or_default();
                if let Err(failure) = self.run(sql).await {
                    eprintln!("error: {failure}");
                }
                pending.clear();
            }
        }
    }
}

/// Returns whether running a plan reads `user_features`, by itself or through another view; `EXPLAIN` reads nothing.
fn reads_user_features(plan: &LogicalPlan) -> Result<bool> {
    let mut reads = false;
    plan.apply_with_subqueries(|node| {
        // The planner puts a view's plan in place of its name, below an alias of that name.
        reads |= matches!(node, LogicalPlan::SubqueryAlias(view) if view.alias.table() == "user_features");
        Ok(if reads { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(reads && !matches!(plan, LogicalPlan::Explain(_)))
}

/// Returns the tables that a query reads; other statements may name tables that do not exist yet.
fn tables_of_query(statement: &Statement) -> Result<Vec<TableReference>> {
    match statement {
        Statement::Statement(inner) if matches!(**inner, ast::Statement::Query(_)) => {
            Ok(resolve_table_references(statement, true)?.0)
        }
        Statement::Explain(explain) => tables_of_query(&explain.statement),
        _ => Ok(Vec::new()),
    }
}
