//! Takes new content vectors, into files or into memory.

use super::store::ContentStore;
use super::vector_files::{VectorFileBuilder, VectorRow};
use crate::failure::Result;
use crate::model::contents::{Contents, MODALITIES};

/// Bytes of vectors that wait in memory for their file.
const FILE_BYTES: usize = 64 << 20;

/// Takes new vectors into files of the output, or into memory for a session that writes nothing.
pub(crate) enum VectorSink<'a> {
    Files { store: &'a ContentStore, waiting: Box<[VectorFileBuilder; MODALITIES.len()]> },
    Memory(Box<Contents>),
}

impl<'a> VectorSink<'a> {
    pub(crate) fn files(store: &'a ContentStore) -> Self {
        Self::Files { store, waiting: Default::default() }
    }

    pub(crate) fn memory(store: &ContentStore) -> Self {
        Self::Memory(Box::new(Contents::new(store.dims())))
    }

    pub(super) async fn add(&mut self, modality: usize, row: VectorRow<'_>) -> Result<()> {
        match self {
            Self::Memory(contents) => {
                contents.insert(modality, row.key, row.vectors);
            }
            Self::Files { waiting, .. } => {
                waiting[modality].add(&row);
                if waiting[modality].bytes() >= FILE_BYTES {
                    self.flush().await?;
                }
            }
        }
        Ok(())
    }

    /// Writes the vectors that wait for their files.
    pub(super) async fn flush(&mut self) -> Result<()> {
        if let Self::Files { store, waiting } = self {
            for (modality, file) in waiting.iter_mut().enumerate() {
                store.write(modality, std::mem::take(file)).await?;
            }
        }
        Ok(())
    }

    /// The vectors that went into memory; `None` where they went into files.
    pub(crate) fn into_memory(self) -> Option<Contents> {
        match self {
            Self::Files { .. } => None,
            Self::Memory(contents) => Some(*contents),
        }
    }
}
