//! `recommend(taste, latest_items, exclude, k [, model])`: a user's best items by the model's item vectors and by the user's last
//! events, without those in `exclude`.

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Float64Builder, Int32Builder, ListArray, ListBuilder, StringArray,
    StringBuilder, StructBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Float32Type, Float64Type, Int64Type};
use async_trait::async_trait;
use std::ops::Range;
use std::sync::Arc;

use super::latest_items;
use crate::failure::{Failure, Result};
use crate::score::models::{LakeInputs, ModelInputs, Models};
use crate::score::service::as_struct;
use crate::score::service::item_index::{ItemIndex, Ranked};
use crate::score::sql_model::{CallSignature, LoadedModel, ModelArgument, SqlModel, columns, run_blocking};

const NAME: &str = "recommend";
/// Users whose tastes and excluded items are copied out of Arrow at once.
const USERS_AT_ONCE: usize = 1024;

#[derive(Debug)]
pub(super) struct Recommend;

#[async_trait]
impl SqlModel for Recommend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn signature(&self) -> CallSignature {
        CallSignature {
            inputs: 4,
            accepts: |inputs| {
                let [DataType::List(_), latest, DataType::List(_) | DataType::Null, DataType::Int64] = inputs else {
                    return false;
                };
                *latest == DataType::Null || *latest == latest_items::result_type()
            },
            model: ModelArgument::Optional,
            expected: "taste, latest_items(features) or NULL, list of excluded item ids or NULL, and k",
        }
    }

    fn result_type(&self, _: bool) -> DataType {
        DataType::new_list(DataType::Struct(fields()), true)
    }

    fn lake_inputs(&self) -> LakeInputs {
        LakeInputs::ContentsAndItems
    }

    async fn load(&self, models: &Models, inputs: &ModelInputs) -> Result<Arc<dyn LoadedModel>> {
        Ok(Arc::new(ItemModel(models.items(inputs).await?)))
    }
}

struct ItemModel(ItemIndex);

#[async_trait]
impl LoadedModel for ItemModel {
    async fn evaluate(self: Arc<Self>, inputs: Vec<ArrayRef>, _: Option<ArrayRef>) -> Result<ArrayRef> {
        let [tastes, latest, exclude, k] = columns(NAME, inputs)?;
        let k = positive(&k)?;
        run_blocking(NAME, move || column(&self.0, &tastes, &latest, &exclude, k)).await
    }
}

/// The k of the call: the same on every row.
fn positive(k: &ArrayRef) -> Result<usize> {
    match k.as_primitive_opt::<Int64Type>().map(|k| k.values().first().copied().unwrap_or(0)) {
        Some(k) if k > 0 => Ok(k as usize),
        _ => {
            let got = k.slice(0, k.len().min(1));
            Err(Failure::usage(format!("{NAME}: expected a positive whole number as k, got {got:?}")))
        }
    }
}

/// One recommended item; its rank counts from 1.
fn fields() -> Fields {
    let fields = [("rank", DataType::Int32), ("item_id", DataType::Utf8), ("score", DataType::Float64)];
    fields.into_iter().map(|(name, data_type)| Field::new(name, data_type, true)).collect()
}

/// Ranks the items for `tastes` (lists of float32) and `latest` items with weights, without those of `exclude` (lists of ids); null
/// lists are empty.
fn column(items: &ItemIndex, tastes: &ArrayRef, latest: &ArrayRef, exclude: &ArrayRef, k: usize) -> Result<ArrayRef> {
    let tastes = cast(tastes, &DataType::new_list(DataType::Float32, true))?;
    let tastes = tastes.as_list::<i32>();
    let latest = LatestColumn::read(latest)?;
    let exclude = cast(exclude, &DataType::new_list(DataType::Utf8, true))?;
    let exclude = exclude.as_list::<i32>();
    let mut out = ListBuilder::new(StructBuilder::from_fields(fields(), 0));
    for start in (0..tastes.len()).step_by(USERS_AT_ONCE) {
        let rows = start..(start + USERS_AT_ONCE).min(tastes.len());
        let flat = flat_tastes(tastes, rows.clone(), items.width)?;
        let lists: Vec<Option<ArrayRef>> =
            rows.clone().map(|r| exclude.is_valid(r).then(|| exclude.value(r))).collect();
        let mut users: Vec<Ranked<'_>> = Vec::with_capacity(lists.len());
        for (row, list) in rows.zip(&lists) {
            let exclude = list.iter().flat_map(|ids| ids.as_string::<i32>().iter().flatten()).collect();
            users.push(items.user(latest.of(row), exclude));
        }
        for best in items.best(&flat, &users, k)? {
            append(out.values(), items, best);
            out.append(true);
        }
    }
    Ok(Arc::new(out.finish()))
}

/// Lists of items with weights, flat.
struct LatestColumn {
    lists: ListArray,
    ids: StringArray,
    weights: Float64Array,
}

impl LatestColumn {
    fn read(lists: &ArrayRef) -> Result<Self> {
        let lists = cast(lists, &latest_items::result_type())?;
        let lists = lists.as_list::<i32>().clone();
        let items = as_struct(lists.values())?;
        let (ids, weights) =
            (items.column(0).as_string().clone(), items.column(1).as_primitive::<Float64Type>().clone());
        Ok(Self { lists, ids, weights })
    }

    fn of(&self, row: usize) -> impl Iterator<Item = (&str, f64)> {
        let offsets = self.lists.value_offsets();
        let places = if self.lists.is_valid(row) { offsets[row]..offsets[row + 1] } else { 0..0 };
        places.map(|at| (self.ids.value(at as usize), self.weights.value(at as usize)))
    }
}

/// The tastes of some rows, row-major [rows, width].
fn flat_tastes(tastes: &ListArray, rows: Range<usize>, width: usize) -> Result<Vec<f32>> {
    let mut flat = Vec::with_capacity(rows.len() * width);
    for row in rows {
        let taste = tastes.value(row);
        if taste.len() != width {
            return Err(Failure::usage(format!("{NAME}: expected a taste of {width} numbers, got {}", taste.len())));
        }
        flat.extend_from_slice(taste.as_primitive::<Float32Type>().values());
    }
    Ok(flat)
}

fn append(rows: &mut StructBuilder, items: &ItemIndex, best: Vec<(usize, f32)>) {
    for (rank, (item, score)) in (1..).zip(best) {
        if let Some(ranks) = rows.field_builder::<Int32Builder>(0) {
            ranks.append_value(rank);
        }
        if let Some(ids) = rows.field_builder::<StringBuilder>(1) {
            ids.append_value(&items.ids[item]);
        }
        if let Some(scores) = rows.field_builder::<Float64Builder>(2) {
            scores.append_value(score.into());
        }
        rows.append(true);
    }
}
