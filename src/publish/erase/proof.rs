//! Looks for ids in every file below the output.
//!
//! Parquet files are decoded: each text, also within lists and structs, is compared as a whole, and searched where it is JSON; so
//! are the bounds in a file's statistics. JSON is searched by its texts, everything else by its words. What may be equal to a person's
//! id by chance is not looked at: columns of items, of events' own ids and of texts, whose rows have an owner in another column; the
//! vocabularies of text encoders, which their makers wrote; the numbers of weights.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use bytes::Bytes;
use memchr::memmem::Finder;
use object_store::ObjectMeta;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::statistics::Statistics;
use serde_json::Value;
use std::collections::BTreeMap;

use crate::failure::Result;
use crate::lake::stores::Location;

/// Files that were searched, and those in which ids were found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Proof {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// Number of places by file.
    pub(crate) found: BTreeMap<String, u64>,
}

/// The vocabulary of a text encoder.
const VOCABULARY: &str = "tokenizer.json";

/// Searches every file below an output for ids, as whole values. `ids` are those that are known by more than their hashes: where
/// nothing is decoded, only these are found if they have signs that words do not have.
pub(crate) async fn search<'a>(
    output: &Location,
    is_erased: &dyn Fn(&str) -> bool,
    ids: impl Iterator<Item = &'a str>,
) -> Result<Proof> {
    let is_simple = |id: &&str| id.bytes().all(|byte| is_part(&byte));
    let unusual: Vec<Finder<'_>> = ids.filter(|id| !is_simple(id)).map(Finder::new).collect();
    let mut proof = Proof::default();
    for file in output.list().await? {
        if file.location.filename() == Some(VOCABULARY) {
            continue;
        }
        // A file that goes while this runs holds nothing.
        let Some(bytes) = output.read_at(&file.location).await? else { continue };
        proof.files += 1;
        proof.bytes += bytes.len() as u64;
        let places = count(&file, &bytes, is_erased, &unusual);
        if places > 0 {
            proof.found.insert(output.display(&file.location), places);
        }
    }
    Ok(proof)
}

type IsErased<'a> = &'a dyn Fn(&str) -> bool;

fn count(file: &ObjectMeta, bytes: &Bytes, is_erased: IsErased<'_>, unusual: &[Finder<'_>]) -> u64 {
    if bytes.starts_with(b"PAR1")
        && let Ok(places) = in_parquet(bytes, is_erased)
    {
        return places;
    }
    if matches!(file.location.extension(), Some("json" | "jsonl")) {
        let lines = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
        if let Ok(values) = lines.collect::<std::result::Result<Vec<_>, _>>() {
            return values.iter().map(|value| in_json(value, is_erased)).sum();
        }
    }
    if file.location.extension() == Some("safetensors")
        && let Some(header) = header_of_weights(bytes)
    {
        return in_json(&header, is_erased);
    }
    in_bytes(bytes, is_erased) + unusual.iter().map(|id| id.find_iter(bytes).count() as u64).sum::<u64>()
}

/// Reads the header of a file of weights: its length, then JSON.
fn header_of_weights(bytes: &[u8]) -> Option<Value> {
    let length = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let header = bytes.get(8..)?.get(..usize::try_from(length).ok()?)?;
    serde_json::from_slice(header).ok()
}

fn in_parquet(bytes: &Bytes, is_erased: IsErased<'_>) -> Result<u64> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone())?;
    let mut places = 0;
    for group in reader.metadata().row_groups() {
        for column in group.columns() {
            let path = column.column_path().string();
            if let Some(Statistics::ByteArray(bounds)) = column.statistics()
                && !path.split('.').any(names_other)
            {
                let bounds = [bounds.min_opt(), bounds.max_opt()].into_iter().flatten();
                let texts = bounds.filter_map(|bound| std::str::from_utf8(bound.data()).ok());
                places += texts.map(|text| in_text(text, is_erased)).sum::<u64>();
            }
        }
    }
    for batch in reader.build()? {
        let batch = batch?;
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            if !names_other(field.name()) {
                places += in_column(column, is_erased)?;
            }
        }
    }
    Ok(places)
}

/// Columns of events that may have any text, and whose rows have an owner in another column.
const NOT_OWNERS: [&str; 7] = ["event_id", "event_key", "session_id", "query", "text", "last_queries", "item_ids"];

/// Says whether a column holds something else than persons.
fn names_other(column: &str) -> bool {
    column.ends_with("item_id") || NOT_OWNERS.contains(&column)
}

fn in_column(column: &ArrayRef, is_erased: IsErased<'_>) -> Result<u64> {
    Ok(match column.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(_, _) => {
            let texts = cast(column, &DataType::LargeUtf8)?;
            texts.as_string::<i64>().iter().flatten().map(|text| in_text(text, is_erased)).sum()
        }
        DataType::List(_) => in_column(column.as_list::<i32>().values(), is_erased)?,
        DataType::LargeList(_) => in_column(column.as_list::<i64>().values(), is_erased)?,
        DataType::FixedSizeList(_, _) => in_column(column.as_fixed_size_list().values(), is_erased)?,
        DataType::Map(_, _) => {
            let map = column.as_map();
            in_column(map.keys(), is_erased)? + in_column(map.values(), is_erased)?
        }
        DataType::Struct(parts) => {
            let mut places = 0;
            for (part, values) in parts.iter().zip(column.as_struct().columns()) {
                if !names_other(part.name()) {
                    places += in_column(values, is_erased)?;
                }
            }
            places
        }
        _ => 0,
    })
}

fn in_text(text: &str, is_erased: IsErased<'_>) -> u64 {
    if is_erased(text) {
        return 1;
    }
    if !text.starts_with(['{', '[']) {
        return 0;
    }
    serde_json::from_str::<Value>(text).map_or(0, |value| in_json(&value, is_erased))
}

fn in_json(value: &Value, is_erased: IsErased<'_>) -> u64 {
    match value {
        Value::String(text) => in_text(text, is_erased),
        Value::Array(values) => values.iter().map(|value| in_json(value, is_erased)).sum(),
        Value::Object(members) => members
            .iter()
            .filter(|(name, _)| !names_other(name))
            .map(|(name, value)| u64::from(is_erased(name)) + in_json(value, is_erased))
            .sum(),
        _ => 0,
    }
}

fn is_part(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || *byte >= 0x80 || b"-_.@:+".contains(byte)
}

/// Counts words that are ids; a word has letters, digits and the signs that ids have.
fn in_bytes(bytes: &[u8], is_erased: IsErased<'_>) -> u64 {
    let words = bytes.split(|byte| !is_part(byte)).filter(|word| !word.is_empty());
    words.filter(|word| std::str::from_utf8(word).is_ok_and(is_erased)).count() as u64
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
        for (at, sql) in [
            "SELECT 'u10' AS user_id",
            "SELECT 'u1' AS item_id",
            "SELECT 'u1' AS query, 'u1' AS event_id, 'as u1 says' AS note",
        ]
        .iter()
        .enumerate()
        {
            output.write(&format!("free/{at}.parquet"), parquet(sql).await).await.unwrap();
        }
        output.write("held/d", "<td>a/b c</td>").await.unwrap();
        output.write("held/e.jsonl", "{\"who\": \"u1\"}\n").await.unwrap();
        let header = br#"{"__metadata__": {"of": "weights"}, "u1_": {"shape": [1]}}"#;
        let weights = [&(header.len() as u64).to_le_bytes()[..], header, b" u1 "].concat();
        output.write("free/w.safetensors", weights).await.unwrap();
        output.write("free/a.json", "{\"item_id\": \"u1\", \"note\": \"u1 was here\"}").await.unwrap();
        output.write("models/1/text/tokenizer.json", "{\"u1\": 7}").await.unwrap();
        output.write("free/c", "u10 u1_ xu1").await.unwrap();
        let proof = search(&output, &|id: &str| id == "u1", ["u1", "a/b c"].into_iter()).await.unwrap();
        let found: Vec<&str> = proof.found.keys().map(|path| path.rsplit("out/").next().unwrap()).collect();
        let expected =
            ["0.parquet", "1.parquet", "2.parquet", "3.parquet", "4.parquet", "a.json", "b.json", "c", "d", "e.jsonl"];
        assert_eq!(found, expected.map(|name| format!("held/{name}")));
        assert_eq!(proof.files, 16);
    }
}
