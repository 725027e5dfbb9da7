//! Writes imported rows by folder, with a bounded number of bytes in memory, and can delete everything it wrote.

use arrow::array::RecordBatch;
use chrono::NaiveDate;
use datafusion::execution::SendableRecordBatchStream;
use object_store::{ObjectStoreExt, path::Path};
use parquet::arrow::ArrowWriter;
use std::collections::BTreeMap;

use crate::failure::{Failure, Result};
use crate::lake::declared::Declared;
use crate::lake::files_table::ListedFile;
use crate::lake::parquet_files::{self, LAKE_ROW_GROUP_ROWS};
use crate::lake::stores::Location;

/// The folder of some rows: the view that they feed and, for events, their day.
pub(crate) type Folder = (&'static str, Option<NaiveDate>);

pub(crate) struct LakeWriter {
    to: Location,
    buffered: BTreeMap<Folder, Vec<RecordBatch>>,
    bytes_buffered: usize,
    bytes_buffered_max: usize,
    flushes: u32,
    written: Vec<(&'static str, ListedFile)>,
    /// Rows added so far, by view.
    pub(crate) rows: BTreeMap<&'static str, u64>,
}

impl LakeWriter {
    pub(crate) fn new(to: Location, bytes_buffered_max: usize) -> Self {
        Self {
            to,
            buffered: BTreeMap::new(),
            bytes_buffered: 0,
            bytes_buffered_max,
            flushes: 0,
            written: Vec::new(),
            rows: BTreeMap::new(),
        }
    }

    pub(crate) async fn add(&mut self, folder: Folder, batch: RecordBatch) -> Result<()> {
        *self.rows.entry(folder.0).or_default() += batch.num_rows() as u64;
        self.bytes_buffered += batch.get_array_memory_size();
        self.buffered.entry(folder).or_default().push(batch);
        if self.bytes_buffered > self.bytes_buffered_max {
            self.flush().await?;
        }
        Ok(())
    }

    /// Writes the buffered rows, one file per folder.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        for (folder, batches) in std::mem::take(&mut self.buffered) {
            let bytes = to_parquet(&batches)?;
            let path = self.begin_file(folder, bytes.len() as u64);
            self.to.store.put(&path, bytes.into()).await.map_err(|e| Failure::from(e).at(self.to.display(&path)))?;
        }
        self.bytes_buffered = 0;
        self.flushes += 1;
        Ok(())
    }

    /// Streams the rows of a query, whose columns are the declared ones, into one file of `view`.
    pub(crate) async fn stream(
        &mut self,
        view: &'static str,
        declared: &Declared,
        rows: SendableRecordBatchStream,
    ) -> Result<()> {
        let path = self.begin_file((view, None), 0);
        let (rows, _) = parquet_files::write(&self.to, &path, &declared.schema, rows, LAKE_ROW_GROUP_ROWS).await?;
        *self.rows.entry(view).or_default() += rows;
        Ok(())
    }

    /// Names the next file of a folder. Lists it as written before it is, so that a half-written one is deleted too.
    fn begin_file(&mut self, (view, day): Folder, bytes: u64) -> Path {
        let folder = day.map_or(view.to_string(), |day| format!("{view}/dt={day}"));
        let path = self.to.path(&format!("{folder}/part-{:05}.parquet", self.flushes));
        self.written.push((view, parquet_files::listed(&self.to, path.clone(), bytes, day)));
        path
    }

    /// The written files of a view.
    pub(crate) fn files(&self, view: &str) -> Vec<ListedFile> {
        self.written.iter().filter(|(of, _)| *of == view).map(|(_, file)| file.clone()).collect()
    }

    /// Deletes everything that was written.
    pub(crate) async fn delete_written(&mut self) -> Result<()> {
        self.buffered.clear();
        self.to.delete(self.written.drain(..).map(|(_, file)| file.meta.location).collect()).await
    }
}

fn to_parquet(batches: &[RecordBatch]) -> Result<Vec<u8>> {
    let Some(first) = batches.first() else { return Ok(Vec::new()) };
    let properties = parquet_files::writer_properties(LAKE_ROW_GROUP_ROWS).build();
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
    async fn everything_that_was_written_can_be_deleted() {
        let to = Location::open("memory://delete-written/lake", &S3Config::default()).unwrap();
        to.write("events/dt=2026-01-01/of-another-writer.parquet", "x").await.unwrap();
        let mut writer = LakeWriter::new(to.clone(), 1);
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        let batch = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
        // More bytes than may be buffered: both are written at once.
        writer.add(("events", NaiveDate::from_ymd_opt(2026, 1, 1)), batch.clone()).await.unwrap();
        writer.add(("items", None), batch).await.unwrap();
        assert_eq!(to.list().await.unwrap().len(), 3);
        assert_eq!((writer.files("events").len(), writer.rows["items"]), (1, 1000));
        writer.delete_written().await.unwrap();
        let left: Vec<_> = to.list().await.unwrap().iter().map(|m| m.location.to_string()).collect();
        assert_eq!(left, ["lake/events/dt=2026-01-01/of-another-writer.parquet"]);
    }
}
