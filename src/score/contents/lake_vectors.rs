//! Vectors that the lake's items bring along, as the view `item_vectors` lists them.

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Int64Type};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::failure::{Failure, Result};
use crate::model::contents::{Contents, MODALITIES};

/// The vectors of one item's image or video.
pub(super) struct ItemVector {
    pub(crate) modality: usize,
    pub(crate) key: i64,
    /// One vector after another.
    pub(crate) vectors: Vec<f32>,
    /// Numbers in one vector; 0 where they differ.
    pub(crate) dims: usize,
}

impl ItemVector {
    fn order(&self) -> (usize, Vec<u32>) {
        (self.dims, self.vectors.iter().map(|v| v.to_bits()).collect())
    }
}

/// All rows of `item_vectors`; a key comes once for each item that shows it. Not grouped in SQL: the engine charges a group for
/// the whole buffer that its vectors were cut from, and 16,000 items with vectors exhausted any memory limit.
pub(super) async fn scan(ctx: &SessionContext) -> Result<SendableRecordBatchStream> {
    let query = "SELECT modality, content_key, vectors FROM item_vectors";
    Ok(ctx.sql(query).await?.execute_stream().await?)
}

/// Parses rows of [`scan`].
pub(super) fn parse(batch: &RecordBatch) -> Result<Vec<ItemVector>> {
    let names = cast(batch.column(0), &DataType::Utf8)?;
    let names = names.as_string::<i32>();
    let keys = batch.column(1).as_primitive::<Int64Type>();
    let frames_type = DataType::new_list(DataType::new_list(DataType::Float32, true), true);
    let vectors = cast(batch.column(2), &frames_type)?;
    let vectors = vectors.as_list::<i32>();
    let mut rows = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let name = names.value(row);
        let modality = MODALITIES.iter().position(|known| *known == name).ok_or_else(|| {
            Failure::usage(format!("sql/features/item_vectors.sql: modality: expected image or video, got {name:?}"))
        })?;
        let (flat, dims) = flatten(&vectors.value(row));
        rows.push(ItemVector { modality, key: keys.value(row), vectors: flat, dims });
    }
    Ok(rows)
}

/// The numbers of all frames, and how many each has; 0 where they differ.
fn flatten(frames: &ArrayRef) -> (Vec<f32>, usize) {
    let (mut flat, mut dims) = (Vec::new(), None);
    for frame in frames.as_list::<i32>().iter() {
        let frame = frame.map(|f| f.as_primitive::<Float32Type>().values().to_vec()).unwrap_or_default();
        dims = match dims {
            None => Some(frame.len()),
            Some(dims) if dims == frame.len() => Some(dims),
            Some(_) => Some(0),
        };
        flat.extend(frame);
    }
    (flat, dims.unwrap_or(0))
}

/// The catalogue's vectors for a training. The dimension of a modality is the one that most of its vectors have, or the
/// smallest of several such; the others are ignored with a warning.
pub(crate) async fn training_vectors(ctx: &SessionContext) -> Result<Contents> {
    // In key order, and the least of several vectors of one key, so that training sees the same each time.
    let mut all: BTreeMap<(usize, i64), ItemVector> = BTreeMap::new();
    let mut rows = scan(ctx).await?;
    while let Some(batch) = rows.try_next().await? {
        for vector in parse(&batch)? {
            match all.entry((vector.modality, vector.key)) {
                Entry::Vacant(place) => drop(place.insert(vector)),
                Entry::Occupied(mut place) if vector.order() < place.get().order() => drop(place.insert(vector)),
                Entry::Occupied(_) => (),
            }
        }
    }
    let mut lengths: [BTreeMap<usize, usize>; MODALITIES.len()] = Default::default();
    for vector in all.values() {
        *lengths[vector.modality].entry(vector.dims).or_default() += 1;
    }
    // Of several maxima `max_by_key` returns the last one, which in this order is the smallest dimension.
    let commonest =
        |counts: &BTreeMap<usize, usize>| counts.iter().rev().max_by_key(|(_, n)| **n).map_or(0, |(d, _)| *d);
    let dims = lengths.each_ref().map(|counts| commonest(counts) as i64);
    let mut contents = Contents::new(dims);
    let mut ignored = 0;
    for vector in all.values() {
        let fits = vector.dims as i64 == dims[vector.modality];
        if !(fits && contents.insert(vector.modality, vector.key, &vector.vectors)) {
            ignored += 1;
        }
    }
    if ignored > 0 {
        tracing::warn!("ignored {ignored} vectors of items: expected dimensions {dims:?} (text, image, video)");
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::super::store::tests::catalogue;
    use super::*;
    use datafusion::execution::runtime_env::RuntimeEnvBuilder;
    use datafusion::prelude::SessionConfig;

    #[tokio::test]
    async fn training_uses_the_dimension_that_most_vectors_have() {
        let rows = "('video', 1, [[1.0, 2.0]]), ('video', 2, [[2.0, 1.0], [0.0, 1.0]]), ('video', 3, [[1.0]]), \
                    ('video', 5, [[1.0], [1.0]]), ('video', 6, [[1.0, 2.0], [1.0]]), ('video', 7, [[3.0, 1.0]]), \
                    ('image', 4, [[1.0]])";
        let contents = training_vectors(&catalogue(rows).await).await.unwrap();
        assert_eq!(contents.dims(), [0, 1, 2]);
        assert_eq!(contents.rows(&[None, Some(4), Some(3)]), [0, 1, 0]);
        assert_eq!([5, 6, 7].map(|key| contents.rows(&[None, None, Some(key)])[2]), [0, 0, 3]);
    }

    #[tokio::test]
    async fn the_vector_of_a_key_does_not_depend_on_row_order() {
        let vector = async |rows: &str| {
            let contents = training_vectors(&catalogue(rows).await).await.unwrap();
            let gathered = contents.gather(&tch::Tensor::from_slice(&[0i64, 1, 0]).view([3, 1])).unwrap();
            Vec::<f32>::try_from(&gathered[0].vectors.contiguous().view([-1])).unwrap()
        };
        let one = vector("('image', 4, [[1.0, 0.0]]), ('image', 4, [[0.0, 1.0]])").await;
        assert_eq!(vector("('image', 4, [[0.0, 1.0]]), ('image', 4, [[1.0, 0.0]])").await, one);
        assert_ne!(vector("('image', 4, [[1.0, 0.0]])").await, one);
    }

    #[tokio::test]
    async fn vectors_of_a_large_catalogue_fit_the_memory_limit() {
        let memory = RuntimeEnvBuilder::new().with_memory_limit(32 << 20, 1.0).build_arc().unwrap();
        let ctx = SessionContext::new_with_config_rt(SessionConfig::new(), memory);
        let vector = (0..16).map(|k| format!("CAST(value % {} AS FLOAT)", k + 2)).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "CREATE VIEW item_vectors AS SELECT 'image' AS modality, value AS content_key, \
             make_array(make_array({vector})) AS vectors FROM generate_series(1, 20000)"
        );
        ctx.sql(&sql).await.unwrap();
        assert_eq!(training_vectors(&ctx).await.unwrap().len(1), 20_000);
    }
}
