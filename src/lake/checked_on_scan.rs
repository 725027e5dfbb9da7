//! Reads the footers of lake files, at once or when a query scans them.

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use futures::{StreamExt, TryStreamExt};
use std::sync::Arc;
use url::Url;

use super::declared::Declared;
use super::files_table::{FilesTable, ListedFile};
use super::footer;
use super::stores::Location;
use crate::failure::Result;

/// Footers in flight.
const FILES_AT_ONCE: usize = 16;

/// Location and declaration of one view's files, to check them.
#[derive(Debug)]
pub(super) struct Footers {
    pub(super) location: Location,
    pub(super) declared: Declared,
    /// The hint for a damaged file.
    pub(super) fix: &'static str,
}

impl Footers {
    /// Reads the footers; refuses the first file that is not Parquet or does not fit the declaration. Returns the files with how
    /// their columns are read.
    pub(super) async fn check(&self, files: Vec<ListedFile>) -> Result<Vec<ListedFile>> {
        futures::stream::iter(files.into_iter().map(|file| async move {
            let found = footer::read(&self.location, &file).await.map_err(|f| match f.is_undecodable() {
                true => f.hint(self.fix),
                false => f,
            })?;
            let columns = self.declared.check(&file, &found)?;
            let columns = (!columns.is_empty()).then(|| Arc::new(columns));
            Ok(ListedFile { columns, ..file })
        }))
        .buffered(FILES_AT_ONCE)
        .try_collect()
        .await
    }
}

/// A table over listed files whose footers are read when a query scans it, of the files that it needs.
#[derive(Debug)]
pub(super) struct CheckedOnScan {
    store_url: Url,
    footers: Footers,
    /// The files before they are checked: for the schema, and to prune by date and name.
    unchecked: FilesTable,
}

impl CheckedOnScan {
    pub(super) fn new(store_url: &Url, footers: Footers, files: Vec<ListedFile>) -> DfResult<Self> {
        let unchecked = FilesTable::new(store_url, Arc::clone(&footers.declared.schema), files)?;
        Ok(Self { store_url: store_url.clone(), footers, unchecked })
    }
}

#[async_trait]
impl TableProvider for CheckedOnScan {
    fn schema(&self) -> SchemaRef {
        self.unchecked.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        self.unchecked.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let needed = self.unchecked.prune(state, filters)?.into_iter().cloned().collect();
        let checked = self.footers.check(needed).await?;
        let table = FilesTable::new(&self.store_url, Arc::clone(&self.footers.declared.schema), checked)?;
        table.scan(state, projection, filters, limit).await
    }
}
