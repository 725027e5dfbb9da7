//! The Parquet files of content vectors and of used content keys. A file of vectors names the folder that it belongs to, as
//! vectors of another encoder may well have the same dimension.

use arrow::array::{
    ArrayRef, AsArray, Float32Builder, Int32Builder, Int64Array, Int64Builder, ListBuilder, RecordBatch,
};
use arrow::datatypes::{DataType, Field, Float32Type, Int32Type, Int64Type, Schema, SchemaRef};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{DataFrame, ParquetReadOptions, SessionContext};
use futures::TryStreamExt;
use object_store::path::Path;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::failure::{Failure, FailureKind, Result};
use crate::ids::ContentHash;
use crate::lake::{parquet_files, stores::Location};

/// Folder of the folders of vectors.
pub(crate) const VECTORS_FOLDER: &str = "state/content";
/// Folder that has a folder for each folder of vectors, with a file of the keys of each night's lake.
pub(crate) const USED_KEYS_FOLDER: &str = "state/content_used";

const VECTOR_ROWS_PER_BATCH: usize = 8192;
const KEY_ROWS_PER_BATCH: usize = 131_072;

const KEY: &str = "content_key";
/// Key of a file's metadata: the folder whose vectors it holds.
const FOLDER: &str = "folder";

/// One content of a file of vectors.
pub(super) struct VectorRow<'a> {
    pub(crate) key: i64,
    /// One vector after another; only a video has several.
    pub(crate) vectors: &'a [f32],
    /// Numbers in one vector.
    pub(crate) dims: usize,
}

/// Collects vectors of one modality for one file.
#[derive(Default)]
pub(crate) struct VectorFileBuilder {
    keys: BTreeSet<i64>,
    key: Int64Builder,
    vectors: ListBuilder<Float32Builder>,
    dims: Int32Builder,
    bytes: usize,
}

impl VectorFileBuilder {
    pub(super) fn add(&mut self, row: &VectorRow<'_>) {
        self.keys.insert(row.key);
        self.key.append_value(row.key);
        self.vectors.values().append_slice(row.vectors);
        self.vectors.append(true);
        self.dims.append_value(row.dims as i32);
        self.bytes += size_of_val(row.vectors);
    }

    /// Bytes of the vectors so far.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes the file, unless it is empty, under a name that follows from its keys: two processes with the same vectors
    /// write one file.
    pub(super) async fn write(mut self, output: &Location, folder: &str) -> Result<()> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let place = output.folder(&format!("{VECTORS_FOLDER}/{folder}"));
        let bytes: Vec<u8> = self.keys.iter().flat_map(|key| key.to_le_bytes()).collect();
        let path = place.path(&format!("{}.parquet", ContentHash::from_bytes(&bytes).short()));
        let columns: Vec<ArrayRef> =
            vec![Arc::new(self.key.finish()), Arc::new(self.vectors.finish()), Arc::new(self.dims.finish())];
        let batch = RecordBatch::try_new(vectors_schema(folder), columns)?;
        write_file(&place, &path, batch, VECTOR_ROWS_PER_BATCH).await
    }
}

/// Writes a file of content keys.
pub(super) async fn write_keys(place: &Location, path: &Path, keys: &BTreeSet<i64>) -> Result<()> {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(keys.iter().copied()));
    write_file(place, path, RecordBatch::try_new(keys_schema(), vec![column])?, KEY_ROWS_PER_BATCH).await
}

async fn write_file(place: &Location, path: &Path, batch: RecordBatch, rows_per_batch: usize) -> Result<()> {
    let schema = batch.schema();
    let stream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), futures::stream::iter([Ok(batch)])));
    parquet_files::write(place, path, &schema, stream, rows_per_batch).await?;
    Ok(())
}

/// The keys of a file of vectors, without reading the vectors; refuses a file that belongs to another folder.
pub(crate) async fn vector_keys(output: &Location, path: &Path) -> Result<Vec<i64>> {
    read_keys(open_vectors(output, path, &folder_name(path)).await?).await
}

/// The keys of a file of used keys.
pub(crate) async fn used_keys(output: &Location, path: &Path) -> Result<Vec<i64>> {
    read_keys(open(output, path).await?).await
}

async fn read_keys(table: DataFrame) -> Result<Vec<i64>> {
    let mut keys = Vec::new();
    let mut batches = table.select_columns(&[KEY])?.execute_stream().await?;
    while let Some(batch) = batches.try_next().await? {
        keys.extend(batch.column(0).as_primitive::<Int64Type>().values());
    }
    Ok(keys)
}

/// Writes the rows of a file of vectors whose keys are to stay into a new file of its folder. Writes nothing for a damaged or
/// foreign file.
pub(crate) async fn retain_keys(output: &Location, path: &Path, retained: &HashSet<i64>) -> Result<()> {
    let folder = folder_name(path);
    let mut file = VectorFileBuilder::default();
    let add = |row: VectorRow<'_>| {
        if retained.contains(&row.key) {
            file.add(&row);
        }
    };
    match for_each_row(output, path, &folder, add).await {
        Err(failure) if failure.kind == FailureKind::Input => return Ok(()),
        read => read?,
    }
    file.write(output, &folder).await
}

/// Calls `visit` with each row of a file of vectors; refuses a file that does not belong to `folder`.
pub(super) async fn for_each_row(
    place: &Location,
    path: &Path,
    folder: &str,
    mut visit: impl FnMut(VectorRow<'_>),
) -> Result<()> {
    let mut batches = open_vectors(place, path, folder).await?.execute_stream().await?;
    let unexpected = || Failure::input(format!("expected the columns {}", vectors_schema(folder)));
    while let Some(batch) = batches.try_next().await? {
        let [keys, vectors, dims] = batch.columns() else { return Err(unexpected()) };
        let keys = keys.as_primitive_opt::<Int64Type>().ok_or_else(unexpected)?;
        let vectors = vectors.as_list_opt::<i32>().ok_or_else(unexpected)?;
        let dims = dims.as_primitive_opt::<Int32Type>().ok_or_else(unexpected)?;
        for row in 0..batch.num_rows() {
            let values = vectors.value(row);
            let vectors = values.as_primitive_opt::<Float32Type>().ok_or_else(unexpected)?.values();
            visit(VectorRow { key: keys.value(row), vectors, dims: dims.value(row) as usize });
        }
    }
    Ok(())
}

async fn open(place: &Location, path: &Path) -> Result<DataFrame> {
    let ctx = SessionContext::new();
    ctx.register_object_store(&place.store_url()?, Arc::clone(&place.store));
    Ok(ctx.read_parquet(place.full_url(path), ParquetReadOptions::default().skip_metadata(false)).await?)
}

async fn open_vectors(place: &Location, path: &Path, folder: &str) -> Result<DataFrame> {
    let table = open(place, path).await?;
    let found = table.schema().metadata().get(FOLDER).map_or("a file that names no folder", String::as_str);
    if found != folder {
        return Err(Failure::input(format!("expected vectors of {folder}, found {found}")));
    }
    Ok(table)
}

/// The name of the folder that holds a file.
fn folder_name(path: &Path) -> String {
    path.parts().rev().nth(1).map(|name| name.as_ref().to_string()).unwrap_or_default()
}

fn keys_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(KEY, DataType::Int64, false)]))
}

fn vectors_schema(folder: &str) -> SchemaRef {
    let fields = vec![
        Field::new(KEY, DataType::Int64, false),
        Field::new("vectors", DataType::new_list(DataType::Float32, true), false),
        Field::new("dims", DataType::Int32, false),
    ];
    Arc::new(Schema::new_with_metadata(fields, HashMap::from([(FOLDER.into(), folder.into())])))
}
