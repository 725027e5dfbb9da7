//! Reads a lake folder that is a Delta table through its log: replaced and deleted files stay in the folder, so its files alone
//! do not say which rows are valid.

use deltalake::DeltaTable;
use deltalake::kernel::LogicalFileView;
use deltalake::logstore::{LogStoreRef, StorageConfig, default_logstore};
use object_store::ObjectMeta;
use serde_json::Value;
use std::sync::Arc;

use super::files_table::ListedFile;
use super::partitions::{FolderValue, parse_date};
use super::stores::Location;
use crate::failure::{Failure, Result, store_refusal};

/// Features of a table's readers that change nothing for a reader of its newest data files. Deletion vectors are looked for
/// file by file.
const HARMLESS: [&str; 4] = ["deletionVectors", "timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"];

/// Opens the log of the Delta table at `place` over the store that everything else uses.
pub(crate) fn log_store(place: &Location) -> deltalake::DeltaResult<LogStoreRef> {
    let options = StorageConfig::default();
    let prefixed = options.decorate_store(Arc::clone(&place.store), &place.url)?;
    Ok(default_logstore(Arc::from(prefixed), Arc::clone(&place.store), &place.url, &options))
}

/// Lists the data files of the table's newest version. Refuses (exit 3) a table whose rows do not follow from them alone.
pub(crate) async fn data_files(folder: &Location) -> Result<Vec<ListedFile>> {
    let place = folder.display_folder();
    let failed = |error: deltalake::DeltaTableError| {
        let failure = match store_refusal(&error) {
            Some(refusal) => refusal,
            None => Failure::input(format!("expected a readable Delta table: {error}")),
        };
        failure.at(&place).caused_by(error)
    };
    let mut table = DeltaTable::new(log_store(folder).map_err(failed)?);
    table.load().await.map_err(failed)?;
    let snapshot = table.snapshot().map_err(failed)?;
    let protocol = serde_json::to_value(snapshot.protocol()).map_err(Failure::bug)?;
    let metadata = serde_json::to_value(snapshot.metadata()).map_err(Failure::bug)?;
    refuse_features(&place, &protocol, &metadata)?;
    let by_date = metadata["partitionColumns"].as_array().is_some_and(|columns| columns.contains(&Value::from("dt")));
    let mut files = Vec::new();
    for file in snapshot.log_data().iter() {
        files.push(listed(folder, &place, &file, by_date).map_err(|f| f.hint(COMMIT_AGAIN))?);
    }
    files.sort_by(|a, b| a.meta.location.cmp(&b.meta.location));
    Ok(files)
}

/// The hint of every message that refuses a file of a Delta table.
pub(crate) const COMMIT_AGAIN: &str =
    "replace the rows by a new commit to the Delta table; deleting a file of it would break the table";

fn refuse_features(place: &str, protocol: &Value, metadata: &Value) -> Result<()> {
    let features = protocol["readerFeatures"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut unknown: Vec<&str> = features.filter(|feature| !HARMLESS.contains(feature)).collect();
    let mapping = metadata["configuration"]["delta.columnMapping.mode"].as_str();
    match mapping {
        None | Some("none") => unknown.retain(|feature| *feature != "columnMapping"),
        Some(_) if !unknown.contains(&"columnMapping") => unknown.push("columnMapping"),
        Some(_) => {}
    }
    if unknown.is_empty() {
        return Ok(());
    }
    Err(Failure::input(format!(
        "{place}: the Delta table uses {}, which this version does not apply: its rows would be read wrongly",
        unknown.join(", ")
    ))
    .hint("write the current rows into a table or folder without that feature, and name its parent as the lake"))
}

fn listed(folder: &Location, place: &str, file: &LogicalFileView, by_date: bool) -> Result<ListedFile> {
    let relative = file.path().into_owned();
    if file.deletion_vector_descriptor().is_some() {
        return Err(Failure::input(format!(
            "{place}{relative}: the Delta table marks rows of this file as deleted (deletion vectors), which this version does \
             not apply"
        )));
    }
    let location = match relative.contains("://") {
        true => None,
        false => folder.path_as_is(&relative),
    };
    let location = location.ok_or_else(|| {
        Failure::input(format!("{place}: the Delta table names {relative}, which is outside its folder"))
    })?;
    let name = folder.display(&location);
    let dt = match by_date {
        true => {
            Some(parse_date(&name, file.partition_values_map().get("dt").and_then(Option::as_deref).unwrap_or(""))?)
        }
        false => None,
    };
    let last_modified = file.modification_datetime().map_err(|e| Failure::input(format!("{name}: {e}")))?;
    let size = u64::try_from(file.size()).map_err(|e| Failure::input(format!("{name}: size: {e}")))?;
    let meta = ObjectMeta { location, last_modified, size, e_tag: None, version: None };
    let values = file.partition_values_map().into_iter().filter(|(column, _)| column != "dt");
    let values: Vec<FolderValue> = values.map(|(column, value)| FolderValue { column, value }).collect();
    let folder_values = (!values.is_empty()).then(|| Arc::new(values));
    Ok(ListedFile { name, dt, meta, columns: None, folder_values })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn features_that_change_rows_are_refused_by_name() {
        let plain = json!({"configuration": {}});
        let accepted = json!({"readerFeatures": ["timestampNtz", "columnMapping", "deletionVectors"]});
        refuse_features("l/events/", &accepted, &plain).unwrap();
        refuse_features("l/events/", &json!({"minReaderVersion": 1}), &plain).unwrap();
        let mapped = json!({"configuration": {"delta.columnMapping.mode": "name"}});
        for protocol in [&accepted, &json!({"minReaderVersion": 2})] {
            let refused = refuse_features("l/events/", protocol, &mapped).unwrap_err();
            assert!(refused.kind.exit_code() == 3 && refused.message.contains("columnMapping"), "{refused}");
        }
        let widened = json!({"readerFeatures": ["typeWidening"]});
        assert!(refuse_features("l/events/", &widened, &plain).unwrap_err().message.contains("typeWidening"));
    }
}
