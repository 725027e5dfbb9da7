//! Takes erased persons out of the lake's own files.
//!
//! A file is replaced as a whole by one with its other rows; of a Delta table by a commit, and the files that the log no longer
//! names go. The events that go are noted by day first, so that a night that reads fewer rows knows why, and units follow the files
//! that they were made from, so that no night builds them again.

use chrono::{TimeDelta, Utc};
use datafusion::prelude::SessionContext;
use deltalake::DeltaTable;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties, PROTOCOL};
use deltalake::kernel::{Action, Add};
use deltalake::protocol::DeltaOperation;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Attributes, GetOptions, ObjectMeta, ObjectStoreExt, PutMode, PutOptions, UpdateVersion};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use super::gone::Gone;
use crate::failure::{Failure, Result};
use crate::features::erased_lake_rows::{self, LakeRows};
use crate::features::erased_units::{self, Rewritten};
use crate::features::erased_users::{ErasedUsers, ErasureRecord};
use crate::features::lake_source::LakeSource;
use crate::lake::delta_table;
use crate::lake::files_table::ListedFile;
use crate::lake::rewritten_file::{self, RewrittenFile};
use crate::lake::scratch_copy::{self, UploadSizes};
use crate::lake::stores::Location;
use crate::lake::{Lake, fingerprint};
use crate::publish::lock::NightLock;
use crate::tables::delta_log;

/// Age below which a file that no version of a table names may be about to be committed.
const UNDER_WAY: TimeDelta = TimeDelta::hours(1);

/// The lake whose files are rewritten, and a session to read it with.
#[derive(Clone, Copy)]
pub(crate) struct LakeToRewrite<'a> {
    pub(crate) ctx: &'a SessionContext,
    pub(crate) source: LakeSource<'a>,
}

/// A file with rows of erased persons.
struct OwnedFile<'a> {
    listed: &'a ListedFile,
    folder: Location,
    is_delta: bool,
    /// Columns with users' ids.
    columns: Vec<String>,
    /// Rows of erased persons, as SQL finds them.
    rows: u64,
}

/// Counts what [`rewrite`] would take out, and changes nothing.
pub(super) async fn survey(lake: LakeToRewrite<'_>, users: &Arc<ErasedUsers>) -> Result<Gone> {
    let (files, rows) = erased_lake_rows::find(lake.ctx, lake.source, users).await?.count();
    Ok(Gone { files, rows })
}

/// Takes these users out of all files of the lake. The record gets what nights need to know before anything is replaced.
pub(super) async fn rewrite(
    output: &Location,
    lake: LakeToRewrite<'_>,
    users: &Arc<ErasedUsers>,
    record: &mut ErasureRecord,
    held: &NightLock,
) -> Result<Gone> {
    let found = erased_lake_rows::find(lake.ctx, lake.source, users).await?;
    let mut done = Replaced::default();
    let replaced = replace(output, lake.source, &found, users, (record, held), &mut done).await;
    if !done.moved.is_empty() {
        // Also where a later file failed.
        let now = Lake::open(lake.source.config, lake.source.sql).await?;
        erased_units::follow(output, &rewritten(lake.source.lake, &now, &done.moved, &found)).await?;
        replaced?;
        let source = LakeSource { lake: &now, ..lake.source };
        if erased_lake_rows::find(lake.ctx, source, users).await?.count().1 > 0 {
            return Err(Failure::transient("the lake got more rows of the erased persons meanwhile")
                .hint("run the same command again, when nothing writes to the lake"));
        }
    } else {
        replaced?;
    }
    Ok(done.gone)
}

/// Files that were replaced.
#[derive(Debug, Default)]
struct Replaced {
    gone: Gone,
    /// The new place of each file.
    moved: HashMap<Path, Path>,
}

async fn replace(
    output: &Location,
    source: LakeSource<'_>,
    found: &LakeRows,
    users: &ErasedUsers,
    (record, held): (&mut ErasureRecord, &NightLock),
    done: &mut Replaced,
) -> Result<()> {
    let (lake, scratch) = (source.lake, &source.config.engine.spill_path());
    let files = owned_files(lake, found)?;
    for table in delta_tables(lake, &files)?.iter().filter(|table| !table.files.is_empty()) {
        refuse_unwritable(&table.folder).await?;
    }
    for file in files.values().filter(|file| !file.is_delta) {
        refuse_changed(&lake.location, file.listed).await?;
        refuse_unsuitable(&lake.location, file).await?;
    }
    for listed in lake.files("events") {
        if let Some(days) = found.days.get(&listed.name) {
            let name = format!("{} {}", listed.meta.location, fingerprint(&listed.meta));
            record.lake_noted_at.insert(name.clone(), Utc::now());
            record.lake_events.insert(name, days.clone());
        }
    }
    for file in files.values() {
        note_version(&lake.location, &file.listed.meta.location, record).await?;
    }
    record.write(output).await?;
    let is_erased = |id: &str| users.contains(id);
    for file in files.values().filter(|file| !file.is_delta) {
        held.check().await?;
        let (made, attributes) = read_without(&lake.location, file, &is_erased, scratch).await?;
        let (path, rows_left_out) = (&file.listed.meta.location, made.rows_left_out);
        put_in_place(&lake.location, file.listed, made, attributes).await?;
        done.moved.insert(path.clone(), path.clone());
        done.gone.add(rows_left_out);
    }
    let mut young = Vec::new();
    for table in delta_tables(lake, &files)? {
        held.check().await?;
        commit(&table, &is_erased, scratch, done).await?;
        young.extend(remove_retired(&table, &is_erased, scratch, (&mut *record, output)).await?);
    }
    match young.first() {
        None => Ok(()),
        Some(name) => Err(Failure::transient(format!(
            "{name}: this file, which no version of the table names, holds erased persons{}: a write may be under way",
            match young.len() {
                1 => String::new(),
                2 => ", and so does 1 other".into(),
                files => format!(", and so do {} others", files - 1),
            }
        ))
        .hint(format!("run the same command again, {} minutes after the last such write", UNDER_WAY.num_minutes()))),
    }
}

/// Replaces a file that is as it was listed; where the store can, nothing that was written meanwhile.
async fn put_in_place(
    store: &Location,
    listed: &ListedFile,
    made: RewrittenFile,
    attributes: Attributes,
) -> Result<()> {
    let path = &listed.meta.location;
    let still_listed = refuse_changed(store, listed);
    if store.url.scheme() != "file" {
        let known = UpdateVersion { e_tag: listed.meta.e_tag.clone(), version: None };
        let only_this = PutOptions { mode: PutMode::Update(known), attributes, ..Default::default() };
        return scratch_copy::upload(store, path, made.file, only_this, UploadSizes::default(), still_listed).await;
    }
    let local = PathBuf::from(store.display(path));
    let failed = |e: std::io::Error| Failure::transient(e.to_string()).at(&listed.name);
    let permissions = std::fs::metadata(&local).map_err(failed)?.permissions();
    // Checksums that Spark and Hadoop keep for a local file: of its old bytes.
    if let (Some(folder), Some(name)) = (local.parent(), local.file_name().and_then(|name| name.to_str())) {
        match std::fs::remove_file(folder.join(format!(".{name}.crc"))) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
    }
    scratch_copy::upload(store, path, made.file, PutOptions::default(), UploadSizes::default(), still_listed).await?;
    std::fs::set_permissions(&local, permissions).map_err(failed)?;
    let written = std::fs::File::open(&local).and_then(|file| file.sync_all());
    written.map_err(failed)
}

/// Refuses (exit 3) what a new file would not stand for: a link, and a file whose row groups a summary names.
async fn refuse_unsuitable(store: &Location, file: &OwnedFile<'_>) -> Result<()> {
    if store.url.scheme() == "file" {
        let local = PathBuf::from(store.display(&file.listed.meta.location));
        if std::fs::symlink_metadata(&local).is_ok_and(|found| found.is_symlink()) {
            return Err(Failure::input(format!("{}: expected a file, found a link", file.listed.name))
                .hint("put the file itself into the lake, then run the same command again"));
        }
    }
    let summary = file.folder.path("_metadata");
    match store.store.head(&summary).await {
        Ok(_) => Err(Failure::input(format!(
            "{}: this summary of the files' row groups would be wrong afterwards",
            store.display(&summary)
        ))
        .hint("delete it, run the same command again, and let its program write it again if readers need it")),
        Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(e) => Err(Failure::from(e).at(store.display(&summary))),
    }
}

/// Forgets those of the noted versions that the bucket no longer keeps.
pub(super) async fn forget_gone_versions(store: &Location, record: &mut ErasureRecord) -> Result<()> {
    let mut kept = BTreeSet::new();
    for (path, version) in std::mem::take(&mut record.kept_versions) {
        let options = GetOptions { version: Some(version.clone()), head: true, ..Default::default() };
        match store.store.get_opts(&Path::from(path.as_str()), options).await {
            Ok(_) => {
                kept.insert((path, version));
            }
            Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => return Err(Failure::from(e).at(store.full_url(&Path::from(path.as_str())))),
        }
    }
    record.kept_versions = kept;
    Ok(())
}

fn owned_files<'a>(lake: &'a Lake, found: &LakeRows) -> Result<BTreeMap<String, OwnedFile<'a>>> {
    let mut files: BTreeMap<String, OwnedFile<'a>> = BTreeMap::new();
    for (table, names) in &found.tables {
        let columns = lake.columns_of_users(table)?;
        let (folder, is_delta) = lake.folder(table)?;
        for listed in lake.files(table).iter().filter(|file| names.contains_key(&file.name)) {
            let rows = names.get(&listed.name).copied().unwrap_or_default();
            let new = || OwnedFile { listed, folder: folder.clone(), is_delta, columns: Vec::new(), rows: 0 };
            // Several tables may read one file.
            let file = files.entry(listed.name.clone()).or_insert_with(new);
            file.columns.extend_from_slice(columns);
            file.rows = file.rows.max(rows);
        }
    }
    Ok(files)
}

/// Refuses (exit 75) a file that someone wrote since the lake was listed.
async fn refuse_changed(store: &Location, listed: &ListedFile) -> Result<()> {
    let now = store.store.head(&listed.meta.location).await.map_err(|e| Failure::from(e).at(&listed.name))?;
    match fingerprint(&now) == fingerprint(&listed.meta) {
        true => Ok(()),
        false => Err(Failure::transient(format!("{}: someone wrote this file meanwhile", listed.name))
            .hint("run the same command again, when nothing writes to the lake")),
    }
}

/// Notes the version of a file that is about to go, where the bucket keeps versions.
async fn note_version(store: &Location, path: &Path, record: &mut ErasureRecord) -> Result<()> {
    let meta: ObjectMeta = store.store.head(path).await.map_err(|e| Failure::from(e).at(store.display(path)))?;
    // `null` is what a bucket without versions, or one that stopped keeping them, calls the only one: it goes.
    if let Some(version) = meta.version.filter(|version| version != "null") {
        record.kept_versions.insert((path.to_string(), version));
    }
    Ok(())
}

/// Writes a file without these persons to the scratch folder, and returns what the store knows of the file besides. Refuses (exit 3)
/// a file of which the rows to leave out are not those that SQL found.
async fn read_without(
    store: &Location,
    file: &OwnedFile<'_>,
    is_erased: &dyn Fn(&str) -> bool,
    scratch: &std::path::Path,
) -> Result<(RewrittenFile, Attributes)> {
    let name = &file.listed.name;
    let copy = scratch_copy::download(store, &file.listed.meta.location, scratch).await?;
    let copy = copy.ok_or_else(|| Failure::transient(format!("{name}: someone removed this file meanwhile")))?;
    let made = rewritten_file::without(&copy.file, &file.columns, is_erased, scratch);
    let made = made.map_err(|failure| failure.at(name))?;
    let rows = made.as_ref().map_or(0, |made| made.rows_left_out);
    match made.filter(|_| rows == file.rows) {
        Some(made) => Ok((made, copy.attributes)),
        None => Err(Failure::input(format!(
            "{name}: expected {} rows of erased persons, as SQL finds them, found {rows} in the file's own columns",
            file.rows
        ))
        .hint("ids that only the names of folders have cannot be taken out; move or write this file yourself")),
    }
}

/// A folder of the lake that is a Delta table.
struct DeltaFolder<'a> {
    folder: Location,
    /// Those with rows of erased persons.
    files: Vec<&'a OwnedFile<'a>>,
    /// Columns with users' ids.
    columns: Vec<String>,
}

fn delta_tables<'a>(lake: &Lake, files: &'a BTreeMap<String, OwnedFile<'a>>) -> Result<Vec<DeltaFolder<'a>>> {
    let mut tables: BTreeMap<Path, DeltaFolder<'a>> = BTreeMap::new();
    for table in lake.tables() {
        let (folder, is_delta) = lake.folder(table)?;
        let columns = lake.columns_of_users(table)?;
        if is_delta && !columns.is_empty() {
            let files = files.values().filter(|file| file.folder.prefix == folder.prefix).collect();
            let new = DeltaFolder { folder: folder.clone(), files, columns: Vec::new() };
            tables.entry(folder.prefix).or_insert(new).columns.extend_from_slice(columns);
        }
    }
    Ok(tables.into_values().collect())
}

async fn open(folder: &Location) -> Result<DeltaTable> {
    let fault = delta_log::failure(folder.display_folder());
    let mut table = DeltaTable::new(delta_table::log_store(folder).map_err(&fault)?);
    table.load().await.map_err(&fault)?;
    Ok(table)
}

/// Refuses (exit 3) a table whose owner wants no row to go, or with features that this version cannot write.
async fn refuse_unwritable(folder: &Location) -> Result<()> {
    let place = folder.display_folder();
    let opened = open(folder).await?;
    let state = opened.snapshot().map_err(delta_log::failure(&place))?;
    if state.metadata().configuration().get("delta.appendOnly").is_some_and(|value| value == "true") {
        return Err(Failure::input(format!(
            "{place}: expected a Delta table that takes deletions, found delta.appendOnly"
        ))
        .hint("unset this property of the table, then run the same command again"));
    }
    PROTOCOL.can_write_to(state).map_err(|e| {
        Failure::input(format!("{place}: expected a Delta table that this version can write: {e}"))
            .hint("delete the rows with the program that writes this table, then run the same command again")
    })
}

/// Commits files without these persons in place of those that have them.
async fn commit(
    table: &DeltaFolder<'_>,
    is_erased: &dyn Fn(&str) -> bool,
    scratch: &std::path::Path,
    done: &mut Replaced,
) -> Result<()> {
    if table.files.is_empty() {
        return Ok(());
    }
    let place = table.folder.display_folder();
    let fault = delta_log::failure(&place);
    let opened = open(&table.folder).await?;
    let state = opened.snapshot().map_err(&fault)?;
    let mut actions = Vec::new();
    let mut replaced = Replaced::default();
    for file in &table.files {
        let path = &file.listed.meta.location;
        let is_this = |name: &str| table.folder.path_as_is(name).as_ref() == Some(path);
        let named = state.log_data().iter().find(|named| is_this(&named.path()));
        // Rows that a deletion vector marks would come back.
        let Some(named) = named.filter(|named| named.deletion_vector_descriptor().is_none()) else {
            return Err(Failure::transient(format!("{}: someone changed the table meanwhile", file.listed.name))
                .hint("run the same command again, when nothing writes to the lake"));
        };
        let (made, attributes) = read_without(&table.folder, file, is_erased, scratch).await?;
        actions.push(Action::Remove(named.remove_action(true)));
        replaced.gone.add(made.rows_left_out);
        let rows = made.metadata.file_metadata().num_rows();
        let old_name = named.path().into_owned();
        let folder = old_name.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
        let name = format!("{folder}part-{}.parquet", uuid::Uuid::new_v4());
        let size = made.file.metadata().map_err(|e| scratch_copy::failure(&e))?.len();
        let size = i64::try_from(size).map_err(Failure::bug)?;
        let Some(new_path) = table.folder.path_as_is(&name) else {
            return Err(Failure::bug(format!("{name} is no name of an object")));
        };
        let options = PutOptions { attributes, ..Default::default() };
        scratch_copy::upload(&table.folder, &new_path, made.file, options, UploadSizes::default(), async { Ok(()) })
            .await?;
        replaced.moved.insert(path.clone(), new_path);
        actions.push(Action::Add(Add {
            path: name,
            partition_values: named.partition_values_map(),
            size,
            modification_time: Utc::now().timestamp_millis(),
            data_change: true,
            stats: Some(json!({ "numRecords": rows }).to_string()),
            ..Default::default()
        }));
    }
    // Only on the version that was read: a compaction meanwhile would leave every other row twice.
    let properties = CommitProperties::default()
        .with_max_retries(0)
        .with_create_checkpoint(false)
        .with_cleanup_expired_logs(Some(false));
    let operation = DeltaOperation::Delete { predicate: None };
    CommitBuilder::from(properties)
        .with_actions(actions)
        .build(Some(state), opened.log_store(), operation)
        .await
        .map_err(|e| fault(e).at(&place).hint("run the same command again, when nothing writes to the lake"))?;
    done.gone.files += replaced.gone.files;
    done.gone.rows += replaced.gone.rows;
    done.moved.extend(replaced.moved);
    Ok(())
}

/// Removes files of a Delta table that its newest version does not have and that hold these persons, whether or not the log still
/// names them. Returns the names of those that a write under way may be about to commit.
async fn remove_retired(
    table: &DeltaFolder<'_>,
    is_erased: &dyn Fn(&str) -> bool,
    scratch: &std::path::Path,
    (record, output): (&mut ErasureRecord, &Location),
) -> Result<Vec<String>> {
    let log = table.folder.path("_delta_log");
    let now = Utc::now();
    let listed = table.folder.list().await?;
    // After the listing: what was committed meanwhile is active.
    let newest = open(&table.folder).await?;
    let state = newest.snapshot().map_err(delta_log::failure(table.folder.display_folder()))?;
    let log_store = newest.log_store();
    let mut tombstones = state.all_tombstones(log_store.as_ref());
    let mut retired = BTreeSet::new();
    while let Some(file) = tombstones.try_next().await.map_err(delta_log::failure(table.folder.display_folder()))? {
        retired.extend(table.folder.path_as_is(&file.path()));
    }
    let active = state.log_data();
    let active: BTreeSet<Path> = active.iter().filter_map(|file| table.folder.path_as_is(&file.path())).collect();
    let (mut with_persons, mut young) = (Vec::new(), Vec::new());
    for file in listed {
        let path = file.location;
        let is_data = path.as_ref().ends_with(".parquet") && !path.prefix_matches(&log);
        if !is_data || active.contains(&path) {
            continue;
        }
        let is_young = !retired.contains(&path) && now - file.last_modified < UNDER_WAY;
        let Some(copy) = scratch_copy::download(&table.folder, &path, scratch).await? else { continue };
        match rewritten_file::holds(&copy.file, &table.columns, is_erased) {
            Ok(false) => {}
            Ok(true) if is_young => young.push(table.folder.display(&path)),
            Ok(true) => with_persons.push(path),
            // Not whole yet.
            Err(_) if is_young => young.push(table.folder.display(&path)),
            Err(failure) => {
                return Err(failure
                    .at(table.folder.display(&path))
                    .hint("the newest version of the table does not have this file; remove it, then run the same command again"));
            }
        }
    }
    for path in &with_persons {
        note_version(&table.folder, path, record).await?;
    }
    record.write(output).await?;
    table.folder.delete(with_persons).await?;
    Ok(young)
}

/// Returns the files as they were and as they are now.
fn rewritten(before: &Lake, now: &Lake, moved: &HashMap<Path, Path>, found: &LakeRows) -> Vec<Rewritten> {
    let days =
        before.files("events").iter().filter_map(|file| Some((&file.meta.location, found.days.get(&file.name)?)));
    let days: HashMap<&Path, &BTreeMap<i32, u64>> = days.collect();
    let named = |lake: &Lake| -> HashMap<Path, String> {
        let files = lake.tables().flat_map(|table| lake.files(table));
        files.map(|file| (file.meta.location.clone(), fingerprint(&file.meta))).collect()
    };
    let (before, now) = (named(before), named(now));
    let pair = |(old, new): (&Path, &Path)| {
        let (before, after) = (before.get(old)?, now.get(new)?);
        Some(Rewritten {
            before: (old.to_string(), before.clone()),
            after: (new.to_string(), after.clone()),
            events_gone: days.get(old).map(|days| (*days).clone()).unwrap_or_default(),
        })
    };
    moved.iter().filter_map(pair).collect()
}
