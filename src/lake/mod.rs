//! Opens a Parquet lake: stores, source files and their fingerprints, declared columns, canonical views.
//!
//! In: `lake.uri`, and the SQL of `sql/lakes/<name>/`. Out: the canonical views (`events`, `items`, …), registered in a session
//! over exactly the listed files. Every room that reads or writes objects uses [`stores::Location`].

mod checked_on_scan;
pub(crate) mod declared;
pub(crate) mod delta_table;
pub(crate) mod file_columns;
pub(crate) mod files_table;
mod footer;
pub(crate) mod lake_file;
pub(crate) mod lake_sql;
pub(crate) mod listing;
pub(crate) mod parquet_files;
mod partitions;
mod profile;
pub(crate) mod retry;
pub mod stores;
pub(crate) mod unreadable;
mod view_names;

use chrono::NaiveDate;
use datafusion::prelude::SessionContext;
use object_store::ObjectMeta;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use tokio::sync::OnceCell;

use crate::config::{Arrival, Config, Partition};
use crate::failure::{Failure, Result};
use crate::ids::{ContentHash, RunDate};
use crate::sql_files::SqlFiles;
use checked_on_scan::{CheckedOnScan, Footers};
use files_table::{FilesTable, ListedFile};
use lake_sql::LakeSql;
use listing::{IgnoreReason, Listing};
use stores::Location;

pub(crate) use view_names::VIEWS;

/// A listed lake: every data file by view, and what its SQL declares.
#[derive(Debug, Clone)]
pub(crate) struct Lake {
    pub(crate) location: Location,
    listings: BTreeMap<&'static str, Listing>,
    sql: LakeSql,
    partition: Partition,
    zone: chrono_tz::Tz,
    /// The files of all views but `events`, checked once; every session registers the same files.
    masters_checked: OnceCell<BTreeMap<&'static str, Vec<ListedFile>>>,
    /// The items of which the catalogue has several good rows, found once for all sessions.
    pub(crate) repeated_items: OnceCell<Arc<HashSet<String>>>,
}

impl Lake {
    /// Lists the lake once; later steps read these files and no others.
    pub(crate) async fn open(config: &Config, sql: &SqlFiles) -> Result<Self> {
        let location = Location::open(&config.lake.uri, &config.s3)?;
        let sql = LakeSql::load(&config.lake.name, sql).await?;
        let mut listings = BTreeMap::new();
        for view in VIEWS {
            listings.insert(view, Listing::read(&location.folder(view)).await?);
        }
        let lake = Self {
            location,
            listings,
            sql,
            partition: config.lake.partition,
            zone: config.time_zone(),
            masters_checked: OnceCell::new(),
            repeated_items: OnceCell::new(),
        };
        lake.refuse_without_events(config)?;
        Ok(lake)
    }

    fn refuse_without_events(&self, config: &Config) -> Result<()> {
        let events = self.files("events");
        let folder = self.location.folder("events");
        if events.is_empty() {
            let ignored = match self.listing("events").map(Listing::count_ignored).unwrap_or_default() {
                ignored if ignored.is_empty() => String::new(),
                ignored => format!("; ignored {}", count_by_reason(&ignored)),
            };
            return Err(Failure::input(format!("{}: no Parquet files{ignored}", folder.display_folder()))
                .hint("--lake names the folder above events/; `intentcast simulate --to URI` writes one to try"));
        }
        let by_ingest_date =
            config.lake.partition == Partition::IngestDate || config.lake.arrival == Arrival::IngestDate;
        match events.iter().find(|file| file.dt.is_none()) {
            // Without the date every night would know the file's events from the start.
            Some(file) if by_ingest_date => Err(Failure::input(format!(
                "{}: expected a folder dt=YYYY-MM-DD above the file, because it says when the events arrived",
                file.name
            ))
            .hint("move the file into such a folder, or set lake.partition and lake.arrival to what the lake has")),
            _ => Ok(()),
        }
    }

    pub(crate) fn files(&self, view: &str) -> &[ListedFile] {
        self.listing(view).map_or(&[], |listing| listing.files.as_slice())
    }

    fn listing(&self, view: &str) -> Option<&Listing> {
        self.listings.get(view)
    }

    /// Counts the objects below the folders of all views that are no data, by reason.
    pub(crate) fn ignored(&self) -> BTreeMap<String, u64> {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for (reason, count) in self.listings.values().flat_map(Listing::count_ignored) {
            *counts.entry(reason).or_default() += count;
        }
        counts
    }

    /// Logs which objects are not read, with a warning where one looks like data of another format.
    pub(crate) fn log_ignored(&self) {
        let others: Vec<&String> =
            self.listings.values().filter_map(|l| l.ignored.get(&IgnoreReason::NotParquet)).flatten().collect();
        if let Some(first) = others.first() {
            tracing::warn!("ignored {} files that are not Parquet, such as {first}", others.len());
        }
        let ignored = self.ignored();
        if !ignored.is_empty() {
            tracing::info!("ignored objects of the lake: {}", count_by_reason(&ignored));
        }
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

    /// Reads the footers of `files` of one view; refuses the first that is not Parquet or does not fit the declaration. Returns the
    /// files with how their columns are read.
    pub(crate) async fn check(&self, view: &str, files: Vec<ListedFile>) -> Result<Vec<ListedFile>> {
        let declared = self.sql.view(view)?.declared.clone();
        Footers { location: self.location.clone(), declared, fix: self.fix(view) }.check(files).await
    }

    /// Registers `raw_<view>` over `files`, which were checked, and `<view>` by the lake's SQL.
    pub(crate) async fn register_view(&self, ctx: &SessionContext, view: &str, files: Vec<ListedFile>) -> Result<()> {
        let schema = Arc::clone(&self.sql.view(view)?.declared.schema);
        register_files(ctx, &format!("raw_{view}"), &self.location, schema, files)?;
        self.sql.register(ctx, view).await
    }

    /// Registers every view over checked files: `events` over the files that a night of `run_date` reads, the others over all
    /// of theirs.
    pub(crate) async fn register(&self, ctx: &SessionContext, run_date: RunDate) -> Result<()> {
        let masters = self.masters_checked.get_or_try_init(|| self.check_masters()).await?;
        self.register_events(ctx, self.event_files(run_date)).await?;
        for (view, files) in masters {
            self.register_view(ctx, view, files.clone()).await?;
        }
        Ok(())
    }

    async fn check_masters(&self) -> Result<BTreeMap<&'static str, Vec<ListedFile>>> {
        let mut checked = BTreeMap::new();
        for view in &VIEWS[1..] {
            checked.insert(*view, self.check(view, self.files(view).to_vec()).await?);
        }
        Ok(checked)
    }

    /// Registers `raw_events` and `events` over files that are checked when a query reads them: a night reads rollups and never the
    /// footers of all event files.
    async fn register_events(&self, ctx: &SessionContext, files: Vec<ListedFile>) -> Result<()> {
        let declared = &self.sql.view("events")?.declared;
        let store_url = self.location.store_url()?;
        ctx.register_object_store(&store_url, Arc::clone(&self.location.store));
        let footers = Footers { location: self.location.clone(), declared: declared.clone(), fix: self.fix("events") };
        ctx.register_table("raw_events", Arc::new(CheckedOnScan::new(&store_url, footers, files)?))?;
        self.sql.register(ctx, "events").await
    }

    fn fix(&self, view: &str) -> &'static str {
        match self.listing(view) {
            Some(listing) if listing.is_delta => delta_table::COMMIT_AGAIN,
            _ => declared::FIX_FILE,
        }
    }
}

/// Writes counts by reason: `hidden 3, not_parquet 1`.
pub fn count_by_reason(counts: &BTreeMap<String, u64>) -> String {
    let parts: Vec<String> = counts.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    parts.join(", ")
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

/// Returns a hash of path, size and the store's tag or modification time, which changes when the content does.
pub(crate) fn fingerprint(meta: &ObjectMeta) -> String {
    let tag = meta.e_tag.clone().unwrap_or_else(|| meta.last_modified.to_rfc3339());
    ContentHash::from_bytes(format!("{}\0{}\0{tag}", meta.location, meta.size)).short()
}
