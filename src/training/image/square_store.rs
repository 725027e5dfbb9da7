//! Stores decoded squares one after another, in memory or in a temporary file that has no name.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use crate::config::Config;
use crate::failure::{Failure, Result};

#[derive(Debug)]
pub(crate) struct SquareStore {
    storage: Storage,
    /// The number of bytes so far, which is the offset of the next square.
    end: u64,
}

#[derive(Debug)]
enum Storage {
    Memory(Vec<u8>),
    File(File),
}

impl SquareStore {
    /// Uses memory if `bytes_max` fits in `train.memory_bytes_max`, else a file.
    pub(crate) fn new(config: &Config, bytes_max: u64) -> Result<Self> {
        if bytes_max <= config.train.memory_bytes_max {
            return Ok(Self { storage: Storage::Memory(Vec::new()), end: 0 });
        }
        let file = tempfile::tempfile_in(config.engine.spill_path()).map_err(storage_failure)?;
        Ok(Self { storage: Storage::File(file), end: 0 })
    }

    /// Adds a square and returns its offset.
    pub(crate) fn push(&mut self, levels: &[u8]) -> Result<u64> {
        match &mut self.storage {
            Storage::Memory(all) => all.extend_from_slice(levels),
            Storage::File(file) => file.write_all(levels).map_err(storage_failure)?,
        }
        let offset = self.end;
        self.end += levels.len() as u64;
        Ok(offset)
    }

    /// Fills `levels` with the bytes at an offset.
    pub(crate) fn read(&self, offset: u64, levels: &mut [u8]) -> Result<()> {
        match &self.storage {
            Storage::Memory(all) => {
                let start = offset as usize;
                levels.copy_from_slice(&all[start..start + levels.len()]);
            }
            Storage::File(file) => file.read_exact_at(levels, offset).map_err(storage_failure)?,
        }
        Ok(())
    }
}

fn storage_failure(error: std::io::Error) -> Failure {
    Failure::transient(format!("cannot store pictures for training: {error}"))
        .hint("check the free space in engine.spill_folder (if empty, in the system's temporary folder)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_file_return_the_same_squares() {
        let mut config = Config::default();
        for memory_bytes_max in [1 << 20, 1] {
            config.train.memory_bytes_max = memory_bytes_max;
            let mut squares = SquareStore::new(&config, 100).unwrap();
            assert_eq!(matches!(squares.storage, Storage::File(_)), memory_bytes_max == 1);
            let offsets = [squares.push(&[1, 2, 3]).unwrap(), squares.push(&[4, 5, 6]).unwrap()];
            let mut levels = [0; 3];
            squares.read(offsets[1], &mut levels).unwrap();
            assert_eq!(levels, [4, 5, 6]);
            squares.read(offsets[0], &mut levels).unwrap();
            assert_eq!(levels, [1, 2, 3]);
        }
    }
}
