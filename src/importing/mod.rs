//! `intentcast import`: publishers' original files, streamed into a partitioned canonical Parquet lake.
//!
//! Damaged lines are counted by reason and left out; more than one in a hundred refuses the import. Nothing is written
//! in place of what is there: a second import into one lake adds files (its events would count twice).

mod lake_writer;
mod readers;
mod sets;

use indicatif::{ProgressBar, ProgressDrawTarget};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use lake_writer::LakeWriter;

/// More refused lines than this share means that the files are not what the name says.
const REFUSED_SHARE_MAX: f64 = 0.01;

/// What an import read and wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportReport {
    pub rows_read: u64,
    pub events: u64,
    pub items: u64,
    /// Lines left out, by reason.
    pub refused: BTreeMap<String, u64>,
    pub days: u64,
    /// The set's own zone: what `lake.time_zone` should say.
    pub time_zone: &'static str,
}

impl fmt::Display for ImportReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rows read, {} events on {} days and {} items written; set lake.time_zone = \"{}\" and lake.arrival = \"none\"",
            self.rows_read, self.events, self.days, self.items, self.time_zone
        )?;
        self.refused.iter().try_for_each(|(reason, rows)| write!(f, "\nleft out: {rows} rows: {reason}"))
    }
}

/// One event of a set on its way to the lake.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImportedEvent {
    pub user_id: Option<String>,
    pub session_id: Option<String>,
    /// Microseconds since 1970, UTC.
    pub ts: i64,
    pub event_type: &'static str,
    pub item_id: Option<String>,
    pub quantity: Option<i32>,
    pub price: Option<f64>,
    pub currency: Option<&'static str>,
    pub rating: Option<i8>,
    pub text: Option<String>,
}

/// What a set says about an item; later facts fill the gaps of earlier ones.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImportedItem {
    pub item_id: String,
    pub title: Option<String>,
    pub category: Option<String>,
    pub brand: Option<String>,
    pub price: Option<f64>,
}

/// What one line of a publisher's file became.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Line {
    pub event: Option<ImportedEvent>,
    pub item: Option<ImportedItem>,
}

/// Reads `files` as the set `name` and writes a lake below `to`.
pub async fn run(name: &str, files: &[PathBuf], to: &Location, progress: bool) -> Result<ImportReport> {
    let set = sets::find(name)?;
    let bytes = files.iter().filter_map(|f| std::fs::metadata(f).ok()).map(|m| m.len()).sum();
    let target = if progress { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(bytes), target);
    let mut report = ImportReport { time_zone: set.time_zone, ..Default::default() };
    let mut lake = LakeWriter::new(to.clone());
    for file in files {
        for row in readers::open(file, set.format, &bar)? {
            report.rows_read += 1;
            let line = row.and_then(|fields| (set.line)(&fields));
            match line {
                Ok(line) => lake.add(line).await?,
                // A file that ends in the middle is not a bad row: nobody knows how much is missing.
                Err(reason) if reason.starts_with(readers::UNREADABLE) => {
                    return Err(Failure::input(format!("{}: row {}: {reason}", file.display(), report.rows_read))
                        .hint("fetch the file again; clear the half-written lake before the next import"));
                }
                Err(reason) => *report.refused.entry(reason).or_default() += 1,
            }
        }
    }
    let refused: u64 = report.refused.values().sum();
    if refused as f64 > REFUSED_SHARE_MAX * report.rows_read as f64 && refused > 1 {
        return Err(Failure::input(format!(
            "{refused} of {} rows are not rows of {name}: {:?}",
            report.rows_read, report.refused
        ))
        .hint("check the name of the set and the files"));
    }
    (report.events, report.items, report.days) = lake.finish().await?;
    bar.finish_and_clear();
    Ok(report)
}
