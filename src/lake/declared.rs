//! The columns that a lake's SQL declares for its raw files, and the comparison of a file's own schema with them.
//!
//! `sql/lakes/<name>/raw_<view>.sql` is one `CREATE TABLE` statement: NOT NULL marks a column that every file must have;
//! other columns are null in the rows of a file that lacks them; columns that are not declared are ignored. `LOCATION 'folder'`
//! names the folder below the lake in which the files are, if it is not called like the view. REFERENCES users marks a column that
//! holds users' ids; `user_id` and `canonical_user_id` do without it.

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::{DFParser, Statement as DfStatement};
use datafusion::sql::sqlparser::ast::{ArrayElemTypeDef, ColumnDef, DataType as SqlType, Statement};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;

use super::file_columns::{Conversion, FileColumn};
use super::files_table::ListedFile;
use super::partitions::value_in_folders;
use super::raw_tables::folder_below_lake;
use crate::failure::{Failure, Result};

/// The hint of messages that refuse a damaged file of the lake.
pub(crate) const FIX_FILE: &str = "write the file again, or move it out of the lake's folder, then rerun";

/// Columns that hold users' ids without saying so.
const USER_COLUMNS: [&str; 2] = ["user_id", "canonical_user_id"];

/// Declared columns of one view's raw files.
#[derive(Debug, Clone)]
pub(crate) struct Declared {
    pub(crate) schema: SchemaRef,
    pub(crate) required: Vec<String>,
    /// Columns that hold users' ids.
    pub(crate) of_users: Vec<String>,
    /// The folder below the lake that LOCATION names.
    pub(super) location: Option<String>,
    /// The file that declares them, and the one that makes the view from them, below sql/.
    place: String,
    view_place: String,
}

impl Declared {
    /// Parses the SQL of a `raw_<view>.sql`. `place` names the file in messages, `view_place` that of the view.
    pub(crate) async fn parse(ctx: &SessionContext, place: &str, view_place: &str, sql: &str) -> Result<Self> {
        let statement = DFParser::parse_sql(sql).map_err(|e| Failure::from(e).at(place))?.pop_front();
        let Some(DfStatement::Statement(inner)) = statement else {
            return Err(Failure::usage(format!("{place}: expected one CREATE TABLE statement")));
        };
        let Statement::CreateTable(table) = *inner else {
            return Err(Failure::usage(format!("{place}: expected one CREATE TABLE statement, got {inner}")));
        };
        let mut fields = Vec::new();
        for column in &table.columns {
            let data_type = arrow_type(ctx, &column.data_type).await.map_err(|f| f.at(place))?;
            fields.push(Field::new(column.name.value.clone(), plain(data_type), true));
        }
        let named = |holds: &dyn Fn(&&ColumnDef) -> bool| -> Vec<String> {
            table.columns.iter().filter(|column| holds(column)).map(|column| column.name.value.clone()).collect()
        };
        let required = named(&|column| has_option(column, "NOT NULL"));
        let of_users = named(&|column| {
            USER_COLUMNS.contains(&column.name.value.as_str()) || has_option(column, "REFERENCES users")
        });
        let by_format = table.hive_formats.as_ref().and_then(|format| format.location.as_deref());
        let location = table.location.as_deref().or(by_format).map(|l| folder_below_lake(place, l)).transpose()?;
        let (place, view_place) = (place.into(), view_place.into());
        Ok(Self { schema: Arc::new(Schema::new(fields)), required, of_users, location, place, view_place })
    }

    /// The file that declares the columns, for messages.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// Compares a file's columns with the declared ones. Returns those that the file has under a name of another case or in a
    /// type that needs a conversion of ours, and those that only its folders name; refuses a file that lacks a required column,
    /// has a declared one twice, or in a type that does not convert.
    pub(crate) fn check(&self, listed: &ListedFile, found: &ParquetColumns) -> Result<Vec<FileColumn>> {
        let file = listed.name.as_str();
        let folder_values = listed.folder_values.as_deref().map_or(&[][..], Vec::as_slice);
        let mut columns = Vec::new();
        for field in self.schema.fields() {
            let same: Vec<&Arc<Field>> = found
                .schema
                .fields()
                .iter()
                .filter(|f| f.name().to_lowercase() == field.name().to_lowercase())
                .collect();
            let in_file = match same[..] {
                [] => {
                    match value_in_folders(file, field, folder_values, listed.dt)? {
                        Some(_) => columns.push(FileColumn::from_folder(field.name())),
                        None => self.refuse_missing(file, field, found)?,
                    }
                    continue;
                }
                [one] => one,
                _ => {
                    let names: Vec<&str> = same.iter().map(|f| f.name().as_str()).collect();
                    return Err(Failure::input(format!(
                        "{file}: column {}: expected once, found {} times ({})",
                        field.name(),
                        names.len(),
                        names.join(", ")
                    ))
                    .hint(FIX_FILE));
                }
            };
            let conversion = match found.convert(in_file, field.data_type()) {
                Some(conversion) => Some(conversion),
                None if converts(in_file.data_type(), field.data_type()) => None,
                None => return Err(self.wrong_type(file, field, in_file.data_type())),
            };
            if conversion.is_some() || in_file.name() != field.name() {
                columns.push(FileColumn { name: field.name().clone(), in_file: in_file.name().clone(), conversion });
            }
        }
        Ok(columns)
    }

    /// Refuses a file without a required column.
    fn refuse_missing(&self, file: &str, field: &Field, found: &ParquetColumns) -> Result<()> {
        let name = field.name();
        if !self.required.contains(name) {
            return Ok(());
        }
        let has: Vec<_> = found.schema.fields().iter().map(|f| f.name().as_str()).collect();
        Err(Failure::input(format!(
            "{file}: column {name} is missing: expected {}, the file has {}",
            field.data_type(),
            has.join(", ")
        ))
        .hint(format!(
            "if the lake calls it otherwise, declare that name in your own copy of {} below sql.folder, and rename it in \
             that of {}; docs/howto/lake.md shows how",
            below_sql(&self.place),
            below_sql(&self.view_place)
        )))
    }

    fn wrong_type(&self, file: &str, field: &Field, found: &DataType) -> Failure {
        let name = field.name();
        Failure::input(format!("{file}: column {name}: expected {}, found {found}", field.data_type())).hint(format!(
            "in your own copies of two files, {} and {} below sql.folder, declare the column as it is, `{name} {}`, and \
             select `{} AS {name}`; docs/howto/lake.md shows how",
            below_sql(&self.place),
            below_sql(&self.view_place),
            sql_type(found),
            cast_of(name, found, field.data_type())
        ))
    }
}

fn has_option(column: &ColumnDef, option: &str) -> bool {
    column.options.iter().any(|found| found.option.to_string().eq_ignore_ascii_case(option))
}

/// The columns of a Parquet file.
#[derive(Debug)]
pub struct ParquetColumns {
    pub schema: Schema,
    /// Names of columns that the file marks as UUIDs.
    pub uuids: Vec<String>,
}

impl ParquetColumns {
    /// Returns the conversion of ours from a column of the file to a declared type, where the engine's cast is not enough.
    fn convert(&self, found: &Field, wanted: &DataType) -> Option<Conversion> {
        match (found.data_type(), wanted) {
            (DataType::FixedSizeBinary(16), DataType::Utf8) if self.uuids.contains(found.name()) => {
                Some(Conversion::UuidText)
            }
            (
                DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond, _),
                DataType::Timestamp(TimeUnit::Microsecond, None),
            ) => Some(Conversion::Microseconds(found.data_type().clone())),
            _ => None,
        }
    }
}

/// Returns the type of a declared column. The engine parses all SQL types but maps.
fn arrow_type<'a>(ctx: &'a SessionContext, declared: &'a SqlType) -> BoxFuture<'a, Result<DataType>> {
    async move {
        let element = |data_type| Arc::new(Field::new_list_field(data_type, true));
        match declared {
            SqlType::Map(key, value) => {
                let key = Field::new("key", arrow_type(ctx, key).await?, false);
                let value = Field::new("value", arrow_type(ctx, value).await?, true);
                let entries = DataType::Struct(vec![key, value].into());
                Ok(DataType::Map(Arc::new(Field::new("key_value", entries, false)), false))
            }
            SqlType::Array(ArrayElemTypeDef::AngleBracket(inner)) => {
                Ok(DataType::List(element(arrow_type(ctx, inner).await?)))
            }
            SqlType::Struct(fields, _) if fields.iter().all(|field| field.field_name.is_some()) => {
                let mut inner = Vec::new();
                for field in fields {
                    let name = field.field_name.as_ref().map_or("", |name| name.value.as_str());
                    inner.push(Field::new(name, arrow_type(ctx, &field.field_type).await?, true));
                }
                Ok(DataType::Struct(inner.into()))
            }
            // Plan a cast of null to the declared type.
            other => {
                let plan = ctx.sql(&format!("SELECT CAST(NULL AS {other}) AS probe")).await?;
                Ok(plan.schema().field(0).data_type().clone())
            }
        }
    }
    .boxed()
}

fn below_sql(place: &str) -> &str {
    place.strip_prefix("sql/").unwrap_or(place)
}

/// Returns how SQL declares a column of a type.
fn sql_type(data_type: &DataType) -> String {
    use DataType::*;
    match data_type {
        Utf8 | LargeUtf8 | Utf8View => "VARCHAR".into(),
        Dictionary(_, value) => sql_type(value),
        t if t.is_integer() => "BIGINT".into(),
        t if t.is_floating() => "DOUBLE".into(),
        Decimal32(p, s) | Decimal64(p, s) | Decimal128(p, s) => format!("DECIMAL({p}, {s})"),
        Timestamp(_, _) => "TIMESTAMP(6)".into(),
        Date32 | Date64 => "DATE".into(),
        Binary | LargeBinary | BinaryView | FixedSizeBinary(_) => "BYTEA".into(),
        List(f) | LargeList(f) | FixedSizeList(f, _) => format!("ARRAY<{}>", sql_type(f.data_type())),
        Struct(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|f| format!("{} {}", f.name(), sql_type(f.data_type()))).collect();
            format!("STRUCT<{}>", fields.join(", "))
        }
        other => other.to_string().to_uppercase(),
    }
}

/// Returns SQL that converts a column of type `found` to the canonical type.
pub(super) fn cast_of(name: &str, found: &DataType, wanted: &DataType) -> String {
    match wanted {
        DataType::Timestamp(..) if found.is_integer() => format!("to_timestamp_millis({name})"),
        // Data frames write whole numbers with gaps as floats, with NaN in the gaps.
        wanted if wanted.is_integer() && found.is_floating() => {
            format!("CAST(nullif({name}, 'NaN') AS {})", sql_type(wanted))
        }
        wanted => format!("CAST({name} AS {})", sql_type(wanted)),
    }
}

/// Returns the type without string and binary views.
fn plain(data_type: DataType) -> DataType {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::List(field) => DataType::List(plain_field(&field)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain_field).collect()),
        DataType::Map(entries, sorted) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                let key = fields[0].as_ref().clone().with_data_type(plain(fields[0].data_type().clone()));
                let entry = DataType::Struct(vec![Arc::new(key), plain_field(&fields[1])].into());
                DataType::Map(Arc::new(Field::new(entries.name(), entry, false)), sorted)
            }
            _ => DataType::Map(entries, sorted),
        },
        other => other,
    }
}

fn plain_field(field: &Arc<Field>) -> Arc<Field> {
    Arc::new(Field::new(field.name(), plain(field.data_type().clone()), true))
}

/// Returns whether a column of type `found` can be read as `wanted` without a change of meaning.
pub(super) fn converts(found: &DataType, wanted: &DataType) -> bool {
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
        // Ids are text; writers have them as numbers too. A warehouse exports whole numbers as decimals.
        (f, Utf8) if f.is_integer() => true,
        (Decimal128(_, 0) | Decimal64(_, 0) | Decimal32(_, 0), w) if w.is_integer() || *w == Utf8 => true,
        (Map(f, _), Map(w, _)) => match (f.data_type(), w.data_type()) {
            (Struct(f), Struct(w)) if f.len() == 2 && w.len() == 2 => {
                f.iter().zip(w).all(|(f, w)| converts(f.data_type(), w.data_type()))
            }
            _ => false,
        },
        (Struct(found), Struct(wanted)) => wanted.iter().all(|field| {
            let same = found.iter().find(|f| f.name() == field.name());
            same.is_none_or(|f| converts(f.data_type(), field.data_type()))
        }),
        (f, w) if f.is_integer() && (w.is_integer() || w.is_floating() || matches!(w, Decimal128(..))) => true,
        (f, w) if f.is_floating() && w.is_floating() => true,
        (Decimal128(..) | Decimal64(..) | Decimal32(..), w) if w.is_floating() || matches!(w, Decimal128(..)) => true,
        (f, w) => f == w,
    }
}

#[cfg(test)]
mod tests {
    use super::super::partitions::folder_values;
    use super::*;

    async fn declared(columns: &str) -> Declared {
        let sql = format!("CREATE TABLE raw_events ({columns})");
        Declared::parse(&SessionContext::new(), "lakes/x/raw_events.sql", "lakes/x/events.sql", &sql).await.unwrap()
    }

    fn listed(name: &str) -> ListedFile {
        let meta = object_store::ObjectMeta {
            location: name.into(),
            last_modified: chrono::DateTime::UNIX_EPOCH,
            size: 0,
            e_tag: None,
            version: None,
        };
        ListedFile { meta, name: name.into(), dt: None, columns: None, folder_values: None }
    }

    fn file(columns: &[(&str, DataType)]) -> ParquetColumns {
        let fields: Vec<Field> = columns.iter().map(|(name, t)| Field::new(*name, t.clone(), true)).collect();
        ParquetColumns { schema: Schema::new(fields), uuids: Vec::new() }
    }

    #[tokio::test]
    async fn a_refusal_names_file_column_and_types() {
        let declared = declared("ts TIMESTAMP NOT NULL, price DOUBLE, tags ARRAY<VARCHAR>").await;
        assert_eq!(declared.required, ["ts"]);
        let refused = declared.check(&listed("s3://l/a.parquet"), &file(&[("price", DataType::Int32)])).unwrap_err();
        assert_eq!(refused.kind.exit_code(), 3);
        assert!(refused.message.contains("s3://l/a.parquet: column ts is missing: expected Timestamp("), "{refused}");
        assert!(refused.message.ends_with("the file has price"), "{refused}");
        let refused = declared.check(&listed("a"), &file(&[("ts", DataType::Utf8)])).unwrap_err();
        assert!(refused.message.contains("column ts: expected Timestamp"), "{refused}");
        assert!(refused.message.contains("found Utf8"), "{refused}");
        let hint = refused.hint.unwrap();
        assert!(hint.contains("lakes/x/raw_events.sql and lakes/x/events.sql"), "{hint}");
        assert!(hint.contains("`ts VARCHAR`") && hint.contains("`CAST(ts AS TIMESTAMP(6)) AS ts`"), "{hint}");
    }

    #[tokio::test]
    async fn a_hint_gives_the_sql_of_each_type() {
        let declared = declared("ts TIMESTAMP(6), quantity BIGINT, user_id VARCHAR").await;
        let hint = |column: &str, found: DataType| {
            declared.check(&listed("a"), &file(&[(column, found)])).unwrap_err().hint.unwrap()
        };
        assert!(hint("quantity", DataType::Float64).contains("`quantity DOUBLE`"));
        assert!(hint("quantity", DataType::Float64).contains("`CAST(nullif(quantity, 'NaN') AS BIGINT) AS quantity`"));
        assert!(hint("ts", DataType::Int64).contains("`to_timestamp_millis(ts) AS ts`"));
        assert!(hint("user_id", DataType::Binary).contains("`user_id BYTEA`"));
    }

    #[tokio::test]
    async fn names_match_in_any_case_where_one_column_has_them() {
        let declared = declared("user_id VARCHAR NOT NULL, price DOUBLE").await;
        let found = file(&[("User_Id", DataType::Int64), ("price", DataType::Float32)]);
        let columns = declared.check(&listed("a"), &found).unwrap();
        assert_eq!(columns, [FileColumn { name: "user_id".into(), in_file: "User_Id".into(), conversion: None }]);
        let twice = file(&[("user_id", DataType::Utf8), ("price", DataType::Float64), ("PRICE", DataType::Float64)]);
        let refused = declared.check(&listed("a"), &twice).unwrap_err();
        assert!(refused.message.contains("column price: expected once, found 2 times (price, PRICE)"), "{refused}");
    }

    #[tokio::test]
    async fn a_column_that_only_folders_name_is_read_from_there() {
        let declared = declared("user_id VARCHAR, country VARCHAR NOT NULL, dt VARCHAR").await;
        let values = folder_values(&["country=DE".into(), "a.parquet".into()]);
        let mut of_germany = listed("lake/events/country=DE/a.parquet");
        of_germany.folder_values = Some(Arc::new(values));
        let found = file(&[("user_id", DataType::Utf8)]);
        assert_eq!(declared.check(&of_germany, &found).unwrap(), [FileColumn::from_folder("country")]);
        of_germany.dt = chrono::NaiveDate::from_ymd_opt(2026, 1, 5);
        assert_eq!(declared.check(&of_germany, &found).unwrap().len(), 2, "a declared dt too");
        let in_file = file(&[("user_id", DataType::Utf8), ("country", DataType::Utf8), ("dt", DataType::Utf8)]);
        assert_eq!(declared.check(&of_germany, &in_file).unwrap(), [], "the file's own column comes first");
        assert!(declared.check(&listed("country=DE/events/a.parquet"), &found).is_err(), "not below the lake");
    }

    #[tokio::test]
    async fn inner_fields_may_be_added_or_missing() {
        let declared = declared("items ARRAY<STRUCT<id VARCHAR, price DOUBLE>>").await;
        let item =
            |fields: Vec<Field>| DataType::List(Arc::new(Field::new("element", DataType::Struct(fields.into()), true)));
        let found = item(vec![Field::new("id", DataType::LargeUtf8, true), Field::new("added", DataType::Int64, true)]);
        assert!(declared.check(&listed("a"), &file(&[("items", found)])).unwrap().is_empty());
        let wrong = item(vec![Field::new("price", DataType::Utf8, true)]);
        assert!(declared.check(&listed("a"), &file(&[("items", wrong)])).is_err());
    }
}
