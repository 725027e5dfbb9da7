//! Divides the tables of a session into schemas, all of them on the search path.
//!
//! A session's tables are registered under bare names in one schema, because SQL files name each other that way. Tools that
//! browse a database show them by purpose instead: the named schemas show the same tables. The schema of bare names stays, and is
//! listed only with the tables that no other schema shows.

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::Result;
use datafusion::logical_expr::TableType;
use datafusion::prelude::SessionContext;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::failure::{self, Failure};

/// Name of the catalogue, which clients show as the database.
pub(crate) const CATALOG: &str = "intentcast";

/// The schema in which bare names are registered and looked up.
pub(crate) const BARE: &str = "public";

/// Shows tables of a session's bare names in schemas, each with the names that it may have; a name without a table is left out.
pub(crate) fn divide(ctx: &SessionContext, schemas: Vec<(&str, BTreeSet<String>)>) -> failure::Result<()> {
    let missing = || Failure::bug("the session has no catalogue");
    let catalog = ctx.catalog(CATALOG).ok_or_else(missing)?;
    let bare = catalog.schema(BARE).ok_or_else(missing)?;
    let shown: BTreeSet<String> = schemas.iter().flat_map(|(_, names)| names.iter().cloned()).collect();
    let named = schemas.into_iter().map(|(schema, names)| {
        let shown: Arc<dyn SchemaProvider> = Arc::new(NamedTables { all: Arc::clone(&bare), names });
        (schema.to_string(), shown)
    });
    let named = named.collect();
    let others = Arc::new(OtherTables { all: bare, shown });
    ctx.register_catalog(CATALOG, Arc::new(DividedCatalog { inner: catalog, named, others }));
    Ok(())
}

/// Least similarity (Jaro-Winkler, 0 to 1) of a name that an error suggests.
const SIMILARITY_MIN: f64 = 0.7;

/// Says that a session has no table of a name, and which name is meant perhaps.
pub(crate) fn table_not_found(ctx: &SessionContext, name: &str) -> Failure {
    let catalog = ctx.catalog(CATALOG);
    let schemas =
        catalog.iter().flat_map(|catalog| catalog.schema_names().into_iter().filter_map(|s| catalog.schema(&s)));
    let known = schemas.flat_map(|schema| schema.table_names());
    let known = known.map(|table| (strsim::jaro_winkler(name, &table), table));
    let nearest = known.filter(|(similarity, _)| *similarity >= SIMILARITY_MIN);
    match nearest.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((_, nearest)) => Failure::usage(format!("table `{name}` not found; did you mean `{nearest}`?")),
        None => Failure::usage(format!("table `{name}` not found")),
    }
}

/// A catalogue with schemas over the tables of its bare names.
#[derive(Debug)]
struct DividedCatalog {
    inner: Arc<dyn CatalogProvider>,
    named: BTreeMap<String, Arc<dyn SchemaProvider>>,
    /// The schema of bare names.
    others: Arc<OtherTables>,
}

impl CatalogProvider for DividedCatalog {
    fn schema_names(&self) -> Vec<String> {
        let mut names: BTreeSet<String> = self.named.keys().cloned().collect();
        names.extend(self.inner.schema_names());
        if self.others.table_names().is_empty() {
            names.remove(BARE);
        }
        names.into_iter().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        match name {
            BARE => Some(Arc::<OtherTables>::clone(&self.others) as Arc<dyn SchemaProvider>),
            _ => self.named.get(name).cloned().or_else(|| self.inner.schema(name)),
        }
    }

    fn register_schema(&self, name: &str, schema: Arc<dyn SchemaProvider>) -> Result<Option<Arc<dyn SchemaProvider>>> {
        self.inner.register_schema(name, schema)
    }
}

/// Tables of another schema, by name.
#[derive(Debug)]
struct NamedTables {
    all: Arc<dyn SchemaProvider>,
    names: BTreeSet<String>,
}

#[async_trait]
impl SchemaProvider for NamedTables {
    fn table_names(&self) -> Vec<String> {
        self.names.iter().filter(|name| self.all.table_exist(name)).cloned().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        match self.names.contains(name) {
            true => self.all.table(name).await,
            false => Ok(None),
        }
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        match self.names.contains(name) {
            true => self.all.table_type(name).await,
            false => Ok(None),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.names.contains(name) && self.all.table_exist(name)
    }
}

/// All tables under their bare names. Only those that no other schema shows are listed.
#[derive(Debug)]
struct OtherTables {
    all: Arc<dyn SchemaProvider>,
    shown: BTreeSet<String>,
}

#[async_trait]
impl SchemaProvider for OtherTables {
    fn table_names(&self) -> Vec<String> {
        self.all.table_names().into_iter().filter(|name| !self.shown.contains(name)).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        self.all.table(name).await
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        self.all.table_type(name).await
    }

    fn register_table(&self, name: String, table: Arc<dyn TableProvider>) -> Result<Option<Arc<dyn TableProvider>>> {
        self.all.register_table(name, table)
    }

    fn deregister_table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        self.all.deregister_table(name)
    }

    fn table_exist(&self, name: &str) -> bool {
        self.all.table_exist(name)
    }
}
