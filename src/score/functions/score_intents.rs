//! `score_intents(features [, model])`: the intents, amounts and taste of each user.

use arrow::array::{ArrayRef, Float32Builder, Float64Array, ListBuilder, StringArray, StructArray};
use arrow::datatypes::{DataType, Field, Fields};
use async_trait::async_trait;
use std::sync::Arc;

use crate::failure::Result;
use crate::model::targets::OUTPUTS;
use crate::score::models::{LakeInputs, ModelInputs, Models};
use crate::score::service::{IntentScores, ScoringService, as_struct};
use crate::score::sql_model::{CallSignature, LoadedModel, SqlModel, columns};

const NAME: &str = "score_intents";

#[derive(Debug)]
pub(super) struct ScoreIntents;

#[async_trait]
impl SqlModel for ScoreIntents {
    fn name(&self) -> &'static str {
        NAME
    }

    fn signature(&self) -> CallSignature {
        CallSignature::STRUCT
    }

    fn result_type(&self, _: bool) -> DataType {
        DataType::Struct(fields())
    }

    fn lake_inputs(&self) -> LakeInputs {
        LakeInputs::Contents
    }

    async fn load(&self, models: &Models, inputs: &ModelInputs) -> Result<Arc<dyn LoadedModel>> {
        Ok(Arc::new(IntentModel(models.service_with_contents(inputs).await?)))
    }
}

struct IntentModel(ScoringService);

#[async_trait]
impl LoadedModel for IntentModel {
    async fn evaluate(self: Arc<Self>, inputs: Vec<ArrayRef>, _: Option<ArrayRef>) -> Result<ArrayRef> {
        let [features] = columns(NAME, inputs)?;
        Ok(column(&self.0.score(as_struct(&features)?).await?, &self.0.card.version))
    }
}

fn fields() -> Fields {
    let mut fields: Vec<Field> = OUTPUTS.iter().map(|n| Field::new(*n, DataType::Float64, false)).collect();
    fields.push(Field::new("taste", DataType::new_list(DataType::Float32, true), false));
    fields.push(Field::new("model_version", DataType::Utf8, false));
    fields.into()
}

fn column(scores: &IntentScores, version: &str) -> ArrayRef {
    let n = scores.scores.len() / OUTPUTS.len();
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(OUTPUTS.len() + 2);
    for output in 0..OUTPUTS.len() {
        let values = scores.scores.iter().skip(output).step_by(OUTPUTS.len()).map(|&s| f64::from(s));
        columns.push(Arc::new(values.collect::<Float64Array>()));
    }
    let width = scores.tastes.len() / n.max(1);
    let mut tastes = ListBuilder::new(Float32Builder::new());
    for taste in scores.tastes.chunks(width.max(1)) {
        tastes.values().append_slice(taste);
        tastes.append(true);
    }
    columns.push(Arc::new(tastes.finish()));
    columns.push(Arc::new(StringArray::from(vec![version; n])));
    Arc::new(StructArray::new(fields(), columns, None))
}
