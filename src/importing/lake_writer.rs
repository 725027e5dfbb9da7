//! Writes imported rows by folder, with a bounded number of bytes in memory, and can take all of it back.

use arrow::array::RecordBatch;
use chrono::NaiveDate;
use datafusion::execution::SendableRecordBatchStream;
use object_store::{ObjectStoreExt, path::Path};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::collections::BTreeMap;

use crate::failure::{Failure, Result};
use crate::lake::declared::Declared;
use crate::lake::files_table::ListedFile;
use crate::lake::parquet_files;
use crate::lake::stores::Location;

const ROW_GROUP_ROWS: usize = 131_072;

/// Where rows lie: the view that they feed and, for events, their day.
pub type Folder = (&'static str, Option<NaiveDate>);

pub struct LakeWriter {
    to: Location,
    waiting: BTreeMap<Folder, Vec<RecordBatch>>,
    bytes_waiting: usize,
    bytes_waiting_max: usize,
    flushes: u32,
    written: Vec<(&'static str, ListedFile)>,
    /// Rows taken, by view.
    pub rows: BTreeMap<&'static str, u64>,
}

impl LakeWriter {
    pub fn new(to: Location, bytes_waiting_max: usize) -> Self {
        let (waiting, written, rows) = Default::default();
        Self { to, waiting, bytes_waiting: 0, bytes_waiting_max, flushes: 0, written, rows }
    }

    pub async fn add(&mut self, folder: Folder, batch: RecordBatch) -> Result<()> {
        *self.rows.entry(folder.0).or_default() += batch.num_rows() as u64;
        self.bytes_waiting += batch.get_array_memory_size();
        self.waiting.entry(folder).or_default().push(batch);
        if self.bytes_waiting > self.bytes_waiting_max {
            self.flush().await?;
        }
        Ok(())
    }

    /// Writes what waits, one file a folder.
    pub async fn flush(&mut self) -> Result<()> {
        for (folder, batches) in std::mem::take(&mut self.waiting) {
            let bytes = parquet(&batches)?;
            let path = self.begin(folder, bytes.len() as u64);
            self.to.store.put(&path, bytes.into()).await.map_err(|e| Failure::from(e).at(self.to.display(&path)))?;
        }
        self.bytes_waiting = 0;
        self.flushes += 1;
        Ok(())
    }

    /// Streams the rows of a query, whose columns are the declared ones, into one file of `view`.
    pub async fn stream(
        &mut self,
        view: &'static str,
        declared: &Declared,
        rows: SendableRecordBatchStream,
    ) -> Result<()> {
        let path = self.begin((view, None), 0);
        let (rows, _) = parquet_files::write(&self.to, &path, &declared.schema, rows, ROW_GROUP_ROWS).await?;
        *self.rows.entry(view).or_default() += rows;
        Ok(())
    }

    /// Names the next file of a folder. It counts as written before it is, so that a half-written one is taken back too.
    fn begin(&mut self, (view, day): Folder, bytes: u64) -> Path {
        let folder = day.map_or(view.to_string(), |day| format!("{view}/dt={day}"));
        let path = self.to.path(&format!("{folder}/part-{:05}.parquet", self.flushes));
        self.written.push((view, parquet_files::listed(&self.to, path.clone(), bytes, day)));
        path
    }

    /// The files of a view.
    pub fn files(&self, view: &str) -> Vec<ListedFile> {
        self.written.iter().filter(|(of, _)| *of == view).map(|(_, file)| file.clone()).collect()
    }

    /// Deletes everything that was written.
    pub async fn take_back(&mut self) -> Result<()> {
        self.waiting.clear();
        self.to.delete(self.written.drain(..).map(|(_, file)| file.meta.location).collect()).await
    }
}

fn parquet(batches: &[RecordBatch]) -> Result<Vec<u8>> {
    let Some(first) = batches.first() else { return Ok(Vec::new()) };
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), first.schema(), Some(properties))?;
    for batch in batches {
        writer.write(batch)?;
    }
    Ok(writer.into_inner()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Config;
    use arrow::array::{ArrayRef, Int64Array};
    use std::sync::Arc;

    #[tokio::test]
    async fn what_was_written_can_be_taken_back() {
        let to = Location::open("memory://take-back/lake", &S3Config::default()).unwrap();
        to.write("events/dt=2026-01-01/of-somebody-else.parquet", "x").await.unwrap();
        let mut writer = LakeWriter::new(to.clone(), 1);
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        let batch = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
        // More bytes than may wait: both are written at once.
        writer.add(("events", NaiveDate::from_ymd_opt(2026, 1, 1)), batch.clone()).await.unwrap();
        writer.add(("items", None), batch).await.unwrap();
        assert_eq!(to.list().await.unwrap().len(), 3);
        assert_eq!((writer.files("events").len(), writer.rows["items"]), (1, 1000));
        writer.take_back().await.unwrap();
        let left: Vec<_> = to.list().await.unwrap().iter().map(|m| m.location.to_string()).collect();
        assert_eq!(left, ["lake/events/dt=2026-01-01/of-somebody-else.parquet"]);
    }
}
