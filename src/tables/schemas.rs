//! The columns of the published tables, and the cast that fits a query's result to them.
//!
//! Every column always exists: what a lake cannot feed is null. A column that no table knows is refused, so that a
//! misspelt name cannot turn into a silent null.

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{cast, lit};
use datafusion::prelude::{DataFrame, Expr, ident};
use std::sync::Arc;

use crate::failure::{Failure, Result};

/// The partition column of every table; Delta keeps it in the log and the folder name, not in the data files.
pub const PARTITION: &str = "run_date";

/// The tables of a night, in the order in which they are committed; `runs` comes after all of them.
pub const NIGHT_TABLES: [&str; 7] =
    ["intent", "recommendation", "demand", "demand_total", "replenishment", "segment", "quarantine"];

pub const RUNS: &str = "runs";

/// What one row of a table stands for: no two rows of a night share these columns. Empty where rows may repeat.
pub fn key(table: &str) -> &'static [&'static str] {
    match table {
        "intent" => &["user_id"],
        "recommendation" => &["user_id", "rank"],
        "demand" => &["item_id", "target_date"],
        "demand_total" => &["level", "category", "target_date"],
        "replenishment" => &["item_id"],
        "segment" => &["segment"],
        _ => &[],
    }
}

/// The columns of `table` as its data files hold them: all but the partition column.
pub fn file_schema(table: &str) -> Result<SchemaRef> {
    let numbers = |names: &'static [&'static str]| names.iter().map(|name| (*name, DataType::Float64));
    let text = DataType::Utf8;
    let instant = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let columns: Vec<(&str, DataType)> = match table {
        "intent" => std::iter::once(("user_id", text.clone()))
            .chain(numbers(&["p_view", "p_search", "p_favorite", "p_cart", "p_purchase", "p_review", "p_churn"]))
            .chain(numbers(&["expected_units", "expected_spend", "anomaly_score"]))
            .chain([("segment", text.clone()), ("events_seen", DataType::Int64)])
            .chain([("last_seen_at", instant()), ("model_version", text)])
            .collect(),
        "recommendation" => {
            vec![("user_id", text.clone()), ("rank", DataType::Int32), ("item_id", text), ("score", DataType::Float64)]
        }
        "demand" => [("item_id", text), ("target_date", DataType::Date32)]
            .into_iter()
            .chain(numbers(&["mean", "q05", "q10", "q25", "q50", "q75", "q90", "q95", "intent_units"]))
            .chain([("category", DataType::Utf8), ("model_mean", DataType::Float64)])
            .collect(),
        "demand_total" => [("level", text.clone()), ("category", text), ("target_date", DataType::Date32)]
            .into_iter()
            .chain(numbers(&["mean", "model_mean", "intent_units", "intent_weight"]))
            .collect(),
        "replenishment" => [("item_id", text.clone()), ("on_hand", DataType::Float64), ("on_order", DataType::Float64)]
            .into_iter()
            .chain([("lead_time_days", DataType::Int32)])
            .chain(numbers(&["lead_time_demand_q50", "lead_time_demand_q90", "safety_stock", "reorder_point"]))
            .chain(numbers(&["order_quantity", "stock_out_risk", "days_of_cover"]))
            .chain([("reason", text)])
            .collect(),
        "segment" => [("segment", text), ("users", DataType::Int64)]
            .into_iter()
            .chain(numbers(&["p_purchase_mean", "p_churn_mean", "expected_units_mean", "expected_spend_mean"]))
            .chain(numbers(&["anomaly_score_mean", "events_seen_mean"]))
            .collect(),
        "quarantine" => vec![("source_file", text.clone()), ("reason", text.clone()), ("row_json", text)],
        RUNS => [("generation", DataType::Int64), ("kind", text.clone()), ("status", text.clone())]
            .into_iter()
            .chain([("made_visible_at", instant())])
            .chain(["model_version", "sql_fingerprint", "input_fingerprint"].map(|name| (name, text.clone())))
            .chain([("rows_read", DataType::Int64), ("rows_quarantined", DataType::Int64)])
            .chain(["quarantined_by_reason", "arrival_mode", "manifest_hash"].map(|name| (name, text.clone())))
            .chain(["table_versions", "stages", "drift", "accuracy"].map(|name| (name, text.clone())))
            .chain([("hides_generation", DataType::Int64), ("note", text)])
            .collect(),
        other => return Err(Failure::bug(format!("unknown table {other:?}"))),
    };
    let fields: Vec<Field> = columns.into_iter().map(|(name, kind)| Field::new(name, kind, true)).collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// The columns of `table` as readers see them: the file's columns, then `run_date`.
pub fn table_schema(table: &str) -> Result<SchemaRef> {
    let file = file_schema(table)?;
    let mut fields: Vec<_> = file.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(PARTITION, DataType::Date32, true)));
    Ok(Arc::new(Schema::new(fields)))
}

/// Orders, casts and completes the columns of `rows` to those of the table's files.
pub fn conform(rows: DataFrame, table: &str) -> Result<DataFrame> {
    let wanted = file_schema(table)?;
    let given: Vec<String> = rows.schema().fields().iter().map(|f| f.name().clone()).collect();
    if let Some(extra) = given.iter().find(|name| *name != PARTITION && wanted.field_with_name(name).is_err()) {
        let names: Vec<&str> = wanted.fields().iter().map(|f| f.name().as_str()).collect();
        return Err(Failure::usage(format!("table {table}: unexpected column {extra:?}"))
            .hint(format!("sql/tables/{table}.sql may select: {}", names.join(", "))));
    }
    if let Some(missing) = key(table).iter().find(|name| !given.iter().any(|g| g == *name)) {
        return Err(Failure::usage(format!("table {table}: expected the key column {missing:?}, got none")));
    }
    let columns = wanted.fields().iter().map(|field| fitted(field, &given)).collect::<Result<Vec<Expr>>>()?;
    Ok(rows.select(columns)?)
}

fn fitted(field: &Field, given: &[String]) -> Result<Expr> {
    let value = match given.contains(field.name()) {
        true => cast(ident(field.name()), field.data_type().clone()),
        false => lit(ScalarValue::try_from(field.data_type())?),
    };
    Ok(value.alias(field.name()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::SessionContext;

    #[tokio::test]
    async fn rows_are_cast_ordered_and_completed() {
        let ctx = SessionContext::new();
        let rows = ctx.sql("SELECT CAST(1 AS BIGINT) AS rank, 'u' AS user_id, 2 AS score").await.unwrap();
        let fitted = conform(rows, "recommendation").unwrap().collect().await.unwrap();
        let types: Vec<_> = fitted[0].schema().fields().iter().map(|f| f.data_type().clone()).collect();
        assert_eq!(types, [DataType::Utf8, DataType::Int32, DataType::Utf8, DataType::Float64]);
        assert_eq!(fitted[0].column(2).null_count(), 1, "an item_id that nobody gave is null");
    }

    #[tokio::test]
    async fn a_misspelt_column_is_refused() {
        let ctx = SessionContext::new();
        let rows = ctx.sql("SELECT 'u' AS user_id, 0.5 AS p_purchse").await.unwrap();
        let failure = conform(rows, "intent").unwrap_err();
        assert!(failure.message.contains("p_purchse"), "{failure}");
    }
}
