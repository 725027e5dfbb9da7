//! A session of `intentcast sql`: runs statements, prints their rows, and explains names that are not found.

use datafusion::common::TableReference;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast;
use std::collections::BTreeSet;

use super::error_place;
use super::format::{self, Format, Layout};
use crate::engine::schemas;
use crate::failure::{Failure, Result};
use crate::score::torch_functions;
use crate::tables::schemas::NIGHT_TABLES;
use crate::workspace::Workspace;
use crate::workspace::descriptions::{Description, Descriptions};

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
        self.run_in(text, Layout::Table).await
    }

    /// Like [`Self::run`], with tables in a layout.
    pub(super) async fn run_in(&self, text: &str, layout: Layout) -> Result<()> {
        // Errors of the planner then say where.
        self.ctx.state_ref().write().config_mut().options_mut().sql_parser.collect_spans = true;
        let statements = DFParser::parse_sql(text).map_err(|e| error_place::pointed(e, text))?;
        if statements.is_empty() {
            return Err(Failure::usage("expected a query, got nothing"));
        }
        for statement in statements {
            let plan = self.plan(statement, text).await?;
            if let Some(workspace) = &self.workspace
                && reads_user_features(&plan)?
            {
                workspace.check_added_features(&self.ctx).await?;
            }
            let rows = self.ctx.execute_logical_plan(plan).await?;
            // CREATE and DROP have no columns, and nothing to print.
            if !rows.schema().fields().is_empty() {
                format::print_rows(rows, self.format, layout).await?;
            }
        }
        Ok(())
    }

    /// Plans one statement of `text`.
    async fn plan(&self, statement: Statement, text: &str) -> Result<LogicalPlan> {
        let tables = tables_of_query(&statement)?;
        self.explain_empty_tables(&tables);
        let planned = match self.ctx.state().statement_to_plan(statement).await {
            Ok(plan) => torch_functions::check_statement(&self.ctx, plan),
            Err(error) => Err(error_place::pointed(error, text)),
        };
        match (planned, self.find_missing(&tables)?) {
            (Err(_), Some(missing)) => {
                Err(error_place::point_at_name(self.explain_missing(missing), text, missing.table()))
            }
            (planned, _) => planned,
        }
    }

    fn has_output(&self) -> bool {
        self.workspace.as_ref().is_some_and(|workspace| workspace.output().is_ok())
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
        if NIGHT_TABLES.contains(&name.strip_suffix("_history").unwrap_or(name)) && !self.has_output() {
            return Failure::usage(format!("table `{name}` not found: this session has no output"))
                .hint("pass --output URI, or --config FILE with output.uri");
        }
        if self.views.contains(name) {
            return Failure::usage(format!("table `{name}` not found: this session has no lake or no output"))
                .hint("pass --lake URI and --output URI");
        }
        schemas::table_not_found(&self.ctx, name).hint("\\d at the prompt, or SHOW TABLES, lists the tables")
    }

    /// Says why published tables are empty before the first night.
    fn explain_empty_tables(&self, tables: &[TableReference]) {
        if self.has_nights || !self.has_output() {
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

    /// Returns the comments on a table and its columns.
    pub(super) fn describe(&self, name: &str) -> Result<Description> {
        let Some(workspace) = &self.workspace else { return Ok(Description::default()) };
        Ok(Descriptions::read(&workspace.sql)?.get(name).cloned().unwrap_or_default())
    }

    /// Refuses a name that is no table of the session, as a query of it would.
    pub(super) fn refuse_missing(&self, table: &TableReference) -> Result<()> {
        match self.find_missing(std::slice::from_ref(table))? {
            Some(missing) => Err(self.explain_missing(missing)),
            None => Ok(()),
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
