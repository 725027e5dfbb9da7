//! Tables and columns that clients name.

use arrow::array::{ArrayRef, AsArray, Int32Array, RecordBatch, StringArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int16Type, Int32Type, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::information_schema::InformationSchemaProvider;
use datafusion::catalog::{MemTable, SchemaProvider, TableProvider};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ident, lit};
use datafusion::prelude::{Expr, SessionContext};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use super::names::{INFORMATION_SCHEMA, PG_CATALOG, SEARCH_PATH, VERSION};
use super::types;
use crate::engine::schemas::CATALOG;
use crate::failure::{self, Failure};
use crate::workspace::descriptions::{self, Descriptions};

/// OID of `pg_class` in PostgreSQL, by which comments say that they are on a table.
const PG_CLASS_OID: i32 = 1259;

/// Tables of `pg_catalog` that never have a row here, with their columns; `:i` is an integer, `:b` a boolean, `:a` a list of texts, others are text.
const EMPTY_IN_PG_CATALOG: [(&str, &[&str]); 10] = [
    (
        "pg_user",
        &[
            "usename",
            "usesysid:i",
            "usecreatedb:b",
            "usesuper:b",
            "userepl:b",
            "usebypassrls:b",
            "passwd",
            "valuntil",
            "useconfig",
        ],
    ),
    ("pg_shadow", &["usename", "usesysid:i", "usesuper:b", "passwd"]),
    ("pg_group", &["groname", "grosysid:i", "grolist"]),
    (
        "pg_stat_activity",
        &[
            "datid:i",
            "datname",
            "pid:i",
            "usesysid:i",
            "usename",
            "application_name",
            "client_addr",
            "client_hostname",
            "client_port:i",
            "backend_start",
            "xact_start",
            "query_start",
            "state_change",
            "wait_event_type",
            "wait_event",
            "state",
            "backend_xid",
            "backend_xmin",
            "query",
            "backend_type",
            "leader_pid:i",
            "query_id:i",
        ],
    ),
    (
        "pg_locks",
        &[
            "locktype",
            "database:i",
            "relation:i",
            "page:i",
            "tuple:i",
            "virtualxid",
            "transactionid",
            "classid:i",
            "objid:i",
            "objsubid:i",
            "virtualtransaction",
            "pid:i",
            "mode",
            "granted:b",
            "fastpath:b",
            "waitstart",
        ],
    ),
    ("pg_policies", &["schemaname", "tablename", "policyname", "permissive", "roles", "cmd", "qual", "with_check"]),
    ("pg_prepared_xacts", &["transaction", "gid", "prepared", "owner", "database"]),
    ("pg_available_extensions", &["name", "default_version", "installed_version", "comment"]),
    ("pg_timezone_names", &["name", "abbrev", "utc_offset", "is_dst:b"]),
    ("pg_indexes", &["schemaname", "tablename", "indexname", "tablespace", "indexdef"]),
];

/// Tables of `information_schema` that never have a row here.
const EMPTY_IN_INFORMATION_SCHEMA: [(&str, &[&str]); 8] = [
    (
        "table_constraints",
        &[
            "constraint_catalog",
            "constraint_schema",
            "constraint_name",
            "table_catalog",
            "table_schema",
            "table_name",
            "constraint_type",
            "is_deferrable",
            "initially_deferred",
            "enforced",
        ],
    ),
    (
        "key_column_usage",
        &[
            "constraint_catalog",
            "constraint_schema",
            "constraint_name",
            "table_catalog",
            "table_schema",
            "table_name",
            "column_name",
            "ordinal_position:i",
            "position_in_unique_constraint:i",
        ],
    ),
    (
        "referential_constraints",
        &[
            "constraint_catalog",
            "constraint_schema",
            "constraint_name",
            "unique_constraint_catalog",
            "unique_constraint_schema",
            "unique_constraint_name",
            "match_option",
            "update_rule",
            "delete_rule",
        ],
    ),
    (
        "constraint_column_usage",
        &[
            "table_catalog",
            "table_schema",
            "table_name",
            "column_name",
            "constraint_catalog",
            "constraint_schema",
            "constraint_name",
        ],
    ),
    ("check_constraints", &["constraint_catalog", "constraint_schema", "constraint_name", "check_clause"]),
    (
        "triggers",
        &[
            "trigger_catalog",
            "trigger_schema",
            "trigger_name",
            "event_manipulation",
            "event_object_catalog",
            "event_object_schema",
            "event_object_table",
            "action_order:i",
            "action_condition",
            "action_statement",
            "action_orientation",
            "action_timing",
        ],
    ),
    (
        "sequences",
        &[
            "sequence_catalog",
            "sequence_schema",
            "sequence_name",
            "data_type",
            "start_value",
            "minimum_value",
            "maximum_value",
            "increment",
        ],
    ),
    (
        "character_sets",
        &[
            "character_set_catalog",
            "character_set_schema",
            "character_set_name",
            "character_repertoire",
            "form_of_use",
            "default_collate_catalog",
            "default_collate_schema",
            "default_collate_name",
        ],
    ),
];

/// Settings that clients look up.
pub(super) const SETTINGS: [(&str, &str); 11] = [
    ("server_version", VERSION),
    ("server_version_num", "160006"),
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("standard_conforming_strings", "on"),
    ("default_transaction_read_only", "on"),
    ("transaction_read_only", "on"),
    ("search_path", SEARCH_PATH),
    ("max_index_keys", "32"),
    ("max_identifier_length", "63"),
    ("TimeZone", "UTC"),
];

/// An OID beyond those of PostgreSQL's own functions.
const FIRST_FUNCTION_OID: i32 = 100_000;

/// Columns that a table of `pg_catalog` lacks.
const MORE_IN_PG_CATALOG: [(&str, &[&str]); 5] = [
    ("pg_class", &["relacl:a", "reloptions:a"]),
    ("pg_attribute", &["attacl", "attmissingval"]),
    ("pg_settings", &["boot_val", "reset_val", "enumvals", "sourcefile", "sourceline:i", "pending_restart:b"]),
    ("pg_database", &["datlocprovider", "daticulocale", "datcollversion"]),
    ("pg_collation", &["colliculocale"]),
];

/// Columns that every table of PostgreSQL has.
const SYSTEM_COLUMNS: [&str; 3] = ["xmin:i", "ctid", "tableoid:i"];

/// Columns that the views of `information_schema` lack.
const MORE_IN_INFORMATION_SCHEMA: [(&str, &[&str]); 2] = [
    (
        "columns",
        &[
            "udt_catalog",
            "udt_schema",
            "udt_name",
            "is_identity",
            "identity_generation",
            "is_generated",
            "generation_expression",
            "is_updatable",
            "domain_name",
            "domain_schema",
            "collation_name",
            "collation_schema",
            "character_set_name",
        ],
    ),
    ("views", &["check_option", "is_updatable", "is_insertable_into"]),
];

/// The column of `information_schema.columns` that names a column's Arrow type.
const ARROW_TYPE: &str = "data_type";

/// Puts wider schemas in place of those that are there.
pub(super) fn install(ctx: &SessionContext) -> failure::Result<()> {
    let missing = || Failure::bug("the session has no catalogue");
    let catalog = ctx.catalog(CATALOG).ok_or_else(missing)?;
    let pg_catalog = catalog.schema(PG_CATALOG).ok_or_else(missing)?;
    let wider = WiderSchema {
        inner: pg_catalog,
        empty: &EMPTY_IN_PG_CATALOG,
        more: &MORE_IN_PG_CATALOG,
        of_all: &SYSTEM_COLUMNS,
        filled: RwLock::default(),
    };
    catalog.register_schema(PG_CATALOG, Arc::new(wider))?;
    let state = ctx.state();
    let wider = WiderSchema {
        inner: Arc::new(InformationSchemaProvider::new(Arc::clone(state.catalog_list()))),
        empty: &EMPTY_IN_INFORMATION_SCHEMA,
        more: &MORE_IN_INFORMATION_SCHEMA,
        of_all: &[],
        filled: RwLock::default(),
    };
    catalog.register_schema(INFORMATION_SCHEMA, Arc::new(wider))?;
    Ok(())
}

/// Comments and visibility of tables by their OIDs.
#[derive(Debug, Default)]
pub(super) struct KnownTables {
    /// Comments by the OID of a table and the number of a column; 0 is the table itself.
    pub(super) comments: HashMap<(i64, i64), String>,
    /// Tables that a bare name doesn't find.
    pub(super) hidden: HashSet<i64>,
    /// OID of the schema of the published tables, in which functions are shown.
    schema: Option<i32>,
    /// Arguments and results of functions, by OID.
    pub(super) signatures: HashMap<i64, Signature>,
}

/// Arguments and result of a function, in words.
#[derive(Debug, Clone)]
pub(super) struct Signature {
    pub(super) arguments: String,
    pub(super) returns: String,
}

/// Fills the tables that this server answers itself: comments, functions and settings.
pub(super) async fn fill(
    ctx: &SessionContext,
    functions: &[Function],
    descriptions: &Descriptions,
) -> failure::Result<KnownTables> {
    let mut known = read_tables(ctx, descriptions).await?;
    known.signatures = signatures(functions);
    let Some(schema) = ctx.catalog(CATALOG).and_then(|catalog| catalog.schema(PG_CATALOG)) else { return Ok(known) };
    schema.register_table("pg_description".into(), in_memory(comments(&known)?)?)?;
    schema.register_table("pg_settings".into(), in_memory(settings()?)?)?;
    if let Some(procedures) = schema.table("pg_proc").await? {
        let ours = in_memory(procedures_of(&procedures.schema(), functions, known.schema)?)?;
        let reader = SessionContext::new();
        let all = reader.read_table(procedures)?.union(reader.read_table(ours)?)?;
        schema.register_table("pg_proc".into(), all.into_view())?;
    }
    Ok(known)
}

fn in_memory(batch: RecordBatch) -> Result<Arc<MemTable>> {
    Ok(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?))
}

/// Reads the OIDs of the columns of all tables, and finds the comments on them.
async fn read_tables(ctx: &SessionContext, descriptions: &Descriptions) -> failure::Result<KnownTables> {
    let query = "SELECT c.oid, n.nspname, c.relname, a.attname, a.attnum, n.oid FROM pg_catalog.pg_class AS c \
         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid \
         WHERE n.nspname <> 'pg_catalog'";
    let mut known = KnownTables::default();
    for batch in ctx.sql(query).await?.collect().await? {
        let oids = batch.column(0).as_primitive::<Int32Type>();
        let texts = [1, 2, 3].map(|column| batch.column(column).as_string::<i32>());
        let numbers = batch.column(4).as_primitive::<Int16Type>();
        for row in 0..batch.num_rows() {
            let (oid, [schema, table, column]) = (i64::from(oids.value(row)), texts.map(|values| values.value(row)));
            if schema == INFORMATION_SCHEMA {
                known.hidden.insert(oid);
                continue;
            }
            if schema == "tables" {
                known.schema = Some(batch.column(5).as_primitive::<Int32Type>().value(row));
            }
            let Some(described) = descriptions.get(table) else { continue };
            if let Some(comment) = &described.table {
                known.comments.insert((oid, 0), comment.clone());
            }
            if let Some(comment) = described.columns.get(column) {
                known.comments.insert((oid, i64::from(numbers.value(row))), comment.clone());
            }
        }
    }
    Ok(known)
}

/// Returns the rows of `pg_description`.
fn comments(known: &KnownTables) -> failure::Result<RecordBatch> {
    let mut sorted: Vec<(&(i64, i64), &String)> = known.comments.iter().collect();
    sorted.sort();
    let number = |number: i64| i32::try_from(number).ok();
    let oids: Int32Array = sorted.iter().map(|((oid, _), _)| number(*oid)).collect();
    let columns: Int32Array = sorted.iter().map(|((_, column), _)| number(*column)).collect();
    let classes: Int32Array = sorted.iter().map(|_| Some(PG_CLASS_OID)).collect();
    let texts: StringArray = sorted.iter().map(|(_, comment)| Some(comment.as_str())).collect();
    let arrays: [(&str, ArrayRef); 4] = [
        ("objoid", Arc::new(oids)),
        ("classoid", Arc::new(classes)),
        ("objsubid", Arc::new(columns)),
        ("description", Arc::new(texts)),
    ];
    Ok(RecordBatch::try_from_iter(arrays)?)
}

/// Returns the rows of `pg_settings`.
fn settings() -> failure::Result<RecordBatch> {
    let known = SETTINGS.map(|(name, _)| Some(name));
    let values = SETTINGS.map(|(_, value)| Some(value));
    let column = |values: &[Option<&str>]| -> ArrayRef { Arc::new(values.iter().copied().collect::<StringArray>()) };
    let mut columns = vec![("name", column(&known)), ("setting", column(&values))];
    for name in ["boot_val", "reset_val"] {
        columns.push((name, column(&values)));
    }
    for (name, value) in
        [("context", "internal"), ("vartype", "string"), ("source", "default"), ("category", ""), ("short_desc", "")]
    {
        columns.push((name, column(&[Some(value); SETTINGS.len()])));
    }
    for name in ["unit", "extra_desc", "min_val", "max_val"] {
        columns.push((name, column(&[None; SETTINGS.len()])));
    }
    Ok(RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, values)| (name, values, true)))?)
}

/// A function that clients list.
pub(super) struct Function {
    name: String,
    signature: Option<Signature>,
}

/// Returns the functions of a session that DataFusion does not have, by name: scalar, aggregate and table functions. Arguments and
/// results are those of the docs; a value of the session says its type.
pub(super) fn functions_of(ctx: &SessionContext) -> Vec<Function> {
    let (state, plain) = (ctx.state(), SessionContext::new().state());
    let mut documented: HashMap<String, Signature> = descriptions::functions()
        .into_iter()
        .filter_map(|(call, returns)| {
            let (name, arguments) = call.split_once('(')?;
            let returns = returns.split([';', ',', ':']).next().unwrap_or_default().into();
            Some((name.to_string(), Signature { arguments: arguments.trim_end_matches(')').into(), returns }))
        })
        .collect();
    let of_session = |name: &str| {
        let type_of = state.scalar_functions().get(name)?.return_type(&[]).ok()?;
        Some(Signature { arguments: String::new(), returns: types::standard_name(&type_of.to_string()) })
    };
    let names: BTreeSet<&String> =
        (state.scalar_functions().keys().filter(|name| !plain.scalar_functions().contains_key(*name)))
            .chain(state.aggregate_functions().keys().filter(|name| !plain.aggregate_functions().contains_key(*name)))
            .chain(state.table_functions().keys().filter(|name| !plain.table_functions().contains_key(*name)))
            .collect();
    let function = |name: &String| Function {
        signature: documented.remove(name).or_else(|| of_session(name)),
        name: name.clone(),
    };
    names.into_iter().map(function).collect()
}

fn signatures(functions: &[Function]) -> HashMap<i64, Signature> {
    let numbered = functions.iter().zip(i64::from(FIRST_FUNCTION_OID)..);
    numbered.filter_map(|(function, oid)| Some((oid, function.signature.clone()?))).collect()
}

/// Returns rows of `pg_proc` for functions that DataFusion does not have.
fn procedures_of(schema: &SchemaRef, functions: &[Function], oid: Option<i32>) -> failure::Result<RecordBatch> {
    let number = |position: usize| i32::try_from(position).unwrap_or_default();
    let columns = schema.fields().iter().map(|field| -> failure::Result<ArrayRef> {
        let values: ArrayRef = match field.name().as_str() {
            "oid" => {
                Arc::new((0..functions.len()).map(|at| Some(FIRST_FUNCTION_OID + number(at))).collect::<Int32Array>())
            }
            "proname" => {
                Arc::new(functions.iter().map(|function| Some(function.name.as_str())).collect::<StringArray>())
            }
            // A schema that clients list, unlike pg_catalog.
            "pronamespace" => Arc::new(functions.iter().map(|_| oid).collect::<Int32Array>()),
            "prokind" => Arc::new(functions.iter().map(|_| Some("f")).collect::<StringArray>()),
            _ => return Ok(new_null_array(field.data_type(), functions.len())),
        };
        Ok(cast(&values, field.data_type())?)
    });
    let fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.collect::<failure::Result<Vec<_>>>()?)?)
}

/// A schema with more tables and columns than another one.
#[derive(Debug)]
struct WiderSchema {
    inner: Arc<dyn SchemaProvider>,
    empty: &'static [(&'static str, &'static [&'static str])],
    more: &'static [(&'static str, &'static [&'static str])],
    /// Columns that all tables get.
    of_all: &'static [&'static str],
    /// Tables in place of those of the other schema.
    filled: RwLock<HashMap<String, Arc<dyn TableProvider>>>,
}

impl WiderSchema {
    fn empty_table(&self, name: &str) -> Option<SchemaRef> {
        let (_, columns) = self.empty.iter().find(|(table, _)| *table == name)?;
        Some(Arc::new(Schema::new(columns.iter().map(|column| field(column)).collect::<Vec<_>>())))
    }
}

#[async_trait]
impl SchemaProvider for WiderSchema {
    fn table_names(&self) -> Vec<String> {
        let mut names: BTreeSet<String> = self.inner.table_names().into_iter().collect();
        names.extend(self.empty.iter().map(|(name, _)| (*name).to_string()));
        names.into_iter().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let name = name.to_lowercase();
        let filled = self.filled.read().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
        let table: Arc<dyn TableProvider> = match (filled, self.empty_table(&name)) {
            (Some(filled), _) => filled,
            (None, Some(schema)) => Arc::new(MemTable::try_new(schema, vec![vec![]])?),
            (None, None) => match self.inner.table(&name).await? {
                Some(table) => table,
                None => return Ok(None),
            },
        };
        let known = table.schema();
        let more = self.more.iter().filter(|(table, _)| *table == name).flat_map(|(_, columns)| columns.iter());
        let more: Vec<Field> = more.chain(self.of_all).map(|column| field(column)).collect();
        let more = more.iter().filter(|field| known.column_with_name(field.name()).is_none());
        let mut columns: Vec<Expr> = known.fields().iter().map(|field| ident(field.name())).collect();
        for field in more {
            columns.push(lit(ScalarValue::try_from(field.data_type())?).alias(field.name()));
        }
        if name == "columns" {
            let types = |is_standard: bool| types::name_function(is_standard).call(vec![ident(ARROW_TYPE)]);
            for column in &mut columns {
                let (_, named) = column.qualified_name();
                *column = match named.as_str() {
                    ARROW_TYPE => types(true).alias(named),
                    "udt_name" => types(false).alias(named),
                    _ => continue,
                };
            }
        }
        if columns.len() == known.fields().len() {
            return Ok(Some(table));
        }
        Ok(Some(SessionContext::new().read_table(table)?.select(columns)?.into_view()))
    }

    /// Takes a table in place of one that is there.
    fn register_table(&self, name: String, table: Arc<dyn TableProvider>) -> Result<Option<Arc<dyn TableProvider>>> {
        Ok(self.filled.write().unwrap_or_else(PoisonError::into_inner).insert(name, table))
    }

    fn table_exist(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        self.inner.table_exist(&name) || self.empty.iter().any(|(table, _)| *table == name)
    }
}

/// Parses `name`, `name:i`, `name:b` or `name:a`.
fn field(column: &str) -> Field {
    match column.split_once(':') {
        Some((name, "i")) => Field::new(name, DataType::Int64, true),
        Some((name, "a")) => Field::new_list(name, Field::new_list_field(DataType::Utf8, true), true),
        Some((name, _)) => Field::new(name, DataType::Boolean, true),
        None => Field::new(column, DataType::Utf8, true),
    }
}
