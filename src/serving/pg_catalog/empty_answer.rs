//! Empty answers to queries of the catalogue that DataFusion cannot plan.

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::{DFSchema, TableReference};
use datafusion::logical_expr::{EmptyRelation, LogicalPlan};
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArguments, SelectItem, SetExpr, Statement, Value, visit_expressions_mut,
};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::names::{INFORMATION_SCHEMA, PG_CATALOG};

/// Functions that return rows, which a query names as it names tables.
const ROW_FUNCTIONS: [&str; 4] = ["generate_series", "unnest", "generate_subscripts", "aclexplode"];

/// Returns whether there are tables, and all of them describe others.
pub(crate) fn reads_descriptions(tables: &[TableReference]) -> bool {
    let is_description = |table: &TableReference| match table.schema() {
        Some(schema) => [PG_CATALOG, INFORMATION_SCHEMA].contains(&schema.to_lowercase().as_str()),
        None => table.table().to_lowercase().starts_with("pg_"),
    };
    !tables.is_empty() && tables.iter().all(is_description)
}

/// Returns whether a query reads descriptions of tables and no other table; it may call functions that return rows.
///
/// Tools send such queries at their start, about things that this server doesn't have (rules, triggers, partitions), and give up
/// at an error.
pub(crate) fn may_answer_without_rows(tables: &[TableReference]) -> bool {
    let is_function = |table: &&TableReference| ROW_FUNCTIONS.contains(&table.table().to_lowercase().as_str());
    let tables: Vec<TableReference> = tables.iter().filter(|table| !is_function(table)).cloned().collect();
    reads_descriptions(&tables)
}

/// Returns a query with null in place of each subquery that is one of its columns.
pub(crate) fn without_subqueries(statement: &Statement) -> Statement {
    let mut simpler = statement.clone();
    let visited: ControlFlow<()> = visit_expressions_mut(&mut simpler, |expression| {
        let is_subquery = match expression {
            Expr::Subquery(_) => true,
            // array(SELECT …)
            Expr::Function(function) => matches!(function.args, FunctionArguments::Subquery(_)),
            _ => false,
        };
        if is_subquery {
            *expression = Expr::Value(Value::Null.with_empty_span());
        }
        ControlFlow::Continue(())
    });
    debug_assert!(visited.is_continue());
    simpler
}

/// Returns the plan of an answer without rows. Its columns are text, named as the query names them.
pub(crate) fn empty_answer(statement: &Statement) -> Option<LogicalPlan> {
    let Statement::Query(query) = statement else { return None };
    let mut body = query.body.as_ref();
    let select = loop {
        match body {
            SetExpr::Select(select) => break select,
            SetExpr::Query(inner) => body = inner.body.as_ref(),
            SetExpr::SetOperation { left, .. } => body = left.as_ref(),
            _ => return None,
        }
    };
    let mut fields: Vec<Field> = Vec::new();
    for item in &select.projection {
        let name = match item {
            SelectItem::ExprWithAlias { alias, .. } => alias.value.clone(),
            SelectItem::UnnamedExpr(expression) => name_of(expression),
            // Which columns a wildcard stands for is not known without a plan.
            _ => continue,
        };
        // Names may repeat in SQL and not in a schema.
        let mut unique = name.clone();
        while fields.iter().any(|field| *field.name() == unique) {
            unique.push('_');
        }
        fields.push(Field::new(unique, DataType::Utf8, true));
    }
    let schema = DFSchema::try_from(Schema::new(fields)).ok()?;
    Some(LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema: Arc::new(schema) }))
}

fn name_of(expression: &Expr) -> String {
    match expression {
        Expr::Identifier(name) => name.value.clone(),
        Expr::CompoundIdentifier(parts) => parts.last().map_or(String::new(), |part| part.value.clone()),
        Expr::Function(function) => function.name.0.last().map_or(String::new(), |part| part.to_string()),
        Expr::Cast { expr, .. } => name_of(expr),
        _ => "?column?".into(),
    }
}
