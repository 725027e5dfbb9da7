//! Opens a Parquet lake: stores, source files and their fingerprints, declared columns, canonical views.
//!
//! In: `lake.uri`, and the SQL of `sql/lakes/<name>/`. Out: the canonical views (`events`, `items`, …), registered in a session
//! over exactly the listed files. Every room that reads or writes objects uses [`stores::Location`].

pub(crate) mod declared;
pub(crate) mod files_table;
pub(crate) mod lake_file;
pub(crate) mod lake_sql;
pub(crate) mod parquet_files;
mod profile;
pub(crate) mod retry;
pub mod stores;
pub(crate) mod unreadable;
mod view_names;

use chrono::NaiveDate;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectMeta;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::OnceCell;

use crate::config::{Config, Partition};
use crate::failure::{Cause, Failure, Result};
use crate::ids::{ContentHash, RunDate};
use crate::sql_files::SqlFiles;
use files_table::{FilesTable, ListedFile};
use lake_sql::LakeSql;
use stores::Location;

pub(crate) use view_names::VIEWS;

/// A listed lake: every Parquet file by view, and what its SQL declares.
#[derive(Debug, Clone)]
pub(crate) struct Lake {
    pub(crate) location: Location,
    files: BTreeMap<&'static str, Vec<ListedFile>>,
    sql: LakeSql,
    partition: Partition,
    zone: chrono_tz::Tz,
    /// Set once the files of all views but `events` were checked; every session registers the same files.
    masters_checked: OnceCell<()>,
}

impl Lake {
    /// Lists the lake once; later steps read these files and no others.
    pub(crate) async fn open(config: &Config, sql: &SqlFiles) -> Result<Self> {
        let location = Location::open(&config.lake.uri, &config.s3)?;
        let sql = LakeSql::load(&config.lake.name, sql).await?;
        let mut files = BTreeMap::new();
        for view in VIEWS {
            let folder = location.folder(view);
            let found = folder.list().await?;
            let listed = found.into_iter().filter(is_data).map(|meta| ListedFile {
                name: folder.display(&meta.location),
                dt: dt_of(&meta),
                meta,
            });
            files.insert(view, listed.collect::<Vec<_>>());
        }
        let lake = Self {
            location,
            files,
            sql,
            partition: config.lake.partition,
            zone: config.time_zone(),
            masters_checked: OnceCell::new(),
        };
        if lake.files("events").is_empty() {
            return Err(Failure::input(format!(
                "{}events/: no Parquet files",
                lake.location.display(&lake.location.path(""))
            ))
            .hint("--lake names the folder above events/; `intentcast simulate --to URI` writes one to try"));
        }
        Ok(lake)
    }

    pub(crate) fn files(&self, view: &str) -> &[ListedFile] {
        self.files.get(view).map_or(&[], Vec::as_slice)
    }

    /// Returns the event files that can have events before `as_of()` of the run date.
    pub(crate) fn event_files(&self, run_date: RunDate) -> Vec<ListedFile> {
        let last = match self.partition {
            Partition::EventDateUtc => (run_date.as_of(self.zone) - chrono::Duration::microseconds(1)).date_naive(),
            Partition::EventDateLocal | Partition::IngestDate => run_date.plus_days(-1).0,
            Partition::None => NaiveDate::MAX,
        };
        self.files("events").iter().filter(|f| f.dt.is_none_or(|dt| dt <= last)).cloned().collect()
    }

    /// Reads the footers of `files` of one view; refuses the first that is not Parquet or does not fit the declaration.
    pub(crate) async fn check(&self, view: &str, files: &[ListedFile]) -> Result<()> {
        let declared = &self.sql.view(view)?.declared;
        futures::stream::iter(files.iter().map(|file| async move {
            let footer = DFParquetMetadata::new(self.location.store.as_ref(), &file.meta).fetch_schema().await;
            let footer = footer.map_err(|e| match e.find_root() {
                DataFusionError::ObjectStore(_) => Failure::from(e).at(&file.name),
                _ => {
                    let why = e.strip_backtrace();
                    Failure {
                        cause: Some(Cause::Undecodable { searched: true }),
                        ..Failure::input(format!("{}: expected a whole Parquet file, found: {why}", file.name))
                    }
                    .hint(declared::FIX_FILE)
                    .caused_by(e)
                }
            })?;
            declared.check(&file.name, &footer)
        }))
        .buffered(16)
        .try_collect()
        .await
    }

    /// Registers `raw_<view>` over `files` and `<view>` by the lake's SQL.
    pub(crate) async fn register_view(&self, ctx: &SessionContext, view: &str, files: Vec<ListedFile>) -> Result<()> {
        let schema = Arc::clone(&self.sql.view(view)?.declared.schema);
        register_files(ctx, &format!("raw_{view}"), &self.location, schema, files)?;
        self.sql.register(ctx, view).await
    }

    /// Registers every view: `events` over the files that a night of `run_date` reads, the others over all their files.
    pub(crate) async fn register(&self, ctx: &SessionContext, run_date: RunDate) -> Result<()> {
        self.masters_checked.get_or_try_init(|| self.check_masters()).await?;
        self.register_view(ctx, "events", self.event_files(run_date)).await?;
        for view in &VIEWS[1..] {
            self.register_view(ctx, view, self.files(view).to_vec()).await?;
        }
        Ok(())
    }

    async fn check_masters(&self) -> Result<()> {
        for view in &VIEWS[1..] {
            self.check(view, self.files(view)).await?;
        }
        Ok(())
    }
}

/// Registers a table over listed files, and the store that holds them.
pub(crate) fn register_files(
    ctx: &SessionContext,
    name: &str,
    location: &Location,
    schema: arrow::datatypes::SchemaRef,
    files: Vec<ListedFile>,
) -> Result<()> {
    ctx.register_table(name, files_table(ctx, location, schema, files)?)?;
    Ok(())
}

/// Makes a table over listed files, and registers the store that holds them.
pub(crate) fn files_table(
    ctx: &SessionContext,
    location: &Location,
    schema: arrow::datatypes::SchemaRef,
    files: Vec<ListedFile>,
) -> Result<Arc<FilesTable>> {
    let store_url = location.store_url()?;
    ctx.register_object_store(&store_url, Arc::clone(&location.store));
    Ok(Arc::new(FilesTable::new(&store_url, schema, files)?))
}

/// Returns whether a listed object is a data file: not hidden (`_SUCCESS`, `.crc`), and named `.parquet`.
fn is_data(meta: &ObjectMeta) -> bool {
    meta.location.filename().is_some_and(|n| n.ends_with(".parquet") && !n.starts_with(['_', '.']))
}

fn dt_of(meta: &ObjectMeta) -> Option<NaiveDate> {
    meta.location.parts().find_map(|p| NaiveDate::parse_from_str(p.as_ref().strip_prefix("dt=")?, "%Y-%m-%d").ok())
}

/// Returns a hash of path, size and the store's tag or modification time, which changes when the content does.
pub(crate) fn fingerprint(meta: &ObjectMeta) -> String {
    let tag = meta.e_tag.clone().unwrap_or_else(|| meta.last_modified.to_rfc3339());
    ContentHash::from_bytes(format!("{}\0{}\0{tag}", meta.location, meta.size)).short()
}
