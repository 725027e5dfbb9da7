//! A bounded cache of values that take long to load.

use futures::future::BoxFuture;
use lru::LruCache;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use tokio::sync::OnceCell;

use super::lock::lock;
use crate::failure::Result;

/// Loads each value once, however many callers ask for it, and different values at the same time. The least recently used
/// value goes first; callers that hold it keep it.
#[derive(Debug)]
pub(crate) struct LoadCache<K: Hash + Eq, V> {
    cells: Mutex<LruCache<K, Arc<OnceCell<V>>>>,
}

impl<K: Hash + Eq, V: Clone> LoadCache<K, V> {
    /// A cache of at most `values_max` values.
    pub(crate) fn new(values_max: usize) -> Self {
        let values_max = NonZeroUsize::new(values_max).unwrap_or(NonZeroUsize::MIN);
        Self { cells: Mutex::new(LruCache::new(values_max)) }
    }

    /// Returns the value of `key`, which `load` loads unless it is here or another caller is loading it. A failed load is
    /// tried again by the next caller. The future is boxed: loading a model takes hundreds of kilobytes of it in a debug build,
    /// which would be on the stack of every caller in between.
    pub(crate) async fn get_or_load(&self, key: K, load: BoxFuture<'_, Result<V>>) -> Result<V> {
        let cell = Arc::clone(lock(&self.cells).get_or_insert(key, Arc::default));
        cell.get_or_try_init(|| load).await.cloned()
    }

    /// Returns the value of `key` if it is loaded.
    pub(crate) fn find(&self, key: &K) -> Option<V> {
        lock(&self.cells).get(key)?.get().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Barrier;

    fn cache(values_max: usize) -> LoadCache<&'static str, usize> {
        LoadCache::new(values_max)
    }

    #[tokio::test]
    async fn callers_of_one_value_share_its_load() {
        let (cache, loads) = (cache(2), AtomicUsize::new(0));
        let load = async || {
            tokio::task::yield_now().await;
            Ok(loads.fetch_add(1, Ordering::Relaxed))
        };
        let (first, second) =
            tokio::join!(cache.get_or_load("a", Box::pin(load())), cache.get_or_load("a", Box::pin(load())));
        assert_eq!((first.unwrap(), second.unwrap(), loads.load(Ordering::Relaxed)), (0, 0, 1));
    }

    #[tokio::test]
    async fn different_values_load_at_the_same_time() {
        let (cache, both) = (cache(2), Barrier::new(2));
        // Neither load ends before the other one has begun.
        let load = async |value| {
            both.wait().await;
            Ok(value)
        };
        let (a, b) = tokio::join!(cache.get_or_load("a", Box::pin(load(1))), cache.get_or_load("b", Box::pin(load(2))));
        assert_eq!((a.unwrap(), b.unwrap()), (1, 2));
    }

    #[tokio::test]
    async fn the_least_recently_used_value_goes_first() {
        let (cache, loads) = (cache(2), AtomicUsize::new(0));
        for key in ["a", "b", "a", "c", "a", "b"] {
            let load = async { Ok(loads.fetch_add(1, Ordering::Relaxed)) };
            cache.get_or_load(key, Box::pin(load)).await.unwrap();
        }
        assert_eq!(loads.load(Ordering::Relaxed), 4, "a, b, c, and b again");
        assert_eq!(["a", "b", "c"].map(|key| cache.find(&key)), [Some(0), Some(3), None]);
    }

    #[tokio::test]
    async fn a_failed_load_is_tried_again() {
        let cache = cache(1);
        assert!(cache.get_or_load("a", Box::pin(async { Err(Failure::bug("no")) })).await.is_err());
        assert_eq!(cache.get_or_load("a", Box::pin(async { Ok(3) })).await.unwrap(), 3);
    }
}
