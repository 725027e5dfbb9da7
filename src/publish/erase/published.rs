//! Takes erased persons out of the published tables: of every visible night, of hidden ones, of files that no night names, and of
//! the tables' logs.
//!
//! Each visible night is published again, as a generation of kind `erase`, with the files of the generation that readers saw, those
//! that held an erased person written again without. Then the log before the newest version is removed, so that neither rollback
//! nor time travel finds what was there. Each step finds what an interrupted erasure left, and does the rest.

use deltalake::DeltaTable;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::config::LockConfig;
use crate::failure::{Failure, Result};
use crate::features::night_units;
use crate::ids::RunDate;
use crate::lake::stores::Location;
use crate::publish::lock::{self, NightLock};
use crate::publish::runs::{self, RunKind, RunRecord, VisibleNight};
use crate::publish::suppressed;
use crate::tables::delta::{self, TableCommit};
use crate::tables::delta_log;
use crate::tables::left_out_rows;
use crate::tables::schemas::{self, NIGHT_TABLES};
use crate::tables::write_files::{self, StagedFile};

use super::gone::Gone;

/// Returns the tables that have rows of users.
pub(super) fn tables_of_users() -> Result<Vec<&'static str>> {
    let mut found = Vec::new();
    for table in NIGHT_TABLES {
        if schemas::spec(table)?.columns.iter().any(|column| left_out_rows::names_owner(column.name)) {
            found.push(table);
        }
    }
    Ok(found)
}

/// Counts the rows of erased persons in the data files of all tables, and changes nothing.
pub(super) async fn survey(output: &Location, is_erased: &dyn Fn(&str) -> bool) -> Result<Gone> {
    let mut gone = Gone::default();
    for table in tables_of_users()? {
        for file in data_files(output, table).await? {
            let rows = left_out_rows::count(output, &file, is_erased).await?;
            gone.add(rows);
        }
    }
    Ok(gone)
}

async fn data_files(output: &Location, table: &str) -> Result<Vec<Path>> {
    let folder = write_files::table_location(output, table);
    let log = folder.folder("_delta_log").prefix;
    let listed = folder.list().await?.into_iter().map(|file| file.location);
    Ok(listed.filter(|file| file.extension() == Some("parquet") && !file.prefix_matches(&log)).collect())
}

/// Takes erased persons out of all tables.
pub(super) async fn erase(
    output: &Location,
    erasure: &NightLock,
    locks: &LockConfig,
    is_erased: &dyn Fn(&str) -> bool,
) -> Result<Gone> {
    let mut held: BTreeMap<RunDate, NightLock> = BTreeMap::new();
    let done = erase_locked(output, erasure, locks, is_erased, &mut held).await;
    let mut released = Ok(());
    for lock in held.values() {
        released = released.and(lock.release().await);
    }
    let gone = done?;
    released?;
    Ok(gone)
}

async fn erase_locked(
    output: &Location,
    erasure: &NightLock,
    locks: &LockConfig,
    is_erased: &dyn Fn(&str) -> bool,
    held: &mut BTreeMap<RunDate, NightLock>,
) -> Result<Gone> {
    let mut gone = Gone::default();
    // Files whose rows are counted already.
    let mut replaced: HashSet<Path> = HashSet::new();
    let history = runs::history(output).await?;
    let showable = runs::showable(&history);
    let visible = runs::visible_nights(output).await?;
    let tables = tables_of_users()?;
    for table in &tables {
        let Some(newest) = delta_log::open(output, table, None).await? else { continue };
        let mut dates = delta::nights(&newest, table)?;
        dates.extend(visible.iter().map(VisibleNight::run_date));
        for date in dates {
            let night = visible.iter().find(|night| night.run_date() == date);
            let shown = match night {
                Some(night) => files_of(output, table, night, &newest).await?,
                // Hidden: rolled back or expired.
                None => Vec::new(),
            };
            let mut files = Vec::new();
            for file in shown {
                let before = write_files::table_location(output, table).path(&file.path);
                let path = file.path.clone();
                let kept = erase_file(output, table, date, file, is_erased, &mut gone).await?;
                if kept.as_ref().is_none_or(|kept| kept.path != path) {
                    replaced.insert(before);
                }
                files.extend(kept);
            }
            let there: BTreeSet<String> = delta::night_files(&newest, table, date)?.into_iter().map(|f| f.0).collect();
            let wanted: BTreeSet<String> = files.iter().map(|file| file.path.clone()).collect();
            if there == wanted {
                continue;
            }
            let lock = lock_of(output, locks, date, held).await?;
            let content = format!("erasure by generation {}", lock.generation);
            let commit = TableCommit {
                table,
                run_date: date,
                generation: lock.generation,
                files: &files,
                manifest_hash: &content,
            };
            lock.check().await?;
            delta::replace_partition(output, &commit).await?;
        }
    }
    let mut newest: BTreeMap<String, u64> = BTreeMap::new();
    for table in &tables {
        if let Some(version) = delta_log::open(output, table, None).await?.and_then(|opened| opened.version()) {
            newest.insert((*table).to_string(), version);
        }
    }
    for night in &visible {
        let mut record = night.run.clone();
        let named = record.table_versions.clone();
        record.table_versions.extend(
            newest
                .iter()
                .filter(|(table, _)| named.contains_key(*table))
                .map(|(table, version)| (table.clone(), *version)),
        );
        // A generation before this one could be shown again, and its version will be gone.
        let is_alone = showable.get(&night.run_date()).is_none_or(|generations| generations.len() == 1);
        if record.table_versions == named && is_alone {
            continue;
        }
        let lock = lock_of(output, locks, night.run_date(), held).await?;
        night_units::copy(output, night.run_date(), night.run.generation, lock.generation).await?;
        suppressed::copy(output, night.run_date(), night.run.generation, lock.generation).await?;
        lock.check().await?;
        runs::append(output, &shown_again(record, lock)).await?;
    }
    erasure.check().await?;
    for table in &tables {
        delta_log::forget_history(output, table).await?;
        let Some(opened) = delta_log::open(output, table, None).await? else { continue };
        let folder = write_files::table_location(output, table);
        let named: HashSet<Path> =
            delta::file_paths(&opened, table, None)?.iter().map(|path| folder.path(path)).collect();
        let mut unnamed = data_files(output, table).await?;
        unnamed.retain(|file| !named.contains(file) && !replaced.contains(file));
        for file in &unnamed {
            gone.add(left_out_rows::count(output, file, is_erased).await?);
        }
        erasure.check().await?;
        output.delete(unnamed).await?;
        output.delete(replaced.iter().cloned().collect()).await?;
    }
    Ok(gone)
}

/// Returns the record with which a night is shown again. It keeps the time of its publication: an erasure makes no night younger, and
/// `check` would miss that no night ran since.
fn shown_again(mut record: RunRecord, lock: &NightLock) -> RunRecord {
    record.kind = RunKind::Erase;
    record.generation = lock.generation;
    let note = "published again without erased persons";
    record.note = Some(match record.note.filter(|earlier| !earlier.contains(note)) {
        Some(earlier) => format!("{earlier}; {note}"),
        None => note.into(),
    });
    record
}

async fn lock_of<'a>(
    output: &Location,
    locks: &LockConfig,
    date: RunDate,
    held: &'a mut BTreeMap<RunDate, NightLock>,
) -> Result<&'a NightLock> {
    match held.entry(date) {
        Entry::Occupied(there) => Ok(there.into_mut()),
        Entry::Vacant(free) => Ok(free.insert(lock::acquire_during_erasure(output, date, locks).await?)),
    }
}

/// Returns the files of a visible night.
async fn files_of(
    output: &Location,
    table: &str,
    night: &VisibleNight,
    newest: &DeltaTable,
) -> Result<Vec<StagedFile>> {
    let Some(version) = night.version(table) else { return Ok(Vec::new()) };
    if newest.version() == Some(version) {
        return delta::staged_files(newest, table, night.run_date());
    }
    match delta_log::open(output, table, Some(version)).await? {
        Some(opened) => delta::staged_files(&opened, table, night.run_date()),
        None => Ok(Vec::new()),
    }
}

/// Writes a file again without erased persons, next to it. Returns the file that takes its place: itself where it holds none of
/// them, none where it holds nothing else.
async fn erase_file(
    output: &Location,
    table: &str,
    date: RunDate,
    file: StagedFile,
    is_erased: &dyn Fn(&str) -> bool,
    gone: &mut Gone,
) -> Result<Option<StagedFile>> {
    let folder = write_files::table_location(output, table);
    let path = folder.path(&file.path);
    let Some(rewritten) = left_out_rows::without(&folder, &path, is_erased, &mut |_| Ok(())).await? else {
        return match output.store.head(&path).await {
            Ok(_) => Ok(Some(file)),
            Err(e) => Err(Failure::from(e).hint("a published file is gone: restore it, or roll this night back")),
        };
    };
    gone.add(rewritten.rows_left_out);
    if rewritten.rows == 0 {
        return Ok(None);
    }
    let name = format!("{}={date}/e-{}.parquet", schemas::PARTITION, uuid::Uuid::new_v4().simple());
    let bytes = rewritten.bytes.len() as i64;
    folder.write(&name, rewritten.bytes).await?;
    Ok(Some(StagedFile {
        path: name,
        rows: rewritten.rows as i64,
        bytes,
        stats: rewritten.stats,
        attempt: String::new(),
    }))
}
