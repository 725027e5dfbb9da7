//! A table over an explicit list of Parquet files, with two columns from the listing: `_file` and `_dt`.
//!
//! The caller gives the list, so that a night reads exactly the files that it decided to read. Filters over `_dt` and `_file`
//! prune files before any is opened; other filters are pushed down to Parquet's statistics, column indexes and rows.

use arrow::array::{Date32Array, RecordBatch, StringArray, UInt32Array, cast::AsArray};
use arrow::compute::filter;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use async_trait::async_trait;
use chrono::NaiveDate;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType, utils::conjunction};
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, empty::EmptyExec};
use object_store::ObjectMeta;
use std::sync::Arc;
use url::Url;

use super::file_columns::{self, Conversion, FileColumn, physical_schema};
use super::partitions::{FolderValue, value_in_folders};
use crate::ids::date32;

/// Rows of a batch with a column of bytes: pictures can have megabytes each, and a batch is in memory as a whole. Filters and
/// content keys are computed within the scan, so that hardly any picture leaves it.
pub(crate) const PICTURES_PER_BATCH: usize = 32;

/// One file of the table, as listed.
#[derive(Debug, Clone)]
pub(crate) struct ListedFile {
    pub(crate) meta: ObjectMeta,
    /// The URL or path that messages show; the value of `_file`.
    pub(crate) name: String,
    /// The date in the folder name, if there is one; the value of `_dt`.
    pub(crate) dt: Option<NaiveDate>,
    /// Columns that need more than the engine's cast; `None` where there are none, or where the file was not checked.
    pub(crate) columns: Option<Arc<Vec<FileColumn>>>,
    /// Columns other than `dt` that the folders above the file name, or a Delta table's log; `None` where there are none.
    pub(crate) folder_values: Option<Arc<Vec<FolderValue>>>,
}

#[derive(Debug)]
pub(crate) struct FilesTable {
    store_url: ObjectStoreUrl,
    columns: TableSchema,
    files: Vec<ListedFile>,
}

impl FilesTable {
    /// Files are read as `file_schema`: a file may lack nullable columns, and have more columns or narrower types.
    pub(crate) fn new(store_url: &Url, file_schema: SchemaRef, files: Vec<ListedFile>) -> DfResult<Self> {
        Ok(Self {
            store_url: ObjectStoreUrl::parse(store_url.as_str())?,
            columns: with_listed_columns(file_schema, &[]),
            files,
        })
    }

    /// Returns the files that pass the filters over `_file` and `_dt`.
    pub(super) fn prune(&self, state: &dyn Session, filters: &[Expr]) -> DfResult<Vec<&ListedFile>> {
        let listing_filters: Vec<Expr> = filters.iter().filter(|f| reads_only_listing(f)).cloned().collect();
        let Some(predicate) = conjunction(listing_filters) else { return Ok(self.files.iter().collect()) };
        let schema = Arc::new(Schema::new(vec![
            Field::new("_file", DataType::Utf8, true),
            Field::new("_dt", DataType::Date32, true),
            Field::new("_at", DataType::UInt32, false),
        ]));
        let listing = RecordBatch::try_new(
            Arc::clone(&schema),
            vec![
                Arc::new(self.files.iter().map(|f| Some(f.name.as_str())).collect::<StringArray>()),
                Arc::new(self.files.iter().map(|f| f.dt.map(date32)).collect::<Date32Array>()),
                Arc::new((0..self.files.len() as u32).collect::<UInt32Array>()),
            ],
        )?;
        let passes = state
            .create_physical_expr(predicate, &DFSchema::try_from(schema)?)?
            .evaluate(&listing)?
            .into_array(self.files.len())?;
        let passing = filter(listing.column(2), passes.as_boolean())?;
        Ok(passing.as_primitive::<UInt32Type>().values().iter().filter_map(|&i| self.files.get(i as usize)).collect())
    }
}

fn reads_only_listing(filter: &Expr) -> bool {
    let columns = filter.column_refs();
    !columns.is_empty() && columns.iter().all(|c| c.name == "_file" || c.name == "_dt")
}

#[async_trait]
impl TableProvider for FilesTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.columns.table_schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        let support = |f: &&Expr| match reads_only_listing(f) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let files = self.prune(state, filters)?;
        let schema = datafusion::common::project_schema(&self.schema(), projection)?;
        if files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let mut scans: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        for (columns, group) in by_columns(files) {
            let columns = columns.map_or(&[][..], Vec::as_slice);
            let scan = self.scan_files(state, projection, limit, columns, &group)?;
            scans.push(match columns.is_empty() {
                true => scan,
                false => file_columns::convert(scan, &schema, columns)?,
            });
        }
        match scans.len() {
            1 => Ok(scans.swap_remove(0)),
            _ => UnionExec::try_new(scans),
        }
    }
}

/// Groups files by how their columns are read; nearly always one group.
fn by_columns(files: Vec<&ListedFile>) -> Vec<(Option<&Vec<FileColumn>>, Vec<&ListedFile>)> {
    let mut groups: Vec<(Option<&Vec<FileColumn>>, Vec<&ListedFile>)> = Vec::new();
    for file in files {
        let columns = file.columns.as_deref();
        match groups.iter_mut().find(|(known, _)| *known == columns) {
            Some((_, group)) => group.push(file),
            None => groups.push((columns, vec![file])),
        }
    }
    groups
}

impl FilesTable {
    /// Scans files whose `columns` differ from the declared ones in the same way.
    fn scan_files(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
        columns: &[FileColumn],
        files: &[&ListedFile],
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let declared = self.columns.file_schema();
        let from_folders: Vec<&Arc<Field>> = declared.fields().iter().filter(|f| is_from_folder(f, columns)).collect();
        let table = match columns.is_empty() {
            true => self.columns.clone(),
            false => with_listed_columns(physical_schema(declared, columns), &from_folders),
        };
        let projection = replace_folder_columns(&self.schema(), projection, &from_folders);
        let has_pictures = datafusion::common::project_schema(table.table_schema(), projection.as_ref())?
            .fields()
            .iter()
            .any(|f| *f.data_type() == DataType::Binary);
        let options = state.config_options().execution.parquet.clone();
        // The engine's filter pushdown hands down filters over rows; setting them here too would test them twice.
        let source = ParquetSource::new(table).with_pushdown_filters(options.pushdown_filters);
        let source = source.with_table_parquet_options(TableParquetOptions { global: options, ..Default::default() });
        let partitions = state.config().target_partitions().min(files.len());
        let mut groups = vec![Vec::new(); partitions];
        for (at, file) in files.iter().enumerate() {
            let mut listed = vec![ScalarValue::Utf8(Some(file.name.clone())), ScalarValue::Date32(file.dt.map(date32))];
            let values = file.folder_values.as_deref().map_or(&[][..], Vec::as_slice);
            for field in &from_folders {
                let value = value_in_folders(&file.name, field, values, file.dt)?;
                listed.push(value.map_or_else(|| ScalarValue::try_from(field.data_type()), Ok)?);
            }
            groups[at * partitions / files.len()]
                .push(PartitionedFile::new_from_meta(file.meta.clone()).with_partition_values(listed));
        }
        let scan = FileScanConfigBuilder::new(self.store_url.clone(), Arc::new(source))
            .with_file_groups(groups.into_iter().map(FileGroup::new).collect())
            .with_projection_indices(projection)?
            .with_limit(limit)
            .with_batch_size(has_pictures.then(|| PICTURES_PER_BATCH.min(state.config().batch_size())))
            .build();
        Ok(DataSourceExec::from_data_source(scan))
    }
}

fn is_from_folder(field: &Field, columns: &[FileColumn]) -> bool {
    columns.iter().any(|column| column.name == *field.name() && column.conversion == Some(Conversion::FolderName))
}

/// Returns a projection of the table's columns with those from folders replaced by what a scan adds for them after all others.
fn replace_folder_columns(
    schema: &Schema,
    projection: Option<&Vec<usize>>,
    from_folders: &[&Arc<Field>],
) -> Option<Vec<usize>> {
    if from_folders.is_empty() {
        return projection.cloned();
    }
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    let replaced = projection.unwrap_or(&all).iter().map(|&at| {
        let folder = from_folders.iter().position(|field| field.name() == schema.field(at).name());
        folder.map_or(at, |folder| schema.fields().len() + folder)
    });
    Some(replaced.collect())
}

/// Adds the columns that come from the listing, and those from folders under names that no file has.
fn with_listed_columns(file_schema: SchemaRef, from_folders: &[&Arc<Field>]) -> TableSchema {
    let mut listed =
        vec![Arc::new(Field::new("_file", DataType::Utf8, true)), Arc::new(Field::new("_dt", DataType::Date32, true))];
    let folder = |field: &&Arc<Field>| Arc::new(field.as_ref().clone().with_name(format!("_folder_{}", field.name())));
    listed.extend(from_folders.iter().map(folder));
    TableSchema::builder(file_schema).with_table_partition_cols(listed).build()
}
