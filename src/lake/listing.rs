//! Lists the files of a view's folder: each object is data, is ignored for a counted reason, or refuses the lake.

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::delta_table;
use super::files_table::ListedFile;
use super::partitions::{folder_values, partition_date};
use super::stores::Location;
use crate::failure::{Failure, Result};

/// The first bytes of a Parquet file, and of one whose footer is encrypted.
const MAGIC: [&[u8]; 2] = [b"PAR1", b"PARE"];

/// Requests for first bytes in flight.
const PEEKS_AT_ONCE: usize = 16;

/// Reason for which an object below a view's folder is no data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IgnoreReason {
    /// A part of its path begins with `_` or `.`: markers, checksums, staging folders.
    Hidden,
    /// It has no bytes and no Parquet ending: a folder marker of an object store.
    Empty,
    /// It does not begin like a Parquet file.
    NotParquet,
}

impl IgnoreReason {
    /// Returns the name that reports use.
    pub fn name(self) -> &'static str {
        match self {
            IgnoreReason::Hidden => "hidden",
            IgnoreReason::Empty => "empty",
            IgnoreReason::NotParquet => "not_parquet",
        }
    }
}

/// The objects below a view's folder.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    pub files: Vec<ListedFile>,
    pub ignored: BTreeMap<IgnoreReason, Vec<String>>,
    /// True for a Delta table, whose files come from its log.
    pub is_delta: bool,
}

impl Listing {
    /// Lists a folder. Refuses (exit 3) a partition value that is not a date, and a table format whose data files alone do not
    /// say which rows are valid.
    pub async fn read(folder: &Location) -> Result<Self> {
        let objects = folder.list().await?;
        if objects.iter().any(|meta| is_delta_commit(&parts_below(folder, &meta.location))) {
            return Ok(Self { files: delta_table::data_files(folder).await?, is_delta: true, ..Self::default() });
        }
        let mut listing = Self::default();
        let mut unknown = Vec::new();
        for meta in objects {
            let name = folder.display(&meta.location);
            let parts = parts_below(folder, &meta.location);
            refuse_table_format(folder, &parts)?;
            if parts.iter().any(|part| part.starts_with(['_', '.'])) {
                listing.ignore(IgnoreReason::Hidden, name);
                continue;
            }
            let dt = partition_date(&name, &parts)?;
            let values = folder_values(&parts);
            let folder_values = (!values.is_empty()).then(|| Arc::new(values));
            let file = ListedFile { name, dt, meta, columns: None, folder_values };
            match parts.last().map(|part| part.to_lowercase()) {
                Some(last) if last.ends_with(".parquet") => listing.files.push(file),
                Some(last) if file.meta.size == 0 && !has_parquet_ending(&last) => {
                    listing.ignore(IgnoreReason::Empty, file.name);
                }
                _ => unknown.push(file),
            }
        }
        let peeked = futures::stream::iter(unknown.into_iter().map(|file| async move {
            let is_data = file.meta.size == 0 || begins_like_parquet(folder, &file.meta).await?;
            Ok::<_, Failure>((file, is_data))
        }));
        for (file, is_data) in peeked.buffered(PEEKS_AT_ONCE).try_collect::<Vec<_>>().await? {
            match is_data {
                true => listing.files.push(file),
                false => listing.ignore(IgnoreReason::NotParquet, file.name),
            }
        }
        listing.files.sort_by(|a, b| a.meta.location.cmp(&b.meta.location));
        Ok(listing)
    }

    /// Counts the ignored objects by reason.
    pub(crate) fn count_ignored(&self) -> BTreeMap<String, u64> {
        self.ignored.iter().map(|(reason, names)| (reason.name().into(), names.len() as u64)).collect()
    }

    fn ignore(&mut self, reason: IgnoreReason, name: String) {
        self.ignored.entry(reason).or_default().push(name);
    }
}

fn is_delta_commit(parts: &[String]) -> bool {
    matches!(parts, [log, name] if log == "_delta_log" && name.ends_with(".json"))
}

/// Returns the parts of a path below a folder: partitions above the lake are not the lake's.
fn parts_below(folder: &Location, path: &Path) -> Vec<String> {
    path.prefix_match(&folder.prefix).into_iter().flatten().map(|part| part.as_ref().to_string()).collect()
}

/// Returns whether a lower-case name ends as Parquet files do, compressed or not.
fn has_parquet_ending(name: &str) -> bool {
    name.contains(".parq") || name.ends_with(".pq")
}

async fn begins_like_parquet(folder: &Location, meta: &ObjectMeta) -> Result<bool> {
    if meta.size < 4 {
        return Ok(false);
    }
    let first = folder.store.get_range(&meta.location, 0..4).await;
    let first = first.map_err(|e| Failure::from(e).at(folder.display(&meta.location)))?;
    Ok(MAGIC.contains(&first.as_ref()))
}

/// Refuses the folders of table formats in which files that were replaced or deleted stay where they are.
fn refuse_table_format(folder: &Location, parts: &[String]) -> Result<()> {
    let format = match parts {
        [first, name] if first == "metadata" && name.ends_with(".metadata.json") => "an Iceberg table",
        [first, _, ..] if first == ".hoodie" => "a Hudi table",
        _ => return Ok(()),
    };
    let place = folder.display_folder();
    Err(Failure::input(format!("{place}: expected Parquet files or a Delta table, found {format}")).hint(
        "its data files include rows that were replaced or deleted; export the current rows as Parquet, or as a Delta table",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Config;
    use chrono::NaiveDate;

    async fn listing(name: &str, files: &[(&str, &[u8])]) -> Result<Listing> {
        let folder = Location::open(&format!("memory://listing/dt=2020-01-01/{name}"), &S3Config::default()).unwrap();
        for (path, bytes) in files {
            folder.write(path, bytes.to_vec()).await.unwrap();
        }
        Listing::read(&folder).await
    }

    #[tokio::test]
    async fn files_are_found_by_ending_or_content() {
        let data = b"PAR1...".as_slice();
        let objects: [(&str, &[u8]); 10] = [
            ("dt=2026-01-05/a.parquet", data),
            ("dt=2026-01-05/b.PARQUET", data),
            ("dt=2026-01-05/c.parquet.gzip", data),
            ("dt=2026-01-05/000000_0", data),
            ("dt=2026-01-05/cut.parq", b""),
            ("dt=2026-01-05/readme.txt", b"hello"),
            ("dt=2026-01-06", b""),
            ("_temporary/0/dt=2026-01-05/a.parquet", data),
            (".staging/dt=tomorrow/a.parquet", data),
            ("dt=2026-01-05/_SUCCESS", b""),
        ];
        let found = listing("endings", &objects).await.unwrap();
        assert_eq!(found.files.len(), 5);
        assert!(found.files.iter().all(|file| file.dt == NaiveDate::from_ymd_opt(2026, 1, 5)));
        let counts: Vec<_> = found.ignored.iter().map(|(reason, names)| (reason.name(), names.len())).collect();
        assert_eq!(counts, [("hidden", 3), ("empty", 1), ("not_parquet", 1)]);
    }

    #[tokio::test]
    async fn a_partition_that_is_no_date_is_refused() {
        let spellings = ["20260105", "2026-1-5", "2026-01-05T00", "__HIVE_DEFAULT_PARTITION__", "2026-02-30", ""];
        for (at, value) in spellings.into_iter().enumerate() {
            let path = format!("dt={value}/a.parquet");
            let refused = listing(&format!("spelling{at}"), &[(path.as_str(), b"PAR1".as_slice())]).await.unwrap_err();
            assert_eq!(refused.kind.exit_code(), 3);
            assert!(refused.message.contains(&path) && refused.message.contains("expected an ISO date"), "{refused}");
        }
        let twice = listing("twice", &[("dt=2026-01-05/dt=2026-01-06/a.parquet", b"PAR1")]).await.unwrap_err();
        assert!(twice.message.contains("several: 2026-01-05, 2026-01-06"), "{twice}");
    }

    #[tokio::test]
    async fn other_table_formats_are_refused() {
        for path in ["metadata/v1.metadata.json", ".hoodie/hoodie.properties"] {
            let refused = listing(path, &[(path, b"{}")]).await.unwrap_err();
            assert!(refused.kind.exit_code() == 3 && refused.message.contains("table"), "{refused}");
        }
    }
}
