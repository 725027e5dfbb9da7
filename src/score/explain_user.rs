//! `explain_user('id' [, 'intent'])`: the table function that explains one user of `model_input`.

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableFunctionImpl, TableProvider};
use datafusion::common::{Result, plan_err};
use datafusion::error::DataFusionError;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, TableType, col, lit};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{DataFrame, SessionContext};
use std::sync::{Arc, OnceLock};

use super::functions::{ScoringFunction, explain_intents};

pub(crate) const NAME: &str = "explain_user";

/// The table with the users' features.
const MODEL_INPUT: &str = "model_input";

/// The function.
#[derive(Debug)]
pub(super) struct ExplainUser;

impl TableFunctionImpl for ExplainUser {
    fn call(&self, arguments: &[Expr]) -> Result<Arc<dyn TableProvider>> {
        let text = |argument: &Expr| match argument {
            Expr::Literal(value, _) => value.try_as_str().flatten().map(String::from),
            _ => None,
        };
        let texts: Option<Vec<String>> = arguments.iter().map(text).collect();
        match texts.as_deref() {
            Some([user_id]) => Ok(Explained::table(user_id, "purchase")),
            Some([user_id, intent]) => {
                explain_intents::target_of(intent, NAME)?;
                Ok(Explained::table(user_id, intent))
            }
            _ => plan_err!("{NAME}: expected a user id and optionally an intent, both as text in quotes"),
        }
    }
}

/// The explanation of one user.
#[derive(Debug)]
struct Explained {
    user_id: String,
    intent: String,
}

impl Explained {
    fn table(user_id: &str, intent: &str) -> Arc<dyn TableProvider> {
        Arc::new(Self { user_id: user_id.into(), intent: intent.into() })
    }

    async fn query(&self, state: &SessionState) -> Result<DataFrame> {
        let ctx = SessionContext::new_with_state(state.clone());
        if !ctx.table_exist(MODEL_INPUT)? {
            return plan_err!("{NAME}: this session has no features; it needs a lake (--lake)");
        }
        let function = ctx.udf(explain_intents::NAME)?;
        let call = function.call(vec![col("features"), lit(""), lit(self.intent.as_str())]);
        let parts = ctx.table(MODEL_INPUT).await?.filter(col("user_id").eq(lit(self.user_id.as_str())))?;
        let parts = parts.select([call.alias("parts")])?.unnest_columns(&["parts"])?;
        let fields = schema()?.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        let field = |name: &String| {
            datafusion::functions::core::expr_fn::get_field(col("parts"), name.as_str()).alias(name.as_str())
        };
        parts.select(fields.iter().map(field).collect::<Vec<_>>())
    }
}

/// Columns of the table: the fields of the function's parts.
fn schema() -> Result<SchemaRef> {
    static SCHEMA: OnceLock<Option<SchemaRef>> = OnceLock::new();
    let found = SCHEMA.get_or_init(|| {
        let parts = ScoringFunction::find(explain_intents::NAME)?.result_type(false);
        let arrow::datatypes::DataType::List(part) = parts else { return None };
        let arrow::datatypes::DataType::Struct(fields) = part.data_type() else { return None };
        Some(Arc::new(arrow::datatypes::Schema::new(fields.clone())))
    });
    found
        .clone()
        .ok_or_else(|| DataFusionError::Internal(format!("{} returns no list of structs", explain_intents::NAME)))
}

#[async_trait]
impl TableProvider for Explained {
    fn schema(&self) -> SchemaRef {
        schema().unwrap_or_else(|_| Arc::new(arrow::datatypes::Schema::empty()))
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(state) = state.as_any().downcast_ref::<SessionState>() else {
            return plan_err!("{NAME}: only works in a session with a model");
        };
        let mut rows = self.query(state).await?;
        if let Some(projection) = projection {
            let names = projection.iter().map(|&column| col(self.schema().field(column).name()));
            rows = rows.select(names.collect::<Vec<_>>())?;
        }
        rows.limit(0, limit)?.create_physical_plan().await
    }
}
