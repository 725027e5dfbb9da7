//! `predict_table`: rows of any query scored by a table model.

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StructArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use std::sync::{Arc, Mutex, PoisonError};

use super::service::as_struct;
use crate::failure::{Failure, Result};
use crate::model::table::bundle::{TableCard, TableModel};

/// A loaded table model that partitions share. Its forward passes are short and take turns: a tensor may not be reached
/// from two threads at once.
#[derive(Debug)]
pub struct TableScorer {
    pub card: TableCard,
    model: Mutex<TableModel>,
}

impl TableScorer {
    pub fn new(model: TableModel) -> Self {
        Self { card: model.card.clone(), model: Mutex::new(model) }
    }

    /// float64 [rows]: probabilities or amounts of the label that `labels` names on every row; where it names none, of
    /// the only one.
    pub fn column(&self, features: &ArrayRef, labels: &ArrayRef) -> Result<ArrayRef> {
        let features: &StructArray = as_struct(features)?;
        let labels = cast(labels, &DataType::Utf8)?;
        let label = labels.as_string::<i32>().iter().next().flatten().unwrap_or_default();
        let at = self.label(label)?;
        let inputs = self.card.columns.transform(features.len(), |name| features.column_by_name(name).cloned());
        let inputs = inputs.map_err(|f| f.at(format!("predict_table by {}", self.card.version)))?;
        let model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::new(Float64Array::from(model.predict(&inputs, at)?)))
    }

    fn label(&self, wanted: &str) -> Result<usize> {
        let names: Vec<&str> = self.card.labels.iter().map(|l| l.name.as_str()).collect();
        let at = match (wanted, names.as_slice()) {
            ("", [_]) => Some(0),
            (wanted, names) => names.iter().position(|name| *name == wanted),
        };
        at.ok_or_else(|| {
            Failure::usage(format!(
                "predict_table: expected one of the labels {} of {} as third argument, got {wanted:?}",
                names.join(", "),
                self.card.version
            ))
        })
    }
}
