//! `intentcast import`: publishers' original files, streamed into a Parquet lake of the publisher's own columns.
//!
//! `sql/lakes/<name>/` declares the columns and their meaning: `raw_<view>.sql` types them, `events.sql` computes when each row
//! happened (so that it is filed below the shop's local day), `import_<view>.sql` gathers facts that are on event lines.
//! Damaged lines are skipped and counted by reason; if they are more than one in a hundred, the import is refused. `lake.toml`
//! is written last: a failed import deletes what it wrote, and a killed one leaves no lake that opens by itself.

mod data_sets;
mod lake_writer;
mod readers;
mod typed_rows;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Date32Type, Field, Int64Type, Schema};
use chrono::NaiveDate;
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use indicatif::ProgressBar;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Config;
use crate::engine;
use crate::failure::{Failure, Result};
use crate::features::functions;
use crate::ids::RunDate;
use crate::lake::lake_sql::LakeSql;
use crate::lake::stores::Location;
use crate::lake::{VIEWS, lake_file, register_files};
use crate::progress;
use crate::sql_files::SqlFiles;
use data_sets::DataSet;
use lake_writer::LakeWriter;
use readers::RowError;
use typed_rows::{Reasons, TypedRows};

/// A larger share of damaged lines means that the files are not of the named data set.
const SKIPPED_SHARE_MAX: f64 = 0.01;
/// Rows that are typed and filed together.
const BATCH_ROWS: usize = 16_384;

/// Counts of an import.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ImportReport {
    pub(crate) rows_read: u64,
    /// Rows written, by view; facts count (item, fact) rows.
    pub(crate) rows_written: BTreeMap<&'static str, u64>,
    /// Skipped lines, by reason.
    pub(crate) skipped: Reasons,
    pub(crate) days: BTreeSet<NaiveDate>,
    pub(crate) time_zone: &'static str,
}

impl fmt::Display for ImportReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = |view: &str| self.rows_written.get(view).copied().unwrap_or_default();
        write!(f, "{} rows read, {} events on {} days", self.rows_read, rows("events"), self.days.len())?;
        if let (Some(first), Some(last)) = (self.days.first(), self.days.last()) {
            write!(f, " ({first} to {last}, {})", self.time_zone)?;
        }
        let others = self.rows_written.iter().filter(|(view, _)| **view != "events");
        others.into_iter().try_for_each(|(view, rows)| write!(f, ", {rows} rows of {view}"))?;
        f.write_str(" written")?;
        self.skipped.iter().try_for_each(|(reason, rows)| write!(f, "\nskipped: {rows} rows: {reason}"))
    }
}

/// Reads `files` as the data set `name` and writes a lake at `to`, where there must be none yet.
pub(crate) async fn import(config: &Config, name: &str, files: &[PathBuf], to: &str) -> Result<ImportReport> {
    let bytes = files.iter().filter_map(|f| std::fs::metadata(f).ok()).map(|m| m.len()).sum();
    let bar = progress::bar("bytes", bytes);
    let mut import = Import::open(config, data_sets::find(name)?, Location::open(to, &config.s3)?).await?;
    let done = import.import_files(files, &bar).await;
    bar.finish_and_clear();
    match done {
        Ok(()) => Ok(import.report),
        Err(failure) => match import.writer.delete_written().await {
            Ok(()) => Err(failure),
            Err(undeleted) => Err(failure.hint(format!("clear {to} before the next import ({})", undeleted.message))),
        },
    }
}

/// An import that is running.
struct Import {
    set: &'static DataSet,
    lake: LakeSql,
    to: Location,
    /// Has the functions of the SQL files in the data set's zone, and one batch at a time as `raw_events`.
    ctx: SessionContext,
    writer: LakeWriter,
    report: ImportReport,
}

impl Import {
    async fn open(config: &Config, set: &'static DataSet, to: Location) -> Result<Self> {
        let mut config = config.clone();
        set.settings().apply(&mut config.lake, |_| false);
        let lake = LakeSql::load(set.name, &SqlFiles::load(&config)?).await?;
        refuse_existing_lake(&to).await?;
        let ctx = engine::session(&config)?;
        functions::register(&ctx, &config, RunDate(chrono::Utc::now().date_naive()))?;
        let writer = LakeWriter::new(to.clone(), config.engine.memory_bytes_max as usize / 8);
        let report = ImportReport { time_zone: set.time_zone, ..Default::default() };
        Ok(Self { set, lake, to, ctx, writer, report })
    }

    async fn import_files(&mut self, files: &[PathBuf], bar: &ProgressBar) -> Result<()> {
        for file in files {
            let view = self.view_of(file)?;
            self.import_file(file, view, bar).await?;
        }
        self.refuse_damaged()?;
        self.writer.flush().await?;
        self.gather_facts().await?;
        let comment =
            format!("Written by `intentcast import {}`; flags, environment and files take precedence.", self.set.name);
        lake_file::write(&self.to, &comment, self.set.settings()).await?;
        self.report.rows_written = self.writer.rows.clone();
        Ok(())
    }

    /// Returns the view that a file feeds: the first whose required columns are in its header; events without a header.
    fn view_of(&self, file: &Path) -> Result<&'static str> {
        let Some(header) = readers::header(file, self.set.format)? else { return Ok("events") };
        for view in VIEWS {
            let sql = self.lake.view(view)?;
            if sql.declared_by_lake && sql.facts.is_none() && sql.declared.required.iter().all(|r| header.contains(r)) {
                return Ok(view);
            }
        }
        let required = &self.lake.view("events")?.declared.required;
        let missing: Vec<_> = required.iter().filter(|r| !header.contains(r)).map(String::as_str).collect();
        Err(Failure::input(format!(
            "{}: not a file of {}: no column {}; the file has {}",
            file.display(),
            self.set.name,
            missing.join(", "),
            header.join(", ")
        ))
        .hint("check the name of the data set and the files"))
    }

    async fn import_file(&mut self, file: &Path, view: &'static str, bar: &ProgressBar) -> Result<()> {
        let mut pending = TypedRows::new(self.lake.view(view)?.declared.clone());
        for (number, row) in readers::rows(file, self.set.format, &pending.names(), bar)?.enumerate() {
            self.report.rows_read += 1;
            match row {
                Ok(values) => pending.push(values),
                Err(RowError::Damaged(reason)) => self.count_skipped(reason, 1),
                Err(RowError::Unreadable(why)) => {
                    return Err(Failure::input(format!("{}: unreadable after {number} rows: {why}", file.display()))
                        .hint("fetch the file again: it ends in the middle or is damaged; nothing was written"));
                }
            }
            if pending.len() >= BATCH_ROWS {
                self.write_rows(view, &mut pending).await?;
            }
        }
        self.write_rows(view, &mut pending).await
    }

    fn count_skipped(&mut self, reason: String, rows: u64) {
        *self.report.skipped.entry(reason).or_default() += rows;
    }

    async fn write_rows(&mut self, view: &'static str, pending: &mut TypedRows) -> Result<()> {
        let (batch, damaged) = pending.take()?;
        damaged.into_iter().for_each(|(reason, rows)| self.count_skipped(reason, rows));
        match view {
            _ if batch.num_rows() == 0 => Ok(()),
            "events" => self.write_events(batch).await,
            _ => self.writer.add((view, None), batch).await,
        }
    }

    /// Writes each row below its day.
    async fn write_events(&mut self, batch: RecordBatch) -> Result<()> {
        let mut by_day: BTreeMap<NaiveDate, Vec<u32>> = BTreeMap::new();
        for (row, day) in (0..).zip(self.days(&batch).await?) {
            match day {
                Ok(day) => by_day.entry(day).or_default().push(row),
                Err(reason) => self.count_skipped(reason.into(), 1),
            }
        }
        for (day, rows) in by_day {
            self.writer.add(("events", Some(day)), take_record_batch(&batch, &UInt32Array::from(rows))?).await?;
            self.report.days.insert(day);
        }
        Ok(())
    }

    /// Returns the local day of each row by the lake's `events.sql`, or why it has none.
    async fn days(&self, batch: &RecordBatch) -> Result<Vec<Result<NaiveDate, &'static str>>> {
        // The row's number takes the place of its file name, so that it survives any reordering by the SQL.
        let numbers: StringArray = (0..batch.num_rows()).map(|row| Some(row.to_string())).collect();
        let mut fields: Vec<_> = batch.schema().fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new("_file", DataType::Utf8, true)));
        fields.push(Arc::new(Field::new("_dt", DataType::Date32, true)));
        let mut columns = batch.columns().to_vec();
        columns.extend([Arc::new(numbers) as ArrayRef, Arc::new(Date32Array::new_null(batch.num_rows()))]);
        let schema = Arc::new(Schema::new(fields));
        let table = MemTable::try_new(Arc::clone(&schema), vec![vec![RecordBatch::try_new(schema, columns)?]])?;
        self.ctx.deregister_table("raw_events")?;
        self.ctx.deregister_table("events")?;
        self.ctx.register_table("raw_events", Arc::new(table))?;
        self.lake.register(&self.ctx, "events").await?;

        let mut days = vec![Err("skipped by events.sql"); batch.num_rows()];
        let placed =
            "SELECT CAST(_file AS BIGINT) AS at, local_day(ts) AS day, event_type IS NOT NULL AS typed FROM events";
        for found in self.ctx.sql(placed).await?.collect().await? {
            let at = found.column(0).as_primitive::<Int64Type>();
            let (day, typed) = (found.column(1).as_primitive::<Date32Type>(), found.column(2).as_boolean());
            for row in 0..found.num_rows() {
                days[at.value(row) as usize] = match day.is_valid(row) {
                    false => Err("no readable time"),
                    true if !typed.value(row) => Err("unknown event type"),
                    true => Date32Type::to_naive_date_opt(day.value(row)).ok_or("no readable time"),
                };
            }
        }
        Ok(days)
    }

    fn refuse_damaged(&self) -> Result<()> {
        let name = self.set.name;
        let read = self.report.rows_read;
        let skipped: u64 = self.report.skipped.values().sum();
        // One cut-off line at the end of a short file does not refuse an import.
        if skipped as f64 > SKIPPED_SHARE_MAX * read as f64 && skipped > 1 {
            return Err(Failure::input(format!(
                "{skipped} of {read} rows are not rows of {name}: {}",
                self.report.skipped.iter().map(|(r, n)| format!("{r}: {n}")).collect::<Vec<_>>().join(", ")
            ))
            .hint("check the name of the data set and the files; nothing was written"));
        }
        match self.writer.rows.get("events") {
            Some(_) => Ok(()),
            None => Err(Failure::input(format!("no events of {name} in these files")).hint("pass its events file too")),
        }
    }

    /// Runs the lake's `import_<view>.sql` once over the written events, so that no night has to.
    async fn gather_facts(&mut self) -> Result<()> {
        self.ctx.deregister_table("events")?;
        self.ctx.deregister_table("raw_events")?;
        let schema = Arc::clone(&self.lake.view("events")?.declared.schema);
        register_files(&self.ctx, "raw_events", &self.to, schema, self.writer.files("events"))?;
        for view in VIEWS {
            let sql = self.lake.view(view)?;
            let Some((place, text)) = &sql.facts else { continue };
            let names: Vec<&str> = sql.declared.schema.fields().iter().map(|f| f.name().as_str()).collect();
            let planned = self.ctx.sql(text).await.and_then(|rows| rows.select_columns(&names));
            let rows = planned.map_err(|e| Failure::from(e).at(place))?.execute_stream().await?;
            self.writer.stream(view, &sql.declared, rows).await.map_err(|f| f.at(place))?;
        }
        Ok(())
    }
}

/// Refuses a place with a lake: events of a second import would count twice, or mix with those of another lake.
async fn refuse_existing_lake(to: &Location) -> Result<()> {
    let mut existing = lake_file::exists(to).await?.then(|| to.display(&to.path("lake.toml")));
    for view in VIEWS {
        let folder = to.folder(view);
        if existing.is_none() && !folder.is_empty().await? {
            existing = Some(format!("{}/", folder.display(&folder.prefix)));
        }
    }
    match existing {
        None => Ok(()),
        Some(place) => Err(Failure::usage(format!("import: {place} exists already; an import writes a whole lake"))
            .hint("import all files of the data set at once into an empty place; delete what a killed import left")),
    }
}
