//! Content vectors in an output, below `state/content/<modality>/`, each stored once by its content key. Vectors that an
//! encoder made are in a folder with its hash: `text-<hash>/`, `image-<hash>/`.
//!
//! Nights add files, and write a damaged file again under its name. A process that has read some of the files reads only the
//! others. A plan that calls `score_intents` carries a fingerprint of the files, and the process that runs it reads them.

use object_store::path::Path;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::vector_files::{self, USED_KEYS_FOLDER, VECTORS_FOLDER, VectorFileBuilder};
use crate::config::networks::Precision;
use crate::failure::{FailureKind, Result};
use crate::ids::{ContentHash, RunDate};
use crate::lake::{self, stores::Location};
use crate::model::bundle::BundleCard;
use crate::model::contents::{Contents, MODALITIES};

/// Content keys of a session's lake, by modality.
pub(crate) type UsedKeys = [BTreeSet<i64>; MODALITIES.len()];

/// Hash of each modality's encoder; empty where the lake brings the vectors along.
pub(crate) type EncoderHashes<'a> = [&'a str; MODALITIES.len()];

/// The vectors of an output that one model reads.
#[derive(Debug, Clone)]
pub struct ContentStore {
    output: Location,
    dims: [i64; MODALITIES.len()],
    folders: [String; MODALITIES.len()],
}

/// Vectors in memory, with the files that they come from.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadContents {
    pub(crate) contents: Arc<Contents>,
    /// Fingerprints of the files that were read whole.
    files: BTreeSet<String>,
    /// Fingerprint of all files that were listed, damaged ones included.
    pub(crate) fingerprint: String,
}

struct VectorFile {
    fingerprint: String,
    path: Path,
    modality: usize,
}

impl ContentStore {
    /// A store of vectors of `dims` numbers by modality; `None` where they are all 0, as for a model that reads no contents.
    pub(crate) fn new(output: &Location, dims: [i64; MODALITIES.len()], encoders: EncoderHashes<'_>) -> Option<Self> {
        let folders = std::array::from_fn(|modality| match encoders[modality] {
            "" => MODALITIES[modality].to_string(),
            hash => format!("{}-{hash}", MODALITIES[modality]),
        });
        dims.iter().any(|&dims| dims > 0).then(|| Self { output: output.clone(), dims, folders })
    }

    /// The store of a model whose encoders compute in `precision`.
    pub fn for_model(output: &Location, card: &BundleCard, precision: Precision) -> Option<Self> {
        let text = precision.hash_of(card.text.as_ref().map_or("", |text| &text.hash));
        let image = precision.hash_of(card.image.as_ref().map_or("", |image| &image.hash));
        Self::new(output, card.intent.content_dims, [&text, &image, ""])
    }

    /// Names of the folders below [`VECTORS_FOLDER`] that it reads.
    pub(crate) fn folders(&self) -> impl Iterator<Item = &str> {
        self.modalities().map(|modality| self.folders[modality].as_str())
    }

    pub(super) fn dims(&self) -> [i64; MODALITIES.len()] {
        self.dims
    }

    /// Reports whether an encoder makes the vectors of a modality, so that those of the lake are of no use.
    pub(super) fn is_encoded(&self, modality: usize) -> bool {
        self.folders[modality] != MODALITIES[modality]
    }

    fn modalities(&self) -> impl Iterator<Item = usize> {
        let dims = self.dims;
        (0..MODALITIES.len()).filter(move |&modality| dims[modality] > 0)
    }

    fn folder(&self, modality: usize) -> Location {
        self.output.folder(&format!("{VECTORS_FOLDER}/{}", self.folders[modality]))
    }

    pub(super) async fn write(&self, modality: usize, file: VectorFileBuilder) -> Result<()> {
        file.write(&self.output, &self.folders[modality]).await
    }

    /// The files in path order.
    async fn files(&self) -> Result<Vec<VectorFile>> {
        let mut files = Vec::new();
        for modality in self.modalities() {
            for meta in self.folder(modality).list().await? {
                files.push(VectorFile { fingerprint: lake::fingerprint(&meta), path: meta.location, modality });
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    /// Fingerprint of the present files.
    pub(crate) async fn fingerprint(&self) -> Result<String> {
        Ok(fingerprint(&self.files().await?))
    }

    /// Adds the files that `before` lacks. A damaged or foreign file is ignored with a warning: the night that misses its
    /// vectors writes them again.
    pub(crate) async fn read(&self, before: &ReadContents) -> Result<ReadContents> {
        let files = self.files().await?;
        let mut read = ReadContents { fingerprint: fingerprint(&files), ..before.clone() };
        let mut contents = match before.files.is_empty() && before.contents.bytes() == 0 {
            true => Contents::new(self.dims),
            false => before.contents.as_ref().clone(),
        };
        for VectorFile { fingerprint, path, modality } in files {
            if before.files.contains(&fingerprint) {
                continue;
            }
            match self.read_file(&path, modality, &mut contents).await {
                Ok(()) => drop(read.files.insert(fingerprint)),
                Err(failure) if failure.kind == FailureKind::Input => {
                    tracing::warn!("ignored the vectors of {}: {failure}", self.output.display(&path));
                }
                Err(failure) => return Err(failure.at(self.output.display(&path))),
            }
        }
        read.contents = Arc::new(contents);
        Ok(read)
    }

    async fn read_file(&self, path: &Path, modality: usize, contents: &mut Contents) -> Result<()> {
        let expected = self.dims[modality];
        let insert = |row: vector_files::VectorRow<'_>| {
            if row.dims as i64 == expected {
                contents.insert(modality, row.key, row.vectors);
            }
        };
        vector_files::for_each_row(&self.output, path, &self.folders[modality], insert).await
    }

    /// All vectors.
    pub async fn contents(&self) -> Result<Arc<Contents>> {
        Ok(self.read(&ReadContents::default()).await?.contents)
    }

    /// Records the keys of a night's lake: `gc` removes vectors that no recent night had.
    pub(crate) async fn record_used_keys(&self, run_date: RunDate, keys: &UsedKeys) -> Result<()> {
        for modality in self.modalities() {
            let place = self.output.folder(&format!("{USED_KEYS_FOLDER}/{}", self.folders[modality]));
            let path = place.path(&format!("{run_date}.parquet"));
            vector_files::write_keys(&place, &path, &keys[modality]).await?;
        }
        Ok(())
    }
}

fn fingerprint(files: &[VectorFile]) -> String {
    let mut hasher = blake3::Hasher::new();
    for file in files {
        hasher.update(file.fingerprint.as_bytes());
    }
    ContentHash::from_hasher(&hasher).short()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::refresh;
    use super::super::vector_files::retain_keys;
    use super::super::vector_sink::VectorSink;
    use super::*;
    use crate::config::S3Config;
    use crate::lake::parquet_files;
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use datafusion::prelude::SessionContext;
    use std::collections::{HashMap, HashSet};

    /// A session whose `item_vectors` has these rows.
    pub(crate) async fn catalogue(rows: &str) -> SessionContext {
        let ctx = SessionContext::new();
        let sql =
            format!("CREATE VIEW item_vectors AS SELECT * FROM (VALUES {rows}) AS t(modality, content_key, vectors)");
        ctx.sql(&sql).await.unwrap();
        ctx
    }

    async fn add(store: &ContentStore, ctx: &SessionContext, known: &Contents) -> usize {
        refresh::add_lake_vectors(ctx, store, known, &mut VectorSink::files(store)).await.unwrap().added
    }

    async fn add_new(store: &ContentStore, ctx: &SessionContext) -> usize {
        add(store, ctx, &store.contents().await.unwrap()).await
    }

    #[tokio::test]
    async fn vectors_are_stored_once_and_damaged_files_rewritten() {
        let output = Location::open("memory://content-store", &S3Config::default()).unwrap();
        let store = ContentStore::new(&output, [0, 2, 0], [""; 3]).unwrap();
        let first = catalogue(
            "('image', 5, [[3.0, 4.0]]), ('image', 5, [[3.0, 4.0]]), ('image', 7, [[1.0]]), ('video', 9, [[1.0, 0.0]])",
        );
        assert_eq!(add_new(&store, &first.await).await, 1);
        let read = store.read(&ReadContents::default()).await.unwrap();
        assert_eq!(read.contents.rows(&[None, Some(5), Some(9)]), [0, 1, 0]);
        assert_eq!(read.fingerprint, store.fingerprint().await.unwrap());
        let more = catalogue("('image', 5, [[3.0, 4.0]]), ('image', 3, [[0.0, 2.0]])").await;
        assert_eq!(add_new(&store, &more).await, 1);
        assert_eq!(add_new(&store, &more).await, 0);
        let next = store.read(&read).await.unwrap();
        assert_ne!(next.fingerprint, read.fingerprint);
        assert_eq!(next.contents.rows(&[None, Some(5), None]), [0, 1, 0], "rows keep their numbers");
        assert_eq!(next.contents.rows(&[None, Some(3), None]), [0, 2, 0]);
        for file in output.folder("state/content/image").list().await.unwrap() {
            output.folder("state/content/image").write(file.location.filename().unwrap(), "half a file").await.unwrap();
        }
        let damaged = store.read(&ReadContents::default()).await.unwrap();
        assert_eq!(damaged.contents.len(1), 0);
        // As a night does it: the same vectors, and so files of the same names.
        assert_eq!(add(&store, &more, &damaged.contents).await, 2);
        let repaired = store.read(&damaged).await.unwrap();
        assert_ne!(repaired.fingerprint, damaged.fingerprint);
        assert_eq!(repaired.contents.len(1), 2);
    }

    #[tokio::test]
    async fn vectors_of_another_folder_are_ignored() {
        let output = Location::open("memory://content-store-folders", &S3Config::default()).unwrap();
        let [own, other] = ["", "0123"].map(|hash| ContentStore::new(&output, [0, 2, 0], ["", hash, ""]).unwrap());
        add_new(&own, &catalogue("('image', 5, [[3.0, 4.0]]), ('image', 7, [[1.0, 1.0]])").await).await;
        let (from, to) = (output.folder("state/content/image"), output.folder("state/content/image-0123"));
        for file in from.list().await.unwrap() {
            let name = file.location.filename().unwrap();
            let bytes = from.read(name).await.unwrap();
            to.write(name, bytes.clone()).await.unwrap();
            assert_eq!(other.contents().await.unwrap().len(1), 0);
            retain_keys(&output, &to.path(name), &HashSet::from([5])).await.unwrap();
        }
        assert_eq!(to.list().await.unwrap().len(), 1, "gc writes none of them under the other's name");
        assert_eq!(own.contents().await.unwrap().len(1), 2);
    }

    #[tokio::test]
    async fn files_with_other_columns_are_ignored() {
        let output = Location::open("memory://content-store-columns", &S3Config::default()).unwrap();
        let store = ContentStore::new(&output, [0, 2, 0], [""; 3]).unwrap();
        let place = output.folder("state/content/image");
        let path = place.path("old.parquet");
        let keys: ArrayRef = Arc::new(Int64Array::from(vec![5, 7]));
        let named = HashMap::from([("folder".to_string(), "image".to_string())]);
        for metadata in [HashMap::new(), named] {
            let fields = vec![Field::new("content_key", DataType::Int64, false)];
            let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
            let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::clone(&keys)]).unwrap();
            let rows = futures::stream::iter([Ok(batch)]);
            let stream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), rows));
            parquet_files::write(&place, &path, &schema, stream, 10).await.unwrap();
            assert_eq!(store.contents().await.unwrap().len(1), 0);
            retain_keys(&output, &path, &HashSet::from([5])).await.unwrap();
            assert_eq!(place.list().await.unwrap().len(), 1, "no row is worth a new file");
        }
    }

    #[test]
    fn a_model_without_contents_has_no_store() {
        let output = Location::open("memory://", &S3Config::default()).unwrap();
        assert!(ContentStore::new(&output, [0; 3], [""; 3]).is_none());
    }
}
