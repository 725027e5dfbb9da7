//! Encoder outputs kept between nights, below `state/encoded/<hash of the weights>/`, keyed by their exact inputs.

use arrow::array::{ArrayRef, AsArray, FixedSizeBinaryArray, FixedSizeListArray, Float32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Float32Type, Schema};
use bytes::Bytes;
use object_store::ObjectStoreExt;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::sync::Arc;

use super::service::KeptStates;
use crate::failure::Result;
use crate::ids::RunDate;
use crate::lake::stores::Location;

const ROWS_PER_BATCH: usize = 65_536;

fn folder(output: &Location, weights_hash: &str) -> Location {
    output.folder(&format!("state/encoded/{weights_hash}"))
}

/// The states of the latest night on or before `run_date`; empty where there are none. A damaged file is as good as
/// none: the states can always be computed again.
pub async fn load(output: &Location, weights_hash: &str, run_date: RunDate) -> Result<KeptStates> {
    let place = folder(output, weights_hash);
    let wanted = format!("{run_date}.parquet");
    let nights = place.list().await?;
    let newest = nights.iter().rfind(|m| m.location.filename().is_some_and(|name| name <= wanted.as_str()));
    let Some(newest) = newest else { return Ok(KeptStates::new()) };
    let bytes = match place.store.get(&newest.location).await {
        Ok(got) => got.bytes().await?,
        // `gc` took it in this very moment.
        Err(object_store::Error::NotFound { .. }) => return Ok(KeptStates::new()),
        Err(e) => return Err(e.into()),
    };
    read(bytes).or_else(|failure| {
        tracing::warn!("{}: {failure}; every user is encoded again", place.display(&newest.location));
        Ok(KeptStates::new())
    })
}

fn read(bytes: Bytes) -> Result<KeptStates> {
    let mut states = KeptStates::new();
    for batch in ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()? {
        let batch = batch?;
        let keys = batch.column(0).as_fixed_size_binary();
        let vectors = batch.column(1).as_fixed_size_list();
        for row in 0..batch.num_rows() {
            let mut key = [0; 16];
            key.copy_from_slice(keys.value(row));
            let vector = vectors.value(row);
            states.insert(u128::from_le_bytes(key), vector.as_primitive::<Float32Type>().values()[..].into());
        }
    }
    Ok(states)
}

/// Writes the states that a night used; they replace those of the same date.
pub async fn save(output: &Location, weights_hash: &str, run_date: RunDate, states: &KeptStates) -> Result<()> {
    let Some(width) = states.values().next().map(|s| s.len()) else { return Ok(()) };
    let item = Arc::new(Field::new_list_field(DataType::Float32, false));
    let schema = Arc::new(Schema::new(vec![
        Field::new("input_hash", DataType::FixedSizeBinary(16), false),
        Field::new("state", DataType::FixedSizeList(Arc::clone(&item), width as i32), false),
    ]));
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), None)?;
    let mut keys: Vec<u128> = states.keys().copied().collect();
    keys.sort_unstable();
    for chunk in keys.chunks(ROWS_PER_BATCH) {
        let hashes = FixedSizeBinaryArray::try_from_iter(chunk.iter().map(|k| k.to_le_bytes()))?;
        let flat: Float32Array = chunk.iter().filter_map(|k| states.get(k)).flat_map(|s| s.iter().copied()).collect();
        let vectors = FixedSizeListArray::try_new(Arc::clone(&item), width as i32, Arc::new(flat), None)?;
        let columns: Vec<ArrayRef> = vec![Arc::new(hashes), Arc::new(vectors)];
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
    }
    folder(output, weights_hash).write(&format!("{run_date}.parquet"), writer.into_inner()?).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Config;

    #[tokio::test]
    async fn states_come_back_as_they_were() {
        let place = Location::open("memory://kept-states", &S3Config::default()).unwrap();
        let states: KeptStates = [(7u128, Arc::from([1.0f32, -2.5])), (9 << 100, Arc::from([0.0f32, 3.0]))].into();
        save(&place, "w", "2026-01-02".parse().unwrap(), &states).await.unwrap();
        let back = load(&place, "w", "2026-01-05".parse().unwrap()).await.unwrap();
        assert_eq!(back, states);
        assert!(load(&place, "w", "2026-01-01".parse().unwrap()).await.unwrap().is_empty());
        assert!(load(&place, "other", "2026-01-05".parse().unwrap()).await.unwrap().is_empty());
    }
}
