//! Functions that clients call on the catalogue.

use arrow::array::{ArrayRef, AsArray, BooleanArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use datafusion::prelude::SessionContext;
use std::sync::Arc;

use super::names::VERSION;
use super::tables::{KnownTables, SETTINGS};
use crate::features::functions::{ANY_ARGUMENTS, Constant};

/// Registers all functions.
pub(super) fn register(ctx: &SessionContext, known: Arc<KnownTables>) {
    let text = |value: &str| ScalarValue::Utf8(Some(value.into()));
    let no_text = ScalarValue::Utf8(None);
    let version = format!("PostgreSQL {VERSION} (intentcast {})", env!("CARGO_PKG_VERSION"));
    ctx.register_udf(Constant::of_any_arguments("version", text(&version)).into());
    let all_visible = [
        "pg_function_is_visible",
        "pg_type_is_visible",
        "pg_operator_is_visible",
        "pg_opclass_is_visible",
        "pg_opfamily_is_visible",
        "pg_collation_is_visible",
        "pg_conversion_is_visible",
        "pg_statistics_obj_is_visible",
        "pg_ts_config_is_visible",
        "pg_ts_dict_is_visible",
        "pg_ts_parser_is_visible",
        "pg_ts_template_is_visible",
        "has_column_privilege",
        "has_function_privilege",
        "has_sequence_privilege",
        "has_tablespace_privilege",
        "has_type_privilege",
        "pg_has_role",
    ];
    for name in all_visible {
        ctx.register_udf(Constant::of_any_arguments(name, ScalarValue::Boolean(Some(true))).into());
    }
    for name in ["pg_is_in_recovery", "pg_is_other_temp_schema", "row_security_active"] {
        ctx.register_udf(Constant::of_any_arguments(name, ScalarValue::Boolean(Some(false))).into());
    }
    let unknown_text = [
        "pg_get_viewdef",
        "pg_get_indexdef",
        "pg_get_ruledef",
        "pg_get_triggerdef",
        "pg_get_functiondef",
        "pg_get_function_sqlbody",
        "pg_get_statisticsobjdef",
        "pg_get_serial_sequence",
        "pg_get_constraintdef",
        "pg_tablespace_location",
        "pg_size_pretty",
        "shobj_description",
        "to_regtype",
        "to_regclass",
        "to_regproc",
        "pg_my_temp_schema",
        "pg_client_encoding",
        "pg_char_to_encoding",
        "inet_server_addr",
        "pg_advisory_unlock_all",
        "age",
        "json_build_object",
    ];
    for name in unknown_text {
        ctx.register_udf(Constant::of_any_arguments(name, no_text.clone()).into());
    }
    for name in [
        "pg_database_size",
        "pg_table_size",
        "pg_indexes_size",
        "pg_relation_size",
        "pg_total_relation_size",
        "txid_current",
        "pg_backend_pid",
    ] {
        ctx.register_udf(Constant::of_any_arguments(name, ScalarValue::Int64(Some(0))).into());
    }
    let started = ScalarValue::TimestampMicrosecond(Some(chrono::Utc::now().timestamp_micros()), Some("UTC".into()));
    ctx.register_udf(Constant::of_any_arguments("pg_postmaster_start_time", started.clone()).into());
    ctx.register_udf(Constant::of_any_arguments("pg_conf_load_time", started).into());
    ctx.register_udf(CurrentSetting::new().into());
    ctx.register_udf(Constant::of_any_arguments("current_schema", text("tables")).into());
    let of_objects = ["obj_description", "col_description", "pg_table_is_visible"];
    for name in of_objects.into_iter().chain(ARGUMENTS).chain([RESULT]) {
        ctx.register_udf(OfObject::new(name, &known).into());
    }
}

const RESULT: &str = "pg_get_function_result";
const ARGUMENTS: [&str; 2] = ["pg_get_function_arguments", "pg_get_function_identity_arguments"];

/// `current_setting(name [, missing_ok])`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CurrentSetting {
    signature: Signature,
}

impl CurrentSetting {
    fn new() -> Self {
        Self { signature: Signature::one_of(ANY_ARGUMENTS.into(), Volatility::Stable) }
    }

    fn of(name: &str) -> Option<&'static str> {
        SETTINGS.iter().find(|(setting, _)| setting.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }
}

impl ScalarUDFImpl for CurrentSetting {
    fn name(&self) -> &str {
        "current_setting"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(names) = args.args.first() else { return Ok(ColumnarValue::Scalar(ScalarValue::Utf8(None))) };
        let names = cast(&names.to_array(args.number_rows)?, &DataType::Utf8)?;
        let values: StringArray = names.as_string::<i32>().iter().map(|name| Self::of(name?)).collect();
        Ok(ColumnarValue::Array(Arc::new(values)))
    }
}

/// `obj_description(oid [, catalog])`, `col_description(oid, column)`, `pg_table_is_visible(oid)`, and what the functions of an OID take and
/// return.
#[derive(Debug)]
struct OfObject {
    name: &'static str,
    known: Arc<KnownTables>,
    signature: Signature,
}

impl OfObject {
    fn new(name: &'static str, known: &Arc<KnownTables>) -> Self {
        Self { name, known: Arc::clone(known), signature: Signature::one_of(ANY_ARGUMENTS.into(), Volatility::Stable) }
    }
}

impl PartialEq for OfObject {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.known, &other.known)
    }
}

impl Eq for OfObject {}

impl std::hash::Hash for OfObject {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for OfObject {
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.name {
            "pg_table_is_visible" => DataType::Boolean,
            _ => DataType::Utf8,
        })
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let numbers = |at: usize| -> Result<Vec<Option<i64>>> {
            let Some(argument) = args.args.get(at) else { return Ok(vec![None; args.number_rows]) };
            let numbers = cast(&argument.to_array(args.number_rows)?, &DataType::Int64)?;
            Ok(numbers.as_primitive::<Int64Type>().iter().collect())
        };
        let oids = numbers(0)?;
        let values: ArrayRef = match self.name {
            "pg_table_is_visible" => {
                let visible = |oid: &Option<i64>| oid.map(|oid| !self.known.hidden.contains(&oid));
                Arc::new(oids.iter().map(visible).collect::<BooleanArray>())
            }
            RESULT => {
                let result =
                    |oid: &Option<i64>| self.known.signatures.get(&(*oid)?).map(|known| known.returns.as_str());
                Arc::new(oids.iter().map(result).collect::<StringArray>())
            }
            name if ARGUMENTS.contains(&name) => {
                let arguments =
                    |oid: &Option<i64>| self.known.signatures.get(&(*oid)?).map(|known| known.arguments.as_str());
                Arc::new(oids.iter().map(arguments).collect::<StringArray>())
            }
            name => {
                let columns = match name {
                    "col_description" => numbers(1)?,
                    _ => vec![Some(0); args.number_rows],
                };
                let comment = |(oid, column): (&Option<i64>, &Option<i64>)| {
                    self.known.comments.get(&((*oid)?, (*column)?)).map(String::as_str)
                };
                Arc::new(oids.iter().zip(&columns).map(comment).collect::<StringArray>())
            }
        };
        Ok(ColumnarValue::Array(values))
    }
}
