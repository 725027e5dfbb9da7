//! Provides texts to `training::labelled`: batches of padded tokens, and their vectors by the classifier.

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;
use tch::{Device, Tensor};

use crate::failure::Result;
use crate::model::labels::LabelHead;
use crate::model::text::batching::{PaddedTokens, pad, sort_into_batches};
use crate::model::text::classifier::TextClassifier;
use crate::training::labelled::{InputBuilder, RowEncoder};

/// The token ids of each row.
pub(crate) type TokenIds = Vec<Vec<i64>>;

/// This number of rows is shuffled, then sorted by length: batches stay mixed, and padding small.
const POOL_ROWS: usize = 1024;

/// A classifier and the token ids of all rows.
pub(crate) struct TextRows<'a> {
    pub(crate) classifier: &'a TextClassifier,
    pub(crate) ids: Arc<TokenIds>,
    /// Limits the padded tokens of a batch.
    pub(crate) tokens_max: usize,
}

/// Pads the token ids of a batch.
pub(crate) struct PaddedTokensBuilder {
    ids: Arc<TokenIds>,
    pad_id: i64,
}

impl InputBuilder for PaddedTokensBuilder {
    type Inputs = PaddedTokens;

    fn build(&self, rows: &[usize], _: &mut ChaCha8Rng) -> Result<PaddedTokens> {
        pad(&ids_of_rows(&self.ids, rows), self.pad_id, Device::Cpu)
    }
}

impl RowEncoder for TextRows<'_> {
    type Builder = PaddedTokensBuilder;

    fn input_builder(&self) -> PaddedTokensBuilder {
        PaddedTokensBuilder { ids: Arc::clone(&self.ids), pad_id: self.classifier.network.shape.pad_id }
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

    fn group_rows(&self, rows: &[usize], rng: &mut ChaCha8Rng) -> Vec<Vec<usize>> {
        group_by_length(rows, &self.ids, self.tokens_max, rng)
    }

    fn training_vectors(&self, tokens: &PaddedTokens) -> Result<Tensor> {
        self.classifier.embed_padded(tokens, true)
    }

    fn map_vectors(&self, rows: &[usize], compute: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let compute_batch = |ids: &[&[i64]]| compute(&self.classifier.embed(ids, false)?);
        self.classifier.map_batches(&ids_of_rows(&self.ids, rows), self.tokens_max, compute_batch)
    }
}

/// Returns the token ids of some rows.
pub(crate) fn ids_of_rows<'a>(ids: &'a [Vec<i64>], rows: &[usize]) -> Vec<&'a [i64]> {
    rows.iter().map(|&row| ids[row].as_slice()).collect()
}

/// Groups rows into batches of at most `tokens_max` padded tokens, composed and ordered by `rng` alone.
pub(crate) fn group_by_length(
    rows: &[usize],
    ids: &[Vec<i64>],
    tokens_max: usize,
    rng: &mut ChaCha8Rng,
) -> Vec<Vec<usize>> {
    let mut shuffled = rows.to_vec();
    shuffled.shuffle(rng);
    let mut groups = Vec::new();
    for pool in shuffled.chunks(POOL_ROWS) {
        let lengths: Vec<usize> = pool.iter().map(|&row| ids[row].len()).collect();
        for batch in sort_into_batches(&lengths, tokens_max) {
            groups.push(batch.into_iter().map(|index| pool[index]).collect::<Vec<usize>>());
        }
    }
    groups.shuffle(rng);
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn every_row_is_in_one_group_that_the_seed_alone_decides() {
        let ids: TokenIds = (0..3000).map(|i| vec![1; 1 + i % 17]).collect();
        let rows: Vec<usize> = (0..3000).step_by(2).collect();
        let groups = |seed| group_by_length(&rows, &ids, 64, &mut ChaCha8Rng::seed_from_u64(seed));
        let mut all = groups(1).concat();
        all.sort_unstable();
        assert_eq!(all, rows);
        assert!(groups(1) == groups(1) && groups(1) != groups(2));
        let padded = |group: &[usize]| group.len() * group.iter().map(|&row| ids[row].len()).max().unwrap();
        assert!(groups(1).iter().all(|group| padded(group) <= 64));
    }
}
