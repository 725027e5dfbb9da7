//! Vectors of contents, kept between nights below `state/content/<modality>/`, each once by its content key. Those of texts
//! lie by the encoder that made them: `text-<hash>/`.
//!
//! Files are only ever added, so a process that has read some of them reads the others alone. Whoever plans a call of
//! `score_intents` says in the plan which files there were; whoever runs it has read at least those.

use arrow::array::{ArrayRef, AsArray, Float32Builder, Int64Builder, ListBuilder, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type, Int64Type, Schema, SchemaRef};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use futures::TryStreamExt;
use object_store::path::Path;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::embedding::SharedEncoder;
use crate::failure::{Failure, Result};
use crate::lake::{parquet_files, stores::Location};
use crate::model::bundle::BundleCard;
use crate::model::contents::{Contents, MODALITIES};

/// Vectors of one file, in bytes: they are held in memory until the file is written.
const FILE_BYTES: usize = 64 << 20;
const ROWS_PER_BATCH: usize = 8192;

/// Texts that are encoded before they are written.
const FILE_TEXTS: usize = 16_384;
/// Where texts stand among the modalities.
const TEXT: usize = 0;

/// What the lake brings along, once a key and modality. Sorted, so that training sees the same order each time.
const BROUGHT_SQL: &str = "SELECT modality, content_key, first_value(vector) AS vector FROM item_vectors \
     GROUP BY modality, content_key ORDER BY modality, content_key";

/// The store of an output, as one model reads it.
#[derive(Debug, Clone)]
pub struct ContentStore {
    output: Location,
    dims: [i64; MODALITIES.len()],
    /// The folder of the texts' vectors.
    texts: String,
}

/// Contents with the files that they come from.
#[derive(Debug, Clone, Default)]
pub struct ReadContents {
    pub contents: Arc<Contents>,
    files: BTreeSet<Path>,
    /// The last fingerprint that was asked for and is met.
    pub fingerprint: String,
}

impl ContentStore {
    /// `None` for a model that reads no contents. `dims`: numbers of a vector of each modality. `encoder`: the hash of what
    /// reads texts, empty where nothing does.
    pub fn of(output: &Location, dims: [i64; MODALITIES.len()], encoder: &str) -> Option<Self> {
        let texts = format!("{}-{encoder}", MODALITIES[TEXT]);
        dims.iter().any(|&dims| dims > 0).then(|| Self { output: output.clone(), dims, texts })
    }

    /// As a model reads it.
    pub fn of_model(output: &Location, card: &BundleCard) -> Option<Self> {
        Self::of(output, card.intent.content_dims, card.text.as_ref().map_or("", |text| &text.hash))
    }

    fn folder(&self, modality: usize) -> Location {
        let name = if modality == TEXT { self.texts.as_str() } else { MODALITIES[modality] };
        self.output.folder(&format!("state/content/{name}"))
    }

    /// The modalities that are read.
    fn read_ones(&self) -> impl Iterator<Item = usize> {
        let dims = self.dims;
        (0..MODALITIES.len()).filter(move |&modality| dims[modality] > 0)
    }

    async fn files(&self) -> Result<BTreeMap<Path, usize>> {
        let mut files = BTreeMap::new();
        for modality in self.read_ones() {
            files.extend(self.folder(modality).list().await?.into_iter().map(|meta| (meta.location, modality)));
        }
        Ok(files)
    }

    /// Of the files that there are now.
    pub async fn fingerprint(&self) -> Result<String> {
        Ok(fingerprint(self.files().await?.keys()))
    }

    /// `before` and what has come since.
    pub async fn read(&self, before: &ReadContents) -> Result<ReadContents> {
        let files = self.files().await?;
        let mut read = ReadContents { fingerprint: fingerprint(files.keys()), ..before.clone() };
        let mut contents = match before.files.is_empty() {
            true => Contents::new(self.dims),
            false => before.contents.as_ref().clone(),
        };
        for (path, modality) in files {
            if read.files.insert(path.clone()) {
                let place = self.folder(modality);
                // A damaged file is as good as none: the night that misses its vectors writes them again.
                if let Err(failure) = add_file(&place, &path, modality, &mut contents).await {
                    tracing::warn!("{}: {failure}; its contents count as none", place.display(&path));
                }
            }
        }
        read.contents = Arc::new(contents);
        Ok(read)
    }

    /// All that is here.
    pub async fn contents(&self) -> Result<Arc<Contents>> {
        Ok(self.read(&ReadContents::default()).await?.contents)
    }

    /// Adds the vectors of the session's catalogue that are not among the `known`; returns how many.
    pub async fn add_vectors(&self, ctx: &SessionContext, known: &Contents) -> Result<usize> {
        let mut waiting: Vec<Waiting> = MODALITIES.iter().map(|_| Waiting::default()).collect();
        let (mut added, mut strange) = (0, BTreeMap::new());
        let mut rows =
            ctx.sql("SELECT modality, content_key, vector FROM item_vectors").await?.execute_stream().await?;
        while let Some(batch) = rows.try_next().await? {
            for (modality, key, vector) in brought(&batch)? {
                if self.dims[modality] == 0 || known.has(modality, key) || waiting[modality].keys.contains(&key) {
                    continue;
                }
                if vector.len() as i64 != self.dims[modality] {
                    *strange.entry(modality).or_insert(0) += 1;
                    continue;
                }
                added += 1;
                waiting[modality].add(key, &vector);
                if waiting[modality].bytes >= FILE_BYTES {
                    std::mem::take(&mut waiting[modality]).write(&self.folder(modality)).await?;
                }
            }
        }
        for modality in self.read_ones() {
            std::mem::take(&mut waiting[modality]).write(&self.folder(modality)).await?;
        }
        for (modality, vectors) in strange {
            let (name, dims) = (MODALITIES[modality], self.dims[modality]);
            tracing::warn!(
                "{vectors} {name} vectors of items have not {dims} numbers, as the model's; they count as none"
            );
        }
        Ok(added)
    }

    /// Encodes the session's texts that are not among the `known`. Returns the keys of all of its texts, and how many were added.
    /// Whoever is stopped has kept all but the last few.
    pub async fn add_texts(
        &self,
        ctx: &SessionContext,
        encoder: &Arc<SharedEncoder>,
        known: &Contents,
    ) -> Result<(BTreeSet<i64>, usize)> {
        let (mut keys, mut added, mut waiting) = (BTreeSet::new(), 0, BTreeMap::new());
        let mut rows = ctx.sql("SELECT content_key, text FROM content_texts").await?.execute_stream().await?;
        while let Some(batch) = rows.try_next().await? {
            let texts = cast(batch.column(1), &DataType::Utf8)?;
            for (key, text) in batch.column(0).as_primitive::<Int64Type>().iter().zip(texts.as_string::<i32>()) {
                let (Some(key), Some(text)) = (key, text) else { continue };
                if keys.insert(key) && !known.has(TEXT, key) {
                    waiting.insert(key, text.to_string());
                }
            }
            if waiting.len() >= FILE_TEXTS {
                added += self.encode(std::mem::take(&mut waiting), encoder).await?;
            }
        }
        added += self.encode(waiting, encoder).await?;
        Ok((keys, added))
    }

    async fn encode(&self, texts: BTreeMap<i64, String>, encoder: &Arc<SharedEncoder>) -> Result<usize> {
        let (keys, texts): (Vec<i64>, Vec<String>) = texts.into_iter().unzip();
        let encoder = Arc::clone(encoder);
        let encode = move || encoder.encode(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let vectors = tokio::task::spawn_blocking(encode).await.map_err(Failure::bug)??;
        let mut file = Waiting::default();
        keys.iter().zip(&vectors).for_each(|(key, vector)| file.add(*key, vector));
        file.write(&self.folder(TEXT)).await?;
        if !keys.is_empty() {
            tracing::info!("encoded {} texts", keys.len());
        }
        Ok(keys.len())
    }
}

/// The catalogue's vectors as a training sees them, with their strange ones counted in the log. Each modality has as many
/// numbers as most of its vectors, the smallest of several such.
pub async fn of_catalogue(ctx: &SessionContext) -> Result<Contents> {
    let mut all = Vec::new();
    for batch in ctx.sql(BROUGHT_SQL).await?.collect().await? {
        all.extend(brought(&batch)?);
    }
    let mut lengths: [BTreeMap<usize, usize>; MODALITIES.len()] = Default::default();
    all.iter().for_each(|(modality, _, vector)| *lengths[*modality].entry(vector.len()).or_default() += 1);
    let most =
        |of: &BTreeMap<usize, usize>| of.iter().rev().max_by_key(|(_, n)| **n).map_or(0, |(&dims, _)| dims as i64);
    let mut contents = Contents::new([0, 1, 2].map(|modality| most(&lengths[modality])));
    let strange = all.iter().filter(|(modality, key, vector)| !contents.insert(*modality, *key, vector)).count();
    if strange > 0 {
        tracing::warn!("{strange} vectors of items have another length than most; they count as none");
    }
    Ok(contents)
}

/// Rows of modality, key and vector.
fn brought(batch: &RecordBatch) -> Result<Vec<(usize, i64, Vec<f32>)>> {
    let names = cast(batch.column(0), &DataType::Utf8)?;
    let keys = batch.column(1).as_primitive::<Int64Type>();
    let vectors = cast(batch.column(2), &DataType::new_list(DataType::Float32, true))?;
    let vectors = vectors.as_list::<i32>();
    (0..batch.num_rows())
        .map(|row| {
            let name = names.as_string::<i32>().value(row);
            let modality = MODALITIES.iter().position(|known| *known == name).ok_or_else(|| {
                Failure::usage(format!(
                    "sql/features/item_vectors.sql: modality: expected image or video, got {name:?}"
                ))
            })?;
            let vector = vectors.value(row);
            Ok((modality, keys.value(row), vector.as_primitive::<Float32Type>().values().to_vec()))
        })
        .collect()
}

async fn add_file(place: &Location, path: &Path, modality: usize, to: &mut Contents) -> Result<()> {
    let ctx = SessionContext::new();
    ctx.register_object_store(&place.store_url()?, Arc::clone(&place.store));
    let rows = ctx.read_parquet(place.full_url(path), ParquetReadOptions::default()).await?;
    let mut batches = rows.execute_stream().await?;
    while let Some(batch) = batches.try_next().await? {
        let (keys, vectors) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_list::<i32>());
        for row in 0..batch.num_rows() {
            to.insert(modality, keys.value(row), vectors.value(row).as_primitive::<Float32Type>().values());
        }
    }
    Ok(())
}

fn fingerprint<'a>(files: impl Iterator<Item = &'a Path>) -> String {
    let mut hasher = blake3::Hasher::new();
    files.for_each(|path| {
        hasher.update(path.as_ref().as_bytes()).update(b"\n");
    });
    hasher.finalize().to_hex()[..16].to_string()
}

/// Vectors of one modality that are not in a file yet.
#[derive(Default)]
struct Waiting {
    keys: HashSet<i64>,
    key: Int64Builder,
    vector: ListBuilder<Float32Builder>,
    bytes: usize,
}

impl Waiting {
    fn add(&mut self, key: i64, vector: &[f32]) {
        self.keys.insert(key);
        self.key.append_value(key);
        self.vector.values().append_slice(vector);
        self.vector.append(true);
        self.bytes += size_of_val(vector);
    }

    /// Under a name that follows from the keys: two processes that write the same write one file.
    async fn write(mut self, place: &Location) -> Result<()> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let mut keys: Vec<i64> = self.keys.into_iter().collect();
        keys.sort_unstable();
        let bytes: Vec<u8> = keys.iter().flat_map(|key| key.to_le_bytes()).collect();
        let path = place.path(&format!("{}.parquet", &blake3::hash(&bytes).to_hex()[..16]));
        let columns: Vec<ArrayRef> = vec![Arc::new(self.key.finish()), Arc::new(self.vector.finish())];
        let batch = RecordBatch::try_new(schema(), columns)?;
        let stream = Box::pin(RecordBatchStreamAdapter::new(schema(), futures::stream::iter([Ok(batch)])));
        parquet_files::write(place, &path, &schema(), stream, ROWS_PER_BATCH).await?;
        Ok(())
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("content_key", DataType::Int64, false),
        Field::new("vector", DataType::new_list(DataType::Float32, true), false),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Config;

    async fn catalogue(rows: &str) -> SessionContext {
        let ctx = SessionContext::new();
        let sql =
            format!("CREATE VIEW item_vectors AS SELECT * FROM (VALUES {rows}) AS t(modality, content_key, vector)");
        ctx.sql(&sql).await.unwrap();
        ctx
    }

    #[tokio::test]
    async fn each_vector_is_written_once_and_read_once_and_damage_is_made_good() {
        let output = Location::open("memory://content-store", &S3Config::default()).unwrap();
        let store = ContentStore::of(&output, [0, 2, 0], "").unwrap();
        let first = catalogue(
            "('image', 5, [3.0, 4.0]), ('image', 5, [3.0, 4.0]), ('image', 7, [1.0]), ('video', 9, [1.0, 0.0])",
        );
        assert_eq!(store.add_vectors(&first.await, &store.contents().await.unwrap()).await.unwrap(), 1);
        let read = store.read(&ReadContents::default()).await.unwrap();
        assert_eq!(read.contents.rows(&[None, Some(5), Some(9)]), [0, 1, 0]);
        assert_eq!(read.fingerprint, store.fingerprint().await.unwrap());
        let more = catalogue("('image', 5, [3.0, 4.0]), ('image', 3, [0.0, 2.0])").await;
        assert_eq!(store.add_vectors(&more, &store.contents().await.unwrap()).await.unwrap(), 1);
        assert_eq!(store.add_vectors(&more, &store.contents().await.unwrap()).await.unwrap(), 0);
        let next = store.read(&read).await.unwrap();
        assert_ne!(next.fingerprint, read.fingerprint);
        assert_eq!(next.contents.rows(&[None, Some(5), None]), [0, 1, 0], "rows stay what they are");
        assert_eq!(next.contents.rows(&[None, Some(3), None]), [0, 2, 0]);
        for file in output.folder("state/content/image").list().await.unwrap() {
            output.folder("state/content/image").write(file.location.filename().unwrap(), "half a file").await.unwrap();
        }
        assert_eq!(store.contents().await.unwrap().len(1), 0);
        assert_eq!(store.add_vectors(&more, &store.contents().await.unwrap()).await.unwrap(), 2);
        assert_eq!(store.contents().await.unwrap().len(1), 2);
    }

    #[tokio::test]
    async fn training_takes_the_length_that_most_vectors_have() {
        let rows = "('video', 1, [1.0, 2.0]), ('video', 2, [2.0, 1.0]), ('video', 3, [1.0]), ('image', 4, [1.0])";
        let contents = of_catalogue(&catalogue(rows).await).await.unwrap();
        assert_eq!(contents.dims(), [0, 1, 2]);
        assert_eq!(contents.rows(&[None, Some(4), Some(3)]), [0, 1, 0]);
        assert!(ContentStore::of(&Location::open("memory://", &S3Config::default()).unwrap(), [0; 3], "").is_none());
    }
}
