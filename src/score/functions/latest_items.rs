//! `latest_items(features [, model])`: the items of a user's last events, with the weights that `recommend` adds for them.

use arrow::array::{Array, ArrayRef, Float64Builder, ListBuilder, StringBuilder, StructBuilder};
use arrow::datatypes::{DataType, Field, Fields};
use async_trait::async_trait;
use std::sync::Arc;

use crate::failure::Result;
use crate::model::latest_items::{LatestItems, RecentEvents};
use crate::score::models::{ModelInputs, Models};
use crate::score::service::as_struct;
use crate::score::sql_model::{CallSignature, LoadedModel, SqlModel, columns};

const NAME: &str = "latest_items";

#[derive(Debug)]
pub(super) struct LatestItemsOfUsers;

#[async_trait]
impl SqlModel for LatestItemsOfUsers {
    fn name(&self) -> &'static str {
        NAME
    }

    fn signature(&self) -> CallSignature {
        CallSignature::STRUCT
    }

    fn result_type(&self, _: bool) -> DataType {
        result_type()
    }

    async fn load(&self, models: &Models, inputs: &ModelInputs) -> Result<Arc<dyn LoadedModel>> {
        Ok(Arc::new(Weights(models.load_service(&inputs.model).await?.card.latest_items)))
    }
}

/// Returns the type of a list of items with weights.
pub(super) fn result_type() -> DataType {
    DataType::new_list(DataType::Struct(fields()), true)
}

/// The fields of an item with its weight.
fn fields() -> Fields {
    let fields = [("item_id", DataType::Utf8), ("weight", DataType::Float64)];
    fields.into_iter().map(|(name, data_type)| Field::new(name, data_type, true)).collect()
}

/// Numbers that the model learnt; `None` for a model that learnt of no repeated items.
struct Weights(Option<LatestItems>);

#[async_trait]
impl LoadedModel for Weights {
    async fn evaluate(self: Arc<Self>, inputs: Vec<ArrayRef>, _: Option<ArrayRef>) -> Result<ArrayRef> {
        let [features] = columns(NAME, inputs)?;
        let features = as_struct(&features)?;
        let mut lists = ListBuilder::new(StructBuilder::from_fields(fields(), 0));
        let recent = match self.0 {
            Some(learnt) => Some((RecentEvents::from_struct(features)?, learnt)),
            None => None,
        };
        for row in 0..features.len() {
            let weights = recent.iter().flat_map(|(recent, learnt)| recent.weights(row, learnt));
            for (item_id, weight) in weights {
                let item = lists.values();
                if let Some(ids) = item.field_builder::<StringBuilder>(0) {
                    ids.append_value(item_id);
                }
                if let Some(weights) = item.field_builder::<Float64Builder>(1) {
                    weights.append_value(weight);
                }
                item.append(true);
            }
            lists.append(true);
        }
        Ok(Arc::new(lists.finish()))
    }
}
