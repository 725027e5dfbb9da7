//! Encoder states (the encoder's output for one user) by the hash of their exact inputs: the cache in memory, and the files that
//! carry them from night to night, below `state/encoded/<hash of the weights>/`.

use arrow::array::{ArrayRef, AsArray, FixedSizeBinaryArray, FixedSizeListArray, Float32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Float32Type, Schema};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectMeta;
use std::collections::HashMap;
use std::sync::Arc;

use crate::failure::Result;
use crate::ids::RunDate;
use crate::lake::{parquet_files, stores::Location};

const ROWS_PER_BATCH: usize = 65_536;

pub(crate) type EncoderState = Arc<[f32]>;

/// States of one encoder by the hash of their inputs.
pub(crate) type EncoderStates = HashMap<u128, EncoderState>;

/// States of an earlier night and of this process, with the users that needed them here.
#[derive(Debug, Default)]
pub(super) struct EncoderStateCache(HashMap<u128, CachedState>);

#[derive(Debug)]
struct CachedState {
    state: EncoderState,
    used: bool,
}

impl EncoderStateCache {
    /// Adds states that no user of this process has needed so far.
    pub(super) fn add(&mut self, states: EncoderStates) {
        self.0.extend(states.into_iter().map(|(key, state)| (key, CachedState { state, used: false })));
    }

    /// Adds the state of a user who needed it.
    pub(super) fn insert_used(&mut self, key: u128, state: EncoderState) {
        self.0.insert(key, CachedState { state, used: true });
    }

    /// Finds the state of a user, and marks it as used.
    pub(super) fn find(&mut self, key: u128) -> Option<EncoderState> {
        let cached = self.0.get_mut(&key)?;
        cached.used = true;
        Some(Arc::clone(&cached.state))
    }

    pub(super) fn into_used(self) -> EncoderStates {
        self.0.into_iter().filter(|(_, cached)| cached.used).map(|(key, cached)| (key, cached.state)).collect()
    }
}

fn folder(output: &Location, weights_hash: &str) -> Location {
    output.folder(&format!("state/encoded/{weights_hash}"))
}

/// Loads the states of the latest night on or before `run_date`; empty where there are none. A damaged file is ignored with a
/// warning: the states can always be computed again.
pub(crate) async fn load(output: &Location, weights_hash: &str, run_date: RunDate) -> Result<EncoderStates> {
    let place = folder(output, weights_hash);
    let wanted = format!("{run_date}.parquet");
    let nights = place.list().await?;
    let newest = nights.iter().rfind(|m| m.location.filename().is_some_and(|name| name <= wanted.as_str()));
    let Some(newest) = newest else { return Ok(EncoderStates::new()) };
    read(&place, newest).await.or_else(|failure| {
        tracing::warn!("ignored {}, so every user is encoded again: {failure}", place.display(&newest.location));
        Ok(EncoderStates::new())
    })
}

/// Reads batch by batch: the whole file of a million users would take more memory than their states.
async fn read(place: &Location, file: &ObjectMeta) -> Result<EncoderStates> {
    let ctx = SessionContext::new();
    ctx.register_object_store(&place.store_url()?, Arc::clone(&place.store));
    let rows = ctx.read_parquet(place.full_url(&file.location), ParquetReadOptions::default()).await?;
    let mut batches = rows.execute_stream().await?;
    let mut states = EncoderStates::new();
    while let Some(batch) = batches.try_next().await? {
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
pub(crate) async fn save(
    output: &Location,
    weights_hash: &str,
    run_date: RunDate,
    states: EncoderStates,
) -> Result<()> {
    let Some(width) = states.values().next().map(|s| s.len()) else { return Ok(()) };
    let item = Arc::new(Field::new_list_field(DataType::Float32, false));
    let schema = Arc::new(Schema::new(vec![
        Field::new("input_hash", DataType::FixedSizeBinary(16), false),
        Field::new("state", DataType::FixedSizeList(Arc::clone(&item), width as i32), false),
    ]));
    let mut keys: Vec<u128> = states.keys().copied().collect();
    keys.sort_unstable();
    let chunks: Vec<Vec<u128>> = keys.chunks(ROWS_PER_BATCH).map(<[u128]>::to_vec).collect();
    let batch_schema = Arc::clone(&schema);
    let batches = futures::stream::iter(chunks).map(move |chunk| {
        let hashes = FixedSizeBinaryArray::try_from_iter(chunk.iter().map(|k| k.to_le_bytes()))?;
        let flat: Float32Array = chunk.iter().filter_map(|k| states.get(k)).flat_map(|s| s.iter().copied()).collect();
        let vectors = FixedSizeListArray::try_new(Arc::clone(&item), width as i32, Arc::new(flat), None)?;
        let columns: Vec<ArrayRef> = vec![Arc::new(hashes), Arc::new(vectors)];
        Ok(RecordBatch::try_new(Arc::clone(&batch_schema), columns)?)
    });
    let place = folder(output, weights_hash);
    let stream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), batches));
    parquet_files::write(&place, &place.path(&format!("{run_date}.parquet")), &schema, stream, ROWS_PER_BATCH).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Config;

    #[tokio::test]
    async fn states_survive_a_round_trip() {
        let place = Location::open("memory://encoder-states", &S3Config::default()).unwrap();
        let states: EncoderStates = [(7u128, Arc::from([1.0f32, -2.5])), (9 << 100, Arc::from([0.0f32, 3.0]))].into();
        save(&place, "w", "2026-01-02".parse().unwrap(), states.clone()).await.unwrap();
        let back = load(&place, "w", "2026-01-05".parse().unwrap()).await.unwrap();
        assert_eq!(back, states);
        assert!(load(&place, "w", "2026-01-01".parse().unwrap()).await.unwrap().is_empty());
        assert!(load(&place, "other", "2026-01-05".parse().unwrap()).await.unwrap().is_empty());
    }
}
