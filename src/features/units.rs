//! Stored units: which event files they cover, how files are grouped into them, and which of them a night can use.

use chrono::{Datelike, Duration, NaiveDate};
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};

use super::lake_days::UnitDay;
use super::rates::RateHistory;
use super::read_report::Outdated;
use crate::ids::ContentHash;
use crate::lake::{RATES, files_table::ListedFile, parquet_files, stores::Location};

/// Source bytes above which a month is split into several units; bounds the memory of a unit's rows.
const UNIT_BYTES_MAX: u64 = 16 << 20;

/// One stored unit: its source files with fingerprints, its outputs with their sizes, and its counts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Unit {
    pub(crate) id: String,
    pub(crate) first_dt: Option<NaiveDate>,
    pub(crate) last_dt: Option<NaiveDate>,
    /// Path and fingerprint of each source file.
    pub(crate) sources: BTreeMap<String, String>,
    /// Name and fingerprint of each table that the unit read whole.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) tables: BTreeMap<String, String>,
    /// The files of each output.
    pub(crate) outputs: BTreeMap<String, Vec<OutputFile>>,
    pub(crate) rows: u64,
    pub(crate) quarantined: BTreeMap<String, u64>,
    /// Good rows with a price, by currency; rows without a currency are not counted.
    #[serde(default)]
    pub(crate) currencies: BTreeMap<String, u64>,
    /// All rows, by day.
    #[serde(default)]
    pub(crate) days: Vec<UnitDay>,
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

/// Tables that every unit reads whole.
#[derive(Debug, Default)]
pub(super) struct UnitTables {
    /// Name and fingerprint of each raw table that events are joined from.
    pub(super) joined: BTreeMap<String, String>,
    pub(super) rates: Option<RateHistory>,
    /// Days by which events may be later than the date of their folder; none where that date says nothing about them.
    pub(super) days_after_folder: Option<Duration>,
}

impl UnitTables {
    /// Returns the fingerprint of each table as far as it concerns a unit of files up to `last_dt`: later rates don't.
    pub(super) fn fingerprints(&self, last_dt: Option<NaiveDate>) -> BTreeMap<String, String> {
        let last_day = last_dt.zip(self.days_after_folder).and_then(|(date, days)| date.checked_add_signed(days));
        let rates = self.rates.as_ref().and_then(|rates| Some((RATES.to_string(), rates.fingerprint(last_day)?)));
        self.joined.clone().into_iter().chain(rates).collect()
    }
}

/// Fingerprints of what a lake has now.
#[derive(Debug)]
pub(super) struct LakeNow<'a> {
    /// Fingerprint of each event file, by path.
    pub(super) files: HashMap<String, String>,
    pub(super) tables: &'a UnitTables,
}

impl LakeNow<'_> {
    fn has_tables_of(&self, unit: &Unit) -> bool {
        unit.tables == self.tables.fingerprints(unit.last_dt)
    }

    fn has_files_of(&self, unit: &Unit) -> bool {
        unit.sources.iter().all(|(path, tag)| self.files.get(path) == Some(tag))
    }
}

/// Chooses stored units whose files and tables are all there unchanged, so that no file is covered twice. The unit of most
/// files wins: a night of an earlier date leaves a unit of a part of another unit's files, and later nights must read what they
/// read before, whatever the order in which the store lists the manifests.
pub(super) fn choose_units(found: &[Unit], now: &LakeNow<'_>) -> Vec<Unit> {
    let mut current: Vec<&Unit> =
        found.iter().filter(|unit| now.has_tables_of(unit) && now.has_files_of(unit)).collect();
    current.sort_by(|a, b| b.sources.len().cmp(&a.sources.len()).then_with(|| a.id.cmp(&b.id)));
    let mut covered: HashSet<&str> = HashSet::new();
    let mut chosen = Vec::new();
    for unit in current {
        if unit.sources.keys().all(|path| !covered.contains(path.as_str())) {
            covered.extend(unit.sources.keys().map(String::as_str));
            chosen.push(unit.clone());
        }
    }
    chosen
}

/// Counts the uncovered files that a stored unit would cover if no table had changed, and names the changed tables. Of several
/// units of a file the last one in `found` counts.
pub(super) fn find_outdated(found: &[Unit], uncovered: &[ListedFile], now: &LakeNow<'_>) -> Outdated {
    let outdated = found.iter().filter(|unit| !now.has_tables_of(unit) && now.has_files_of(unit));
    let by_file: HashMap<&str, &Unit> =
        outdated.flat_map(|unit| unit.sources.keys().map(move |path| (path.as_str(), unit))).collect();
    let mut counted = Outdated::default();
    for file in uncovered {
        let Some(unit) = by_file.get(file.meta.location.as_ref()) else { continue };
        counted.files += 1;
        counted.bytes += file.meta.size;
        let tables = now.tables.fingerprints(unit.last_dt);
        let names = unit.tables.keys().chain(tables.keys());
        counted.tables.extend(names.filter(|name| unit.tables.get(*name) != tables.get(*name)).cloned());
    }
    counted
}

pub(super) fn fingerprint_sources(sources: &BTreeMap<String, String>) -> String {
    ContentHash::from_bytes(format!("{sources:?}")).short()
}

impl Unit {
    /// Returns the paths of all files of the unit.
    pub(super) fn files(&self, location: &Location) -> impl Iterator<Item = Path> {
        let folder = location.folder(&format!("units/{}", self.id));
        self.outputs.values().flatten().map(move |file| folder.path(&file.name))
    }
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
            tables: BTreeMap::new(),
            outputs: BTreeMap::new(),
            rows: 0,
            quarantined: BTreeMap::new(),
            currencies: BTreeMap::new(),
            days: Vec::new(),
            of_this_session: false,
        }
    }

    fn files(days: std::ops::Range<u32>) -> HashMap<String, String> {
        days.map(|day| (format!("dt={day}"), "tag".to_string())).collect()
    }

    /// Returns tables whose orders have this fingerprint.
    fn tables(orders: &str) -> UnitTables {
        UnitTables { joined: [("raw_orders".to_string(), orders.to_string())].into(), ..UnitTables::default() }
    }

    #[test]
    fn units_of_a_backfilled_date_never_replace_larger_ones() {
        let tables = UnitTables::default();
        let now = LakeNow { files: files(1..26), tables: &tables };
        // The night of day 12 ran last. Any order of listing gives the same units, and every file stays covered.
        let orders = [[unit(1..21), unit(21..26), unit(1..12)], [unit(1..12), unit(21..26), unit(1..21)]];
        for found in orders {
            let chosen: Vec<String> = choose_units(&found, &now).into_iter().map(|u| u.id).collect();
            assert_eq!(chosen, ["1..21", "21..26"]);
        }
    }

    #[test]
    fn a_changed_table_makes_units_outdated_and_says_which() {
        let read = |days, orders: &str| Unit { tables: tables(orders).fingerprints(None), ..unit(days) };
        let found = [read(1..4, "first"), read(1..3, "second")];
        let third = tables("third");
        let now = LakeNow { files: files(1..5), tables: &third };
        assert!(choose_units(&found, &now).is_empty());
        let location = Location::open("memory://units", &crate::config::S3Config::default()).unwrap();
        let listed = |day: u32| parquet_files::listed(&location, format!("dt={day}").as_str().into(), 10, None);
        let uncovered: Vec<ListedFile> = (1..5).map(listed).collect();
        let counted = find_outdated(&found, &uncovered, &now);
        assert_eq!((counted.files, counted.bytes), (3, 30), "no unit had the fourth");
        assert_eq!(counted.tables.into_iter().collect::<Vec<_>>(), ["raw_orders"]);
        let second = tables("second");
        let again = LakeNow { files: files(1..5), tables: &second };
        assert_eq!(choose_units(&found, &again).len(), 1, "units of a table that came back are reused");
    }

    #[test]
    fn a_new_rate_concerns_only_units_of_later_days() {
        let day = |text: &str| text.parse::<NaiveDate>().unwrap();
        let known = |rates: &[(&str, &str, f64)]| {
            let rates = rates.iter().map(|(currency, date, rate)| (currency.to_string(), day(date), *rate));
            UnitTables {
                rates: Some(RateHistory::from_sorted(rates)),
                days_after_folder: Some(Duration::days(2)),
                ..UnitTables::default()
            }
        };
        let before = known(&[("JPY", "2026-01-01", 0.006), ("USD", "2026-01-01", 0.9), ("USD", "2026-01-10", 0.8)]);
        let after = known(&[
            ("JPY", "2026-01-01", 0.006),
            ("USD", "2026-01-01", 0.9),
            ("USD", "2026-01-08", 0.7),
            ("USD", "2026-01-10", 0.8),
        ]);
        let same =
            |last_dt: Option<&str>| before.fingerprints(last_dt.map(day)) == after.fingerprints(last_dt.map(day));
        assert!(same(Some("2026-01-05")) && !same(Some("2026-01-06")) && !same(Some("2026-02-01")) && !same(None));
        assert!(before.fingerprints(Some(day("2025-12-29"))).is_empty(), "before all rates");
    }
}
