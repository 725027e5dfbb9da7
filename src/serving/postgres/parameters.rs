//! Types and values of a prepared statement's parameters.

use arrow::datatypes::DataType;
use datafusion::common::ParamValues;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::Expr;
use datafusion_postgres::arrow_pg::datatypes::{df, into_pg_type};
use pgwire::api::Type;
use pgwire::api::portal::Portal;
use pgwire::error::PgWireResult;
use std::collections::BTreeMap;

use super::errors;
use crate::serving::refusal::Refusal;

/// Types of a statement's parameters, by position; `None` where the statement does not say.
#[derive(Debug, Clone, Default)]
pub(super) struct Parameters(Vec<Option<DataType>>);

impl Parameters {
    /// Infers the types from what each parameter is compared with or cast to.
    pub(super) fn of(plan: &LogicalPlan) -> PgWireResult<Self> {
        let mut types: BTreeMap<usize, Option<DataType>> = BTreeMap::new();
        for (id, inferred) in plan.get_parameter_types().map_err(errors::failed)? {
            types.insert(position(&id)?, inferred);
        }
        for (id, cast) in cast_types(plan).map_err(errors::failed)? {
            let known = types.entry(position(&id)?).or_default();
            *known = known.take().or(Some(cast));
        }
        let count = types.keys().last().copied().unwrap_or(0);
        Ok(Self((1..=count).map(|position| types.get(&position).cloned().flatten()).collect()))
    }

    /// Returns the types as clients are told them.
    pub(super) fn pg_types(&self) -> PgWireResult<Vec<Type>> {
        self.0.iter().map(|known| known.as_ref().map_or(Ok(Type::UNKNOWN), into_pg_type)).collect()
    }

    /// Decodes the values that a client has bound.
    pub(super) fn values<S: Clone>(&self, portal: &Portal<S>) -> PgWireResult<ParamValues> {
        if portal.parameters.len() < self.0.len() {
            let message = format!("expected {} parameters, got {}", self.0.len(), portal.parameters.len());
            return Err(errors::refused(Refusal::new(Refusal::INVALID_VALUE, message)));
        }
        let pg_types = self.pg_types()?;
        let inferred: Vec<Option<&DataType>> = self.0.iter().map(Option::as_ref).collect();
        df::deserialize_parameters_with_server_types(portal, &inferred, &pg_types.iter().map(Some).collect::<Vec<_>>())
    }
}

fn position(id: &str) -> PgWireResult<usize> {
    let position = id.strip_prefix('$').and_then(|digits| digits.parse().ok()).filter(|n| (1..=65_535).contains(n));
    position.ok_or_else(|| {
        errors::refused(Refusal::new(Refusal::SYNTAX, format!("parameter {id}: expected $1, $2 and so on")))
    })
}

fn cast_types(plan: &LogicalPlan) -> datafusion::common::Result<Vec<(String, DataType)>> {
    let mut types = Vec::new();
    plan.apply_with_subqueries(|node| {
        for expression in node.expressions() {
            expression.apply(|e| {
                if let Expr::Cast(cast) = e
                    && let Expr::Placeholder(parameter) = cast.expr.as_ref()
                {
                    types.push((parameter.id.clone(), cast.field.data_type().clone()));
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(types)
}
