//! The columns that a lake's SQL declares for its raw files, and the comparison of a file's own schema with them.
//!
//! `sql/lakes/<name>/raw_<view>.sql` is one `CREATE TABLE` statement: NOT NULL marks a column that every file must have;
//! other columns are null in the rows of a file that lacks them; columns that are not declared are ignored.

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::prelude::SessionContext;
use datafusion::sql::{parser::DFParser, parser::Statement as DfStatement, sqlparser::ast::Statement};
use std::sync::Arc;

use crate::failure::{Failure, Result};

/// The hint of every message that refuses a file of the lake.
pub(crate) const FIX_FILE: &str = "fix or remove the file and rerun";

/// The columns as which the raw files of one view are read.
#[derive(Debug, Clone)]
pub(crate) struct Declared {
    pub(crate) schema: SchemaRef,
    pub(crate) required: Vec<String>,
}

impl Declared {
    /// Parses the SQL of a `raw_<view>.sql`. `place` names the file in messages.
    pub(crate) async fn parse(ctx: &SessionContext, place: &str, sql: &str) -> Result<Self> {
        let statement = DFParser::parse_sql(sql).map_err(|e| Failure::from(e).at(place))?.pop_front();
        let Some(DfStatement::Statement(inner)) = statement else {
            return Err(Failure::usage(format!("{place}: expected one CREATE TABLE statement")));
        };
        let Statement::CreateTable(table) = *inner else {
            return Err(Failure::usage(format!("{place}: expected one CREATE TABLE statement, got {inner}")));
        };
        let mut fields = Vec::new();
        for column in &table.columns {
            // The engine parses SQL types: plan a cast of null to the declared type.
            let probe = format!("SELECT CAST(NULL AS {}) AS probe", column.data_type);
            let plan = ctx.sql(&probe).await.map_err(|e| Failure::from(e).at(place))?;
            let data_type = plan.schema().field(0).data_type().clone();
            fields.push(Field::new(column.name.value.clone(), plain(data_type), true));
        }
        let required = table
            .columns
            .iter()
            .filter(|c| c.options.iter().any(|o| o.option.to_string() == "NOT NULL"))
            .map(|c| c.name.value.clone())
            .collect();
        Ok(Self { schema: Arc::new(Schema::new(fields)), required })
    }

    /// Refuses a file that lacks a required column or has a declared one in a type that does not convert.
    pub(crate) fn check(&self, file: &str, found: &Schema) -> Result<()> {
        for name in &self.required {
            if found.field_with_name(name).is_err() {
                let wanted = self.schema.field_with_name(name).map_err(Failure::bug)?.data_type();
                let has: Vec<_> = found.fields().iter().map(|f| f.name().as_str()).collect();
                return Err(Failure::input(format!(
                    "{file}: column {name} is missing: expected {wanted}, the file has {}",
                    has.join(", ")
                ))
                .hint(FIX_FILE));
            }
        }
        for field in self.schema.fields() {
            let Ok(file_field) = found.field_with_name(field.name()) else { continue };
            if !converts(file_field.data_type(), field.data_type()) {
                return Err(Failure::input(format!(
                    "{file}: column {}: expected {}, found {}",
                    field.name(),
                    field.data_type(),
                    file_field.data_type()
                ))
                .hint(FIX_FILE));
            }
        }
        Ok(())
    }
}

/// Returns the type without string and binary views.
fn plain(data_type: DataType) -> DataType {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        other => other,
    }
}

/// Returns whether a column of type `found` can be read as `wanted` without a change of meaning.
fn converts(found: &DataType, wanted: &DataType) -> bool {
    use DataType::*;
    let text = |t: &DataType| matches!(t, Utf8 | LargeUtf8 | Utf8View);
    match (found, wanted) {
        (Null, _) => true,
        (Dictionary(_, value), wanted) => converts(value, wanted),
        (f, w) if text(f) && text(w) => true,
        (Timestamp(_, _), Timestamp(_, _)) => true,
        (Date32 | Date64, Date32) => true,
        (Binary | LargeBinary | BinaryView, Binary) => true,
        (List(f) | LargeList(f) | FixedSizeList(f, _), List(w)) => converts(f.data_type(), w.data_type()),
        (f, w) if f.is_integer() && (w.is_integer() || w.is_floating() || matches!(w, Decimal128(..))) => true,
        (f, w) if f.is_floating() && w.is_floating() => true,
        (Decimal128(..) | Decimal64(..) | Decimal32(..), w) if w.is_floating() || matches!(w, Decimal128(..)) => true,
        (f, w) => f == w,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refusal_names_file_column_and_types() {
        let sql = "CREATE TABLE raw_events (ts TIMESTAMP NOT NULL, price DOUBLE, tags ARRAY<VARCHAR>)";
        let declared = Declared::parse(&SessionContext::new(), "x.sql", sql).await.unwrap();
        assert_eq!(declared.required, ["ts"]);
        let none = Schema::new(vec![Field::new("price", DataType::Int32, true)]);
        let refused = declared.check("s3://l/a.parquet", &none).unwrap_err();
        assert_eq!(refused.kind.exit_code(), 3);
        assert!(refused.message.contains("s3://l/a.parquet: column ts is missing: expected Timestamp("), "{refused}");
        assert!(refused.message.ends_with("the file has price"), "{refused}");
        let wrong = Schema::new(vec![Field::new("ts", DataType::Utf8, true)]);
        let refused = declared.check("a", &wrong).unwrap_err().message;
        assert!(refused.contains("column ts: expected Timestamp") && refused.contains("found Utf8"), "{refused}");
    }
}
