//! The logical node that computes scores.

use arrow::datatypes::Field;
use datafusion::common::{DFSchema, DFSchemaRef, Result, plan_err};
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};
use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use crate::score::functions::ScoringFunction;

/// One distinct call of a scoring function.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd)]
pub(super) struct Call {
    pub(crate) function: ScoringFunction,
    /// The function's inputs, then the label where the call names one.
    pub(crate) arguments: Vec<Expr>,
    /// The version that the call names; empty for the session's.
    pub(crate) model: String,
    /// The column that holds the result.
    pub(crate) column: String,
}

impl Call {
    pub(super) fn is_labelled(&self) -> bool {
        self.arguments.len() > self.function.signature().inputs
    }

    /// Reports whether an argument reads a column of the same node.
    pub(super) fn reads(&self, column: &str) -> bool {
        let mut columns = self.arguments.iter().flat_map(Expr::column_refs);
        columns.any(|c| c.relation.is_none() && c.name == column)
    }
}

/// Appends the columns of its calls to its input.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ScoreNode {
    pub(crate) input: LogicalPlan,
    pub(crate) calls: Vec<Call>,
    schema: DFSchemaRef,
}

impl PartialOrd for ScoreNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.calls.partial_cmp(&other.calls)
    }
}

impl ScoreNode {
    pub(super) fn new(input: LogicalPlan, calls: Vec<Call>) -> Result<Self> {
        let mut fields: Vec<_> = input.schema().iter().map(|(q, f)| (q.cloned(), Arc::clone(f))).collect();
        for call in &calls {
            let data_type = call.function.result_type(call.is_labelled());
            fields.push((None, Arc::new(Field::new(&call.column, data_type, call.function.nullable()))));
        }
        let schema = DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?;
        Ok(Self { input, calls, schema: Arc::new(schema) })
    }
}

impl UserDefinedLogicalNodeCore for ScoreNode {
    fn name(&self) -> &str {
        "Score"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.calls.iter().flat_map(|c| c.arguments.clone()).collect()
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.calls.iter().map(|c| c.column.clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let calls: Vec<_> = self.calls.iter().map(|c| format!("{} = {}", c.column, c.function.name())).collect();
        write!(f, "Score: {}", calls.join(", "))
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let mut exprs = exprs.into_iter();
        let mut next = |c: &Call| Call { arguments: exprs.by_ref().take(c.arguments.len()).collect(), ..c.clone() };
        let calls = self.calls.iter().map(&mut next).collect();
        match inputs.pop() {
            Some(input) if inputs.is_empty() => Self::new(input, calls),
            _ => plan_err!("Score: expected one input"),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.input.schema().fields().len();
        let mut needed: Vec<usize> = output_columns.iter().copied().filter(|&c| c < width).collect();
        for call in &self.calls {
            for column in call.arguments.iter().flat_map(Expr::column_refs) {
                needed.extend(self.input.schema().maybe_index_of_column(column));
            }
        }
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}
