//! Vectors of contents, kept between nights below `state/content/<modality>/`, each once by its content key. Those that an
//! encoder made lie by its hash: `text-<hash>/`, `image-<hash>/`.
//!
//! Nights add files, and write one that is damaged anew under its name; a process that has read some of them reads the others
//! alone. Whoever plans a call of `score_intents` says in the plan which files there were; whoever runs it has read at least
//! those. A file says which folder it is of, as vectors of another encoder may well have as many numbers.

use arrow::array::{
    Array, ArrayRef, AsArray, Float32Builder, Int32Builder, Int64Array, Int64Builder, ListBuilder, RecordBatch,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type, Int32Type, Int64Type, Schema, SchemaRef};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{DataFrame, ParquetReadOptions, SessionContext};
use futures::TryStreamExt;
use object_store::path::Path;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::embedding::SharedEncoder;
use super::pictures::SharedImageEncoder;
use crate::config::networks::Precision;
use crate::failure::{Failure, FailureKind, Result};
use crate::ids::RunDate;
use crate::lake::{self, files_table::PICTURES_PER_BATCH, parquet_files, stores::Location};
use crate::model::bundle::BundleCard;
use crate::model::contents::{Contents, IMAGE, MODALITIES, TEXT};

/// Vectors of one file, and texts that wait to be encoded, in bytes: they are held in memory until the file is written.
const FILE_BYTES: usize = 64 << 20;
const ROWS_PER_BATCH: usize = 8192;

/// Texts, and pictures, that are encoded before they are written.
const FILE_TEXTS: usize = 16_384;
const FILE_PICTURES: usize = 1024;

/// What the lake brings along, a key once for each row of the catalogue. Not grouped in SQL: the engine charges a group for all
/// of the buffer that its vectors were cut from, and 16,000 items with vectors ran out of any memory.
const BROUGHT_SQL: &str = "SELECT modality, content_key, vectors FROM item_vectors";

/// The store of an output, as one model reads it.
#[derive(Debug, Clone)]
pub struct ContentStore {
    output: Location,
    dims: [i64; MODALITIES.len()],
    folders: [String; MODALITIES.len()],
}

/// Below it each folder of vectors has one folder of what its nights' lakes had: a file of keys a night.
pub const USED: &str = "state/content_used";
pub const KEPT: &str = "state/content";

/// Of each modality the keys that a session's lake has.
pub type UsedKeys = [BTreeSet<i64>; MODALITIES.len()];

/// What reads contents: the hash of each modality's encoder, empty where the lake brings the vectors along.
pub type EncoderHashes<'a> = [&'a str; MODALITIES.len()];

/// Contents with the files that they come from.
#[derive(Debug, Clone, Default)]
pub struct ReadContents {
    pub contents: Arc<Contents>,
    /// Fingerprints of the files that were read whole.
    files: BTreeSet<String>,
    /// The last fingerprint that was asked for and is met.
    pub fingerprint: String,
}

impl ContentStore {
    /// `None` for a model that reads no contents. `dims`: numbers of a vector of each modality.
    pub fn of(output: &Location, dims: [i64; MODALITIES.len()], encoders: EncoderHashes<'_>) -> Option<Self> {
        let folders = std::array::from_fn(|modality| match encoders[modality] {
            "" => MODALITIES[modality].to_string(),
            hash => format!("{}-{hash}", MODALITIES[modality]),
        });
        dims.iter().any(|&dims| dims > 0).then(|| Self { output: output.clone(), dims, folders })
    }

    /// As a model reads it whose encoders compute in `precision`.
    pub fn of_model(output: &Location, card: &BundleCard, precision: Precision) -> Option<Self> {
        let text = precision.hash_of(card.text.as_ref().map_or("", |text| &text.hash));
        let image = precision.hash_of(card.image.as_ref().map_or("", |image| &image.hash));
        Self::of(output, card.intent.content_dims, [&text, &image, ""])
    }

    /// The folders below [`KEPT`] that it reads.
    pub fn folders(&self) -> impl Iterator<Item = &str> {
        self.read_ones().map(|modality| self.folders[modality].as_str())
    }

    fn folder(&self, modality: usize) -> Location {
        self.output.folder(&format!("{KEPT}/{}", self.folders[modality]))
    }

    async fn write(&self, modality: usize, waiting: Waiting) -> Result<()> {
        waiting.write(&self.folder(modality), &self.folders[modality]).await
    }

    /// The modalities that are read.
    fn read_ones(&self) -> impl Iterator<Item = usize> {
        let dims = self.dims;
        (0..MODALITIES.len()).filter(move |&modality| dims[modality] > 0)
    }

    /// By fingerprint, and in the order of the paths.
    async fn files(&self) -> Result<Vec<(String, Path, usize)>> {
        let mut files = Vec::new();
        for modality in self.read_ones() {
            let listed = self.folder(modality).list().await?.into_iter();
            files.extend(listed.map(|meta| (lake::fingerprint(&meta), meta.location, modality)));
        }
        files.sort_by(|(_, a, _), (_, b, _)| a.cmp(b));
        Ok(files)
    }

    /// Of the files that there are now.
    pub async fn fingerprint(&self) -> Result<String> {
        Ok(fingerprint(&self.files().await?))
    }

    /// `before` and what has come since.
    pub async fn read(&self, before: &ReadContents) -> Result<ReadContents> {
        let files = self.files().await?;
        let mut read = ReadContents { fingerprint: fingerprint(&files), ..before.clone() };
        let mut contents = match before.files.is_empty() {
            true => Contents::new(self.dims),
            false => before.contents.as_ref().clone(),
        };
        for (own, path, modality) in files.into_iter().filter(|(own, ..)| !before.files.contains(own)) {
            let place = self.folder(modality);
            match add_file(&place, &path, &self.folders[modality], modality, &mut contents).await {
                Ok(()) => drop(read.files.insert(own)),
                // A damaged file is as good as none: the night that misses its vectors writes them again.
                Err(failure) if failure.kind == FailureKind::Input => {
                    tracing::warn!("{}: {failure}; its contents count as none", place.display(&path));
                }
                Err(failure) => return Err(failure.at(place.display(&path))),
            }
        }
        read.contents = Arc::new(contents);
        Ok(read)
    }

    /// All that is here.
    pub async fn contents(&self) -> Result<Arc<Contents>> {
        Ok(self.read(&ReadContents::default()).await?.contents)
    }

    /// Adds the vectors that the session's catalogue brings along and that are not among the `known`. Returns their keys by
    /// modality, and how many were added.
    pub async fn add_vectors(&self, ctx: &SessionContext, known: &Contents) -> Result<(UsedKeys, usize)> {
        let mut waiting: Vec<Waiting> = MODALITIES.iter().map(|_| Waiting::default()).collect();
        let (mut keys, mut added, mut strange) = (UsedKeys::default(), 0, BTreeMap::new());
        let mut rows = ctx.sql(BROUGHT_SQL).await?.execute_stream().await?;
        while let Some(batch) = rows.try_next().await? {
            for Brought { modality, key, vectors, dims } in brought(&batch)? {
                // Vectors of another space than the encoder's say nothing to this model.
                let encoded = self.folders[modality] != MODALITIES[modality];
                if self.dims[modality] == 0 || encoded {
                    continue;
                }
                let there = !keys[modality].insert(key) || known.has(modality, key);
                if there {
                    continue;
                }
                if dims as i64 != self.dims[modality] {
                    *strange.entry(modality).or_insert(0) += 1;
                    continue;
                }
                added += 1;
                waiting[modality].add(key, &vectors, dims);
                if waiting[modality].bytes >= FILE_BYTES {
                    self.write(modality, std::mem::take(&mut waiting[modality])).await?;
                }
            }
        }
        for modality in self.read_ones() {
            self.write(modality, std::mem::take(&mut waiting[modality])).await?;
        }
        for (modality, vectors) in strange {
            let (name, dims) = (MODALITIES[modality], self.dims[modality]);
            tracing::warn!(
                "{vectors} {name} vectors of items have not {dims} numbers, as the model's; they count as none"
            );
        }
        Ok((keys, added))
    }

    /// Notes which keys a night's lake has: `gc` takes away what none of late had.
    pub async fn note(&self, run_date: RunDate, keys: &UsedKeys) -> Result<()> {
        for modality in self.read_ones() {
            let place = self.output.folder(&format!("{USED}/{}", self.folders[modality]));
            let column: ArrayRef = Arc::new(Int64Array::from_iter_values(keys[modality].iter().copied()));
            let batch = RecordBatch::try_new(keys_schema(), vec![column])?;
            let stream = Box::pin(RecordBatchStreamAdapter::new(keys_schema(), futures::stream::iter([Ok(batch)])));
            let path = place.path(&format!("{run_date}.parquet"));
            parquet_files::write(&place, &path, &keys_schema(), stream, ROWS_PER_BATCH * 16).await?;
        }
        Ok(())
    }

    /// Encodes the session's texts that are not among the `known`. Returns the keys of all of its texts, and how many were added.
    /// Whoever is stopped has kept all but the last few.
    pub async fn add_texts(
        &self,
        ctx: &SessionContext,
        encoder: &Arc<SharedEncoder>,
        known: &Contents,
    ) -> Result<(BTreeSet<i64>, usize)> {
        let (mut keys, mut added, mut waiting, mut bytes) = (BTreeSet::new(), 0, BTreeMap::new(), 0);
        let mut rows = ctx.sql("SELECT content_key, text FROM content_texts").await?.execute_stream().await?;
        while let Some(batch) = rows.try_next().await? {
            let texts = cast(batch.column(1), &DataType::Utf8)?;
            for (key, text) in batch.column(0).as_primitive::<Int64Type>().iter().zip(texts.as_string::<i32>()) {
                let (Some(key), Some(text)) = (key, text) else { continue };
                if keys.insert(key) && !known.has(TEXT, key) {
                    bytes += text.len();
                    waiting.insert(key, text.to_string());
                }
            }
            if waiting.len() >= FILE_TEXTS || bytes >= FILE_BYTES {
                added += self.encode(std::mem::take(&mut waiting), encoder).await?;
                bytes = 0;
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
        keys.iter().zip(&vectors).for_each(|(key, vector)| file.add(*key, vector, vector.len()));
        self.write(TEXT, file).await?;
        if !keys.is_empty() {
            tracing::info!("encoded {} texts", keys.len());
        }
        Ok(keys.len())
    }

    /// Encodes the session's pictures that are not among the `known`. Returns the keys of all of its pictures that can be
    /// read, and how many were added. Whoever is stopped has kept all but the last few. One that can not be read counts as
    /// none, is told of, and is tried again by the next night.
    pub async fn add_pictures(
        &self,
        ctx: &SessionContext,
        encoder: &Arc<SharedImageEncoder>,
        known: &Contents,
    ) -> Result<(BTreeSet<i64>, usize)> {
        let config = ctx.copied_config().with_batch_size(PICTURES_PER_BATCH);
        let few = SessionStateBuilder::new_from_existing(ctx.state()).with_config(config).build();
        let few = SessionContext::new_with_state(few);
        let (mut keys, mut seen, mut added, mut file) = (BTreeSet::new(), HashSet::new(), 0, Waiting::default());
        let mut refused = Refusals::default();
        let sql = "SELECT content_key, item_id, image FROM content_pictures";
        let mut rows = few.sql(sql).await?.execute_stream().await?;
        while let Some(batch) = rows.try_next().await? {
            let items = cast(batch.column(1), &DataType::Utf8)?;
            let (content_keys, items) = (batch.column(0).as_primitive::<Int64Type>(), items.as_string::<i32>());
            let mut new = Vec::new();
            for row in (0..batch.num_rows()).filter(|&row| content_keys.is_valid(row)) {
                let key = content_keys.value(row);
                if known.has(IMAGE, key) {
                    keys.insert(key);
                } else if seen.insert(key) {
                    new.push(row);
                }
            }
            if new.is_empty() {
                continue;
            }
            let (encoder, pictures, rows) = (Arc::clone(encoder), Arc::clone(batch.column(2)), new.clone());
            let encode = move || encoder.encode_rows(&pictures, &rows);
            let vectors = tokio::task::spawn_blocking(encode).await.map_err(Failure::bug)??;
            for (row, vector) in new.into_iter().zip(vectors) {
                match vector {
                    Ok(vector) => {
                        added += 1;
                        keys.insert(content_keys.value(row));
                        file.add(content_keys.value(row), &vector, vector.len());
                    }
                    Err(why) => refused.add(items.is_valid(row).then(|| items.value(row)), &why.to_string()),
                }
            }
            if file.keys.len() >= FILE_PICTURES {
                self.write(IMAGE, std::mem::take(&mut file)).await?;
            }
        }
        self.write(IMAGE, file).await?;
        if added > 0 {
            tracing::info!("encoded {added} pictures");
        }
        refused.tell();
        Ok((keys, added))
    }
}

/// Pictures that could not be read, counted by reason with the first item of each.
#[derive(Default)]
struct Refusals(BTreeMap<String, (usize, String)>);

impl Refusals {
    fn add(&mut self, item: Option<&str>, why: &str) {
        let named = || item.unwrap_or("an item without an id").to_string();
        self.0.entry(why.to_string()).or_insert_with(|| (0, named())).0 += 1;
    }

    fn tell(self) {
        for (why, (pictures, first)) in self.0 {
            tracing::warn!("{pictures} pictures count as none, the first of item {first}: {why}");
        }
    }
}

/// The catalogue's vectors as a training sees them, with their strange ones counted in the log. Each modality has as many
/// numbers as most of its vectors, the smallest of several such.
pub async fn of_catalogue(ctx: &SessionContext) -> Result<Contents> {
    // In the order of the keys, and of several vectors of one key the least, so that training sees the same each time.
    let mut all: BTreeMap<(usize, i64), Brought> = BTreeMap::new();
    let mut rows = ctx.sql(BROUGHT_SQL).await?.execute_stream().await?;
    while let Some(batch) = rows.try_next().await? {
        for of in brought(&batch)? {
            match all.entry((of.modality, of.key)) {
                Entry::Vacant(place) => drop(place.insert(of)),
                Entry::Occupied(mut place) if of.is_less(place.get()) => drop(place.insert(of)),
                Entry::Occupied(_) => (),
            }
        }
    }
    let mut lengths: [BTreeMap<usize, usize>; MODALITIES.len()] = Default::default();
    all.values().for_each(|of| *lengths[of.modality].entry(of.dims).or_default() += 1);
    let most =
        |of: &BTreeMap<usize, usize>| of.iter().rev().max_by_key(|(_, n)| **n).map_or(0, |(&dims, _)| dims as i64);
    let mut contents = Contents::new([0, 1, 2].map(|modality| most(&lengths[modality])));
    let dims = contents.dims();
    let fits = |of: &Brought| of.dims as i64 == dims[of.modality];
    let strange = all.values().filter(|of| !(fits(of) && contents.insert(of.modality, of.key, &of.vectors))).count();
    if strange > 0 {
        tracing::warn!("{strange} vectors of items have another length than most; they count as none");
    }
    Ok(contents)
}

/// A content whose vectors the lake brings along.
struct Brought {
    modality: usize,
    key: i64,
    /// One behind the other.
    vectors: Vec<f32>,
    /// Numbers of one; 0 where they differ in length.
    dims: usize,
}

impl Brought {
    fn is_less(&self, other: &Self) -> bool {
        let bits = |vectors: &[f32]| vectors.iter().map(|v| v.to_bits()).collect::<Vec<u32>>();
        (self.dims, bits(&self.vectors)) < (other.dims, bits(&other.vectors))
    }
}

/// Rows of modality, key and vectors.
fn brought(batch: &RecordBatch) -> Result<Vec<Brought>> {
    let names = cast(batch.column(0), &DataType::Utf8)?;
    let keys = batch.column(1).as_primitive::<Int64Type>();
    let frames = DataType::new_list(DataType::new_list(DataType::Float32, true), true);
    let vectors = cast(batch.column(2), &frames)?;
    let vectors = vectors.as_list::<i32>();
    (0..batch.num_rows())
        .map(|row| {
            let name = names.as_string::<i32>().value(row);
            let modality = MODALITIES.iter().position(|known| *known == name).ok_or_else(|| {
                Failure::usage(format!(
                    "sql/features/item_vectors.sql: modality: expected image or video, got {name:?}"
                ))
            })?;
            let frames = vectors.value(row);
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
            Ok(Brought { modality, key: keys.value(row), vectors: flat, dims: dims.unwrap_or(0) })
        })
        .collect()
}

/// The keys of a file of vectors, whose vectors stay unread; a file of another folder is refused.
pub async fn keys_of_vectors(output: &Location, path: &Path) -> Result<Vec<i64>> {
    keys(vectors(output, path, &folder_of(path)).await?).await
}

/// The name of the folder that a file lies in.
fn folder_of(path: &Path) -> String {
    path.parts().rev().nth(1).map(|name| name.as_ref().to_string()).unwrap_or_default()
}

/// The keys of a file of [`USED`] keys.
pub async fn used_keys(output: &Location, path: &Path) -> Result<Vec<i64>> {
    keys(table(output, path).await?).await
}

async fn keys(table: DataFrame) -> Result<Vec<i64>> {
    let mut keys = Vec::new();
    let mut batches = table.select_columns(&[KEY])?.execute_stream().await?;
    while let Some(batch) = batches.try_next().await? {
        keys.extend(batch.column(0).as_primitive::<Int64Type>().values());
    }
    Ok(keys)
}

/// Writes the rows of a file whose keys are to be kept anew, into the folder that it lies in. Of a file that counts as none,
/// none are.
pub async fn keep_rows(output: &Location, path: &Path, kept: &HashSet<i64>) -> Result<()> {
    let folder = folder_of(path);
    let mut rows = Waiting::default();
    let add = |key: i64, vectors: &[f32], dims: usize| {
        if kept.contains(&key) {
            rows.add(key, vectors, dims);
        }
    };
    match each_row(output, path, &folder, add).await {
        Err(failure) if failure.kind == FailureKind::Input => return Ok(()),
        read => read?,
    }
    rows.write(&output.folder(&format!("{KEPT}/{folder}")), &folder).await
}

async fn table(place: &Location, path: &Path) -> Result<DataFrame> {
    let ctx = SessionContext::new();
    ctx.register_object_store(&place.store_url()?, Arc::clone(&place.store));
    Ok(ctx.read_parquet(place.full_url(path), ParquetReadOptions::default().skip_metadata(false)).await?)
}

/// A file of vectors; refused where it is another folder's than `folder`, or does not say whose.
async fn vectors(place: &Location, path: &Path, folder: &str) -> Result<DataFrame> {
    let table = table(place, path).await?;
    let found = table.schema().metadata().get(FOLDER).map_or("a file that does not say whose it is", String::as_str);
    if found != folder {
        return Err(Failure::input(format!("expected vectors of {folder}, got {found}")));
    }
    Ok(table)
}

async fn add_file(place: &Location, path: &Path, folder: &str, modality: usize, to: &mut Contents) -> Result<()> {
    let expected = to.dims()[modality];
    let add = |key: i64, vectors: &[f32], dims: usize| {
        if dims as i64 == expected {
            to.insert(modality, key, vectors);
        }
    };
    each_row(place, path, folder, add).await
}

/// Hands over, of each row of a file of vectors of `folder`, the key, the vectors one behind the other, and how many numbers
/// one has.
async fn each_row(place: &Location, path: &Path, folder: &str, mut take: impl FnMut(i64, &[f32], usize)) -> Result<()> {
    let mut batches = vectors(place, path, folder).await?.execute_stream().await?;
    while let Some(batch) = batches.try_next().await? {
        let rows = rows_of(&batch).ok_or_else(|| Failure::input(format!("expected the columns {}", schema(folder))))?;
        for (key, vectors, dims) in rows {
            take(key, vectors.as_primitive::<Float32Type>().values(), dims);
        }
    }
    Ok(())
}

/// Of each row of a file the key, the vectors one behind the other, and how many numbers one has; `None` for a file of other
/// columns.
fn rows_of(batch: &RecordBatch) -> Option<impl Iterator<Item = (i64, ArrayRef, usize)>> {
    let [keys, vectors, dims] = batch.columns() else { return None };
    let keys = keys.as_primitive_opt::<Int64Type>()?;
    let (vectors, dims) = (vectors.as_list_opt::<i32>()?, dims.as_primitive_opt::<Int32Type>()?);
    Some((0..batch.num_rows()).map(|row| (keys.value(row), vectors.value(row), dims.value(row) as usize)))
}

fn fingerprint(files: &[(String, Path, usize)]) -> String {
    let mut hasher = blake3::Hasher::new();
    files.iter().for_each(|(own, ..)| {
        hasher.update(own.as_bytes());
    });
    hasher.finalize().to_hex()[..16].to_string()
}

/// Vectors of one modality that are not in a file yet.
#[derive(Default)]
struct Waiting {
    keys: HashSet<i64>,
    key: Int64Builder,
    vectors: ListBuilder<Float32Builder>,
    dims: Int32Builder,
    bytes: usize,
}

impl Waiting {
    /// `vectors`, one behind the other, of `dims` numbers each.
    fn add(&mut self, key: i64, vectors: &[f32], dims: usize) {
        self.keys.insert(key);
        self.key.append_value(key);
        self.vectors.values().append_slice(vectors);
        self.vectors.append(true);
        self.dims.append_value(dims as i32);
        self.bytes += size_of_val(vectors);
    }

    /// Under a name that follows from the keys: two processes that write the same write one file.
    async fn write(mut self, place: &Location, folder: &str) -> Result<()> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let mut keys: Vec<i64> = self.keys.into_iter().collect();
        keys.sort_unstable();
        let bytes: Vec<u8> = keys.iter().flat_map(|key| key.to_le_bytes()).collect();
        let path = place.path(&format!("{}.parquet", &blake3::hash(&bytes).to_hex()[..16]));
        let columns: Vec<ArrayRef> =
            vec![Arc::new(self.key.finish()), Arc::new(self.vectors.finish()), Arc::new(self.dims.finish())];
        let schema = schema(folder);
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
        let stream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), futures::stream::iter([Ok(batch)])));
        parquet_files::write(place, &path, &schema, stream, ROWS_PER_BATCH).await?;
        Ok(())
    }
}

const KEY: &str = "content_key";
/// In the metadata of a file: the folder whose vectors it holds.
const FOLDER: &str = "folder";

fn keys_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(KEY, DataType::Int64, false)]))
}

fn schema(folder: &str) -> SchemaRef {
    let fields = vec![
        Field::new(KEY, DataType::Int64, false),
        Field::new("vectors", DataType::new_list(DataType::Float32, true), false),
        Field::new("dims", DataType::Int32, false),
    ];
    Arc::new(Schema::new_with_metadata(fields, HashMap::from([(FOLDER.into(), folder.into())])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Config;
    use datafusion::execution::runtime_env::RuntimeEnvBuilder;
    use datafusion::prelude::SessionConfig;

    async fn catalogue(rows: &str) -> SessionContext {
        let ctx = SessionContext::new();
        let sql =
            format!("CREATE VIEW item_vectors AS SELECT * FROM (VALUES {rows}) AS t(modality, content_key, vectors)");
        ctx.sql(&sql).await.unwrap();
        ctx
    }

    #[tokio::test]
    async fn each_vector_is_written_once_and_read_once_and_damage_is_made_good() {
        let output = Location::open("memory://content-store", &S3Config::default()).unwrap();
        let store = ContentStore::of(&output, [0, 2, 0], [""; 3]).unwrap();
        let first = catalogue(
            "('image', 5, [[3.0, 4.0]]), ('image', 5, [[3.0, 4.0]]), ('image', 7, [[1.0]]), ('video', 9, [[1.0, 0.0]])",
        );
        assert_eq!(store.add_vectors(&first.await, &store.contents().await.unwrap()).await.unwrap().1, 1);
        let read = store.read(&ReadContents::default()).await.unwrap();
        assert_eq!(read.contents.rows(&[None, Some(5), Some(9)]), [0, 1, 0]);
        assert_eq!(read.fingerprint, store.fingerprint().await.unwrap());
        let more = catalogue("('image', 5, [[3.0, 4.0]]), ('image', 3, [[0.0, 2.0]])").await;
        assert_eq!(store.add_vectors(&more, &store.contents().await.unwrap()).await.unwrap().1, 1);
        assert_eq!(store.add_vectors(&more, &store.contents().await.unwrap()).await.unwrap().1, 0);
        let next = store.read(&read).await.unwrap();
        assert_ne!(next.fingerprint, read.fingerprint);
        assert_eq!(next.contents.rows(&[None, Some(5), None]), [0, 1, 0], "rows stay what they are");
        assert_eq!(next.contents.rows(&[None, Some(3), None]), [0, 2, 0]);
        for file in output.folder("state/content/image").list().await.unwrap() {
            output.folder("state/content/image").write(file.location.filename().unwrap(), "half a file").await.unwrap();
        }
        let damaged = store.read(&ReadContents::default()).await.unwrap();
        assert_eq!(damaged.contents.len(1), 0);
        // As a night does it: the same vectors, and so files of the same names.
        assert_eq!(store.add_vectors(&more, &damaged.contents).await.unwrap().1, 2);
        let mended = store.read(&damaged).await.unwrap();
        assert_ne!(mended.fingerprint, damaged.fingerprint);
        assert_eq!(mended.contents.len(1), 2);
    }

    #[tokio::test]
    async fn vectors_of_another_folder_count_as_none_though_they_are_as_long() {
        let output = Location::open("memory://content-store-folders", &S3Config::default()).unwrap();
        let [own, other] = ["", "0123"].map(|hash| ContentStore::of(&output, [0, 2, 0], ["", hash, ""]).unwrap());
        let lake = catalogue("('image', 5, [[3.0, 4.0]]), ('image', 7, [[1.0, 1.0]])").await;
        own.add_vectors(&lake, &own.contents().await.unwrap()).await.unwrap();
        let (from, to) = (output.folder("state/content/image"), output.folder("state/content/image-0123"));
        for file in from.list().await.unwrap() {
            let name = file.location.filename().unwrap();
            let bytes = from.read(name).await.unwrap();
            to.write(name, bytes.clone()).await.unwrap();
            assert_eq!(other.contents().await.unwrap().len(1), 0);
            keep_rows(&output, &to.path(name), &HashSet::from([5])).await.unwrap();
        }
        assert_eq!(to.list().await.unwrap().len(), 1, "gc writes none of them under the other's name");
        assert_eq!(own.contents().await.unwrap().len(1), 2);
    }

    #[tokio::test]
    async fn training_takes_the_length_that_most_vectors_have() {
        let rows = "('video', 1, [[1.0, 2.0]]), ('video', 2, [[2.0, 1.0], [0.0, 1.0]]), ('video', 3, [[1.0]]), \
                    ('video', 5, [[1.0], [1.0]]), ('video', 6, [[1.0, 2.0], [1.0]]), ('video', 7, [[3.0, 1.0]]), \
                    ('image', 4, [[1.0]])";
        let contents = of_catalogue(&catalogue(rows).await).await.unwrap();
        assert_eq!(contents.dims(), [0, 1, 2]);
        assert_eq!(contents.rows(&[None, Some(4), Some(3)]), [0, 1, 0]);
        assert_eq!([5, 6, 7].map(|key| contents.rows(&[None, None, Some(key)])[2]), [0, 0, 3]);
        let output = Location::open("memory://", &S3Config::default()).unwrap();
        assert!(ContentStore::of(&output, [0; 3], [""; 3]).is_none());
    }

    #[tokio::test]
    async fn of_several_vectors_of_one_key_the_same_is_taken_whatever_their_order() {
        let of = async |rows: &str| {
            let contents = of_catalogue(&catalogue(rows).await).await.unwrap();
            let gathered = contents.gather(&tch::Tensor::from_slice(&[0i64, 1, 0]).view([3, 1])).unwrap();
            Vec::<f32>::try_from(&gathered[0].vectors.contiguous().view([-1])).unwrap()
        };
        let one = of("('image', 4, [[1.0, 0.0]]), ('image', 4, [[0.0, 1.0]])").await;
        assert_eq!(of("('image', 4, [[0.0, 1.0]]), ('image', 4, [[1.0, 0.0]])").await, one);
        assert_ne!(of("('image', 4, [[1.0, 0.0]])").await, one);
    }

    #[tokio::test]
    async fn vectors_of_a_large_catalogue_do_not_run_out_of_the_engines_memory() {
        let memory = RuntimeEnvBuilder::new().with_memory_limit(32 << 20, 1.0).build_arc().unwrap();
        let ctx = SessionContext::new_with_config_rt(SessionConfig::new(), memory);
        let vector = (0..16).map(|k| format!("CAST(value % {} AS FLOAT)", k + 2)).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "CREATE VIEW item_vectors AS SELECT 'image' AS modality, value AS content_key, \
             make_array(make_array({vector})) AS vectors FROM generate_series(1, 20000)"
        );
        ctx.sql(&sql).await.unwrap();
        assert_eq!(of_catalogue(&ctx).await.unwrap().len(1), 20_000);
    }

    #[tokio::test]
    async fn a_file_of_other_columns_counts_as_none_and_stops_nobody() {
        let output = Location::open("memory://content-store-columns", &S3Config::default()).unwrap();
        let store = ContentStore::of(&output, [0, 2, 0], [""; 3]).unwrap();
        let place = output.folder("state/content/image");
        let path = place.path("old.parquet");
        let keys: ArrayRef = Arc::new(Int64Array::from(vec![5, 7]));
        let batch = RecordBatch::try_new(keys_schema(), vec![keys]).unwrap();
        let stream = Box::pin(RecordBatchStreamAdapter::new(keys_schema(), futures::stream::iter([Ok(batch)])));
        parquet_files::write(&place, &path, &keys_schema(), stream, 10).await.unwrap();
        assert_eq!(store.contents().await.unwrap().len(1), 0);
        keep_rows(&output, &path, &HashSet::from([5])).await.unwrap();
        assert_eq!(place.list().await.unwrap().len(), 1, "nothing of it is worth a new file");
    }
}
