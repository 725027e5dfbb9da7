//! Takes erased persons out of the stored rollup units.
//!
//! A unit keeps its id, its sources and its counts: it still covers the same files, and totals that counted a person keep their
//! value. Only its files by user are written again, under new names; the manifest that names them replaces the old one, and then the
//! old files go. Files that no manifest names, which an interrupted night or erasure left, go too: no night and no training runs
//! meanwhile.

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type};
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::erased_users::ErasureRecord;
use super::rollups::read_manifest;
use super::units::OutputFile;
use super::{content_key, lake_days};
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::tables::left_out_rows;

const ROLLUPS_FOLDER: &str = "state/rollups";

/// Columns of texts whose vectors are kept by their keys.
const TEXT_COLUMNS: [&str; 2] = ["query", "text"];

/// Rows that go, as far as they are known.
#[derive(Debug, Default)]
pub(crate) struct ErasedRows {
    pub(crate) files: u64,
    pub(crate) rows: u64,
    /// Keys of the persons' texts.
    pub(crate) text_keys: BTreeSet<i64>,
    /// Day of the first event, counted from 1970-01-01.
    pub(crate) first_day: Option<i32>,
}

impl ErasedRows {
    fn see(&mut self, rows: &RecordBatch) -> Result<()> {
        for name in TEXT_COLUMNS {
            if let Some(column) = rows.column_by_name(name) {
                let texts = cast(column, &DataType::Utf8)?;
                self.text_keys.extend(texts.as_string::<i32>().iter().flatten().filter_map(content_key::text_key));
            }
        }
        if let Some(column) = rows.column_by_name("event_day") {
            let days = cast(column, &DataType::Date32)?;
            let first = arrow::compute::min(days.as_primitive::<Date32Type>());
            self.first_day = self.first_day.into_iter().chain(first).min();
        }
        Ok(())
    }
}

/// Counts what [`erase`] would change, and changes nothing.
pub(crate) async fn survey(output: &Location, is_erased: &dyn Fn(&str) -> bool) -> Result<ErasedRows> {
    let mut found = ErasedRows::default();
    for file in output.folder(ROLLUPS_FOLDER).list().await?.iter().filter(|file| is_parquet(file)) {
        let rows = left_out_rows::count(output, &file.location, is_erased).await?;
        found.files += u64::from(rows > 0);
        found.rows += rows;
    }
    Ok(found)
}

/// Takes the rows of erased persons out of all units of an output. The record gets the keys of their texts before anything is
/// replaced. `still_locked` fails where the erasure has lost its lock; then nothing more is deleted.
pub(crate) async fn erase<'a>(
    output: &Location,
    is_erased: &dyn Fn(&str) -> bool,
    record: &mut ErasureRecord,
    still_locked: &(dyn Fn() -> BoxFuture<'a, Result<()>> + Sync),
) -> Result<ErasedRows> {
    let mut erased = ErasedRows::default();
    let all = output.folder(ROLLUPS_FOLDER);
    for (name, files) in all.list_by_folder().await? {
        let rollups = all.folder(&name);
        let mut named: BTreeSet<Path> = BTreeSet::new();
        let manifests = rollups.folder("manifests").list().await?;
        for manifest in &manifests {
            let mut units = read_manifest(&rollups, manifest).await?;
            let mut replaced: Vec<Path> = Vec::new();
            for unit in &mut units {
                let folder = rollups.folder(&format!("units/{}", unit.id));
                for file in unit.outputs.values_mut().flatten() {
                    replaced.extend(erase_file(&folder, file, is_erased, &mut erased).await?);
                }
                named.extend(unit.files(&rollups));
            }
            if replaced.is_empty() {
                continue;
            }
            record.text_keys.extend(&erased.text_keys);
            record.first_day = record.first_day.into_iter().chain(erased.first_day).min();
            still_locked().await?;
            record.write(output).await?;
            let text = serde_json::to_vec(&units).map_err(Failure::bug)?;
            output.store.put(&manifest.location, text.into()).await?;
            output.delete(replaced).await?;
        }
        let is_stray = |file: &&ObjectMeta| is_parquet(file) && !named.contains(&file.location);
        let units = rollups.folder("units");
        let stray = files.iter().filter(|file| file.location.prefix_matches(&units.prefix)).filter(is_stray);
        still_locked().await?;
        output.delete(stray.map(|file| file.location.clone()).collect()).await?;
    }
    Ok(erased)
}

/// A file of the lake before and after its persons were taken out: path and fingerprint.
#[derive(Debug)]
pub(crate) struct Rewritten {
    pub(crate) before: (String, String),
    pub(crate) after: (String, String),
    /// Events that it no longer has, by local day counted from 1970-01-01.
    pub(crate) events_gone: BTreeMap<i32, u64>,
}

/// Lets units cover the rewritten files of a lake in place of those that they were made from: without the persons, both give the
/// same unit. The rows that went leave the counts by day, which nights compare; the units' totals stay.
pub(crate) async fn follow(output: &Location, files: &[Rewritten]) -> Result<()> {
    let after: HashMap<(&str, &str), &Rewritten> =
        files.iter().map(|file| ((file.before.0.as_str(), file.before.1.as_str()), file)).collect();
    for folder in output.folder(ROLLUPS_FOLDER).list_by_folder().await?.keys() {
        let rollups = output.folder(ROLLUPS_FOLDER).folder(folder);
        for manifest in rollups.folder("manifests").list().await? {
            let mut units = read_manifest(&rollups, &manifest).await?;
            let mut has_changed = false;
            for unit in &mut units {
                for (path, fingerprint) in std::mem::take(&mut unit.sources) {
                    let Some(file) = after.get(&(path.as_str(), fingerprint.as_str())) else {
                        unit.sources.insert(path, fingerprint);
                        continue;
                    };
                    has_changed = true;
                    let (path, fingerprint) = file.after.clone();
                    unit.sources.insert(path, fingerprint);
                    for (day, rows) in &file.events_gone {
                        lake_days::take_out(&mut unit.days, *day, *rows);
                    }
                }
            }
            if has_changed {
                let text = serde_json::to_vec(&units).map_err(Failure::bug)?;
                output.store.put(&manifest.location, text.into()).await?;
            }
        }
    }
    Ok(())
}

/// Writes a file of a unit again without erased persons, and names the new one in its place. Returns the path of the old one.
async fn erase_file(
    folder: &Location,
    file: &mut OutputFile,
    is_erased: &dyn Fn(&str) -> bool,
    erased: &mut ErasedRows,
) -> Result<Option<Path>> {
    let path = folder.path(&file.name);
    let mut visit = |rows: &RecordBatch| erased.see(rows);
    let rewritten = left_out_rows::without(folder, &path, is_erased, &mut visit).await?;
    let Some(rewritten) = rewritten else { return Ok(None) };
    let stem = file.name.trim_end_matches(".parquet");
    let name = format!("{stem}-e{}.parquet", &uuid::Uuid::new_v4().simple().to_string()[..8]);
    file.bytes = rewritten.bytes.len() as u64;
    erased.files += 1;
    erased.rows += rewritten.rows_left_out;
    folder.write(&name, rewritten.bytes).await?;
    file.name = name;
    Ok(Some(path))
}

fn is_parquet(file: &ObjectMeta) -> bool {
    file.location.extension() == Some("parquet")
}
