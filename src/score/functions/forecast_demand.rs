//! `forecast_demand(history [, model])`: each item's demand over its lead time, and per day.

use arrow::array::{ArrayRef, Float64Array, Int32Array, ListArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields};
use async_trait::async_trait;
use std::sync::Arc;

use crate::failure::Result;
use crate::model::demand::ItemForecast;
use crate::score::models::{ModelInputs, Models};
use crate::score::service::{ScoringService, as_struct};
use crate::score::sql_model::{CallSignature, LoadedModel, SqlModel, columns};

const NAME: &str = "forecast_demand";

#[derive(Debug)]
pub(super) struct ForecastDemand;

#[async_trait]
impl SqlModel for ForecastDemand {
    fn name(&self) -> &'static str {
        NAME
    }

    fn signature(&self) -> CallSignature {
        CallSignature::STRUCT
    }

    fn result_type(&self, _: bool) -> DataType {
        DataType::List(step())
    }

    async fn load(&self, models: &Models, inputs: &ModelInputs) -> Result<Arc<dyn LoadedModel>> {
        let service = models.load_service(&inputs.model).await?;
        service.card.require_demand()?;
        Ok(Arc::new(DemandModel(service)))
    }
}

struct DemandModel(ScoringService);

#[async_trait]
impl LoadedModel for DemandModel {
    async fn evaluate(self: Arc<Self>, inputs: Vec<ArrayRef>, _: Option<ArrayRef>) -> Result<ArrayRef> {
        let [history] = columns(NAME, inputs)?;
        Ok(column(&self.0.forecast(as_struct(&history)?).await?))
    }
}

fn fields() -> Fields {
    let mut fields = vec![Field::new("step", DataType::Int32, false)];
    for name in ["mean", "q05", "q10", "q25", "q50", "q75", "q90", "q95"] {
        fields.push(Field::new(name, DataType::Float64, false));
    }
    fields.into()
}

fn step() -> Arc<Field> {
    Arc::new(Field::new_list_field(DataType::Struct(fields()), true))
}

/// Step 0 is the cumulative demand of the lead time; steps from 1 are days.
fn column(forecasts: &[ItemForecast]) -> ArrayRef {
    let mut steps = Vec::new();
    let mut columns: [Vec<f64>; 8] = Default::default();
    let mut lengths = Vec::new();
    for forecast in forecasts {
        lengths.push(1 + forecast.daily.len());
        for (step, values) in std::iter::once(&forecast.lead_time).chain(&forecast.daily).enumerate() {
            steps.push(step as i32);
            columns.iter_mut().zip(values).for_each(|(column, value)| column.push(*value));
        }
    }
    let mut arrays: Vec<ArrayRef> = vec![Arc::new(Int32Array::from(steps))];
    for values in columns {
        arrays.push(Arc::new(Float64Array::from(values)));
    }
    let rows = StructArray::new(fields(), arrays, None);
    Arc::new(ListArray::new(step(), OffsetBuffer::from_lengths(lengths), Arc::new(rows), None))
}
