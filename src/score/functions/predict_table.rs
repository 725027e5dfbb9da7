//! `predict_table(features, model [, label])`: rows of any query scored by a table model.

use arrow::array::{Array, ArrayRef, Float64Array, StructArray};
use arrow::datatypes::DataType;
use async_trait::async_trait;
use std::sync::{Arc, Mutex};

use super::label_columns;
use crate::failure::Result;
use crate::model::table::bundle::{TableCard, TableModel};
use crate::score::lock::lock;
use crate::score::models::{ModelInputs, ModelRef, Models};
use crate::score::service::as_struct;
use crate::score::sql_model::{CallSignature, LoadedModel, ModelArgument, SqlModel, columns, run_blocking};

const NAME: &str = "predict_table";

#[derive(Debug)]
pub(super) struct PredictTable;

#[async_trait]
impl SqlModel for PredictTable {
    fn name(&self) -> &'static str {
        NAME
    }

    fn signature(&self) -> CallSignature {
        CallSignature {
            model: ModelArgument::ThenLabel,
            expected: "a struct, a model version and optionally a label",
            ..CallSignature::STRUCT
        }
    }

    fn result_type(&self, _: bool) -> DataType {
        DataType::Float64
    }

    async fn pin(&self, models: &Models, version: &str) -> Result<ModelRef> {
        models.pin_card::<TableCard>(version).await
    }

    async fn load(&self, models: &Models, inputs: &ModelInputs) -> Result<Arc<dyn LoadedModel>> {
        let version = &inputs.model.version;
        let load = async {
            let model = models.registry()?.load_table(version, models.device()?).await?;
            models.count_load(version);
            Ok(SharedTableModel { card: model.card.clone(), model: Mutex::new(model) })
        };
        let table: Arc<SharedTableModel> =
            models.get_or_load_pinned(&inputs.model, Box::pin(load), |table| &table.card.weights_hash).await?;
        Ok(table)
    }
}

/// A table model that partitions share. Its short forward passes take turns: two threads must not reach one tensor at once.
#[derive(Debug)]
struct SharedTableModel {
    card: TableCard,
    model: Mutex<TableModel>,
}

#[async_trait]
impl LoadedModel for SharedTableModel {
    async fn evaluate(self: Arc<Self>, inputs: Vec<ArrayRef>, label: Option<ArrayRef>) -> Result<ArrayRef> {
        let [features] = columns(NAME, inputs)?;
        run_blocking(NAME, move || self.column(&features, label.as_ref())).await
    }
}

impl SharedTableModel {
    /// float64 [rows]: probabilities or amounts of a label, which is the same on every row; without one, of the only label.
    fn column(&self, features: &ArrayRef, label: Option<&ArrayRef>) -> Result<ArrayRef> {
        let features: &StructArray = as_struct(features)?;
        let label = self.label(label)?;
        let inputs = self.card.columns.transform(features.len(), |name| features.column_by_name(name).cloned());
        let inputs = inputs.map_err(|f| f.at(format!("{NAME} by {}", self.card.version)))?;
        let model = lock(&self.model);
        Ok(Arc::new(Float64Array::from(model.predict(&inputs, label)?)))
    }

    /// The place of the label that a call names on its first row.
    fn label(&self, label: Option<&ArrayRef>) -> Result<usize> {
        let wanted = label.map(label_columns::named).transpose()?.unwrap_or_default();
        let names: Vec<&str> = self.card.labels.iter().map(|l| l.name.as_str()).collect();
        match (wanted.as_str(), names.as_slice()) {
            ("", [_]) => Ok(0),
            (wanted, names) => label_columns::find(names, wanted, NAME, &self.card.version),
        }
    }
}
