//! Looks for ids in every file below the output.
//!
//! Parquet files are decoded: each text, also within lists and structs, is compared as a whole, and searched where it is JSON; so
//! are the bounds in a file's statistics. JSON is searched by its texts, everything else by its words. Columns of items are not
//! looked at: an item may have the id of a person. Nor are the vocabularies of text encoders, which their makers wrote: a word may be
//! the id of a person.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use bytes::Bytes;
use object_store::ObjectMeta;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::statistics::Statistics;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

use crate::failure::Result;
use crate::lake::stores::Location;

/// What was read, and where ids were found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Proof {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// Number of places by file.
    pub(crate) found: BTreeMap<String, u64>,
}

/// The vocabulary of a text encoder.
const VOCABULARY: &str = "tokenizer.json";

/// Searches every file below an output for ids, as whole values.
pub(crate) async fn search(output: &Location, ids: &BTreeSet<String>) -> Result<Proof> {
    let mut proof = Proof::default();
    for file in output.list().await? {
        if file.location.filename() == Some(VOCABULARY) {
            continue;
        }
        // A file that goes while this runs holds nothing.
        let Some(bytes) = output.read_at(&file.location).await? else { continue };
        proof.files += 1;
        proof.bytes += bytes.len() as u64;
        let places = count(&file, &bytes, ids);
        if places > 0 {
            proof.found.insert(output.display(&file.location), places);
        }
    }
    Ok(proof)
}

fn count(file: &ObjectMeta, bytes: &Bytes, ids: &BTreeSet<String>) -> u64 {
    if bytes.starts_with(b"PAR1")
        && let Ok(places) = in_parquet(bytes, ids)
    {
        return places;
    }
    if file.location.extension() == Some("json") {
        let lines = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
        if let Ok(values) = lines.collect::<std::result::Result<Vec<_>, _>>() {
            return values.iter().map(|value| in_json(value, ids)).sum();
        }
    }
    in_bytes(bytes, ids)
}

fn in_parquet(bytes: &Bytes, ids: &BTreeSet<String>) -> Result<u64> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone())?;
    let mut places = 0;
    for group in reader.metadata().row_groups() {
        for column in group.columns() {
            let path = column.column_path().string();
            if let Some(Statistics::ByteArray(bounds)) = column.statistics()
                && !path.split('.').any(names_item)
            {
                let bounds = [bounds.min_opt(), bounds.max_opt()].into_iter().flatten();
                let texts = bounds.filter_map(|bound| std::str::from_utf8(bound.data()).ok());
                places += texts.map(|text| in_text(text, ids)).sum::<u64>();
            }
        }
    }
    for batch in reader.build()? {
        let batch = batch?;
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            if !names_item(field.name()) {
                places += in_column(column, ids)?;
            }
        }
    }
    Ok(places)
}

/// Says whether a column holds ids of items.
fn names_item(column: &str) -> bool {
    column == "item_id" || column.ends_with("_item_id") || column == "item_ids"
}

fn in_column(column: &ArrayRef, ids: &BTreeSet<String>) -> Result<u64> {
    Ok(match column.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(_, _) => {
            let texts = cast(column, &DataType::LargeUtf8)?;
            texts.as_string::<i64>().iter().flatten().map(|text| in_text(text, ids)).sum()
        }
        DataType::List(_) => in_column(column.as_list::<i32>().values(), ids)?,
        DataType::LargeList(_) => in_column(column.as_list::<i64>().values(), ids)?,
        DataType::FixedSizeList(_, _) => in_column(column.as_fixed_size_list().values(), ids)?,
        DataType::Map(_, _) => {
            let map = column.as_map();
            in_column(map.keys(), ids)? + in_column(map.values(), ids)?
        }
        DataType::Struct(parts) => {
            let mut places = 0;
            for (part, values) in parts.iter().zip(column.as_struct().columns()) {
                if !names_item(part.name()) {
                    places += in_column(values, ids)?;
                }
            }
            places
        }
        _ => 0,
    })
}

fn in_text(text: &str, ids: &BTreeSet<String>) -> u64 {
    if ids.contains(text) {
        return 1;
    }
    if !text.starts_with(['{', '[']) {
        return 0;
    }
    serde_json::from_str::<Value>(text).map_or(0, |value| in_json(&value, ids))
}

fn in_json(value: &Value, ids: &BTreeSet<String>) -> u64 {
    match value {
        Value::String(text) => in_text(text, ids),
        Value::Array(values) => values.iter().map(|value| in_json(value, ids)).sum(),
        Value::Object(members) => members
            .iter()
            .filter(|(name, _)| !names_item(name))
            .map(|(name, value)| u64::from(ids.contains(name)) + in_json(value, ids))
            .sum(),
        _ => 0,
    }
}

/// Counts words that are ids; a word has letters, digits and the signs that ids have.
fn in_bytes(bytes: &[u8], ids: &BTreeSet<String>) -> u64 {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte >= 0x80 || b"-_.@:+".contains(byte);
    let words = bytes.split(|byte| !is_part(byte)).filter(|word| !word.is_empty());
    words.filter(|word| std::str::from_utf8(word).is_ok_and(|word| ids.contains(word))).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Config;
    use datafusion::prelude::SessionContext;

    #[tokio::test]
    async fn ids_are_found_wherever_they_are_whole() {
        let output = Location::open("memory://proof/out", &S3Config::default()).unwrap();
        let parquet = async |sql: &str| {
            let batches = SessionContext::new().sql(sql).await.unwrap().collect().await.unwrap();
            let mut file = Vec::new();
            let mut writer = parquet::arrow::ArrowWriter::try_new(&mut file, batches[0].schema(), None).unwrap();
            batches.iter().for_each(|batch| writer.write(batch).unwrap());
            writer.close().unwrap();
            file
        };
        let held = [
            "SELECT 'u1' AS user_id",
            "SELECT ['a', 'u1'] AS names",
            "SELECT named_struct('user_id', 'u1') AS features",
            "SELECT [named_struct('who', 'u1')] AS rows",
            r#"SELECT '{"stats": "{\"minValues\": {\"user_id\": \"u1\"}}"}' AS add"#,
        ];
        for (at, sql) in held.iter().enumerate() {
            output.write(&format!("held/{at}.parquet"), parquet(sql).await).await.unwrap();
        }
        output.write("held/a.json", "{\"x\": 1}\n{\"add\": {\"names\": [\"u1\"]}}").await.unwrap();
        output.write("held/b.json", "not json: u1, and").await.unwrap();
        output.write("held/c", "<td>u1</td>").await.unwrap();
        for (at, sql) in
            ["SELECT 'u10' AS user_id", "SELECT 'u1' AS item_id", "SELECT 'no u1 as such' AS query"].iter().enumerate()
        {
            output.write(&format!("free/{at}.parquet"), parquet(sql).await).await.unwrap();
        }
        output.write("free/a.json", "{\"item_id\": \"u1\", \"note\": \"u1 was here\"}").await.unwrap();
        output.write("models/1/text/tokenizer.json", "{\"u1\": 7}").await.unwrap();
        output.write("free/c", "u10 u1_ xu1").await.unwrap();
        let proof = search(&output, &["u1".to_string()].into()).await.unwrap();
        let found: Vec<&str> = proof.found.keys().map(|path| path.rsplit("out/").next().unwrap()).collect();
        let expected = ["0.parquet", "1.parquet", "2.parquet", "3.parquet", "4.parquet", "a.json", "b.json", "c"];
        assert_eq!(found, expected.map(|name| format!("held/{name}")));
        assert_eq!(proof.files, 13);
    }
}
