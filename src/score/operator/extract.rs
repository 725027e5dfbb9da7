//! The analyzer rule that moves calls of scoring functions into [`ScoreNode`]s.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result, ScalarValue, TableReference, config::ConfigOptions, plan_err};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, Projection};
use datafusion::optimizer::AnalyzerRule;
use std::any::Any;
use std::sync::Arc;

use super::node::{Call, ScoreNode};
use crate::features::functions::Constant;
use crate::score::functions::ScoringFunction;

/// Prefix of the columns that hold scores.
const COLUMN_PREFIX: &str = "__score_";

/// Replaces calls of scoring functions by columns of a node below.
#[derive(Debug)]
pub(super) struct ExtractScores;

impl AnalyzerRule for ExtractScores {
    fn name(&self) -> &str {
        "extract_scores"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(extract)?.data)
    }
}

fn extract(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if matches!(plan, LogicalPlan::Extension(_)) {
        return Ok(Transformed::no(plan));
    }
    let mut calls: Vec<Call> = Vec::new();
    let mut rewritten = Vec::new();
    for expression in plan.expressions() {
        rewritten.push(replace_calls(expression, &mut calls)?);
    }
    if calls.is_empty() {
        return Ok(Transformed::no(plan));
    }
    let inputs = plan.inputs();
    let [input] = inputs.as_slice() else {
        let name = calls[0].function.name();
        return plan_err!("{name}: cannot be called in a join's condition; compute it in a subquery");
    };
    // Nodes below have score columns of their own, under other numbers.
    let below = input.schema().fields().iter().filter(|f| f.name().starts_with(COLUMN_PREFIX)).count();
    let mut renamed = Vec::new();
    for (expression, original) in rewritten.into_iter().zip(plan.expressions()) {
        let expression = rename_columns(expression, &calls, below)?;
        renamed.push(keep_name(&plan, expression, original.qualified_name()));
    }
    for call in &mut calls {
        call.column = format!("{}_{below}", call.column);
    }
    let unchanged: Vec<Expr> = plan.schema().iter().map(Expr::from).collect();
    let passes_input_through = matches!(plan, LogicalPlan::Filter(_) | LogicalPlan::Sort(_) | LogicalPlan::Limit(_));
    let node = ScoreNode::new((*input).clone(), calls)?;
    let scored = LogicalPlan::Extension(Extension { node: Arc::new(node) });
    // A call of another call's result is still there.
    let mut above = extract(plan.with_new_exprs(renamed, vec![scored])?)?.data;
    if passes_input_through {
        above = LogicalPlan::Projection(Projection::try_new(unchanged, Arc::new(above))?);
    }
    Ok(Transformed::yes(above))
}

/// Replaces the calls in an expression by columns, and adds the new ones to `calls`.
fn replace_calls(expression: Expr, calls: &mut Vec<Call>) -> Result<Expr> {
    let replaced = expression.transform_up(|e| match as_call(&e)? {
        None => Ok(Transformed::no(e)),
        // A call of another call's result waits for a node above that one's.
        Some(call) if calls.iter().any(|known| call.reads(&known.column)) => Ok(Transformed::no(e)),
        Some(call) => {
            let same =
                |c: &&Call| (c.function, &c.arguments, &c.model) == (call.function, &call.arguments, &call.model);
            let column = match calls.iter().find(same) {
                Some(known) => known.column.clone(),
                None => {
                    let column = format!("{COLUMN_PREFIX}{}", calls.len());
                    calls.push(Call { column: column.clone(), ..call });
                    column
                }
            };
            Ok(Transformed::yes(Expr::Column(Column::new_unqualified(column))))
        }
    })?;
    Ok(replaced.data)
}

/// Numbers the score columns of `calls` in an expression by the score columns `below` them.
fn rename_columns(expression: Expr, calls: &[Call], below: usize) -> Result<Expr> {
    let renamed = expression.transform_up(|e| match &e {
        Expr::Column(c) if c.relation.is_none() && calls.iter().any(|call| call.column == c.name) => {
            Ok(Transformed::yes(Expr::Column(Column::new_unqualified(format!("{}_{below}", c.name)))))
        }
        _ => Ok(Transformed::no(e)),
    })?;
    Ok(renamed.data)
}

/// Keeps the name of an output column as the query wrote it.
fn keep_name(plan: &LogicalPlan, expression: Expr, (relation, name): (Option<TableReference>, String)) -> Expr {
    let names_outputs = matches!(plan, LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Window(_));
    if names_outputs && expression.qualified_name() != (relation.clone(), name.clone()) {
        return expression.alias_qualified(relation, name);
    }
    expression
}

/// The call that an expression is; its column has no name yet.
fn as_call(expression: &Expr) -> Result<Option<Call>> {
    let Expr::ScalarFunction(f) = expression else { return Ok(None) };
    let Some(function) = ScoringFunction::find(f.func.name()) else { return Ok(None) };
    let inputs = function.signature().inputs;
    let model = match f.args.get(inputs) {
        None => String::new(),
        Some(named) => match session_value(named) {
            Some(value) => value.try_as_str().flatten().unwrap_or_default().to_string(),
            None => return plan_err!("{}: expected a literal model version, got {named}", function.name()),
        },
    };
    let label = f.args.get(inputs + 1);
    let arguments = f.args.iter().take(inputs).chain(label).cloned().collect();
    Ok(Some(Call { function, arguments, model, column: String::new() }))
}

/// Returns the value of a literal, or of a function that the optimizer would fold to one later.
fn session_value(expression: &Expr) -> Option<&ScalarValue> {
    match expression {
        Expr::Literal(value, _) => Some(value),
        Expr::ScalarFunction(f) => {
            let function: &dyn Any = f.func.inner().as_ref();
            function.downcast_ref::<Constant>().map(|constant| &constant.value)
        }
        _ => None,
    }
}
