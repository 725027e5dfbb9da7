//! Reads a lake's folder of SQL: the columns of its raw files, its canonical views, further raw tables, and the facts that an
//! import adds. `sql/lakes/canonical/` supplies each view's file that the lake's folder does not have.

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::cast;
use datafusion::prelude::{SessionContext, ident, lit};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::declared::{Declared, cast_of, converts};
use super::raw_tables::{self, FurtherTable};
use super::view_names::{RATES, VIEWS};
use crate::failure::{Failure, Result};
use crate::sql_files::SqlFiles;

/// The SQL of every view and raw table of one lake.
#[derive(Debug, Clone)]
pub(crate) struct LakeSql {
    views: BTreeMap<&'static str, ViewSql>,
    /// Further raw tables, by name without `raw_`: the columns of each, and its folder below the lake.
    tables: BTreeMap<String, (Declared, String)>,
}

/// The SQL of one view.
#[derive(Debug, Clone)]
pub(crate) struct ViewSql {
    /// Declared columns of its raw files.
    pub(crate) declared: Declared,
    /// True if the lake's folder declares them, false if `canonical/` does.
    pub(crate) declared_by_lake: bool,
    /// True if the view's SQL is not the built-in one of `canonical/`.
    pub(super) is_changed: bool,
    /// The raw tables that the view reads, by name without `raw_`.
    pub(super) reads: BTreeSet<String>,
    /// `import_<view>.sql`: place and text of the query that an import runs once over the events to get this view's raw rows.
    pub(crate) facts: Option<(String, String)>,
    /// The columns that the view must have, with their types.
    canonical: SchemaRef,
    pub(super) place: String,
    text: String,
}

impl LakeSql {
    /// Reads `lakes/<name>/`; a name without a folder is refused.
    pub(crate) async fn load(name: &str, sql: &SqlFiles) -> Result<Self> {
        if sql.folder(&format!("lakes/{name}")).next().is_none() {
            return Err(Failure::usage(format!("lake.name: no SQL files in sql/lakes/{name}/"))
                .hint(format!("known: {}; put your own folder under sql.folder", sql.folders("lakes").join(", "))));
        }
        let ctx = SessionContext::new();
        let mut views = BTreeMap::new();
        for view in VIEWS {
            let own = format!("lakes/{name}/raw_{view}");
            let (raw_place, raw_text) = text(sql, name, &format!("raw_{view}"))?;
            let (place, text) = text(sql, name, view)?;
            let facts = format!("lakes/{name}/import_{view}");
            let canonical = SqlFiles::built_in(&format!("lakes/canonical/raw_{view}"))?;
            let found = ViewSql {
                canonical: Declared::parse(&ctx, "canonical columns", "", canonical).await?.schema,
                declared: Declared::parse(&ctx, &raw_place, &place, &raw_text).await?,
                declared_by_lake: sql.get(&own).is_ok(),
                is_changed: text != SqlFiles::built_in(&format!("lakes/canonical/{view}"))?,
                reads: raw_tables::tables_read(&place, &text)?,
                facts: sql.get(&facts).ok().map(|text| (format!("sql/{facts}.sql"), text.into())),
                place,
                text,
            };
            views.insert(view, found);
        }
        if let Some(rates) = views.get(RATES).filter(|rates| rates.reads.contains("events")) {
            return Err(Failure::usage(format!(
                "{}: reads raw_events, of which a night reads new files only",
                rates.place
            ))
            .hint(
                "read another table, such as raw_rates; `LOCATION 'folder'` in a raw_ file may name the same folder",
            ));
        }
        let mut tables = BTreeMap::new();
        for FurtherTable { name: table, folder, place, text } in raw_tables::find(name, sql)? {
            let reader = views.values().find(|view| view.reads.contains(&table));
            let view_place = reader.map_or(format!("sql/lakes/{name}/events.sql"), |view| view.place.clone());
            tables.insert(table, (Declared::parse(&ctx, &place, &view_place, &text).await?, folder));
        }
        let lake = Self { views, tables };
        let folders =
            lake.tables().map(|table| Ok((table.to_string(), lake.folder(table)?))).collect::<Result<Vec<_>>>()?;
        raw_tables::refuse_nested(&folders)?;
        Ok(lake)
    }

    /// Returns the names of all raw tables without `raw_`: those of the views in their order, then further ones.
    pub(super) fn tables(&self) -> impl DoubleEndedIterator<Item = &str> {
        VIEWS.into_iter().chain(self.tables.keys().map(String::as_str))
    }

    /// Returns the further raw tables.
    pub(super) fn further_tables(&self) -> impl Iterator<Item = &str> {
        self.tables.keys().map(String::as_str)
    }

    /// Returns the columns as which the files of a raw table are read.
    pub(super) fn declared(&self, table: &str) -> Result<&Declared> {
        match self.tables.get(table) {
            Some((declared, _)) => Ok(declared),
            None => Ok(&self.view(table)?.declared),
        }
    }

    /// Returns the folder below the lake in which the files of a raw table are.
    pub(super) fn folder<'a>(&'a self, table: &'a str) -> Result<&'a str> {
        let default = self.tables.get(table).map_or(table, |(_, folder)| folder);
        Ok(self.declared(table)?.location.as_deref().unwrap_or(default))
    }

    pub(crate) fn view(&self, view: &str) -> Result<&ViewSql> {
        self.views.get(view).ok_or_else(|| Failure::bug(format!("no SQL for {view}")))
    }

    /// Registers a view over the registered `raw_<view>`, with exactly the canonical columns in their types, and `_file` and `_dt`:
    /// `events`, `rates`, and `lake_<view>` for the others, whose rows sql/master/ checks.
    pub(crate) async fn register(&self, ctx: &SessionContext, view: &str) -> Result<()> {
        let ViewSql { canonical, place, text, .. } = self.view(view)?;
        let rows = ctx.sql(text).await.map_err(|e| Failure::from(e).at(place))?;
        let found = rows.schema().as_arrow().clone();
        let mut wanted: Vec<FieldRef> = canonical.fields().iter().cloned().collect();
        wanted.extend(LISTED.iter().map(|(name, data_type)| Arc::new(Field::new(*name, data_type.clone(), true))));
        let mut columns = Vec::new();
        for has in found.fields() {
            let Some(field) = wanted.iter().find(|field| field.name() == has.name()) else { continue };
            columns.push(match has.data_type() == field.data_type() {
                true => ident(has.name()),
                false if converts(has.data_type(), field.data_type()) => {
                    cast(ident(has.name()), field.data_type().clone()).alias(has.name())
                }
                false => return Err(wrong_type(place, field, has)),
            });
        }
        for field in &wanted {
            let name = field.name();
            if found.field_with_name(name).is_ok() {
                continue;
            }
            // An aggregate over catalogue files has no file.
            if view == "events" || canonical.field_with_name(name).is_ok() {
                return Err(missing_column(place, name, &found));
            }
            columns.push(lit(ScalarValue::try_from(field.data_type())?).alias(name));
        }
        ctx.register_table(registered_name(view), rows.select(columns)?.into_view())?;
        Ok(())
    }

    /// Removes a registered view.
    pub(super) fn deregister(&self, ctx: &SessionContext, view: &str) -> Result<()> {
        ctx.deregister_table(registered_name(view))?;
        Ok(())
    }
}

fn registered_name(view: &str) -> String {
    if view == "events" || view == RATES { view.into() } else { format!("lake_{view}") }
}

/// The columns that a lake's view hands on from the listing.
const LISTED: [(&str, DataType); 2] = [("_file", DataType::Utf8), ("_dt", DataType::Date32)];

fn missing_column(place: &str, name: &str, found: &Schema) -> Failure {
    let has: Vec<&str> = found.fields().iter().map(|f| f.name().as_str()).collect();
    Failure::usage(format!("{place}: expected a column {name}, found {}", has.join(", ")))
        .hint(format!("select it in that file; `CAST(NULL AS …) AS {name}` where the lake has nothing for it"))
}

fn wrong_type(place: &str, wanted: &Field, found: &Field) -> Failure {
    let (name, wanted, found) = (wanted.name(), wanted.data_type(), found.data_type());
    Failure::usage(format!("{place}: column {name}: expected {wanted}, found {found}"))
        .hint(format!("write `{} AS {name}` in that file", cast_of(name, found, wanted)))
}

/// Returns place and text of a lake's file, or else of the canonical one.
fn text(sql: &SqlFiles, name: &str, file: &str) -> Result<(String, String)> {
    let own = format!("lakes/{name}/{file}");
    let path = if sql.get(&own).is_ok() { own } else { format!("lakes/canonical/{file}") };
    Ok((format!("sql/{path}.sql"), sql.get(&path)?.into()))
}
