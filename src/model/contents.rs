//! What texts, pictures and videos say, as vectors by content key: looked up by events and items, gathered for batches.
//!
//! A key is a hash of the content itself (`content_key` in SQL), so whatever is encoded once serves every event, item and
//! night that shows it. Vectors are scaled to length one: what they say is their direction.

use std::collections::HashMap;
use tch::{Device, Kind, Tensor};

use crate::failure::Result;

/// The kinds of content, in the order of every list of them.
pub const MODALITIES: [&str; 3] = ["text", "image", "video"];
pub const TEXT: usize = 0;
pub const IMAGE: usize = 1;
pub const VIDEO: usize = 2;

/// Frames of a video that are kept: a longer one is thinned out evenly.
pub const FRAMES_MAX: usize = 64;

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
    /// How many vectors the rows up to and with this one have: a video has one a frame, everything else has one.
    ends: Vec<usize>,
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

    /// Adds a vector, or those of a video's frames one behind the other, unless the key is known. False where they can not
    /// be of these: another number of numbers, one that is not finite, or nothing but zeros.
    pub fn insert(&mut self, modality: usize, key: i64, vectors: &[f32]) -> bool {
        let of = &mut self.0[modality];
        let length = |vector: &[f32]| vector.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let whole = of.dims > 0 && !vectors.is_empty() && vectors.len().is_multiple_of(of.dims);
        let several = vectors.len() > of.dims && modality != VIDEO;
        if !whole || several || !vectors.chunks(of.dims).all(|vector| length(vector).is_normal()) {
            return false;
        }
        if !of.rows.contains_key(&key) {
            let frames = vectors.len() / of.dims;
            let kept = frames.min(FRAMES_MAX);
            of.keys.push(key);
            of.rows.insert(key, of.keys.len() as u32);
            of.ends.push(of.ends.last().unwrap_or(&0) + kept);
            for frame in (0..kept).map(|k| k * frames / kept) {
                let vector = &vectors[frame * of.dims..(frame + 1) * of.dims];
                let length = length(vector);
                of.values.extend(vector.iter().map(|v| (f64::from(*v) / length) as f32));
            }
        }
        true
    }

    /// These with some of another's contents of a modality, in the order of their keys, in the place of their own.
    pub fn with(mut self, modality: usize, others: &Contents, keys: impl IntoIterator<Item = i64>) -> Self {
        let from = &others.0[modality];
        self.0[modality] = Vectors { dims: from.dims, ..Vectors::default() };
        for key in keys {
            if let Some(&row) = from.rows.get(&key) {
                self.insert(modality, key, from.of_row(row));
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
        let wanted = Vec::<i64>::try_from(&distinct)?;
        let found: Vec<&[f32]> = wanted.iter().map(|&row| of.of_row(row as u32)).collect();
        let longest = found.iter().map(|vectors| vectors.len()).max().unwrap_or(0).max(of.dims);
        let mut values = vec![0.0; found.len() * longest];
        let mut present = vec![false; found.len() * longest / of.dims];
        for ((vectors, present), found) in
            values.chunks_mut(longest).zip(present.chunks_mut(longest / of.dims)).zip(found)
        {
            vectors[..found.len()].copy_from_slice(found);
            present[..found.len() / of.dims].fill(true);
        }
        let (n, frames) = (wanted.len() as i64, (longest / of.dims) as i64);
        let vectors = Tensor::f_from_slice(&values)?.f_view([n, frames, of.dims as i64])?;
        let present = Tensor::f_from_slice(&present)?.f_view([n, frames])?;
        let known = distinct.f_gt(0)?.f_to_kind(Kind::Float)?.f_unsqueeze(1)?;
        Ok(Gathered { modality, vectors, present, known, at })
    }
}

impl Vectors {
    /// All numbers of a row's vectors; none of row 0.
    fn of_row(&self, row: u32) -> &[f32] {
        let Some(at) = (row as usize).checked_sub(1) else { return &[] };
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.values[start * self.dims..self.ends[at] * self.dims]
    }
}

/// The distinct contents of one modality in a batch, and which of them each event (or item) has.
#[derive(Debug)]
pub struct Gathered {
    pub modality: usize,
    /// float32 [distinct, frames, dims], padded behind; but for videos, frames is 1.
    pub vectors: Tensor,
    /// bool [distinct, frames]; false for padding.
    pub present: Tensor,
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
        let (vectors, present, known) = (of(&self.vectors)?, of(&self.present)?, of(&self.known)?);
        Ok(Self { modality: self.modality, vectors, present, known, at })
    }

    /// On another device.
    pub fn to(&self, device: Device) -> Result<Self> {
        let put = |of: &Tensor| of.f_to_device(device);
        let (vectors, present) = (put(&self.vectors)?, put(&self.present)?);
        Ok(Self { modality: self.modality, vectors, present, known: put(&self.known)?, at: put(&self.at)? })
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
    fn a_video_has_a_vector_a_frame_and_a_long_one_is_thinned_out() {
        let mut contents = Contents::new([2, 2, 2]);
        assert!(contents.insert(VIDEO, 1, &[3.0, 4.0, 0.0, 2.0]) && contents.insert(VIDEO, 2, &[1.0, 0.0]));
        let long: Vec<f32> = (0..200).flat_map(|frame| [1.0, frame as f32]).collect();
        assert!(contents.insert(VIDEO, 3, &long));
        for (modality, strange) in [(VIDEO, &[1.0, 0.0, 1.0][..]), (VIDEO, &[1.0, 0.0, 0.0, 0.0]), (IMAGE, &[1.0; 4])] {
            assert!(!contents.insert(modality, 9, strange), "{modality} {strange:?}");
        }
        let rows = rows_tensor(&[[0, 0, 2], [0, 0, 0], [0, 0, 1]]).unwrap();
        let videos = contents.gather(&rows).unwrap().remove(VIDEO);
        assert_eq!((videos.vectors.size(), videos.at.size()), (vec![3, 2, 2], vec![3]));
        let each = videos.vectors.index_select(0, &videos.at);
        let each = Vec::<f32>::try_from(&each.view([-1])).unwrap();
        assert_eq!(each, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.6, 0.8, 0.0, 1.0]);
        let present = Vec::<bool>::try_from(&videos.present.index_select(0, &videos.at).view([-1])).unwrap();
        assert_eq!(present, [true, false, false, false, true, true]);
        let thinned = contents.gather(&rows_tensor(&[[0, 0, 3]]).unwrap()).unwrap().remove(VIDEO);
        assert_eq!(thinned.vectors.size(), [1, FRAMES_MAX as i64, 2]);
        let last = thinned.vectors.get(0).get(FRAMES_MAX as i64 - 1);
        assert!((last.double_value(&[1]) / last.double_value(&[0]) - 196.0).abs() < 0.1, "{last:?}");
        // Taken over whole, in the order asked for.
        let other = Contents::default().with(VIDEO, &contents, [3, 7, 1]);
        assert_eq!((other.len(VIDEO), other.key(VIDEO, 2), other.dims()), (2, 1, [0, 0, 2]));
        assert_eq!(other.0[VIDEO].of_row(2), contents.0[VIDEO].of_row(1));
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
