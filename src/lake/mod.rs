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
mod raw_tables;
pub(crate) mod retry;
pub(crate) mod rewritten_file;
pub(crate) mod scratch_copy;
pub mod stores;
pub(crate) mod unreadable;
mod view_names;

use chrono::NaiveDate;
use datafusion::prelude::SessionContext;
use object_store::ObjectMeta;
use std::collections::{BTreeMap, BTreeSet, HashSet};
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

pub(crate) use view_names::{RATES, VIEWS};

/// A listed lake: every data file, and what its SQL declares. A raw table goes by its name without `raw_`, which is that of its
/// view where it has one.
#[derive(Debug, Clone)]
pub(crate) struct Lake {
    pub(crate) location: Location,
    /// By folder below the lake: several tables may read one.
    listings: BTreeMap<String, Listing>,
    sql: LakeSql,
    partition: Partition,
    zone: chrono_tz::Tz,
    /// The files of all raw tables but `raw_events`, checked once; every session registers the same files.
    tables_checked: OnceCell<BTreeMap<String, Vec<ListedFile>>>,
    /// The items of which the catalogue has several good rows, found once for all sessions.
    pub(crate) repeated_items: OnceCell<Arc<HashSet<String>>>,
    /// True where the inventory has several good rows of an item and day, found once for all sessions.
    pub(crate) has_repeated_stock: OnceCell<bool>,
}

impl Lake {
    /// Lists the lake once; later steps read these files and no others.
    pub(crate) async fn open(config: &Config, sql: &SqlFiles) -> Result<Self> {
        let location = Location::open(&config.lake.uri, &config.s3)?;
        let sql = LakeSql::load(&config.lake.name, sql).await?;
        let mut listings = BTreeMap::new();
        for table in sql.tables() {
            let folder = sql.folder(table)?;
            if !listings.contains_key(folder) {
                listings.insert(folder.to_string(), Listing::read(&location.folder(folder)).await?);
            }
        }
        let lake = Self {
            location,
            listings,
            sql,
            partition: config.lake.partition,
            zone: config.time_zone(),
            tables_checked: OnceCell::new(),
            repeated_items: OnceCell::new(),
            has_repeated_stock: OnceCell::new(),
        };
        lake.refuse_without_files(config)?;
        Ok(lake)
    }

    /// Makes a lake without any file, for a session over the state of an output alone: its views exist and have no rows.
    pub(crate) async fn without_files(config: &Config, sql: &SqlFiles) -> Result<Self> {
        Ok(Self {
            location: Location::open("memory://no-lake/", &config.s3)?,
            listings: BTreeMap::new(),
            sql: LakeSql::load(&config.lake.name, sql).await?,
            partition: config.lake.partition,
            zone: config.time_zone(),
            tables_checked: OnceCell::new(),
            repeated_items: OnceCell::new(),
            has_repeated_stock: OnceCell::new(),
        })
    }

    fn refuse_without_files(&self, config: &Config) -> Result<()> {
        let events = self.files("events");
        if events.is_empty() {
            return Err(self.no_files("events", "`intentcast simulate --to URI` writes a lake to try")?);
        }
        if let Some(table) = self.sql.further_tables().find(|table| self.files(table).is_empty()) {
            // A join with an empty table would quietly lose rows.
            return Err(self.no_files(
                table,
                &format!(
                    "delete raw_{table}.sql if the lake has no such table; LOCATION 'folder' in it names another folder"
                ),
            )?);
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

    fn no_files(&self, table: &str, hint: &str) -> Result<Failure> {
        let ignored = match self.listing(table).map(Listing::count_ignored).unwrap_or_default() {
            ignored if ignored.is_empty() => String::new(),
            ignored => format!("; ignored {}", count_by_reason(&ignored)),
        };
        let folder = self.sql.folder(table)?;
        let place = self.location.folder(folder).display_folder();
        Ok(Failure::input(format!("{place}: no Parquet files{ignored}"))
            .hint(format!("--lake names the folder above {folder}/; {hint}")))
    }

    /// Returns the names of all raw tables: `events` first, those of the other views, then further ones.
    pub(crate) fn tables(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.sql.tables()
    }

    /// Returns the columns of a raw table that hold users' ids.
    pub(crate) fn columns_of_users(&self, table: &str) -> Result<&[String]> {
        Ok(&self.sql.declared(table)?.of_users)
    }

    /// Returns the file that declares a raw table, for messages.
    pub(crate) fn raw_place(&self, table: &str) -> Result<&str> {
        Ok(self.sql.declared(table)?.place())
    }

    /// Returns the folder of a raw table, and whether it is a Delta table.
    pub(crate) fn folder(&self, table: &str) -> Result<(Location, bool)> {
        let folder = self.location.folder(self.sql.folder(table)?);
        Ok((folder, self.listing(table).is_some_and(|listing| listing.is_delta)))
    }

    pub(crate) fn files(&self, table: &str) -> &[ListedFile] {
        self.listing(table).map_or(&[], |listing| listing.files.as_slice())
    }

    /// Returns the newest day that a folder of events names; `None` for a lake without such folders.
    pub(crate) fn newest_event_day(&self) -> Option<NaiveDate> {
        self.files("events").iter().filter_map(|file| file.dt).max()
    }

    fn listing(&self, table: &str) -> Option<&Listing> {
        self.listings.get(self.sql.folder(table).ok()?)
    }

    /// Counts the objects below the folders of all tables that are no data, by reason.
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

    /// Returns the file whose SQL makes a view, for messages.
    pub(crate) fn view_place(&self, view: &str) -> Result<&str> {
        Ok(&self.sql.view(view)?.place)
    }

    /// Returns whether the lake has exchange rates: files of them, or SQL of its own.
    pub(crate) fn has_rates(&self) -> bool {
        !self.files(RATES).is_empty() || self.sql.view(RATES).is_ok_and(|view| view.is_changed)
    }

    /// Returns the raw tables besides `raw_events` that a view reads.
    fn tables_of(&self, view: &str) -> Result<BTreeSet<&str>> {
        let reads = self.sql.view(view)?.reads.iter().map(String::as_str);
        // A name that no file declares is reported when the view is planned.
        Ok(reads.filter(|table| *table != "events" && self.sql.declared(table).is_ok()).collect())
    }

    /// Returns the raw tables besides `raw_events` that every unit of events reads whole.
    fn unit_tables(&self) -> Result<BTreeSet<&str>> {
        let mut tables = self.tables_of("events")?;
        if self.has_rates() {
            tables.extend(self.tables_of(RATES)?);
        }
        Ok(tables)
    }

    /// Returns a fingerprint of the files of each raw table that `events` is joined from.
    pub(crate) fn joined_tables(&self) -> Result<BTreeMap<String, String>> {
        let of_files = |table: &str| {
            let files: Vec<String> = self.files(table).iter().map(|file| fingerprint(&file.meta)).collect();
            ContentHash::from_bytes(files.join("\0")).short()
        };
        Ok(self.tables_of("events")?.into_iter().map(|table| (format!("raw_{table}"), of_files(table))).collect())
    }

    /// Returns the files that every unit of events reads, each with its raw table.
    pub(crate) fn unit_table_files(&self) -> Result<impl Iterator<Item = (&str, &ListedFile)>> {
        let tables = self.unit_tables()?.into_iter();
        Ok(tables.flat_map(|table| self.files(table).iter().map(move |file| (table, file))))
    }

    /// Reads the footers of `files` of one raw table; refuses the first that is not Parquet or does not fit the declaration.
    /// Returns the files with how their columns are read.
    pub(crate) async fn check(&self, table: &str, files: Vec<ListedFile>) -> Result<Vec<ListedFile>> {
        let declared = self.sql.declared(table)?.clone();
        Footers { location: self.location.clone(), declared, fix: self.fix(table) }.check(files).await
    }

    /// Registers what a unit of events is computed from: `raw_events` over `files`, which were checked, the raw tables that it
    /// reads whole, `events`, and `rates` where the lake has them.
    pub(crate) async fn register_unit(&self, ctx: &SessionContext, files: Vec<ListedFile>) -> Result<()> {
        self.register_raw(ctx, "events", files)?;
        let tables = self.unit_tables()?;
        if !tables.is_empty() {
            let checked = self.checked_tables().await?;
            for table in tables {
                self.register_raw(ctx, table, checked.get(table).cloned().unwrap_or_default())?;
            }
        }
        self.sql.register(ctx, "events").await?;
        if self.has_rates() {
            self.sql.register(ctx, RATES).await?;
        }
        Ok(())
    }

    /// Registers every raw table and view over checked files: `raw_events` over the files that a night of `run_date` reads, the
    /// others over all of theirs.
    pub(crate) async fn register(&self, ctx: &SessionContext, run_date: RunDate) -> Result<()> {
        self.register_raw_events(ctx, self.event_files(run_date))?;
        for (table, files) in self.checked_tables().await? {
            self.register_raw(ctx, table, files.clone())?;
        }
        for view in VIEWS {
            self.sql.register(ctx, view).await?;
        }
        Ok(())
    }

    /// Registers the views again, over what `raw_` tables are registered now.
    pub(crate) async fn register_views_again(&self, ctx: &SessionContext) -> Result<()> {
        for view in VIEWS {
            self.sql.deregister(ctx, view)?;
            self.sql.register(ctx, view).await?;
        }
        Ok(())
    }

    fn register_raw(&self, ctx: &SessionContext, table: &str, files: Vec<ListedFile>) -> Result<()> {
        let schema = Arc::clone(&self.sql.declared(table)?.schema);
        register_files(ctx, &format!("raw_{table}"), &self.location, schema, files)
    }

    async fn checked_tables(&self) -> Result<&BTreeMap<String, Vec<ListedFile>>> {
        self.tables_checked.get_or_try_init(|| self.check_tables()).await
    }

    async fn check_tables(&self) -> Result<BTreeMap<String, Vec<ListedFile>>> {
        let mut checked = BTreeMap::new();
        for table in self.tables().filter(|table| *table != "events") {
            checked.insert(table.to_string(), self.check(table, self.files(table).to_vec()).await?);
        }
        Ok(checked)
    }

    /// Registers `raw_events` over files that are checked when a query reads them: a night reads rollups and never the footers
    /// of all event files.
    fn register_raw_events(&self, ctx: &SessionContext, files: Vec<ListedFile>) -> Result<()> {
        let declared = self.sql.declared("events")?;
        let store_url = self.location.store_url()?;
        ctx.register_object_store(&store_url, Arc::clone(&self.location.store));
        let footers = Footers { location: self.location.clone(), declared: declared.clone(), fix: self.fix("events") };
        ctx.register_table("raw_events", Arc::new(CheckedOnScan::new(&store_url, footers, files)?))?;
        Ok(())
    }

    fn fix(&self, table: &str) -> &'static str {
        match self.listing(table) {
            Some(listing) if listing.is_delta => delta_table::COMMIT_AGAIN,
            _ => declared::FIX_FILE,
        }
    }
}

/// Writes counts by reason: `hidden 3, not_parquet 1`.
pub(crate) fn count_by_reason(counts: &BTreeMap<String, u64>) -> String {
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
