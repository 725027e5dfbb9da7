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
use crate::model::bundle::Bundle;

/// Items of one block: bounds the score matrix at rows × this.
const BLOCK_ITEMS: usize = 8192;

/// The items that a model can recommend, with their vectors.
#[derive(Debug, Clone)]
pub struct ItemIndex {
    pub ids: Arc<Vec<String>>,
    /// Row-major [items, width].
    vectors: Arc<Vec<f32>>,
    bias: Arc<Vec<f32>>,
    width: usize,
}

impl ItemIndex {
    pub fn of(bundle: &Bundle) -> Result<Self> {
        let buckets = bundle.items.iter().map(|i| i.buckets(bundle.card.intent.item_buckets));
        let (items, categories): (Vec<i64>, Vec<i64>) = buckets.unzip();
        let width = bundle.card.intent.width as usize;
        let (vectors, bias) = match items.is_empty() {
            true => (Vec::new(), Vec::new()),
            false => {
                let items = Tensor::f_from_slice(&items)?.f_to_device(bundle.device)?;
                let categories = Tensor::f_from_slice(&categories)?.f_to_device(bundle.device)?;
                let _no_gradients = tch::no_grad_guard();
                let (vectors, bias) = bundle.intent().items(&items, &categories);
                let flat = |t: Tensor| -> Result<Vec<f32>> {
                    Ok(Vec::try_from(&t.f_to_device(tch::Device::Cpu)?.f_contiguous()?.f_view([-1])?)?)
                };
                (flat(vectors)?, flat(bias)?)
            }
        };
        let (vectors, bias) = (Arc::new(vectors), Arc::new(bias));
        Ok(Self { ids: Arc::new(bundle.items.iter().map(|i| i.item_id.clone()).collect()), vectors, bias, width })
    }

    /// For each taste (row-major [users, width]) the best `k` (item, score), best first.
    pub fn best(&self, tastes: &[f32], exclude: &[HashSet<&str>], k: usize) -> Result<Vec<Vec<(usize, f32)>>> {
        let users = exclude.len();
        let mut best: Vec<Vec<(usize, f32)>> = vec![Vec::new(); users];
        let tastes = Tensor::f_from_slice(tastes)?.f_view([users as i64, self.width as i64])?;
        for start in (0..self.ids.len()).step_by(BLOCK_ITEMS) {
            let end = (start + BLOCK_ITEMS).min(self.ids.len());
            let block = Tensor::f_from_slice(&self.vectors[start * self.width..end * self.width])?
                .f_view([(end - start) as i64, self.width as i64])?;
            let scores = tastes.f_matmul(&block.transpose(0, 1))? + Tensor::f_from_slice(&self.bias[start..end])?;
            let scores = Vec::<f32>::try_from(&scores.f_contiguous()?.f_view([-1])?)?;
            for (user, row) in scores.chunks(end - start).enumerate() {
                let list = &mut best[user];
                for (i, &score) in row.iter().enumerate() {
                    if list.len() == k && list.last().is_some_and(|last| score <= last.1) {
                        continue;
                    }
                    if !exclude[user].contains(self.ids[start + i].as_str()) {
                        let at = list.partition_point(|kept| kept.1 >= score);
                        list.insert(at, (start + i, score));
                        list.truncate(k);
                    }
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

/// One recommended item; its rank counts from 1.
pub fn fields() -> Fields {
    let fields = [("rank", DataType::Int32), ("item_id", DataType::Utf8), ("score", DataType::Float64)];
    fields.into_iter().map(|(name, data_type)| Field::new(name, data_type, true)).collect()
}
