//! The next-item loss: cross-entropy of a user's next item against the whole catalogue, or against a weighted sample of it
//! where the catalogue is larger than `train.full_softmax_items_max`.
//!
//! The sample comes from a distribution q that mixes popularity with a uniform part. Each draw contributes
//! exp(score) / (draws · q), so the sum over the sample is an unbiased estimate of the sum over the catalogue (importance
//! sampling; Bengio and Senécal 2008; the correction is the logQ of Yi et al. 2019). Without the correction, popular items
//! would be penalised for being drawn often.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

use super::intent_data::IntentData;
use super::user_batches::NextItems;
use crate::failure::Result;
use crate::model::contents::{ContentBatch, ContentRows, rows_tensor};
use crate::model::intent::IntentNetwork;

/// Items drawn in a step where the catalogue is too large.
const DRAWS: usize = 1024;
/// The share of draws by popularity; the rest is uniform, so that every item can be drawn.
const POPULAR_SHARE: f64 = 0.5;
/// The share of items whose id a step hides, so that a new item, which has no trained id, can be ranked by its category and
/// contents (DropoutNet, Volkovs et al. 2017).
const HIDDEN_SHARE: f64 = 0.1;

/// The catalogue that next items are ranked against.
#[derive(Debug)]
pub(crate) struct NextItemLoss {
    /// int64 [items]: buckets of ids.
    ids: Tensor,
    /// int64 [items]: buckets of categories.
    categories: Tensor,
    /// Contents of the whole catalogue, by modality.
    contents: Vec<ContentBatch>,
    /// Cumulative probabilities of the items to be drawn; `None` where all are ranked.
    cumulative: Option<Vec<f64>>,
}

/// One draw of an item.
struct Draw {
    item: usize,
    /// Log of the expected count of the item in the sample.
    log_expected: f32,
}

impl NextItemLoss {
    /// Creates the loss; above `full_items_max` items, it ranks a sample.
    pub(crate) fn new(data: IntentData<'_>, item_buckets: u64, full_items_max: u32, device: Device) -> Result<Self> {
        let IntentData { items, contents, statistics, .. } = data;
        let (ids, categories): (Vec<i64>, Vec<i64>) = items.iter().map(|i| i.buckets(item_buckets)).unzip();
        let counts: Vec<f64> = statistics.next_item_users.iter().map(|&n| n as f64).collect();
        let rows: Vec<ContentRows> = items.iter().map(|item| contents.rows(&item.contents)).collect();
        let gathered = contents.gather(&rows_tensor(&rows)?)?;
        Ok(Self {
            ids: Tensor::f_from_slice(&ids)?.f_to_device(device)?,
            categories: Tensor::f_from_slice(&categories)?.f_to_device(device)?,
            contents: gathered.iter().map(|vectors| vectors.to(device)).collect::<Result<_>>()?,
            cumulative: (items.len() > full_items_max as usize).then(|| cumulative_probabilities(&counts)),
        })
    }

    /// The mean loss of the users with a next item; `None` where the catalogue has fewer than two items. `states` are
    /// float32 [users, width].
    pub(crate) fn loss(
        &self,
        network: &IntentNetwork,
        states: &Tensor,
        next: &NextItems,
        rng: &mut ChaCha8Rng,
    ) -> Result<Option<Tensor>> {
        if self.ids.size()[0] < 2 {
            return Ok(None);
        }
        let device = states.device();
        let taste = network.user_vectors(&states.f_index_select(0, &next.users.f_to_device(device)?)?);
        let truth = next.items.f_to_device(device)?;
        let Some(cumulative) = &self.cumulative else {
            let ids = hide_some(&self.ids, rng)?;
            let scores = score_all(&taste, network.items(&ids, &self.categories, &self.contents)?)?;
            return Ok(Some(scores.cross_entropy_for_logits(&truth)));
        };
        let draws = draw(cumulative, DRAWS, rng);
        let drawn_items: Vec<i64> = draws.iter().map(|d| d.item as i64).collect();
        let drawn = Tensor::f_from_slice(&drawn_items)?.f_to_device(device)?;
        let log_expected: Vec<f32> = draws.iter().map(|d| d.log_expected).collect();
        let expected = Tensor::f_from_slice(&log_expected)?.f_to_device(device)?;
        let others = score_all(&taste, self.items_at(network, &drawn, rng)?)?;
        let (vectors, bias) = self.items_at(network, &truth, rng)?;
        let own = (&taste * vectors).f_sum_dim_intlist(1i64, false, Kind::Float)? + bias;
        let same = drawn.unsqueeze(0).eq_tensor(&truth.unsqueeze(1));
        Ok(Some(sampled_loss(&own, &others, &expected, &same).mean(Kind::Float)))
    }

    /// Vectors and biases of items by position, with some ids hidden.
    fn items_at(&self, network: &IntentNetwork, at: &Tensor, rng: &mut ChaCha8Rng) -> Result<(Tensor, Tensor)> {
        let contents = self.contents.iter().map(|vectors| vectors.select(at)).collect::<Result<Vec<_>>>()?;
        let ids = hide_some(&self.ids.f_index_select(0, at)?, rng)?;
        network.items(&ids, &self.categories.f_index_select(0, at)?, &contents)
    }
}

/// Scores [users, items] of all users for all items.
fn score_all(taste: &Tensor, (vectors, bias): (Tensor, Tensor)) -> Result<Tensor> {
    Ok(taste.f_matmul(&vectors.transpose(0, 1))? + bias)
}

/// Replaces a random share of id buckets by that of no id.
fn hide_some(ids: &Tensor, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    let shown: Vec<i64> = (0..ids.numel()).map(|_| i64::from(!rng.random_bool(HIDDEN_SHARE))).collect();
    Ok(ids.f_mul(&Tensor::f_from_slice(&shown)?.f_to_device(ids.device())?)?)
}

/// Cross-entropy of the `own` scores [users] against the catalogue, whose sum is estimated from `others` [users, draws]
/// with `expected` log counts [draws]. `same`, bool [users, draws], marks draws of the user's own item, which counts once.
fn sampled_loss(own: &Tensor, others: &Tensor, expected: &Tensor, same: &Tensor) -> Tensor {
    let corrected = (others - expected).masked_fill(same, f64::NEG_INFINITY);
    let all = Tensor::cat(&[own.unsqueeze(1), corrected], 1).logsumexp(1i64, false);
    all - own
}

/// Cumulative probabilities of a mixture of popularity (the square root of the count, so that the most popular items do not
/// fill the sample) and a uniform distribution.
fn cumulative_probabilities(counts: &[f64]) -> Vec<f64> {
    let total: f64 = counts.iter().map(|c| c.sqrt()).sum();
    let uniform = 1.0 / counts.len() as f64;
    let popular = |count: f64| if total > 0.0 { count.sqrt() / total } else { uniform };
    let mut sum = 0.0;
    let mut cumulative = Vec::new();
    for &count in counts {
        sum += POPULAR_SHARE * popular(count) + (1.0 - POPULAR_SHARE) * uniform;
        cumulative.push(sum);
    }
    cumulative
}

/// Draws `draws` items with replacement.
fn draw(cumulative: &[f64], draws: usize, rng: &mut ChaCha8Rng) -> Vec<Draw> {
    let end = cumulative.last().copied().unwrap_or(1.0);
    let one = |_| {
        let point = rng.random_range(0.0..end);
        let item = cumulative.partition_point(|&c| c <= point).min(cumulative.len() - 1);
        let q = cumulative[item] - if item > 0 { cumulative[item - 1] } else { 0.0 };
        Draw { item, log_expected: (q / end * draws as f64).ln() as f32 }
    };
    (0..draws).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    /// Scores and counts of 60 items, the popular ones scored higher, and the full softmax loss of item 7.
    fn scored() -> (Vec<f32>, Vec<f64>, f64) {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let counts: Vec<f64> = (0..60).map(|i| f64::from(i * i)).collect();
        let scores: Vec<f32> = (0..60).map(|i| i as f32 / 20.0 + rng.random_range(-1.0..1.0)).collect();
        let sum: f64 = scores.iter().map(|&s| f64::from(s).exp()).sum();
        let loss = sum.ln() - f64::from(scores[7]);
        (scores, counts, loss)
    }

    fn sampled(scores: &[f32], counts: &[f64], draws: usize, seed: u64, corrected: bool) -> f64 {
        let drawn = draw(&cumulative_probabilities(counts), draws, &mut ChaCha8Rng::seed_from_u64(seed));
        let others: Vec<f32> = drawn.iter().map(|d| scores[d.item]).collect();
        let expected: Vec<f32> = drawn.iter().map(|d| if corrected { d.log_expected } else { 0.0 }).collect();
        let same: Vec<bool> = drawn.iter().map(|d| d.item == 7).collect();
        let own = Tensor::from_slice(&scores[7..8]);
        let row = |t: Tensor| t.unsqueeze(0);
        let others = row(Tensor::from_slice(&others));
        let same = row(Tensor::from_slice(&same));
        sampled_loss(&own, &others, &Tensor::from_slice(&expected), &same).mean(Kind::Double).double_value(&[])
    }

    #[test]
    fn the_corrected_sample_estimates_the_full_softmax() {
        let (scores, counts, whole) = scored();
        let mean = |draws: usize, corrected: bool| -> f64 {
            (0..200).map(|seed| sampled(&scores, &counts, draws, seed, corrected)).sum::<f64>() / 200.0
        };
        assert!((mean(1024, true) - whole).abs() < 0.01, "{} {whole}", mean(1024, true));
        // Uncorrected, the sum grows with the draws, whatever the size of the catalogue.
        assert!((mean(1024, false) - whole).abs() > 1.0);
    }

    #[test]
    fn every_item_can_be_drawn_and_popular_ones_more_often() {
        let cumulative = cumulative_probabilities(&[100.0, 0.0, 0.0, 0.0]);
        assert!((cumulative[3] - 1.0).abs() < 1e-12);
        let drawn = draw(&cumulative, 8000, &mut ChaCha8Rng::seed_from_u64(3));
        let count = |item: usize| drawn.iter().filter(|d| d.item == item).count();
        assert!((4_800..5_200).contains(&count(0)), "{}", count(0));
        assert!((1..4).all(|item| (850..1_150).contains(&count(item))));
        let expected = drawn.iter().find(|d| d.item == 0).unwrap().log_expected;
        assert!((f64::from(expected).exp() - 5000.0).abs() < 1.0);
    }
}
