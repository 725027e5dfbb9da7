//! The part of `gc` that removes content vectors (of texts, pictures, videos) that no night needs any more.
//!
//! Each night notes the keys of the contents in its lake. Rows whose key is neither in the newest night's list nor in a young
//! list (that night may still be running) are removed from their files, unless the files are young. So the text of a user who
//! asked to be forgotten is removed, and a picture that a shop has replaced. Vectors of encoders that no model of the registry
//! uses are removed as whole files.

use chrono::{DateTime, Utc};
use object_store::{ObjectMeta, path::Path};
use std::collections::HashSet;
use std::sync::Arc;

use crate::config::networks::Precision;
use crate::failure::{FailureKind, Result};
use crate::lake::stores::Location;
use crate::model::bundle::Registry;
use crate::model::contents::MODALITIES;
use crate::score::contents::ContentStore;
use crate::score::contents::vector_files::{USED_KEYS_FOLDER, VECTORS_FOLDER, retain_keys, used_keys, vector_keys};

/// A file that is removed, or rewritten without some of its rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StaleFile {
    pub(crate) file: Path,
    /// Size of the whole file.
    pub(crate) bytes: u64,
    /// Keys of the rows that stay; `None` removes the file.
    pub(crate) kept_keys: Option<Arc<HashSet<i64>>>,
}

/// Decides which files are stale; changes nothing.
pub(crate) async fn plan(output: &Location, young_after: DateTime<Utc>) -> Result<Vec<StaleFile>> {
    let used_folders = folders_of_models(output).await?;
    let mut key_lists = output.folder(USED_KEYS_FOLDER).list_by_folder().await?;
    let removed =
        |object: &ObjectMeta| StaleFile { file: object.location.clone(), bytes: object.size, kept_keys: None };
    let is_old = |object: &&ObjectMeta| object.last_modified <= young_after;
    let mut stale = Vec::new();
    for (folder, files) in output.folder(VECTORS_FOLDER).list_by_folder().await? {
        if !used_folders.contains(&folder) {
            stale.extend(files.iter().filter(is_old).map(removed));
            continue;
        }
        // Lists are named by date, so the last one is the newest night's.
        let mut lists = key_lists.remove(&folder).unwrap_or_default();
        let Some(newest) = lists.pop() else { continue };
        let (old_lists, young_lists): (Vec<_>, Vec<_>) = lists.into_iter().partition(|list| is_old(&list));
        stale.extend(old_lists.iter().map(removed));
        let mut needed = HashSet::new();
        for list in young_lists.iter().chain([&newest]) {
            needed.extend(used_keys(output, &list.location).await?);
        }
        let needed = Arc::new(needed);
        for file in files.iter().filter(is_old) {
            let keys = match vector_keys(output, &file.location).await {
                // Readers already ignore a damaged or foreign file.
                Err(failure) if failure.kind == FailureKind::Input => Vec::new(),
                keys => keys?,
            };
            match keys.iter().filter(|key| needed.contains(key)).count() {
                0 => stale.push(removed(file)),
                some if some < keys.len() => {
                    stale.push(StaleFile { kept_keys: Some(Arc::clone(&needed)), ..removed(file) })
                }
                _ => {}
            }
        }
    }
    // Lists of folders that no longer exist.
    stale.extend(key_lists.values().flatten().filter(is_old).map(removed));
    Ok(stale)
}

/// Executes the plan. The new file is written first: an interruption leaves rows twice, which readers read as once.
pub(crate) async fn execute(output: &Location, stale: &[StaleFile]) -> Result<()> {
    for StaleFile { file, kept_keys, .. } in stale {
        if let Some(kept_keys) = kept_keys {
            retain_keys(output, file, kept_keys).await?;
        }
        output.delete(vec![file.clone()]).await?;
    }
    Ok(())
}

/// Returns the folders of vectors that the registry's models read.
async fn folders_of_models(output: &Location) -> Result<HashSet<String>> {
    let mut folders: HashSet<String> = MODALITIES.iter().map(|name| name.to_string()).collect();
    for card in Registry(output.folder("models")).versions().await? {
        for precision in Precision::ALL {
            let store = ContentStore::for_model(output, &card, precision);
            folders.extend(store.iter().flat_map(ContentStore::folders).map(String::from));
        }
    }
    Ok(folders)
}
