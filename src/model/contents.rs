//! Vectors of texts, images and videos by content key. Events and items look them up; batches gather them.
//!
//! A key is a hash of the content itself (`content_key` in SQL), so one encoding serves every event, item and night with
//! the same content. Vectors are scaled to length one, since only their direction carries meaning.

use foldhash::HashMap;
use tch::{Device, Kind, Tensor};

use crate::failure::Result;
use crate::ids::ContentHash;

/// The kinds of content, in the order of every list of them.
pub(crate) const MODALITIES: [&str; 3] = ["text", "image", "video"];
pub(crate) const TEXT: usize = 0;
pub(crate) const IMAGE: usize = 1;
pub(crate) const VIDEO: usize = 2;

/// Frames stored per video; a longer video is sampled evenly.
pub(crate) const FRAMES_MAX: usize = 64;

/// The row in [`Contents`] for each modality; 0 for no content.
pub(crate) type ContentRows = [u32; MODALITIES.len()];

/// The content key for each modality; `None` for no content.
pub(crate) type ContentKeys = [Option<i64>; MODALITIES.len()];

/// The vectors of each modality. Rows are only added, never changed, so a row number stays valid.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Contents([Vectors; MODALITIES.len()]);

#[derive(Debug, Clone, Default, PartialEq)]
struct Vectors {
    /// Numbers of a vector; 0 for a modality that is not read.
    dims: usize,
    rows: HashMap<i64, u32>,
    /// Keys of row 1, row 2, …
    keys: Vec<i64>,
    /// Cumulative number of vectors up to and including each row: a video has one per frame, other contents have one.
    ends: Vec<usize>,
    /// Vectors of row 1, row 2, …, row-major.
    values: Vec<f32>,
}

impl Contents {
    /// Creates an empty collection with `dims` numbers per vector of each modality; 0 for a modality that is not read.
    pub fn new(dims: [i64; MODALITIES.len()]) -> Self {
        Self(dims.map(|dims| Vectors { dims: dims.max(0) as usize, ..Vectors::default() }))
    }

    /// Returns the numbers per vector of each modality.
    pub(crate) fn dims(&self) -> [i64; MODALITIES.len()] {
        [0, 1, 2].map(|modality| self.0[modality].dims as i64)
    }

    /// Adds a vector, or the concatenated vectors of a video's frames, unless the key exists already. Returns false for
    /// invalid vectors: a wrong dimension, a number that is not finite, or only zeros.
    pub(crate) fn insert(&mut self, modality: usize, key: i64, vectors: &[f32]) -> bool {
        let stored = &mut self.0[modality];
        let length = |vector: &[f32]| vector.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let whole = stored.dims > 0 && !vectors.is_empty() && vectors.len().is_multiple_of(stored.dims);
        let several = vectors.len() > stored.dims && modality != VIDEO;
        if !whole || several || !vectors.chunks(stored.dims).all(|vector| length(vector).is_normal()) {
            return false;
        }
        if !stored.rows.contains_key(&key) {
            let frames = vectors.len() / stored.dims;
            let sampled = frames.min(FRAMES_MAX);
            stored.keys.push(key);
            stored.rows.insert(key, stored.keys.len() as u32);
            stored.ends.push(stored.ends.last().unwrap_or(&0) + sampled);
            for frame in (0..sampled).map(|k| k * frames / sampled) {
                let vector = &vectors[frame * stored.dims..(frame + 1) * stored.dims];
                let norm = length(vector);
                stored.values.extend(vector.iter().map(|v| (f64::from(*v) / norm) as f32));
            }
        }
        true
    }

    /// Replaces the vectors of `modality` with those of `others` for `keys`, in the order of `keys`. Missing keys are skipped.
    pub(crate) fn with(mut self, modality: usize, others: &Contents, keys: impl IntoIterator<Item = i64>) -> Self {
        let from = &others.0[modality];
        self.0[modality] = Vectors { dims: from.dims, ..Vectors::default() };
        for key in keys {
            if let Some(&row) = from.rows.get(&key) {
                self.insert(modality, key, from.row_values(row));
            }
        }
        self
    }

    /// Adds the vectors of `others`, as they are, whose keys are not known.
    pub(crate) fn extend(&mut self, others: &Contents) {
        for (own, from) in self.0.iter_mut().zip(&others.0) {
            from.keys.iter().for_each(|&key| own.copy(from, key));
        }
    }

    /// Returns the vectors of some keys of each modality, as they are; those of unknown keys are missing.
    pub(crate) fn subset(&self, keys: &[Vec<i64>; MODALITIES.len()]) -> Contents {
        let mut subset = Self::new(self.dims());
        for ((own, from), keys) in subset.0.iter_mut().zip(&self.0).zip(keys) {
            keys.iter().for_each(|&key| own.copy(from, key));
        }
        subset
    }

    /// Reports whether every key of `others` is known.
    pub(crate) fn has_all(&self, others: &Contents) -> bool {
        self.0.iter().zip(&others.0).all(|(own, from)| from.keys.iter().all(|key| own.rows.contains_key(key)))
    }

    /// Returns whether the collection has a vector for `key`.
    pub(crate) fn has(&self, modality: usize, key: i64) -> bool {
        self.0[modality].rows.contains_key(&key)
    }

    /// Returns the rows of `keys`; 0 for missing keys.
    pub(crate) fn rows(&self, keys: &ContentKeys) -> ContentRows {
        [0, 1, 2].map(|m| keys[m].and_then(|key| self.0[m].rows.get(&key)).copied().unwrap_or(0))
    }

    /// Returns the key of a row; 0 for row 0 and for a row that does not exist.
    pub(crate) fn key(&self, modality: usize, row: u32) -> i64 {
        row.checked_sub(1).and_then(|at| self.0[modality].keys.get(at as usize)).copied().unwrap_or(0)
    }

    /// Returns the number of contents of a modality.
    pub(crate) fn len(&self, modality: usize) -> usize {
        self.0[modality].keys.len()
    }

    /// Estimates the memory of all vectors and keys.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.iter().map(|of| (of.values.len() * size_of::<f32>() + of.keys.len() * 32) as u64).sum()
    }

    /// Returns a hash of the keys and their order. Equal fingerprints mean that row numbers refer to the same contents.
    pub(crate) fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for vectors in &self.0 {
            hasher.update(&(vectors.dims as u64).to_le_bytes());
            vectors.keys.iter().for_each(|key| {
                hasher.update(&key.to_le_bytes());
            });
        }
        ContentHash::from_hasher(&hasher).long()
    }

    /// Returns the vectors that a batch needs, one entry per modality that is read. `rows` holds [`ContentRows`] as int64
    /// [modalities, ..] on the CPU.
    pub(crate) fn gather(&self, rows: &Tensor) -> Result<Vec<ContentBatch>> {
        let used = (0..MODALITIES.len()).filter(|&modality| self.0[modality].dims > 0);
        used.map(|modality| self.gather_one(modality, &rows.f_get(modality as i64)?)).collect()
    }

    fn gather_one(&self, modality: usize, rows: &Tensor) -> Result<ContentBatch> {
        let (distinct, at, _) = rows.f_internal_unique2(true, true, false)?;
        let stored = &self.0[modality];
        let wanted = Vec::<i64>::try_from(&distinct)?;
        let found: Vec<&[f32]> = wanted.iter().map(|&row| stored.row_values(row as u32)).collect();
        let longest = found.iter().map(|vectors| vectors.len()).max().unwrap_or(0).max(stored.dims);
        let frames = longest / stored.dims;
        let mut values = vec![0.0; found.len() * longest];
        let mut present = vec![false; found.len() * frames];
        for (i, row_values) in found.iter().enumerate() {
            values[i * longest..][..row_values.len()].copy_from_slice(row_values);
            present[i * frames..][..row_values.len() / stored.dims].fill(true);
        }
        let size = [wanted.len() as i64, frames as i64];
        Ok(ContentBatch {
            modality,
            vectors: Tensor::f_from_slice(&values)?.f_view([size[0], size[1], stored.dims as i64])?,
            present: Tensor::f_from_slice(&present)?.f_view(size)?,
            known: distinct.f_gt(0)?.f_to_kind(Kind::Float)?.f_unsqueeze(1)?,
            at,
        })
    }
}

impl Vectors {
    /// Copies the vectors of a key, unless they are there already or have another dimension.
    fn copy(&mut self, from: &Vectors, key: i64) {
        let Some(&row) = from.rows.get(&key) else { return };
        if self.dims != from.dims || self.rows.contains_key(&key) {
            return;
        }
        let vectors = from.row_values(row);
        self.keys.push(key);
        self.rows.insert(key, self.keys.len() as u32);
        self.ends.push(self.ends.last().unwrap_or(&0) + vectors.len() / self.dims);
        self.values.extend_from_slice(vectors);
    }

    /// Returns all numbers of a row's vectors; none for row 0.
    fn row_values(&self, row: u32) -> &[f32] {
        let Some(at) = (row as usize).checked_sub(1) else { return &[] };
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.values[start * self.dims..self.ends[at] * self.dims]
    }
}

/// The distinct contents of one modality in a batch, and which of them each event (or item) has.
#[derive(Debug)]
pub(crate) struct ContentBatch {
    /// Index in [`MODALITIES`].
    pub(crate) modality: usize,
    /// float32 [distinct, frames, dims], padded at the end; frames is 1 except for videos.
    pub(crate) vectors: Tensor,
    /// bool [distinct, frames]; false for padding.
    pub(crate) present: Tensor,
    /// float32 [distinct, 1]: 0 for no content, else 1.
    pub(crate) known: Tensor,
    /// int64 [..]: index of the distinct content of each event or item.
    pub(crate) at: Tensor,
}

impl ContentBatch {
    /// Returns the contents of some of the events (or items), by their positions, int64 [n].
    pub(crate) fn select(&self, positions: &Tensor) -> Result<Self> {
        let (distinct, at, _) = self.at.f_index_select(0, positions)?.f_internal_unique2(true, true, false)?;
        let select = |each: &Tensor| each.f_index_select(0, &distinct);
        Ok(Self {
            modality: self.modality,
            vectors: select(&self.vectors)?,
            present: select(&self.present)?,
            known: select(&self.known)?,
            at,
        })
    }

    /// Copies the batch to `device`.
    pub(crate) fn to(&self, device: Device) -> Result<Self> {
        let copy = |of: &Tensor| of.f_to_device(device);
        Ok(Self {
            modality: self.modality,
            vectors: copy(&self.vectors)?,
            present: copy(&self.present)?,
            known: copy(&self.known)?,
            at: copy(&self.at)?,
        })
    }
}

/// Returns content rows of events or items as int64 [modalities, rows].
pub(crate) fn rows_tensor(rows: &[ContentRows]) -> Result<Tensor> {
    let flat: Vec<i64> = (0..MODALITIES.len()).flat_map(|m| rows.iter().map(move |row| row[m].into())).collect();
    Ok(Tensor::f_from_slice(&flat)?.f_view([MODALITIES.len() as i64, rows.len() as i64])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_found_by_key_at_length_one_or_refused() {
        let mut contents = Contents::new([0, 2, 0]);
        assert!(contents.insert(1, 7, &[3.0, 4.0]) && contents.insert(1, 9, &[0.0, -2.0]));
        for invalid in [&[1.0][..], &[0.0, 0.0], &[f32::NAN, 1.0], &[f32::INFINITY, 1.0], &[]] {
            assert!(!contents.insert(1, 8, invalid), "{invalid:?}");
        }
        assert!(!contents.insert(0, 7, &[3.0, 4.0]), "texts are not read here");
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
    fn a_video_has_a_vector_per_frame_and_a_long_one_is_sampled() {
        let mut contents = Contents::new([2, 2, 2]);
        assert!(contents.insert(VIDEO, 1, &[3.0, 4.0, 0.0, 2.0]) && contents.insert(VIDEO, 2, &[1.0, 0.0]));
        let long: Vec<f32> = (0..200).flat_map(|frame| [1.0, frame as f32]).collect();
        assert!(contents.insert(VIDEO, 3, &long));
        for (modality, invalid) in [(VIDEO, &[1.0, 0.0, 1.0][..]), (VIDEO, &[1.0, 0.0, 0.0, 0.0]), (IMAGE, &[1.0; 4])] {
            assert!(!contents.insert(modality, 9, invalid), "{modality} {invalid:?}");
        }
        let rows = rows_tensor(&[[0, 0, 2], [0, 0, 0], [0, 0, 1]]).unwrap();
        let videos = contents.gather(&rows).unwrap().remove(VIDEO);
        assert_eq!((videos.vectors.size(), videos.at.size()), (vec![3, 2, 2], vec![3]));
        let each = videos.vectors.index_select(0, &videos.at);
        let each = Vec::<f32>::try_from(&each.view([-1])).unwrap();
        assert_eq!(each, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.6, 0.8, 0.0, 1.0]);
        let present = Vec::<bool>::try_from(&videos.present.index_select(0, &videos.at).view([-1])).unwrap();
        assert_eq!(present, [true, false, false, false, true, true]);
        let sampled = contents.gather(&rows_tensor(&[[0, 0, 3]]).unwrap()).unwrap().remove(VIDEO);
        assert_eq!(sampled.vectors.size(), [1, FRAMES_MAX as i64, 2]);
        let last = sampled.vectors.get(0).get(FRAMES_MAX as i64 - 1);
        assert!((last.double_value(&[1]) / last.double_value(&[0]) - 196.0).abs() < 0.1, "{last:?}");
        // Copied whole, in the requested order.
        let other = Contents::default().with(VIDEO, &contents, [3, 7, 1]);
        assert_eq!((other.len(VIDEO), other.key(VIDEO, 2), other.dims()), (2, 1, [0, 0, 2]));
        assert_eq!(other.0[VIDEO].row_values(2), contents.0[VIDEO].row_values(1));
    }

    #[test]
    fn rows_stay_valid_when_contents_are_added() {
        let mut contents = Contents::new([1, 0, 0]);
        contents.insert(0, 5, &[1.0]);
        let before = contents.fingerprint();
        contents.insert(0, 5, &[-1.0]);
        assert_eq!((contents.len(0), contents.fingerprint()), (1, before.clone()), "a key has one content");
        let mut more = Contents::new([1, 0, 0]);
        more.insert(0, 3, &[2.0]);
        more.insert(0, 5, &[2.0]);
        assert!(!contents.has_all(&more) && more.has_all(&contents));
        let subset = more.subset(&[vec![5, 5, 9], vec![3], vec![]]);
        assert_eq!((subset.len(0), subset.len(1)), (1, 0));
        assert_eq!(subset.0[0].row_values(1), more.0[0].row_values(2));
        contents.extend(&more);
        assert!(contents.has_all(&more) && contents.len(0) == 2);
        assert_eq!((contents.key(0, 1), contents.key(0, 2), contents.key(0, 0), contents.key(0, 3)), (5, 3, 0, 0));
        assert_ne!(contents.fingerprint(), before);
    }
}
