//! Figures about the work of a service.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the work of a service since it started.
#[derive(Debug, Default)]
pub struct Counters {
    pub requests: AtomicU64,
    pub pools: AtomicU64,
    pub model_batches: AtomicU64,
    /// Batches that did not fit into memory.
    pub(crate) batches_halved: AtomicU64,
    pub users_scored: AtomicU64,
    pub users_encoded: AtomicU64,
    /// Users whose encoder state was cached.
    pub users_kept: AtomicU64,
    pub(crate) items_forecast: AtomicU64,
}

impl Counters {
    pub fn get(&self, counter: impl Fn(&Self) -> &AtomicU64) -> u64 {
        counter(self).load(Ordering::Relaxed)
    }
}
