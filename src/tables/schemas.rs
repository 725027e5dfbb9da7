//! Schemas of the published tables, and the cast that fits a query's result to them.
//!
//! A column that the query does not select becomes null. A column that the table does not have is refused, so that a
//! misspelt name cannot turn into a silent null.

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{cast, lit};
use datafusion::prelude::{DataFrame, Expr, ident};
use std::sync::Arc;

use super::published::{self, NIGHT};
use super::table_spec::TableSpec;
use crate::failure::{Failure, Result};

/// Partition column of every table. Delta keeps it in the log and in the folder name, not in the data files.
pub(crate) const PARTITION: &str = "run_date";

/// Name of the table that makes nights visible.
pub(crate) const RUNS: &str = published::RUNS.name;

/// Name of the table of erased persons.
pub(crate) const ERASURE: &str = published::ERASURE.name;

/// Names of the tables of a night, in the order in which they are committed; `runs` comes after all of them.
pub const NIGHT_TABLES: [&str; NIGHT.len()] = {
    let mut names = [""; NIGHT.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = NIGHT[at].name;
        at += 1;
    }
    names
};

/// The declarations of all published tables, `runs` last.
pub fn specs() -> impl Iterator<Item = &'static TableSpec> {
    NIGHT.iter().copied().chain([&published::ERASURE, &published::RUNS])
}

pub fn spec(table: &str) -> Result<&'static TableSpec> {
    specs().find(|spec| spec.name == table).ok_or_else(|| Failure::bug(format!("unknown table {table:?}")))
}

/// The schema of the data files of `table`: all columns but the partition column.
pub(crate) fn file_schema(table: &str) -> Result<SchemaRef> {
    let columns = spec(table)?.columns.iter();
    let fields: Vec<Field> = columns.map(|column| Field::new(column.name, column.kind.arrow(), true)).collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// The schema of `table` as readers see it: the columns of its files, then `run_date`.
pub fn table_schema(table: &str) -> Result<SchemaRef> {
    let file = file_schema(table)?;
    let mut fields: Vec<_> = file.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(PARTITION, DataType::Date32, true)));
    Ok(Arc::new(Schema::new(fields)))
}

/// Casts `rows` to the schema of the table's files, in its column order; missing columns become null.
pub(crate) fn conform(rows: DataFrame, table: &str) -> Result<DataFrame> {
    let expected = file_schema(table)?;
    let selected: Vec<String> = rows.schema().fields().iter().map(|f| f.name().clone()).collect();
    if let Some(extra) = selected.iter().find(|name| *name != PARTITION && expected.field_with_name(name).is_err()) {
        let names: Vec<&str> = expected.fields().iter().map(|f| f.name().as_str()).collect();
        return Err(Failure::usage(format!("table {table}: unexpected column {extra:?}"))
            .hint(format!("sql/tables/{table}.sql may select: {}", names.join(", "))));
    }
    if let Some(missing) = spec(table)?.key.iter().find(|name| !selected.iter().any(|column| column == *name)) {
        return Err(Failure::usage(format!("table {table}: expected the key column {missing:?}, got none")));
    }
    let columns = expected.fields().iter().map(|field| cast_or_null(field, &selected)).collect::<Result<Vec<_>>>()?;
    Ok(rows.select(columns)?)
}

/// Returns the declared columns of a table in their order; one that `rows` lacks is null: the table may be of an earlier version of
/// intentcast. Versions of one table have their columns in different orders, and rows of several are put together by position.
pub(crate) fn in_declared_order(rows: DataFrame, table: &str) -> Result<DataFrame> {
    let there: Vec<String> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
    let declared = table_schema(table)?;
    let names: Vec<&String> = declared.fields().iter().map(|field| field.name()).collect();
    if there.iter().eq(names.iter().copied()) {
        return Ok(rows);
    }
    let column = |field: &Arc<Field>| match there.contains(field.name()) {
        true => Ok(ident(field.name())),
        false => cast_or_null(field, &there),
    };
    let columns = declared.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    Ok(rows.select(columns)?)
}

fn cast_or_null(field: &Field, selected: &[String]) -> Result<Expr> {
    let value = match selected.contains(field.name()) {
        true => cast(ident(field.name()), field.data_type().clone()),
        false => lit(ScalarValue::try_from(field.data_type())?),
    };
    Ok(value.alias(field.name()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::SessionContext;
    use std::collections::BTreeSet;

    #[test]
    fn keys_name_columns_and_no_column_is_declared_twice() {
        for spec in specs() {
            let names: BTreeSet<&str> = spec.columns.iter().map(|column| column.name).collect();
            assert_eq!(names.len(), spec.columns.len(), "{}: a column is declared twice", spec.name);
            for column in spec.unique_sets().flatten() {
                assert!(names.contains(column), "{}: its key names {column}, which is no column", spec.name);
            }
            for column in spec.columns {
                assert!(!column.meaning.is_empty(), "{}.{} has no meaning", spec.name, column.name);
            }
        }
    }

    #[tokio::test]
    async fn rows_are_cast_ordered_and_completed() {
        let ctx = SessionContext::new();
        let rows = ctx.sql("SELECT CAST(1 AS BIGINT) AS rank, 'u' AS user_id, 2 AS score").await.unwrap();
        let conformed = conform(rows, "recommendation").unwrap().collect().await.unwrap();
        let types: Vec<_> = conformed[0].schema().fields().iter().map(|f| f.data_type().clone()).collect();
        assert_eq!(types, [DataType::Utf8, DataType::Int32, DataType::Utf8, DataType::Float64]);
        assert_eq!(conformed[0].column(2).null_count(), 1, "an item_id that was not selected is null");
    }

    #[tokio::test]
    async fn a_misspelt_column_is_refused() {
        let ctx = SessionContext::new();
        let rows = ctx.sql("SELECT 'u' AS user_id, 0.5 AS p_purchse").await.unwrap();
        let failure = conform(rows, "intent").unwrap_err();
        assert!(failure.message.contains("p_purchse"), "{failure}");
    }
}
