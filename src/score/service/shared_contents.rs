//! The content vectors that all owners of a network read.

use std::sync::{Arc, Mutex};

use crate::failure::Result;
use crate::model::contents::Contents;
use crate::score::contents::store::{ContentStore, ReadContents};
use crate::score::lock::lock;

/// Vectors of contents in memory. Rows are only ever added, so a row number stays valid.
#[derive(Debug, Default)]
pub(crate) struct SharedContents {
    read: Mutex<ReadContents>,
    /// Held while vectors are read and added: two updates at once could number rows differently.
    update: tokio::sync::Mutex<()>,
}

impl SharedContents {
    pub(crate) fn now(&self) -> Arc<Contents> {
        Arc::clone(&lock(&self.read).contents)
    }

    /// Reads the files that were added to the store, until those of a plan's fingerprint are in memory.
    pub(crate) async fn read(&self, store: &ContentStore, fingerprint: &str) -> Result<()> {
        let _update = self.update.lock().await;
        let before = lock(&self.read).clone();
        if before.fingerprint != fingerprint {
            let mut read = store.read(&before).await?;
            read.fingerprint = fingerprint.into();
            tracing::info!("{} bytes of content vectors in memory", read.contents.bytes());
            *lock(&self.read) = read;
        }
        Ok(())
    }

    /// Adds vectors that are in no file: those of a session that writes nothing.
    pub(crate) async fn add(&self, more: &Contents) {
        let _update = self.update.lock().await;
        let mut all = self.now();
        if !all.has_all(more) {
            Arc::make_mut(&mut all).extend(more);
            lock(&self.read).contents = all;
        }
    }
}
