//! Names of types that only PostgreSQL's clients use.

use arrow::array::{AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::sql::sqlparser::ast::DataType as SqlType;
use datafusion_postgres::arrow_pg::datatypes::into_pg_type;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::oid_type_planner::PgOidTypePlanner;
use std::sync::Arc;

/// Types of text and of numbers under PostgreSQL's internal names. The catalogue holds functions (`regproc`) by name.
const TEXT: [&str; 7] = ["regproc", "char", "name", "bpchar", "sql_identifier", "character_data", "yes_or_no"];
const NUMBERS: [&str; 3] = ["cardinal_number", "xid", "cid"];

/// Returns a function from the name of an Arrow type to that of PostgreSQL's type: of the standard (`double precision`) or
/// PostgreSQL's own (`float8`). Tools tell times and numbers from texts by it.
pub(super) fn name_function(is_standard: bool) -> ScalarUDF {
    let name = if is_standard { "standard_type_name" } else { "internal_type_name" };
    let of = Arc::new(move |arguments: &[ColumnarValue]| {
        let names = ColumnarValue::values_to_arrays(arguments)?;
        let names = cast(&names[0], &DataType::Utf8)?;
        let named = |name: Option<&str>| Some(if is_standard { standard_name(name?) } else { internal_name(name?) });
        let named: StringArray = names.as_string::<i32>().iter().map(named).collect();
        Ok(ColumnarValue::Array(Arc::new(named)))
    });
    create_udf(name, vec![DataType::Utf8], DataType::Utf8, Volatility::Immutable, of)
}

fn internal_name(arrow: &str) -> String {
    let known = arrow.parse::<DataType>().ok().and_then(|known| into_pg_type(&known).ok());
    known.map_or_else(|| "text".into(), |known| known.name().into())
}

pub(super) fn standard_name(arrow: &str) -> String {
    let internal = internal_name(arrow);
    let standard = match internal.as_str() {
        "bool" => "boolean",
        "int2" => "smallint",
        "int4" => "integer",
        "int8" => "bigint",
        "float4" => "real",
        "float8" => "double precision",
        "timestamp" => "timestamp without time zone",
        "timestamptz" => "timestamp with time zone",
        "time" => "time without time zone",
        "varchar" => "character varying",
        array if array.starts_with('_') => "ARRAY",
        _ => return internal,
    };
    standard.into()
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::TimeUnit;

    #[test]
    fn columns_have_the_types_that_clients_know() {
        let names = |arrow: DataType| (standard_name(&arrow.to_string()), internal_name(&arrow.to_string()));
        let expected = |standard: &str, internal: &str| (standard.to_string(), internal.to_string());
        assert_eq!(names(DataType::Utf8), expected("text", "text"));
        assert_eq!(names(DataType::Utf8View), expected("text", "text"));
        assert_eq!(names(DataType::Float64), expected("double precision", "float8"));
        assert_eq!(names(DataType::Int32), expected("integer", "int4"));
        assert_eq!(names(DataType::Boolean), expected("boolean", "bool"));
        assert_eq!(names(DataType::Date32), expected("date", "date"));
        assert_eq!(names(DataType::Decimal128(18, 4)), expected("numeric", "numeric"));
        let at = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
        assert_eq!(names(at(Some("UTC"))), expected("timestamp with time zone", "timestamptz"));
        assert_eq!(names(at(None)), expected("timestamp without time zone", "timestamp"));
        assert_eq!(names(DataType::new_list(DataType::Float32, true)), expected("ARRAY", "_float4"));
        // A type that the parser of names does not read is shown as a text.
        assert_eq!(standard_name("?"), "text");
    }
}
