//! The ordered feature contract: which columns the model sees, in which order and of which type, and how two contracts differ.

use arrow::datatypes::{DataType, Schema};
use datafusion::execution::FunctionRegistry;
use datafusion::prelude::{Expr, SessionContext, col, lit};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};
use crate::ids::ContentHash;

/// One numeric column of `user_features`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureColumn {
    pub name: String,
    /// Arrow's name of the type: `Int64`, `Float64`.
    pub dtype: String,
}

/// The numeric columns of `user_features` in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FeatureContract(pub Vec<FeatureColumn>);

impl FeatureContract {
    pub(crate) fn from_schema(schema: &Schema) -> Self {
        let numeric = schema.fields().iter().filter(|f| f.data_type().is_numeric());
        Self(numeric.map(|f| FeatureColumn { name: f.name().clone(), dtype: f.data_type().to_string() }).collect())
    }

    /// Returns a hash of names, types and order.
    pub fn fingerprint(&self) -> String {
        let text: String = self.0.iter().map(|c| format!("{}:{}\n", c.name, c.dtype)).collect();
        ContentHash::from_bytes(text).short()
    }

    /// Refuses (exit 6) features of the night's SQL that are not the bundle's, and names the columns that differ.
    pub(crate) fn refuse_different(&self, night: &FeatureContract, bundle: &str) -> Result<()> {
        if self == night {
            return Ok(());
        }
        let dtype_of = |contract: &FeatureContract, name: &str| {
            contract.0.iter().find(|column| column.name == name).map(|column| column.dtype.clone())
        };
        let mut differences = Vec::new();
        for column in &self.0 {
            match dtype_of(night, &column.name) {
                None => differences.push(format!("{} is missing", column.name)),
                Some(dtype) if dtype != column.dtype => {
                    differences.push(format!("{}: expected {}, got {dtype}", column.name, column.dtype));
                }
                Some(_) => {}
            }
        }
        let added = night.0.iter().filter(|c| dtype_of(self, &c.name).is_none());
        differences.extend(added.map(|c| format!("{} is new", c.name)));
        if differences.is_empty() {
            differences.push("the order of the columns".into());
        }
        Err(Failure::model(format!("model {bundle} was trained on other features: {}", differences.join("; ")))
            .hint("run `intentcast train`, or set sql.folder as in that training: user_features.sql and user_feature_*.sql decide"))
    }
}

/// Registers `model_input(user_id, features)` over `user_features`: one struct per user, the argument of `score_intents`.
pub async fn register_model_input(ctx: &SessionContext) -> Result<FeatureContract> {
    let features = ctx.table("user_features").await?;
    let schema = features.schema().as_arrow().clone();
    let contract = FeatureContract::from_schema(&schema);
    let mut fields: Vec<Expr> = vec![lit("user_id"), col("user_id"), lit("as_of"), constant(ctx, "as_of")?];
    fields.extend([lit("recent"), col("recent")]);
    for column in &contract.0 {
        let name = datafusion::common::Column::from_name(&column.name);
        fields.extend([lit(&column.name), Expr::Column(name)]);
    }
    let packed = datafusion::functions::core::expr_fn::named_struct(fields).alias("features");
    let mut columns = vec![col("user_id"), packed];
    for name in ["events_lifetime", "last_at"] {
        if schema.field_with_name(name).is_ok_and(|f| f.data_type() != &DataType::Null) {
            columns.push(col(name));
        }
    }
    let view = features.select(columns)?.into_view();
    ctx.deregister_table("model_input")?;
    ctx.register_table("model_input", view)?;
    Ok(contract)
}

fn constant(ctx: &SessionContext, name: &str) -> Result<Expr> {
    Ok(ctx.udf(name)?.call(vec![]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_features_are_refused_by_name() {
        let contract = |columns: &[(&str, &str)]| {
            FeatureContract(
                columns.iter().map(|(n, d)| FeatureColumn { name: (*n).into(), dtype: (*d).into() }).collect(),
            )
        };
        let trained = contract(&[("a", "Int64"), ("b", "Int64"), ("c", "Int64")]);
        trained.refuse_different(&trained.clone(), "m1").unwrap();
        let refused =
            trained.refuse_different(&contract(&[("a", "Int64"), ("b", "Float64"), ("d", "Int64")]), "m1").unwrap_err();
        assert_eq!(refused.kind.exit_code(), 6);
        for part in ["c is missing", "b: expected Int64, got Float64", "d is new"] {
            assert!(refused.message.contains(part), "{refused}");
        }
        assert!(trained.refuse_different(&contract(&[("b", "Int64"), ("a", "Int64"), ("c", "Int64")]), "m1").is_err());
    }
}
