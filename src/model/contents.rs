//! What texts, pictures and videos say, as vectors by content key: looked up by events and items, gathered for batches.
//!
//! A key is a hash of the content itself (`content_key` in SQL), so whatever is encoded once serves every event, item and
//! night that shows it. Vectors are scaled to length one: what they say is their direction.

use std::collections::HashMap;
use tch::{Device, Kind, Tensor};

use crate::failure::Result;

/// The kinds of content, in the order of every list of them.
pub const MODALITIES: [&str; 3] = ["text", "image", "video"];

/// Of each modality the row in [`Contents`]; 0 where there is none.
pub type ContentRows = [u32; MODALITIES.len()];

/// Of each modality the content's key; `None` where there is none.
pub type ContentKeys = [Option<i64>; MODALITIES.len()];

/// The vectors of each modality. Rows are only ever added, so a row that was handed out stays what it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Contents([Vectors; MODALITIES.len()]);

#[derive(Debug, Clone, Default, PartialEq)]
struct Vectors {
    /// Numbers of a vector; 0 for a modality that nobody reads.
    dims: usize,
    rows: HashMap<i64, u32>,
    /// Of row 1, row 2, …
    keys: Vec<i64>,
    /// Row-major, of row 1, row 2, …
    values: Vec<f32>,
}

impl Contents {
    /// None yet, of so many numbers in each modality.
    pub fn new(dims: [i64; MODALITIES.len()]) -> Self {
        Self(dims.map(|dims| Vectors { dims: dims.max(0) as usize, ..Vectors::default() }))
    }

    pub fn dims(&self) -> [i64; MODALITIES.len()] {
        [0, 1, 2].map(|modality| self.0[modality].dims as i64)
    }

    /// Adds a vector, unless its key is known. False where it can not be one of these: another number of numbers, one that
    /// is not finite, or nothing but zeros.
    pub fn insert(&mut self, modality: usize, key: i64, vector: &[f32]) -> bool {
        let of = &mut self.0[modality];
        let length = vector.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        if vector.len() != of.dims || vector.is_empty() || !length.is_normal() {
            return false;
        }
        if !of.rows.contains_key(&key) {
            of.keys.push(key);
            of.rows.insert(key, of.keys.len() as u32);
            of.values.extend(vector.iter().map(|v| (f64::from(*v) / length) as f32));
        }
        true
    }

    /// These with some of another's texts, in the order of their keys.
    pub fn with_texts(mut self, dims: i64, others: &Contents, keys: impl IntoIterator<Item = i64>) -> Self {
        self.0[0] = Vectors { dims: dims.max(0) as usize, ..Vectors::default() };
        for key in keys {
            let row = others.rows(&[Some(key), None, None])[0] as usize;
            if row > 0 {
                let from = (row - 1) * others.0[0].dims;
                self.insert(0, key, &others.0[0].values[from..from + others.0[0].dims]);
            }
        }
        self
    }

    pub fn has(&self, modality: usize, key: i64) -> bool {
        self.0[modality].rows.contains_key(&key)
    }

    /// Rows of keys; of those that are not here, 0.
    pub fn rows(&self, keys: &ContentKeys) -> ContentRows {
        [0, 1, 2].map(|m| keys[m].and_then(|key| self.0[m].rows.get(&key)).copied().unwrap_or(0))
    }

    /// The key of a row; 0 for none.
    pub fn key(&self, modality: usize, row: u32) -> i64 {
        row.checked_sub(1).and_then(|at| self.0[modality].keys.get(at as usize)).copied().unwrap_or(0)
    }

    /// Vectors of a modality.
    pub fn len(&self, modality: usize) -> usize {
        self.0[modality].keys.len()
    }

    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|of| (of.values.len() * size_of::<f32>() + of.keys.len() * 32) as u64).sum()
    }

    /// A hash of the keys and their order: with it, rows mean the same.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for of in &self.0 {
            hasher.update(&(of.dims as u64).to_le_bytes());
            of.keys.iter().for_each(|key| {
                hasher.update(&key.to_le_bytes());
            });
        }
        hasher.finalize().to_hex()[..32].to_string()
    }

    /// The vectors that a batch needs. `rows`, int64 [modalities, ..] on the CPU, as [`ContentRows`] have them.
    pub fn gather(&self, rows: &Tensor) -> Result<Vec<Gathered>> {
        let used = (0..MODALITIES.len()).filter(|&modality| self.0[modality].dims > 0);
        used.map(|modality| self.gather_one(modality, &rows.f_get(modality as i64)?)).collect()
    }

    fn gather_one(&self, modality: usize, rows: &Tensor) -> Result<Gathered> {
        let (distinct, at, _) = rows.f_internal_unique2(true, true, false)?;
        let of = &self.0[modality];
        let mut values = vec![0.0; distinct.numel() * of.dims];
        for (vector, row) in values.chunks_mut(of.dims).zip(Vec::<i64>::try_from(&distinct)?) {
            if row > 0 {
                let from = (row as usize - 1) * of.dims;
                vector.copy_from_slice(&of.values[from..from + of.dims]);
            }
        }
        let vectors = Tensor::f_from_slice(&values)?.f_view([-1, of.dims as i64])?;
        Ok(Gathered { modality, vectors, known: distinct.f_gt(0)?.f_to_kind(Kind::Float)?.f_unsqueeze(1)?, at })
    }
}

/// The distinct contents of one modality in a batch, and which of them each event (or item) has.
#[derive(Debug)]
pub struct Gathered {
    pub modality: usize,
    /// float32 [distinct, dims].
    pub vectors: Tensor,
    /// float32 [distinct, 1]: 0 for having none, else 1.
    pub known: Tensor,
    /// int64 [..]: places among the distinct.
    pub at: Tensor,
}

impl Gathered {
    /// Of some of the events (or items), by their places.
    pub fn select(&self, places: &Tensor) -> Result<Self> {
        let (distinct, at, _) = self.at.f_index_select(0, places)?.f_internal_unique2(true, true, false)?;
        let of = |each: &Tensor| each.f_index_select(0, &distinct);
        let (vectors, known) = (of(&self.vectors)?, of(&self.known)?);
        Ok(Self { modality: self.modality, vectors, known, at })
    }

    /// On another device.
    pub fn to(&self, device: Device) -> Result<Self> {
        let put = |of: &Tensor| of.f_to_device(device);
        let (vectors, known, at) = (put(&self.vectors)?, put(&self.known)?, put(&self.at)?);
        Ok(Self { modality: self.modality, vectors, known, at })
    }
}

/// int64 [modalities, rows] of some events' or items' contents.
pub fn rows_tensor(rows: &[ContentRows]) -> Result<Tensor> {
    let flat: Vec<i64> = (0..MODALITIES.len()).flat_map(|m| rows.iter().map(move |row| row[m].into())).collect();
    Ok(Tensor::f_from_slice(&flat)?.f_view([MODALITIES.len() as i64, rows.len() as i64])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_found_by_key_at_length_one_and_strange_ones_are_none() {
        let mut contents = Contents::new([0, 2, 0]);
        assert!(contents.insert(1, 7, &[3.0, 4.0]) && contents.insert(1, 9, &[0.0, -2.0]));
        for strange in [&[1.0][..], &[0.0, 0.0], &[f32::NAN, 1.0], &[f32::INFINITY, 1.0], &[]] {
            assert!(!contents.insert(1, 8, strange), "{strange:?}");
        }
        assert!(!contents.insert(0, 7, &[3.0, 4.0]), "nobody reads texts here");
        assert_eq!(contents.rows(&[Some(7), Some(9), None]), [0, 2, 0]);
        assert_eq!(contents.rows(&[None, Some(8), Some(7)]), [0, 0, 0]);
        let rows = rows_tensor(&[[0, 2, 0], [0, 0, 0], [0, 1, 0], [0, 2, 0]]).unwrap();
        let gathered = contents.gather(&rows).unwrap();
        assert_eq!((gathered.len(), gathered[0].modality), (1, 1));
        let each = gathered[0].vectors.index_select(0, &gathered[0].at);
        assert_eq!(Vec::<f32>::try_from(&each.view([-1])).unwrap(), [0.0, -1.0, 0.0, 0.0, 0.6, 0.8, 0.0, -1.0]);
        assert_eq!(Vec::<f32>::try_from(&gathered[0].known.view([-1])).unwrap(), [0.0, 1.0, 1.0]);
    }

    #[test]
    fn rows_stay_what_they_are_when_more_comes() {
        let mut contents = Contents::new([1, 0, 0]);
        contents.insert(0, 5, &[1.0]);
        let before = contents.fingerprint();
        contents.insert(0, 5, &[-1.0]);
        assert_eq!((contents.len(0), contents.fingerprint()), (1, before.clone()), "a key is one content");
        contents.insert(0, 3, &[2.0]);
        assert_eq!((contents.key(0, 1), contents.key(0, 2), contents.key(0, 0), contents.key(0, 3)), (5, 3, 0, 0));
        assert_ne!(contents.fingerprint(), before);
    }
}
