//! Cuts texts into length-sorted batches of bounded size and pads their token ids.

use tch::{Device, Tensor};

use crate::failure::Result;

/// A batch of token ids, padded at the end to the longest text.
#[derive(Debug)]
pub(crate) struct PaddedTokens {
    /// int64 [texts, tokens].
    pub(crate) ids: Tensor,
    /// bool [texts, tokens]: false for padding.
    pub(crate) is_token: Tensor,
}

impl PaddedTokens {
    pub(crate) fn to_device(&self, device: Device) -> Result<Self> {
        Ok(Self { ids: self.ids.f_to_device(device)?, is_token: self.is_token.f_to_device(device)? })
    }
}

/// Pads the token ids of some texts.
pub(crate) fn pad(rows: &[&[i64]], pad_id: i64, device: Device) -> Result<PaddedTokens> {
    let tokens = rows.iter().map(|row| row.len()).max().unwrap_or(0).max(1);
    let size = [rows.len() as i64, tokens as i64];
    let mut ids = Vec::new();
    let mut is_token = Vec::new();
    for row in rows {
        ids.extend_from_slice(row);
        ids.resize(ids.len() + tokens - row.len(), pad_id);
        is_token.extend((0..tokens).map(|position| position < row.len()));
    }
    Ok(PaddedTokens {
        ids: Tensor::f_from_slice(&ids)?.f_view(size)?.f_to_device(device)?,
        is_token: Tensor::f_from_slice(&is_token)?.f_view(size)?.f_to_device(device)?,
    })
}

/// Returns the indices of texts with at least one token, shortest first, in batches of at most `tokens_max` padded
/// tokens. A longer text is a batch by itself.
pub(crate) fn sort_into_batches(lengths: &[usize], tokens_max: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).filter(|text| lengths[*text] > 0).collect();
    order.sort_by_key(|text| lengths[*text]);
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for text in order {
        match batches.last_mut() {
            Some(batch) if (batch.len() + 1) * lengths[text] <= tokens_max => batch.push(text),
            _ => batches.push(vec![text]),
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn batches_are_sorted_by_length_and_skip_empty_texts() {
        assert_eq!(sort_into_batches(&[5, 1, 0, 5, 2], 10), [vec![1, 4], vec![0, 3]]);
        assert_eq!(sort_into_batches(&[30], 10), [vec![0]]);
        assert!(sort_into_batches(&[0, 0], 10).is_empty());
    }

    proptest! {
        #[test]
        fn every_text_is_in_one_batch_that_is_small_enough(
            lengths in proptest::collection::vec(0usize..50, 0..40), tokens_max in 1usize..200,
        ) {
            let batches = sort_into_batches(&lengths, tokens_max);
            let mut texts: Vec<usize> = batches.concat();
            texts.sort_unstable();
            let expected: Vec<usize> = (0..lengths.len()).filter(|i| lengths[*i] > 0).collect();
            prop_assert_eq!(texts, expected);
            for batch in &batches {
                let longest = batch.iter().map(|i| lengths[*i]).max().unwrap_or(0);
                prop_assert!(batch.len() == 1 || batch.len() * longest <= tokens_max);
            }
        }
    }
}
