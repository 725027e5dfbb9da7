//! Stored units: which event files they cover, how files are grouped into them, and which of them a night can use.

use chrono::{Datelike, NaiveDate};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};

use crate::ids::ContentHash;
use crate::lake::{files_table::ListedFile, parquet_files, stores::Location};

/// Source bytes above which a month is split into several units; bounds the memory of one rollup's sort.
const UNIT_BYTES_MAX: u64 = 32 << 20;

/// One stored unit: its source files with fingerprints, its outputs with their sizes, and its counts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Unit {
    pub(crate) id: String,
    pub(crate) first_dt: Option<NaiveDate>,
    pub(crate) last_dt: Option<NaiveDate>,
    /// Path and fingerprint of each source file.
    pub(crate) sources: BTreeMap<String, String>,
    /// The files of each output.
    pub(crate) outputs: BTreeMap<String, Vec<OutputFile>>,
    pub(crate) rows: u64,
    pub(crate) quarantined: BTreeMap<String, u64>,
    /// Good rows with a price, by currency; rows without a currency are not counted.
    #[serde(default)]
    pub(crate) currencies: BTreeMap<String, u64>,
    /// True for a unit that was built for one read-only session and is not stored below the output.
    #[serde(skip)]
    pub(super) of_this_session: bool,
}

/// One file of a unit, named relative to the unit's folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OutputFile {
    pub(crate) name: String,
    pub(crate) bytes: u64,
}

/// Chooses stored units whose files are all there unchanged, so that no file is covered twice; `now` gives each file's path and
/// fingerprint. The unit of most files wins: a night of an earlier date leaves a unit of a part of another unit's files, and
/// later nights must read what they read before, whatever the order in which the store lists the manifests.
pub(super) fn choose_units(mut found: Vec<Unit>, now: &HashMap<String, String>) -> Vec<Unit> {
    found.sort_by(|a, b| b.sources.len().cmp(&a.sources.len()).then_with(|| a.id.cmp(&b.id)));
    let mut covered: HashSet<String> = HashSet::new();
    let mut chosen = Vec::new();
    for unit in found {
        let is_whole = unit.sources.iter().all(|(path, tag)| now.get(path) == Some(tag));
        if is_whole && unit.sources.keys().all(|path| !covered.contains(path)) {
            covered.extend(unit.sources.keys().cloned());
            chosen.push(unit);
        }
    }
    chosen
}

pub(super) fn fingerprint_sources(sources: &BTreeMap<String, String>) -> String {
    ContentHash::from_bytes(format!("{sources:?}")).short()
}

pub(super) fn list_output(location: &Location, units: &[&Unit], output: &str) -> Vec<ListedFile> {
    let mut listed = Vec::new();
    for unit in units {
        for file in unit.outputs.get(output).into_iter().flatten() {
            let path = location.path(&format!("units/{}/{}", unit.id, file.name));
            listed.push(parquet_files::listed(location, path, file.bytes, unit.last_dt));
        }
    }
    listed
}

/// Groups files by month in date order, split at [`UNIT_BYTES_MAX`].
pub(super) fn group(mut files: Vec<ListedFile>) -> Vec<Vec<ListedFile>> {
    files.sort_by(|a, b| (a.dt, &a.meta.location).cmp(&(b.dt, &b.meta.location)));
    let month = |f: &ListedFile| f.dt.map(|d| (d.year(), d.month()));
    let mut groups: Vec<Vec<ListedFile>> = Vec::new();
    let mut bytes = 0;
    for file in files {
        let fits = bytes + file.meta.size <= UNIT_BYTES_MAX;
        match groups.last_mut() {
            Some(group) if fits && group.last().map(month) == Some(month(&file)) => {
                bytes += file.meta.size;
                group.push(file);
            }
            _ => {
                bytes = file.meta.size;
                groups.push(vec![file]);
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(days: std::ops::Range<u32>) -> Unit {
        Unit {
            id: format!("{days:?}"),
            first_dt: None,
            last_dt: None,
            sources: days.map(|day| (format!("dt={day}"), "tag".to_string())).collect(),
            outputs: BTreeMap::new(),
            rows: 0,
            quarantined: BTreeMap::new(),
            currencies: BTreeMap::new(),
            of_this_session: false,
        }
    }

    #[test]
    fn units_of_a_backfilled_date_never_replace_larger_ones() {
        let now = (1..26).map(|day| (format!("dt={day}"), "tag".to_string())).collect();
        // The night of day 12 ran last. Any order of listing gives the same units, and every file stays covered.
        let orders = [[unit(1..21), unit(21..26), unit(1..12)], [unit(1..12), unit(21..26), unit(1..21)]];
        for found in orders {
            let chosen: Vec<String> = choose_units(found.to_vec(), &now).into_iter().map(|u| u.id).collect();
            assert_eq!(chosen, ["1..21", "21..26"]);
        }
    }
}
