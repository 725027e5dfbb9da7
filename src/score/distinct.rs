//! Rows that are equal cost one pass: what a network says of a column, each different value asked once, and not again while
//! the answer is kept.

use arrow::array::{ArrayRef, Float32Builder, ListBuilder};
use lru::LruCache;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use crate::failure::Result;

/// The numbers of each row; none where a row has no answer.
pub type Answers<N> = Vec<Answer<N>>;

/// What was said of something; none where it has no answer.
type Answer<N> = Option<Arc<[N]>>;

/// What an answer takes besides its numbers: its key twice, pointers.
const ENTRY_BYTES: u64 = 160;

/// What one network has said lately. What was asked least recently goes first.
#[derive(Debug)]
pub struct Kept<N> {
    /// By the hash of what was asked; nothing where nothing is to be kept.
    answers: Option<Mutex<LruCache<[u8; 32], Answer<N>>>>,
}

impl<N> Kept<N> {
    /// `bytes_max`: of answers of so many numbers each.
    pub fn new(bytes_max: u64, numbers: usize) -> Self {
        let most = bytes_max / (ENTRY_BYTES + (numbers * size_of::<N>()) as u64);
        let most = NonZeroUsize::new(usize::try_from(most).unwrap_or(usize::MAX));
        // It grows as it fills: room for all would be taken at once.
        let answers = most.map(|most| {
            let mut answers = LruCache::unbounded();
            answers.resize(most);
            Mutex::new(answers)
        });
        Self { answers }
    }

    /// What `of` says of the rows that are there; it sees each different one once, and none that is kept.
    pub fn answers<T: Copy + Eq + Hash + AsRef<[u8]>>(
        &self,
        rows: &[Option<T>],
        of: impl FnOnce(&[T]) -> Result<Vec<Option<Vec<N>>>>,
    ) -> Result<Answers<N>> {
        let mut known = HashMap::new();
        let mut distinct = Vec::new();
        for &row in rows.iter().flatten() {
            if let Entry::Vacant(new) = known.entry(row) {
                let (key, kept) = self.kept(row);
                if kept.is_none() {
                    distinct.push((row, key));
                }
                new.insert(kept.flatten());
            }
        }
        let asked: Vec<T> = distinct.iter().map(|(row, _)| *row).collect();
        let said = if asked.is_empty() { Vec::new() } else { of(&asked)? };
        for ((row, key), answer) in distinct.into_iter().zip(said) {
            let answer: Answer<N> = answer.map(Arc::from);
            self.keep(key, &answer);
            known.insert(row, answer);
        }
        Ok(rows.iter().map(|row| row.and_then(|row| known.get(&row).cloned().flatten())).collect())
    }

    /// What was asked, as it is kept by, and the answer if it is.
    fn kept(&self, row: impl AsRef<[u8]>) -> ([u8; 32], Option<Answer<N>>) {
        let Some(answers) = &self.answers else { return ([0; 32], None) };
        let key = *blake3::hash(row.as_ref()).as_bytes();
        (key, answers.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned())
    }

    fn keep(&self, key: [u8; 32], answer: &Answer<N>) {
        if let Some(answers) = &self.answers {
            answers.lock().unwrap_or_else(PoisonError::into_inner).put(key, answer.clone());
        }
    }
}

/// list<float32> [rows]; null where a row has no answer.
pub fn vectors(rows: &Answers<f32>) -> ArrayRef {
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

    /// The answers, and what had to be asked for them.
    fn asked<'a>(kept: &Kept<f32>, rows: &[Option<&'a str>]) -> (Result<Answers<f32>>, Vec<&'a str>) {
        let mut asked = Vec::new();
        let found = kept.answers(rows, |distinct| {
            asked = distinct.to_vec();
            Ok(distinct.iter().map(|row| (*row != "bad").then(|| vec![row.len() as f32, 0.5])).collect())
        });
        (found, asked)
    }

    #[test]
    fn what_is_asked_again_is_answered_from_what_was_said_within_its_bound() {
        let kept = Kept::new(3 * (ENTRY_BYTES + 8), 2);
        let first = asked(&kept, &[Some("a"), Some("bad"), Some("a")]);
        assert_eq!(first.1, ["a", "bad"]);
        let again = asked(&kept, &[Some("bad"), Some("bbb"), Some("a")]);
        assert_eq!(again.1, ["bbb"]);
        let again = again.0.unwrap();
        assert_eq!((again[2].as_deref(), &again[0]), (first.0.unwrap()[0].as_deref(), &None));
        // "bad" was asked least recently when a fourth came.
        asked(&kept, &[Some("a"), Some("cccc")]).0.unwrap();
        assert_eq!(asked(&kept, &[Some("a"), Some("bad")]).1, ["bad"]);
        let nothing = Kept::new(0, 2);
        assert_eq!(asked(&nothing, &[Some("a")]).1, asked(&nothing, &[Some("a")]).1);
        assert!(kept.answers(&[Some("d")], |_| Err(crate::failure::Failure::bug("no"))).is_err());
        assert_eq!(asked(&kept, &[Some("d")]).1, ["d"], "a failure is no answer");
    }

    #[test]
    fn equal_rows_are_asked_once_and_what_has_no_answer_is_null() {
        let rows = [Some("aa"), None, Some("bad"), Some("aa"), Some("b")];
        let (found, asked) = asked(&Kept::new(0, 2), &rows);
        let column = vectors(&found.unwrap());
        assert_eq!(asked, ["aa", "bad", "b"]);
        let lists = column.as_list::<i32>();
        assert_eq!((0..5).map(|row| lists.is_valid(row)).collect::<Vec<_>>(), [true, false, false, true, true]);
        assert_eq!(lists.value(3).as_primitive::<Float32Type>().values(), &[2.0, 0.5]);
    }
}
