//! Network outputs of a column: equal rows cost one forward pass, and recent rows none.

use arrow::array::{ArrayRef, Float32Builder, ListBuilder};
use lru::LruCache;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use crate::failure::Result;
use crate::score::lock::lock;

/// The network's output for each row; none for a row without a result.
pub(super) type Outputs<N> = Vec<Output<N>>;

type Output<N> = Option<Arc<[N]>>;

/// Bytes of an entry besides its numbers: its key twice, pointers.
const ENTRY_BYTES: u64 = 160;

/// LRU cache of one network's outputs, by the hash of the input.
#[derive(Debug)]
pub(super) struct OutputCache<N> {
    /// `None` where nothing is to be cached.
    entries: Option<Mutex<LruCache<[u8; 32], Output<N>>>>,
}

impl<N> OutputCache<N> {
    /// A cache of at most `bytes_max` bytes, for outputs of `width` numbers.
    pub(super) fn new(bytes_max: u64, width: usize) -> Self {
        let entries_max = bytes_max / (ENTRY_BYTES + (width * size_of::<N>()) as u64);
        let entries_max = NonZeroUsize::new(usize::try_from(entries_max).unwrap_or(usize::MAX));
        // `LruCache::new` would allocate room for all entries at once; this one grows as it fills.
        let entries = entries_max.map(|entries_max| {
            let mut entries = LruCache::unbounded();
            entries.resize(entries_max);
            Mutex::new(entries)
        });
        Self { entries }
    }

    /// The outputs of the rows that are not null. `compute` gets each distinct row once, and none that is cached.
    pub(super) fn outputs<T: Copy + Eq + Hash + AsRef<[u8]>>(
        &self,
        rows: &[Option<T>],
        compute: impl FnOnce(&[T]) -> Result<Vec<Option<Vec<N>>>>,
    ) -> Result<Outputs<N>> {
        let mut known = HashMap::new();
        let mut missing = Vec::new();
        for &row in rows.iter().flatten() {
            if let Entry::Vacant(new) = known.entry(row) {
                let (key, cached) = self.find(row);
                if cached.is_none() {
                    missing.push((row, key));
                }
                new.insert(cached.flatten());
            }
        }
        let inputs: Vec<T> = missing.iter().map(|(row, _)| *row).collect();
        let computed = if inputs.is_empty() { Vec::new() } else { compute(&inputs)? };
        for ((row, key), output) in missing.into_iter().zip(computed) {
            let output: Output<N> = output.map(Arc::from);
            self.insert(key, &output);
            known.insert(row, output);
        }
        Ok(rows.iter().map(|row| row.and_then(|row| known.get(&row).cloned().flatten())).collect())
    }

    /// The key of a row, and its output if it is cached.
    fn find(&self, row: impl AsRef<[u8]>) -> ([u8; 32], Option<Output<N>>) {
        let Some(entries) = &self.entries else { return ([0; 32], None) };
        let key = *blake3::hash(row.as_ref()).as_bytes();
        (key, lock(entries).get(&key).cloned())
    }

    fn insert(&self, key: [u8; 32], output: &Output<N>) {
        if let Some(entries) = &self.entries {
            lock(entries).put(key, output.clone());
        }
    }
}

/// list<float32> [rows]; null for a row without a result.
pub(super) fn vectors(rows: &Outputs<f32>) -> ArrayRef {
    let mut column = ListBuilder::new(Float32Builder::new());
    for row in rows {
        column.values().append_slice(row.as_deref().unwrap_or_default());
        column.append(row.is_some());
    }
    Arc::new(column.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::Float32Type;

    /// The outputs, and the rows that had to be computed.
    fn computed<'a>(cache: &OutputCache<f32>, rows: &[Option<&'a str>]) -> (Result<Outputs<f32>>, Vec<&'a str>) {
        let mut computed = Vec::new();
        let outputs = cache.outputs(rows, |distinct| {
            computed = distinct.to_vec();
            Ok(distinct.iter().map(|row| (*row != "bad").then(|| vec![row.len() as f32, 0.5])).collect())
        });
        (outputs, computed)
    }

    #[test]
    fn recent_rows_are_answered_from_the_cache_within_its_limit() {
        let cache = OutputCache::new(3 * (ENTRY_BYTES + 8), 2);
        let first = computed(&cache, &[Some("a"), Some("bad"), Some("a")]);
        assert_eq!(first.1, ["a", "bad"]);
        let again = computed(&cache, &[Some("bad"), Some("bbb"), Some("a")]);
        assert_eq!(again.1, ["bbb"]);
        let again = again.0.unwrap();
        assert_eq!((again[2].as_deref(), &again[0]), (first.0.unwrap()[0].as_deref(), &None));
        // "bad" was asked least recently when a fourth row came.
        computed(&cache, &[Some("a"), Some("cccc")]).0.unwrap();
        assert_eq!(computed(&cache, &[Some("a"), Some("bad")]).1, ["bad"]);
        let empty = OutputCache::new(0, 2);
        assert_eq!(computed(&empty, &[Some("a")]).1, computed(&empty, &[Some("a")]).1);
        assert!(cache.outputs(&[Some("d")], |_| Err(crate::failure::Failure::bug("no"))).is_err());
        assert_eq!(computed(&cache, &[Some("d")]).1, ["d"], "a failure is not cached");
    }

    #[test]
    fn equal_rows_are_computed_once_and_failed_rows_are_null() {
        let rows = [Some("aa"), None, Some("bad"), Some("aa"), Some("b")];
        let (outputs, computed) = computed(&OutputCache::new(0, 2), &rows);
        let column = vectors(&outputs.unwrap());
        assert_eq!(computed, ["aa", "bad", "b"]);
        let lists = column.as_list::<i32>();
        assert_eq!((0..5).map(|row| lists.is_valid(row)).collect::<Vec<_>>(), [true, false, false, true, true]);
        assert_eq!(lists.value(3).as_primitive::<Float32Type>().values(), &[2.0, 0.5]);
    }
}
