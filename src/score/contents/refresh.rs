//! Finds the contents of a session's lake that have no vector yet, encodes them, and passes the vectors to a [`VectorSink`].

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::lake_vectors;
use super::store::{ContentStore, UsedKeys};
use super::vector_files::VectorRow;
use super::vector_sink::VectorSink;
use crate::failure::{Failure, Result};
use crate::lake::files_table::PICTURES_PER_BATCH;
use crate::model::contents::{Contents, IMAGE, MODALITIES, TEXT};
use crate::score::encoders::{RefusedImages, SharedImageEncoder, SharedTextEncoder};

/// Texts, and bytes of them, that wait in memory to be encoded together.
const TEXTS_MAX: usize = 16_384;
const TEXT_BYTES_MAX: usize = 64 << 20;
/// Images that are encoded before their vectors are written.
const FILE_IMAGES: usize = 1024;

/// The usable contents of a session's lake.
#[derive(Debug, Default)]
pub(crate) struct Refreshed<K> {
    pub(crate) keys: K,
    /// Number of new vectors.
    pub(crate) added: usize,
}

pub(crate) type RefreshedKeys = Refreshed<BTreeSet<i64>>;

/// Adds the vectors that the session's catalogue brings along, unless they are `known`.
pub(crate) async fn add_lake_vectors(
    ctx: &SessionContext,
    store: &ContentStore,
    known: &Contents,
    sink: &mut VectorSink<'_>,
) -> Result<Refreshed<UsedKeys>> {
    let mut found = Refreshed::<UsedKeys>::default();
    let mut ignored = BTreeMap::new();
    let mut rows = lake_vectors::scan(ctx).await?;
    while let Some(batch) = rows.try_next().await? {
        for vector in lake_vectors::parse(&batch)? {
            let modality = vector.modality;
            let dims = store.dims()[modality];
            // Vectors of another space than the encoder's mean nothing to this model.
            if dims == 0 || store.is_encoded(modality) {
                continue;
            }
            if !found.keys[modality].insert(vector.key) || known.has(modality, vector.key) {
                continue;
            }
            if vector.dims as i64 != dims {
                *ignored.entry(modality).or_insert(0) += 1;
                continue;
            }
            found.added += 1;
            let row = VectorRow { key: vector.key, vectors: &vector.vectors, dims: vector.dims };
            sink.add(modality, row).await?;
        }
    }
    sink.flush().await?;
    for (modality, vectors) in ignored {
        let (name, dims) = (MODALITIES[modality], store.dims()[modality]);
        tracing::warn!("ignored {vectors} {name} vectors of items: expected dimension {dims}");
    }
    Ok(found)
}

/// Encodes the session's texts that are not `known`. If it is interrupted, all vectors but those of the last texts are written.
pub(crate) async fn add_texts(
    ctx: &SessionContext,
    encoder: &Arc<SharedTextEncoder>,
    known: &Contents,
    sink: &mut VectorSink<'_>,
) -> Result<RefreshedKeys> {
    let mut found = RefreshedKeys::default();
    let (mut waiting, mut bytes) = (BTreeMap::new(), 0);
    let mut rows = ctx.sql("SELECT content_key, text FROM content_texts").await?.execute_stream().await?;
    while let Some(batch) = rows.try_next().await? {
        let texts = cast(batch.column(1), &DataType::Utf8)?;
        for (key, text) in batch.column(0).as_primitive::<Int64Type>().iter().zip(texts.as_string::<i32>()) {
            let (Some(key), Some(text)) = (key, text) else { continue };
            if found.keys.insert(key) && !known.has(TEXT, key) {
                bytes += text.len();
                waiting.insert(key, text.to_string());
            }
        }
        if waiting.len() >= TEXTS_MAX || bytes >= TEXT_BYTES_MAX {
            found.added += encode_texts(std::mem::take(&mut waiting), encoder, sink).await?;
            bytes = 0;
        }
    }
    found.added += encode_texts(waiting, encoder, sink).await?;
    Ok(found)
}

async fn encode_texts(
    texts: BTreeMap<i64, String>,
    encoder: &Arc<SharedTextEncoder>,
    sink: &mut VectorSink<'_>,
) -> Result<usize> {
    if texts.is_empty() {
        return Ok(0);
    }
    let (keys, texts): (Vec<i64>, Vec<String>) = texts.into_iter().unzip();
    let encoder = Arc::clone(encoder);
    let encode = move || encoder.encode(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    let vectors = tokio::task::spawn_blocking(encode).await.map_err(Failure::bug)??;
    for (&key, vector) in keys.iter().zip(&vectors) {
        sink.add(TEXT, VectorRow { key, vectors: vector, dims: vector.len() }).await?;
    }
    sink.flush().await?;
    tracing::info!("encoded {} texts", keys.len());
    Ok(keys.len())
}

/// Encodes the session's images that are not `known`. Images that cannot be decoded are ignored with a warning, have no key in
/// the result, and are tried again by the next night. If it is interrupted, all vectors but those of the last images are
/// written.
pub(crate) async fn add_images(
    ctx: &SessionContext,
    encoder: &Arc<SharedImageEncoder>,
    known: &Contents,
    sink: &mut VectorSink<'_>,
) -> Result<RefreshedKeys> {
    let config = ctx.copied_config().with_batch_size(PICTURES_PER_BATCH);
    let state = SessionStateBuilder::new_from_existing(ctx.state()).with_config(config).build();
    let small_batches = SessionContext::new_with_state(state);
    let sql = "SELECT content_key, item_id, image FROM content_pictures";
    let mut rows = small_batches.sql(sql).await?.execute_stream().await?;
    let mut found = RefreshedKeys::default();
    let (mut seen, mut unwritten, mut refused) = (HashSet::new(), 0, RefusedImages::default());
    while let Some(batch) = rows.try_next().await? {
        let new = new_images(&batch, known, &mut found.keys, &mut seen);
        if new.is_empty() {
            continue;
        }
        let items = cast(batch.column(1), &DataType::Utf8)?;
        let items = items.as_string::<i32>();
        let keys = batch.column(0).as_primitive::<Int64Type>();
        let (encoder, images, wanted) = (Arc::clone(encoder), Arc::clone(batch.column(2)), new.clone());
        let encode = move || encoder.encode_rows(&images, &wanted);
        let vectors = tokio::task::spawn_blocking(encode).await.map_err(Failure::bug)??;
        for (row, vector) in new.into_iter().zip(vectors) {
            let item = items.is_valid(row).then(|| items.value(row));
            let Some(vector) = refused.accept(vector, item) else { continue };
            let key = keys.value(row);
            found.keys.insert(key);
            found.added += 1;
            unwritten += 1;
            sink.add(IMAGE, VectorRow { key, vectors: &vector, dims: vector.len() }).await?;
        }
        if unwritten >= FILE_IMAGES {
            sink.flush().await?;
            unwritten = 0;
        }
    }
    sink.flush().await?;
    if found.added > 0 {
        tracing::info!("encoded {} images", found.added);
    }
    refused.warn_of_items();
    Ok(found)
}

/// The rows of images that are neither `known` nor `seen`; adds the keys of the known ones to `keys`.
fn new_images(batch: &RecordBatch, known: &Contents, keys: &mut BTreeSet<i64>, seen: &mut HashSet<i64>) -> Vec<usize> {
    let content_keys = batch.column(0).as_primitive::<Int64Type>();
    let mut new = Vec::new();
    for row in (0..batch.num_rows()).filter(|&row| content_keys.is_valid(row)) {
        let key = content_keys.value(row);
        if known.has(IMAGE, key) {
            keys.insert(key);
        } else if seen.insert(key) {
            new.push(row);
        }
    }
    new
}
