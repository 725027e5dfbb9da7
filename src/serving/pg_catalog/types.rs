//! Names of types that only PostgreSQL's clients use.

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast::DataType as SqlType;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::oid_type_planner::PgOidTypePlanner;
use std::sync::Arc;

/// Types of text and of numbers under PostgreSQL's internal names. The catalogue holds functions (`regproc`) by name.
const TEXT: [&str; 7] = ["regproc", "char", "name", "bpchar", "sql_identifier", "character_data", "yes_or_no"];
const NUMBERS: [&str; 3] = ["cardinal_number", "xid", "cid"];

/// Plans the types that clients name in queries of the catalogue.
#[derive(Debug)]
pub(super) struct ClientTypes;

impl TypePlanner for ClientTypes {
    fn plan_type_field(&self, sql_type: &SqlType) -> Result<Option<FieldRef>> {
        if let SqlType::Custom(name, arguments) = sql_type
            && arguments.is_empty()
            && let Some(last) = name.0.last()
        {
            let last = last.to_string().trim_matches('"').to_lowercase();
            if TEXT.contains(&last.as_str()) {
                return Ok(Some(Arc::new(Field::new("", DataType::Utf8, true))));
            }
            if NUMBERS.contains(&last.as_str()) {
                return Ok(Some(Arc::new(Field::new("", DataType::Int64, true))));
            }
        }
        PgOidTypePlanner.plan_type_field(sql_type)
    }
}
