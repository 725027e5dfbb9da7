//! `recommend(taste, exclude, k)`: a user's best items by the model's item vectors, without those in `exclude`.
//!
//! Scores are taste · vector + bias, computed in blocks of items with a running top k, so that memory does not grow with
//! users × items. Ties go to the smaller item id.

use arrow::array::{Array, ArrayRef, AsArray, Float64Builder, Int32Builder, ListBuilder, StringBuilder, StructBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Float32Type};
use datafusion::common::{Result as DfResult, exec_err};
use std::collections::HashSet;
use std::sync::Arc;
use tch::Tensor;

use crate::failure::Result;
use crate::model::bundle::{IndexedItem, ItemVectors};

/// Users and items of one block of scores: 4 MiB, which stay in a core's cache and are the same memory for every block.
const BLOCK_USERS: usize = 256;
const BLOCK_ITEMS: usize = 4096;
/// Scores that are held against the k-th best at once.
const COMPARED: usize = 64;

/// Items that a model can recommend, with their vectors.
#[derive(Debug, Clone)]
pub struct ItemIndex {
    pub ids: Arc<Vec<String>>,
    /// Row-major [items, width].
    vectors: Arc<Vec<f32>>,
    bias: Arc<Vec<f32>>,
    width: usize,
}

impl ItemIndex {
    pub fn of(items: &[IndexedItem], of: &ItemVectors, width: i64) -> Result<Self> {
        let flat =
            |t: &Tensor| -> Result<Arc<Vec<f32>>> { Ok(Arc::new(Vec::try_from(&t.f_contiguous()?.f_view([-1])?)?)) };
        let (vectors, bias) = (flat(&of.vectors)?, flat(&of.bias)?);
        let ids = Arc::new(items.iter().map(|i| i.item_id.clone()).collect());
        Ok(Self { ids, vectors, bias, width: width as usize })
    }

    /// For each taste (row-major [users, width]) the best `k` (item, score), best first.
    pub fn best(&self, tastes: &[f32], exclude: &[HashSet<&str>], k: usize) -> Result<Vec<Vec<(usize, f32)>>> {
        let items = self.ids.len() as i64;
        let mut best: Vec<Vec<(usize, f32)>> = vec![Vec::new(); exclude.len()];
        if items == 0 {
            return Ok(best);
        }
        let vectors = Tensor::f_from_slice(&self.vectors)?.f_view([items, self.width as i64])?;
        let bias = Tensor::f_from_slice(&self.bias)?;
        let mut block = vec![0f32; BLOCK_USERS * BLOCK_ITEMS];
        for (first_user, best) in (0..).step_by(BLOCK_USERS).zip(best.chunks_mut(BLOCK_USERS)) {
            let users = best.len();
            let tastes = &tastes[first_user * self.width..(first_user + users) * self.width];
            let tastes = Tensor::f_from_slice(tastes)?.f_view([users as i64, self.width as i64])?;
            for first_item in (0..self.ids.len()).step_by(BLOCK_ITEMS) {
                let n = BLOCK_ITEMS.min(self.ids.len() - first_item);
                let of = |t: &Tensor| t.f_narrow(0, first_item as i64, n as i64);
                let scores = of(&bias)?.f_addmm(&tastes, &of(&vectors)?.f_transpose(0, 1)?)?;
                let flat = &mut block[..users * n];
                scores.f_copy_data(flat, users * n)?;
                for ((list, row), exclude) in best.iter_mut().zip(flat.chunks(n)).zip(&exclude[first_user..]) {
                    let excluded = |item: usize| exclude.contains(self.ids[item].as_str());
                    take_best(list, row, first_item, k, excluded);
                }
            }
        }
        Ok(best)
    }

    /// The list column of `recommend` for `tastes` (lists of float32) and `exclude` (lists of ids, or null).
    pub fn column(&self, tastes: &ArrayRef, exclude: &ArrayRef, k: usize) -> DfResult<ArrayRef> {
        let tastes = cast(tastes, &DataType::new_list(DataType::Float32, true))?;
        let exclude = cast(exclude, &DataType::new_list(DataType::Utf8, true))?;
        let (tastes, exclude) = (tastes.as_list::<i32>(), exclude.as_list::<i32>());
        let mut out = ListBuilder::new(StructBuilder::from_fields(fields(), 0));
        for start in (0..tastes.len()).step_by(1024) {
            let rows = start..(start + 1024).min(tastes.len());
            let mut flat = Vec::with_capacity(rows.len() * self.width);
            let lists: Vec<Option<ArrayRef>> =
                rows.clone().map(|r| exclude.is_valid(r).then(|| exclude.value(r))).collect();
            for row in rows.clone() {
                let taste = tastes.value(row);
                if taste.len() != self.width {
                    return exec_err!("recommend: expected a taste of {} numbers, got {}", self.width, taste.len());
                }
                flat.extend_from_slice(taste.as_primitive::<Float32Type>().values());
            }
            let sets: Vec<HashSet<&str>> = lists
                .iter()
                .map(|l| l.as_ref().map_or_else(HashSet::new, |l| l.as_string::<i32>().iter().flatten().collect()))
                .collect();
            for best in self.best(&flat, &sets, k)? {
                let items = out.values();
                for (rank, (item, score)) in (1..).zip(best) {
                    if let Some(ranks) = items.field_builder::<Int32Builder>(0) {
                        ranks.append_value(rank);
                    }
                    if let Some(ids) = items.field_builder::<StringBuilder>(1) {
                        ids.append_value(&self.ids[item]);
                    }
                    if let Some(scores) = items.field_builder::<Float64Builder>(2) {
                        scores.append_value(score.into());
                    }
                    items.append(true);
                }
                out.append(true);
            }
        }
        Ok(Arc::new(out.finish()))
    }
}

/// Moves the items of `row`, the first of which is `first_item`, into `list` where they are among the best `k`. Ties go to
/// the item that came first.
fn take_best(list: &mut Vec<(usize, f32)>, row: &[f32], first_item: usize, k: usize, excluded: impl Fn(usize) -> bool) {
    for (start, scores) in (first_item..).step_by(COMPARED).zip(row.chunks(COMPARED)) {
        let least = if list.len() == k { list.last().map_or(f32::INFINITY, |last| last.1) } else { f32::NEG_INFINITY };
        // Nearly always nobody is: no branch, so that the processor compares several at once.
        if !scores.iter().fold(false, |any, &score| any | (score > least)) {
            continue;
        }
        for (item, &score) in (start..).zip(scores) {
            if (list.len() < k || list.last().is_some_and(|last| score > last.1)) && !excluded(item) {
                list.insert(list.partition_point(|kept| kept.1 >= score), (item, score));
                list.truncate(k);
            }
        }
    }
}

/// One recommended item; its rank counts from 1.
pub fn fields() -> Fields {
    let fields = [("rank", DataType::Int32), ("item_id", DataType::Utf8), ("score", DataType::Float64)];
    fields.into_iter().map(|(name, data_type)| Field::new(name, data_type, true)).collect()
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
    fn blocks_give_what_sorting_the_whole_catalogue_gives() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for (items, users, k) in [(1, 3, 10), (70, 2, 3), (BLOCK_ITEMS + 90, BLOCK_USERS + 3, 7)] {
            let index = index(items, &mut rng);
            let tastes: Vec<f32> = (0..users * 2).map(|_| rng.random_range(-3i8..=3).into()).collect();
            let bought: Vec<Vec<usize>> =
                (0..users).map(|_| (0..5).map(|_| rng.random_range(0..items)).collect()).collect();
            let exclude: Vec<HashSet<&str>> =
                bought.iter().map(|b| b.iter().map(|&i| index.ids[i].as_str()).collect()).collect();
            let best = index.best(&tastes, &exclude, k).unwrap();
            for user in 0..users {
                let score = |i: usize| {
                    (0..2).map(|w| tastes[user * 2 + w] * index.vectors[i * 2 + w]).sum::<f32>() + index.bias[i]
                };
                let mut all: Vec<(usize, f32)> =
                    (0..items).filter(|i| !bought[user].contains(i)).map(|i| (i, score(i))).collect();
                all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
                all.truncate(k);
                assert_eq!(best[user], all, "user {user} of {users}, {items} items");
            }
        }
    }

    #[test]
    fn an_empty_catalogue_recommends_nothing() {
        let index = index(0, &mut ChaCha8Rng::seed_from_u64(1));
        assert_eq!(index.best(&[1.0, 2.0], &[HashSet::new()], 3).unwrap(), [vec![]]);
    }
}
