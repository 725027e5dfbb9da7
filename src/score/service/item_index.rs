//! Ranks items for users: taste · vector + bias, computed in blocks of items with a running top k, so that memory does not grow
//! with users × items. Items of a user's last events have a weight besides ([`with_weight`]). Ties go to the smaller item id.

use std::collections::HashSet;
use std::sync::Arc;
use tch::Tensor;

use crate::failure::Result;
use crate::model::bundle::{IndexedItem, ItemVectors};
use crate::model::latest_items::with_weight;

/// Users and items of one block of scores: 4 MiB, which stay in a core's cache. Every block uses the same memory.
const BLOCK_USERS: usize = 256;
const BLOCK_ITEMS: usize = 4096;
/// Scores that are compared with the k-th best at once.
const COMPARED: usize = 64;

/// Facts of a user that a ranking takes into account besides the taste.
#[derive(Debug, Default)]
pub(crate) struct Ranked<'a> {
    /// Items of the last events with their weights, by position in the index.
    latest: Vec<(usize, f64)>,
    /// Items to leave out.
    exclude: HashSet<&'a str>,
}

impl Ranked<'_> {
    fn leaves_out(&self, item_id: &str) -> bool {
        self.exclude.contains(item_id)
    }

    fn is_latest(&self, item: usize) -> bool {
        self.latest.iter().any(|(latest, _)| *latest == item)
    }
}

/// Items that a model can recommend, with their vectors.
#[derive(Debug, Clone)]
pub(crate) struct ItemIndex {
    pub(crate) ids: Arc<Vec<String>>,
    /// Row-major [items, width].
    vectors: Arc<Vec<f32>>,
    bias: Arc<Vec<f32>>,
    pub(crate) width: usize,
}

impl ItemIndex {
    pub(super) fn new(items: &[IndexedItem], weights: &ItemVectors, width: i64) -> Result<Self> {
        let flat =
            |t: &Tensor| -> Result<Arc<Vec<f32>>> { Ok(Arc::new(Vec::try_from(&t.f_contiguous()?.f_view([-1])?)?)) };
        let (vectors, bias) = (flat(&weights.vectors)?, flat(&weights.bias)?);
        let ids = Arc::new(items.iter().map(|i| i.item_id.clone()).collect());
        Ok(Self { ids, vectors, bias, width: width as usize })
    }

    /// Returns the number of an item.
    pub(crate) fn find(&self, item_id: &str) -> Option<usize> {
        self.ids.binary_search_by(|id| id.as_str().cmp(item_id)).ok()
    }

    /// Returns a user as [`Self::best`] ranks for: `latest` are items with weights, of which those that are not indexed are left out.
    pub(crate) fn user<'a>(
        &self,
        latest: impl IntoIterator<Item = (&'a str, f64)>,
        exclude: HashSet<&'a str>,
    ) -> Ranked<'a> {
        let latest = latest.into_iter().filter_map(|(item_id, weight)| Some((self.find(item_id)?, weight)));
        Ranked { latest: latest.collect(), exclude }
    }

    /// Returns an item's score for a taste, as [`Self::best`] has it up to rounding; `weight` is that of the user's last events.
    pub(crate) fn score(&self, taste: &[f32], item: usize, weight: f64) -> f32 {
        with_weight(dot(taste, self.vector(item)) + self.bias[item], weight)
    }

    /// Returns the best `k` items for one user, best first, as [`Self::best`], without a copy of all vectors.
    pub(crate) fn best_of_one(&self, taste: &[f32], user: &Ranked<'_>, k: usize) -> Vec<(usize, f32)> {
        let mut best = Vec::new();
        let mut scores = [0.0; COMPARED];
        for first in (0..self.ids.len()).step_by(COMPARED) {
            let count = COMPARED.min(self.ids.len() - first);
            scores[..count].iter_mut().zip(first..).for_each(|(score, item)| *score = self.score(taste, item, 0.0));
            take_best(&mut best, &scores[..count], first, k, |item| {
                user.is_latest(item) || user.leaves_out(&self.ids[item])
            });
        }
        self.add_latest(&mut best, taste, user, k);
        best
    }

    /// Moves the items of the last events into `best` where they are among the best `k`.
    fn add_latest(&self, best: &mut Vec<(usize, f32)>, taste: &[f32], user: &Ranked<'_>, k: usize) {
        for &(item, weight) in user.latest.iter().filter(|(item, _)| !user.leaves_out(&self.ids[*item])) {
            let score = self.score(taste, item, weight);
            best.insert(
                best.partition_point(|&(other, better)| better > score || (better == score && other < item)),
                (item, score),
            );
            best.truncate(k);
        }
    }

    /// Returns the `k` items with the largest cosine to an item's vector and that cosine, without the item itself and those of
    /// `exclude`. Items without a direction are left out.
    pub(crate) fn nearest(&self, item: usize, k: usize, exclude: impl Fn(&str) -> bool) -> Vec<(usize, f32)> {
        let mut best = Vec::new();
        for other in (0..self.ids.len()).filter(|other| *other != item) {
            let cosine = self.cosine(item, other);
            if cosine.is_finite() {
                take_best(&mut best, &[cosine], other, k, |other| exclude(&self.ids[other]));
            }
        }
        best
    }

    /// Returns the cosine of two items' vectors; NaN where one has no direction.
    pub(crate) fn cosine(&self, a: usize, b: usize) -> f32 {
        let (a, b) = (self.vector(a), self.vector(b));
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    }

    fn vector(&self, item: usize) -> &[f32] {
        &self.vectors[item * self.width..(item + 1) * self.width]
    }

    /// For each taste (row-major [users, width]) the best `k` (item, score), best first.
    pub(crate) fn best(&self, tastes: &[f32], users: &[Ranked<'_>], k: usize) -> Result<Vec<Vec<(usize, f32)>>> {
        let items = self.ids.len() as i64;
        let mut best: Vec<Vec<(usize, f32)>> = vec![Vec::new(); users.len()];
        if items == 0 {
            return Ok(best);
        }
        let vectors = Tensor::f_from_slice(&self.vectors)?.f_view([items, self.width as i64])?;
        let bias = Tensor::f_from_slice(&self.bias)?;
        let mut block = vec![0f32; BLOCK_USERS * BLOCK_ITEMS];
        for (first_user, lists) in (0..).step_by(BLOCK_USERS).zip(best.chunks_mut(BLOCK_USERS)) {
            let users = &users[first_user..first_user + lists.len()];
            let flat_tastes = &tastes[first_user * self.width..(first_user + users.len()) * self.width];
            let block_tastes = Tensor::f_from_slice(flat_tastes)?.f_view([users.len() as i64, self.width as i64])?;
            for first_item in (0..self.ids.len()).step_by(BLOCK_ITEMS) {
                let n = BLOCK_ITEMS.min(self.ids.len() - first_item);
                let block_items = |t: &Tensor| t.f_narrow(0, first_item as i64, n as i64);
                let transposed = block_items(&vectors)?.f_transpose(0, 1)?;
                let scores = block_items(&bias)?.f_addmm(&block_tastes, &transposed)?;
                let flat = &mut block[..users.len() * n];
                scores.f_copy_data(flat, users.len() * n)?;
                for ((list, row), user) in lists.iter_mut().zip(flat.chunks(n)).zip(users) {
                    let skipped = |item: usize| user.is_latest(item) || user.leaves_out(&self.ids[item]);
                    take_best(list, row, first_item, k, skipped);
                }
            }
            for ((list, taste), user) in lists.iter_mut().zip(flat_tastes.chunks(self.width)).zip(users) {
                self.add_latest(list, taste, user, k);
            }
        }
        Ok(best)
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Moves the items of `row`, the first of which is `first_item`, into `list` where they are among the best `k`. Ties go to
/// the item that came first.
fn take_best(list: &mut Vec<(usize, f32)>, row: &[f32], first_item: usize, k: usize, excluded: impl Fn(usize) -> bool) {
    for (start, scores) in (first_item..).step_by(COMPARED).zip(row.chunks(COMPARED)) {
        let least = if list.len() == k { list.last().map_or(f32::INFINITY, |last| last.1) } else { f32::NEG_INFINITY };
        // Nearly always none is better: without a branch the processor compares several at once.
        if !scores.iter().fold(false, |any, &score| any | (score > least)) {
            continue;
        }
        for (item, &score) in (start..).zip(scores) {
            if (list.len() < k || list.last().is_some_and(|last| score > last.1)) && !excluded(item) {
                list.insert(list.partition_point(|better| better.1 >= score), (item, score));
                list.truncate(k);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn index(items: usize, rng: &mut ChaCha8Rng) -> ItemIndex {
        // Whole numbers: sums are exact in any order, and many items tie.
        let mut whole = |n: usize| Arc::new((0..n).map(|_| rng.random_range(-3i8..=3).into()).collect::<Vec<f32>>());
        let (vectors, bias) = (whole(items * 2), whole(items));
        ItemIndex { ids: Arc::new((0..items).map(|i| format!("i{i:05}")).collect()), vectors, bias, width: 2 }
    }

    #[test]
    fn blocks_rank_like_sorting_the_whole_catalogue() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for (items, users, k) in [(1, 3, 10), (70, 2, 3), (BLOCK_ITEMS + 90, BLOCK_USERS + 3, 7)] {
            let index = index(items, &mut rng);
            let tastes: Vec<f32> = (0..users * 2).map(|_| rng.random_range(-3i8..=3).into()).collect();
            let bought: Vec<Vec<usize>> =
                (0..users).map(|_| (0..5).map(|_| rng.random_range(0..items)).collect()).collect();
            let viewed: Vec<Vec<(usize, f64)>> =
                (0..users).map(|_| (0..3).map(|_| (rng.random_range(0..items), 40.0)).collect()).collect();
            let ranked = |user: usize| {
                let mut latest = viewed[user].clone();
                latest.dedup_by_key(|(item, _)| *item);
                let latest = latest.iter().map(|&(item, weight)| (index.ids[item].as_str(), weight));
                let latest = latest.chain([("unknown", 1.0)]);
                index.user(latest, bought[user].iter().map(|&i| index.ids[i].as_str()).collect())
            };
            let ranked: Vec<Ranked<'_>> = (0..users).map(ranked).collect();
            let best = index.best(&tastes, &ranked, k).unwrap();
            for user in 0..users {
                let score = |i: usize| {
                    let taste =
                        (0..2).map(|w| tastes[user * 2 + w] * index.vectors[i * 2 + w]).sum::<f32>() + index.bias[i];
                    with_weight(taste, if viewed[user].iter().any(|(item, _)| *item == i) { 40.0 } else { 0.0 })
                };
                let mut all: Vec<(usize, f32)> =
                    (0..items).filter(|i| !bought[user].contains(i)).map(|i| (i, score(i))).collect();
                all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
                all.truncate(k);
                assert_eq!(best[user], all, "user {user} of {users}, {items} items");
                let taste = &tastes[user * 2..user * 2 + 2];
                assert_eq!(index.best_of_one(taste, &ranked[user], k), all, "user {user} alone");
            }
        }
    }

    #[test]
    fn the_nearest_items_have_the_largest_cosine() {
        let ids = Arc::new(["a", "b", "c", "d", "none"].map(String::from).to_vec());
        let vectors = Arc::new(vec![1.0, 0.0, 2.0, 2.0, 5.0, 0.5, -1.0, 0.0, 0.0, 0.0]);
        let index = ItemIndex { ids, vectors, bias: Arc::new(vec![0.5, 9.0, 0.0, 0.0, 0.0]), width: 2 };
        let nearest = |item: &str, k: usize, without: &str| -> Vec<usize> {
            let found = index.nearest(index.find(item).unwrap(), k, |id| id == without);
            found.into_iter().map(|(item, _)| item).collect()
        };
        assert_eq!(nearest("a", 9, ""), [2, 1, 3], "neither itself nor an item without a direction");
        assert_eq!(nearest("a", 1, "c"), [1]);
        assert!(nearest("none", 9, "").is_empty());
        assert_eq!(index.find("zz"), None);
        assert_eq!(index.score(&[2.0, 1.0], 0, 0.0), 2.5);
    }

    #[test]
    fn an_empty_catalogue_recommends_nothing() {
        let index = index(0, &mut ChaCha8Rng::seed_from_u64(1));
        assert_eq!(index.best(&[1.0, 2.0], &[Ranked::default()], 3).unwrap(), [vec![]]);
    }
}
