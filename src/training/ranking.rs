//! The next item: cross-entropy of the item that was met against the whole catalogue, or against a weighted sample of
//! it where the catalogue is too large for `train.full_softmax_items_max`.
//!
//! The sample comes from a distribution q that mixes popularity with chance. Each draw counts exp(score) / (draws · q):
//! that sum is an unbiased estimate of the sum over the catalogue (importance sampling; Bengio and Senécal 2008; the
//! correction is the logQ of Yi et al. 2019). Without it, popular items would be held down for being drawn often.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Tensor};

use crate::failure::Result;
use crate::model::bundle::IndexedItem;
use crate::model::contents::{ContentBatch, ContentRows, Contents, rows_tensor};
use crate::model::intent::IntentNetwork;

/// Items drawn in a step where the catalogue is too large.
const DRAWS: usize = 1024;
/// The share of draws that go by popularity; the rest by chance, so that every item can be drawn.
const POPULAR_SHARE: f64 = 0.5;
/// The share of items whose id a step hides, so that an item of after the training, which has none, can be ranked by its
/// category and by what it shows (DropoutNet, Volkovs et al. 2017).
const HIDDEN_SHARE: f64 = 0.1;

/// The catalogue as the ranking loss sees it.
#[derive(Debug)]
pub struct Catalogue {
    /// int64 [items]: buckets of ids and of categories.
    buckets: (Tensor, Tensor),
    /// Of the whole catalogue, by items.
    contents: Vec<ContentBatch>,
    /// Of each item up to and with itself, the probability to be drawn; `None` where all are ranked.
    cumulative: Option<Vec<f64>>,
}

/// One draw with the log of how often it was to be expected.
type Draw = (usize, f32);

impl Catalogue {
    /// `met`: how many users met each item after a training date, for popularity.
    pub fn new(
        items: &[IndexedItem],
        contents: &Contents,
        (item_buckets, full_items_max): (u64, u32),
        met: &[u64],
        device: Device,
    ) -> Result<Self> {
        let (ids, categories): (Vec<i64>, Vec<i64>) = items.iter().map(|i| i.buckets(item_buckets)).unzip();
        let buckets =
            (Tensor::f_from_slice(&ids)?.f_to_device(device)?, Tensor::f_from_slice(&categories)?.f_to_device(device)?);
        let counts: Vec<f64> = met.iter().map(|&n| n as f64).collect();
        let cumulative = (items.len() > full_items_max as usize).then(|| cumulative(&counts));
        let rows: Vec<ContentRows> = items.iter().map(|item| contents.rows(&item.contents)).collect();
        let contents = contents.gather(&rows_tensor(&rows)?)?;
        let contents = contents.iter().map(|of| of.to(device)).collect::<Result<_>>()?;
        Ok(Self { buckets, contents, cumulative })
    }

    /// The loss of those users who met an item, `None` where there is but one item. `states`: float32 [users, width]; `at`
    /// and `met`, int64 [users who met one]: their places among the states, and the places of their items in the index.
    pub fn loss(
        &self,
        network: &IntentNetwork,
        states: &Tensor,
        (at, met): (&Tensor, &Tensor),
        rng: &mut ChaCha8Rng,
    ) -> Result<Option<Tensor>> {
        if self.buckets.0.size()[0] < 2 {
            return Ok(None);
        }
        let device = states.device();
        let users = network.user_vectors(&states.f_index_select(0, &at.f_to_device(device)?)?);
        let met = met.f_to_device(device)?;
        let scores = |(vectors, bias): (Tensor, Tensor)| -> Result<Tensor> {
            Ok(users.f_matmul(&vectors.transpose(0, 1))? + bias)
        };
        let Some(cumulative) = &self.cumulative else {
            let ids = hidden(&self.buckets.0, rng)?;
            let all = scores(network.items(&ids, &self.buckets.1, &self.contents)?)?;
            return Ok(Some(all.cross_entropy_for_logits(&met)));
        };
        let draws = draw(cumulative, DRAWS, rng);
        let drawn: Vec<i64> = draws.iter().map(|d| d.0 as i64).collect();
        let drawn = Tensor::f_from_slice(&drawn)?.f_to_device(device)?;
        let expected: Vec<f32> = draws.iter().map(|d| d.1).collect();
        let expected = Tensor::f_from_slice(&expected)?.f_to_device(device)?;
        let mut items = |at: &Tensor| -> Result<(Tensor, Tensor)> {
            let of = |ids: &Tensor| ids.f_index_select(0, at);
            let shown = self.contents.iter().map(|contents| contents.select(at)).collect::<Result<Vec<_>>>()?;
            network.items(&hidden(&of(&self.buckets.0)?, rng)?, &of(&self.buckets.1)?, &shown)
        };
        let others = scores(items(&drawn)?)?;
        let (vectors, bias) = items(&met)?;
        let own = (&users * vectors).f_sum_dim_intlist(1i64, false, tch::Kind::Float)? + bias;
        let same = drawn.unsqueeze(0).eq_tensor(&met.unsqueeze(1));
        Ok(Some(sampled_loss(&own, &others, &expected, &same).mean(tch::Kind::Float)))
    }
}

/// Buckets of ids, of which some are hidden.
fn hidden(ids: &Tensor, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    let shown: Vec<i64> = (0..ids.numel()).map(|_| i64::from(!rng.random_bool(HIDDEN_SHARE))).collect();
    Ok(ids.f_mul(&Tensor::f_from_slice(&shown)?.f_to_device(ids.device())?)?)
}

/// Cross-entropy of the `own` scores [users] against the catalogue, whose sum is estimated from `others` [users, draws]
/// with `expected` log counts [draws]. `same`, bool [users, draws]: draws of the user's own item, which counts once.
fn sampled_loss(own: &Tensor, others: &Tensor, expected: &Tensor, same: &Tensor) -> Tensor {
    let others = (others - expected).masked_fill(same, f64::NEG_INFINITY);
    let all = Tensor::cat(&[own.unsqueeze(1), others], 1).logsumexp(1i64, false);
    all - own
}

/// A mixture of popularity (the square root of the count, so that the head does not fill the sample) and chance.
fn cumulative(counts: &[f64]) -> Vec<f64> {
    let total: f64 = counts.iter().map(|c| c.sqrt()).sum();
    let chance = 1.0 / counts.len() as f64;
    let popular = |count: f64| if total > 0.0 { count.sqrt() / total } else { chance };
    let mut sum = 0.0;
    counts
        .iter()
        .map(|&c| {
            sum += POPULAR_SHARE * popular(c) + (1.0 - POPULAR_SHARE) * chance;
            sum
        })
        .collect()
}

/// `draws` items with replacement, each with the log of its expected count.
fn draw(cumulative: &[f64], draws: usize, rng: &mut ChaCha8Rng) -> Vec<Draw> {
    let end = cumulative.last().copied().unwrap_or(1.0);
    (0..draws)
        .map(|_| {
            let point = rng.random_range(0.0..end);
            let item = cumulative.partition_point(|&c| c <= point).min(cumulative.len() - 1);
            let q = cumulative[item] - if item > 0 { cumulative[item - 1] } else { 0.0 };
            (item, (q / end * draws as f64).ln() as f32)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use tch::Kind;

    /// 60 items, the popular ones scored higher, and what the whole softmax says of item 7.
    fn scored() -> (Vec<f32>, Vec<f64>, f64) {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let counts: Vec<f64> = (0..60).map(|i| f64::from(i * i)).collect();
        let scores: Vec<f32> = (0..60).map(|i| i as f32 / 20.0 + rng.random_range(-1.0..1.0)).collect();
        let sum: f64 = scores.iter().map(|&s| f64::from(s).exp()).sum();
        let loss = sum.ln() - f64::from(scores[7]);
        (scores, counts, loss)
    }

    fn sampled(scores: &[f32], counts: &[f64], draws: usize, seed: u64, corrected: bool) -> f64 {
        let drawn = draw(&cumulative(counts), draws, &mut ChaCha8Rng::seed_from_u64(seed));
        let others: Vec<f32> = drawn.iter().map(|d| scores[d.0]).collect();
        let expected: Vec<f32> = drawn.iter().map(|d| if corrected { d.1 } else { 0.0 }).collect();
        let same: Vec<bool> = drawn.iter().map(|d| d.0 == 7).collect();
        let own = Tensor::from_slice(&scores[7..8]);
        let row = |t: Tensor| t.unsqueeze(0);
        let (others, same) = (row(Tensor::from_slice(&others)), row(Tensor::from_slice(&same)));
        sampled_loss(&own, &others, &Tensor::from_slice(&expected), &same).mean(Kind::Double).double_value(&[])
    }

    #[test]
    fn the_corrected_sample_estimates_the_whole_softmax() {
        let (scores, counts, whole) = scored();
        let mean = |draws: usize, corrected: bool| -> f64 {
            (0..200).map(|seed| sampled(&scores, &counts, draws, seed, corrected)).sum::<f64>() / 200.0
        };
        assert!((mean(1024, true) - whole).abs() < 0.01, "{} {whole}", mean(1024, true));
        // Uncorrected, the sum grows with the draws, whatever the catalogue holds.
        assert!((mean(1024, false) - whole).abs() > 1.0);
    }

    #[test]
    fn every_item_can_be_drawn_and_popular_ones_more_often() {
        let cumulative = cumulative(&[100.0, 0.0, 0.0, 0.0]);
        assert!((cumulative[3] - 1.0).abs() < 1e-12);
        let drawn = draw(&cumulative, 8000, &mut ChaCha8Rng::seed_from_u64(3));
        let count = |item: usize| drawn.iter().filter(|d| d.0 == item).count();
        assert!((4_800..5_200).contains(&count(0)), "{}", count(0));
        assert!((1..4).all(|item| (850..1_150).contains(&count(item))));
        let expected = drawn.iter().find(|d| d.0 == 0).unwrap().1;
        assert!((f64::from(expected).exp() - 5000.0).abs() < 1.0);
    }
}
