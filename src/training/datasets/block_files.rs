//! Files of blocks: Arrow streams of rows, their hash, and failures of the scratch folder.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;

use super::block_rows::BlockRows;
use crate::failure::{Failure, Result};
use crate::ids::ContentHash;

/// Hashes blocks, one after the other.
pub(crate) struct RowsHash(blake3::Hasher);

impl RowsHash {
    pub(crate) fn new() -> Self {
        Self(blake3::Hasher::new())
    }

    pub(crate) fn add(&mut self, rows: &impl BlockRows) -> Result<()> {
        // The stream of a contiguous batch has the same bytes for the same rows.
        Ok(write_stream(&mut self.0, &rows.batch().schema(), rows.batch())?)
    }

    pub(crate) fn finish(self) -> String {
        ContentHash::from_hasher(&self.0).long()
    }
}

pub(crate) fn write_stream(
    to: impl std::io::Write,
    schema: &SchemaRef,
    rows: &RecordBatch,
) -> Result<(), arrow::error::ArrowError> {
    let mut writer = StreamWriter::try_new(to, schema)?;
    writer.write(rows)?;
    writer.finish()?;
    writer.flush()
}

pub(crate) fn read_block<R: BlockRows>(file: &File, schema: &SchemaRef) -> Result<R> {
    let from_start = BufReader::new(FromStart { file, at: 0 });
    let reader = StreamReader::try_new(from_start, None).map_err(|e| scratch_failure::<R>(&e))?;
    let parts = reader.map(|rows| R::try_from_batch(rows.map_err(|e| scratch_failure::<R>(&e))?, schema));
    R::concat(schema, &parts.collect::<Result<Vec<_>>>()?)
}

/// Reads a file from its start with its own offset, so that several readers can share the file.
struct FromStart<'a> {
    file: &'a File,
    at: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read_at(to, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

pub(crate) fn scratch_failure<R: BlockRows>(error: &dyn std::fmt::Display) -> Failure {
    Failure::transient(format!("training: scratch files of {}: {error}", R::KIND))
        .hint("check the space below engine.spill_folder (the system's temporary folder if it is not set)")
}
