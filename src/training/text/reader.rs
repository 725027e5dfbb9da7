//! Texts as training reads them: batches of padded tokens, vectors by the encoder and what the strategy added to it.

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;
use tch::{Device, Tensor};

use crate::failure::Result;
use crate::model::labels::LabelHead;
use crate::model::text::batching::{PaddedTokens, pad, sort_into_batches};
use crate::model::text::classifier::TextClassifier;
use crate::training::labelled::{Making, Reader};

/// Rows that are shuffled together before they are sorted by length: batches stay mixed, and padding small.
const POOL_ROWS: usize = 1024;

/// A classifier and the token ids of all rows.
pub struct TextReader<'a> {
    pub classifier: &'a TextClassifier,
    pub ids: Arc<Vec<Vec<i64>>>,
    /// Padded tokens of a batch.
    pub tokens_max: usize,
}

impl TextReader<'_> {
    fn ids_of(&self, rows: &[usize]) -> Vec<&[i64]> {
        rows.iter().map(|&row| self.ids[row].as_slice()).collect()
    }
}

/// Pads token ids.
pub struct Padding {
    ids: Arc<Vec<Vec<i64>>>,
    pad_id: i64,
}

impl Making for Padding {
    type Inputs = PaddedTokens;

    fn make(&self, rows: &[usize], _: &mut ChaCha8Rng) -> Result<PaddedTokens> {
        let rows: Vec<&[i64]> = rows.iter().map(|&row| self.ids[row].as_slice()).collect();
        pad(&rows, self.pad_id, Device::Cpu)
    }
}

impl Reader for TextReader<'_> {
    type Making = Padding;

    fn making(&self) -> Padding {
        Padding { ids: Arc::clone(&self.ids), pad_id: self.classifier.network.shape.pad_id }
    }

    fn name(&self) -> &'static str {
        "text"
    }

    fn head(&self) -> &LabelHead {
        &self.classifier.head
    }

    fn device(&self) -> Device {
        self.classifier.device()
    }

    fn grouped(&self, rows: &[usize], rng: &mut ChaCha8Rng) -> Vec<Vec<usize>> {
        grouped(rows, &self.ids, self.tokens_max, rng)
    }

    fn learnt(&self, tokens: &PaddedTokens) -> Result<Tensor> {
        self.classifier.embed_padded(tokens, true)
    }

    fn in_batches(&self, rows: &[usize], part: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let of = |ids: &[&[i64]]| part(&self.classifier.embed(ids, false)?);
        self.classifier.map_batches(&self.ids_of(rows), self.tokens_max, of)
    }
}

/// Rows in batches of at most so many padded tokens; which ones are together, and in which order, `rng` decides.
pub fn grouped(rows: &[usize], ids: &[Vec<i64>], tokens_max: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<usize>> {
    let mut rows = rows.to_vec();
    rows.shuffle(rng);
    let mut groups = Vec::new();
    for pool in rows.chunks(POOL_ROWS) {
        let lengths: Vec<usize> = pool.iter().map(|&row| ids[row].len()).collect();
        let batches = sort_into_batches(&lengths, tokens_max).into_iter();
        groups.extend(batches.map(|batch| batch.into_iter().map(|place| pool[place]).collect::<Vec<usize>>()));
    }
    groups.shuffle(rng);
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn every_row_is_in_one_group_and_the_seed_alone_decides_which() {
        let ids: Vec<Vec<i64>> = (0..3000).map(|i| vec![1; 1 + i % 17]).collect();
        let rows: Vec<usize> = (0..3000).step_by(2).collect();
        let groups = |seed| grouped(&rows, &ids, 64, &mut ChaCha8Rng::seed_from_u64(seed));
        let mut all = groups(1).concat();
        all.sort_unstable();
        assert_eq!(all, rows);
        assert!(groups(1) == groups(1) && groups(1) != groups(2));
        let padded = |group: &[usize]| group.len() * group.iter().map(|&row| ids[row].len()).max().unwrap();
        assert!(groups(1).iter().all(|group| padded(group) <= 64));
    }
}
