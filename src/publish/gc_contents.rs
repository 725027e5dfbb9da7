//! Which kept vectors of contents no night needs any more, and taking them away: a part of `gc`.
//!
//! Each night notes the keys that its lake has. What neither the newest night had nor one that noted its keys of late (it may
//! still be running) is taken out of the files, unless they are young; so a text of somebody who asked to be forgotten goes,
//! and a picture that a shop has replaced. Vectors of encoders that no model of the registry has go whole.

use chrono::{DateTime, Utc};
use object_store::{ObjectMeta, path::Path};
use std::collections::HashSet;
use std::sync::Arc;

use crate::config::networks::Precision;
use crate::failure::{FailureKind, Result};
use crate::lake::stores::Location;
use crate::model::bundle::Registry;
use crate::model::contents::MODALITIES;
use crate::score::contents::store::{ContentStore, USED_KEYS_FOLDER, VECTORS_FOLDER};
use crate::score::contents::vector_files::{retain_keys, used_keys, vector_keys};

/// A file that goes, or that loses rows.
#[derive(Debug, Clone, PartialEq)]
pub struct StaleFile {
    pub file: Path,
    /// Of the whole file.
    pub bytes: u64,
    /// The keys that stay; nothing does where there are none.
    pub kept: Option<Arc<HashSet<i64>>>,
}

/// Decides; nothing is touched.
pub async fn plan(output: &Location, young_after: DateTime<Utc>) -> Result<Vec<StaleFile>> {
    let used = folders_of_models(output).await?;
    let mut noted = output.folder(USED_KEYS_FOLDER).list_by_folder().await?;
    let gone = |object: &ObjectMeta| StaleFile { file: object.location.clone(), bytes: object.size, kept: None };
    let old = |object: &&ObjectMeta| object.last_modified <= young_after;
    let mut stale = Vec::new();
    for (folder, files) in output.folder(VECTORS_FOLDER).list_by_folder().await? {
        if !used.contains(&folder) {
            stale.extend(files.iter().filter(old).map(gone));
            continue;
        }
        // Named by date, so that the last one is the newest night's.
        let mut lists = noted.remove(&folder).unwrap_or_default();
        let Some(newest) = lists.pop() else { continue };
        let (past, recent): (Vec<_>, Vec<_>) = lists.into_iter().partition(|list| old(&list));
        stale.extend(past.iter().map(gone));
        let mut kept = HashSet::new();
        for list in recent.iter().chain([&newest]) {
            kept.extend(used_keys(output, &list.location).await?);
        }
        let kept = Arc::new(kept);
        for file in files.iter().filter(old) {
            let keys = match vector_keys(output, &file.location).await {
                // A damaged or foreign file counts as none already.
                Err(failure) if failure.kind == FailureKind::Input => Vec::new(),
                keys => keys?,
            };
            match keys.iter().filter(|key| kept.contains(key)).count() {
                0 => stale.push(gone(file)),
                some if some < keys.len() => stale.push(StaleFile { kept: Some(Arc::clone(&kept)), ..gone(file) }),
                _ => {}
            }
        }
    }
    // Of folders that are gone.
    stale.extend(noted.values().flatten().filter(old).map(gone));
    Ok(stale)
}

/// Carries it out. The new file first: whoever is stopped between has rows twice, which read as once.
pub async fn execute(output: &Location, stale: &[StaleFile]) -> Result<()> {
    for StaleFile { file, kept, .. } in stale {
        if let Some(kept) = kept {
            retain_keys(output, file, kept).await?;
        }
        output.delete(vec![file.clone()]).await?;
    }
    Ok(())
}

/// The folders that models of the registry read.
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
