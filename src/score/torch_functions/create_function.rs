//! `CREATE FUNCTION` and `DROP FUNCTION`.

use arrow::datatypes::DataType;
use async_trait::async_trait;
use datafusion::common::ScalarValue;
use datafusion::execution::SessionState;
use datafusion::execution::context::{FunctionFactory, RegisterFunction};
use datafusion::logical_expr::{CreateFunction, DdlStatement, Expr, LogicalPlan, ScalarUDF, Volatility};
use datafusion::prelude::SessionContext;
use std::sync::Arc;

use super::modules;
use super::torch_function::{Declaration, TorchFunction, as_torch_function};
use super::value_types::Type;
use crate::config::Config;
use crate::failure::{Failure, Result};

/// Creates functions from `CREATE FUNCTION` statements, in every session that the engine builds.
#[derive(Debug)]
pub(crate) struct TorchFunctions(pub(crate) Arc<Config>);

#[async_trait]
impl FunctionFactory for TorchFunctions {
    async fn create(
        &self,
        state: &SessionState,
        statement: CreateFunction,
    ) -> datafusion::common::Result<RegisterFunction> {
        let name = statement.name.to_lowercase();
        let function = self.try_create(state, statement).await.map_err(|f| f.at(format!("CREATE FUNCTION {name}")))?;
        Ok(RegisterFunction::Scalar(Arc::new(ScalarUDF::from(function))))
    }
}

impl TorchFunctions {
    async fn try_create(&self, state: &SessionState, statement: CreateFunction) -> Result<TorchFunction> {
        // SQL folds an unquoted name to lower case where it is called, and so does this.
        let name = statement.name.to_lowercase();
        check_name(state, &name, statement.or_replace)?;
        let (language, volatility) = (statement.params.language, statement.params.behavior);
        let language = language.map(|l| l.value).unwrap_or_default();
        if !language.eq_ignore_ascii_case("torch") {
            return Err(Failure::usage(format!("expected LANGUAGE TORCH, got {language:?}")));
        }
        let uri = match statement.params.function_body {
            Some(Expr::Literal(ScalarValue::Utf8(Some(uri)), _)) => uri,
            other => return Err(Failure::usage(format!("expected AS 'uri of a TorchScript module', got {other:?}"))),
        };
        let mut arguments = Vec::new();
        for (at, argument) in statement.args.unwrap_or_default().into_iter().enumerate() {
            let label = argument.name.map_or_else(|| (at + 1).to_string(), |name| name.value);
            if argument.default_expr.is_some() {
                return Err(Failure::usage(format!("argument {label}: default values are not supported")));
            }
            let declared = Type::from_arrow(&argument.data_type);
            let declared = declared.ok_or_else(|| unsupported(&format!("argument {label}"), &argument.data_type))?;
            arguments.push((label, declared));
        }
        if arguments.is_empty() {
            return Err(Failure::usage("expected at least one argument, as its rows are the rows of the result"));
        }
        let returns = statement.return_type.ok_or_else(|| Failure::usage("expected RETURNS and a type"))?;
        let returns = Type::from_arrow(&returns).ok_or_else(|| unsupported("RETURNS", &returns))?;
        let module = modules::load(&uri, &self.0).await?;
        let declaration = Declaration { name, arguments, returns, uri, hash: module.hash.clone() };
        let volatility = volatility.unwrap_or(Volatility::Immutable);
        let function = TorchFunction::new(declaration, volatility, Arc::clone(&self.0));
        function.module.get_or_init(|| module);
        function.probe()?;
        Ok(function)
    }
}

fn unsupported(what: &str, got: &DataType) -> Failure {
    Failure::usage(format!("{what}: expected FLOAT, DOUBLE, INT, BIGINT, BOOLEAN, or T[] or T[n] of one, got {got}"))
        .hint("text and times cannot be tensors: turn them into numbers in SQL")
}

/// Refuses the name of a function that is not a user's, and of a user's without OR REPLACE.
fn check_name(state: &SessionState, name: &str, or_replace: bool) -> Result<()> {
    let is_users = state.scalar_functions().get(name).map(|f| as_torch_function(f).is_some());
    let built_in = is_users == Some(false)
        || state.aggregate_functions().contains_key(name)
        || state.window_functions().contains_key(name);
    match (built_in, is_users) {
        (true, _) => Err(Failure::usage("a built-in function has this name").hint("choose another name")),
        (false, Some(_)) if !or_replace => {
            Err(Failure::usage("a function of this name exists already").hint("CREATE OR REPLACE FUNCTION replaces it"))
        }
        _ => Ok(()),
    }
}

/// Prepares a statement for a session: `DROP FUNCTION` drops only users' functions.
pub(crate) fn check_statement(ctx: &SessionContext, plan: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Ddl(DdlStatement::DropFunction(mut statement)) = plan else { return Ok(plan) };
    statement.name = statement.name.to_lowercase();
    match (
        ctx.state().scalar_functions().get(&statement.name).map(|f| as_torch_function(f).is_some()),
        statement.if_exists,
    ) {
        (Some(true), _) | (None, true) => Ok(LogicalPlan::Ddl(DdlStatement::DropFunction(statement))),
        (Some(false), _) => Err(Failure::usage(format!("DROP FUNCTION {}: it is built in", statement.name))),
        (None, false) => Err(Failure::usage(format!("DROP FUNCTION {}: no such function", statement.name))
            .hint("a function lives as long as the session that created it")),
    }
}
