//! `classify_text`: texts of any query labelled by a text model.

use arrow::array::{ArrayRef, AsArray, Float64Array, Float64Builder, ListArray, StringBuilder, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields};
use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use crate::failure::{Failure, Result};
use crate::model::memory::in_halves;
use crate::model::text::bundle::{TextCard, TextModel};
use crate::model::text::column;

/// What a label and its probability are called.
pub fn fields() -> Fields {
    vec![Field::new("label", DataType::Utf8, false), Field::new("probability", DataType::Float64, false)].into()
}

/// A loaded text model that partitions share. Forward passes take turns: a tensor may not be reached from two threads at
/// once, and one pass uses all cores.
#[derive(Debug)]
pub struct TextScorer {
    pub card: TextCard,
    model: Mutex<TextModel>,
    /// Padded tokens of one forward pass.
    tokens_max: usize,
    /// How often texts did not fit into memory together.
    halved: AtomicU64,
}

impl TextScorer {
    pub fn new(model: TextModel, tokens_max: usize) -> Self {
        Self { card: model.card.clone(), model: Mutex::new(model), tokens_max, halved: AtomicU64::new(0) }
    }

    /// list<struct<label, probability>> [rows]: all labels in the order of the card; null where the text is null.
    pub fn lists(&self, texts: &ArrayRef) -> Result<ArrayRef> {
        let rows = self.rows(texts)?;
        let (mut labels, mut probabilities) = (StringBuilder::new(), Float64Builder::new());
        for row in rows.iter().flatten() {
            for (label, probability) in self.card.labels.iter().zip(row.iter()) {
                labels.append_value(label);
                probabilities.append_value(*probability);
            }
        }
        let values =
            StructArray::new(fields(), vec![Arc::new(labels.finish()), Arc::new(probabilities.finish())], None);
        let lengths = rows.iter().map(|row| row.as_ref().map_or(0, |row| row.len()));
        let nulls = NullBuffer::from_iter(rows.iter().map(Option::is_some));
        let item = Arc::new(Field::new_list_field(DataType::Struct(fields()), true));
        Ok(Arc::new(ListArray::new(item, OffsetBuffer::from_lengths(lengths), Arc::new(values), Some(nulls))))
    }

    /// float64 [rows]: the probability of the label that `labels` names on every row; null where the text is null.
    pub fn column(&self, texts: &ArrayRef, labels: &ArrayRef) -> Result<ArrayRef> {
        let labels = cast(labels, &DataType::Utf8)?;
        let wanted = labels.as_string::<i32>().iter().next().flatten().unwrap_or_default();
        let at = self.card.labels.iter().position(|label| label == wanted).ok_or_else(|| {
            Failure::usage(format!(
                "classify_text: expected one of the labels {} of {} as third argument, got {wanted:?}",
                self.card.labels.join(", "),
                self.card.version
            ))
        })?;
        let rows = self.rows(texts)?;
        Ok(Arc::new(rows.iter().map(|row| row.as_ref().map(|row| row[at])).collect::<Float64Array>()))
    }

    /// Equal texts, as queries and short reviews often are, cost one pass.
    fn rows(&self, texts: &ArrayRef) -> Result<Vec<Option<Arc<[f64]>>>> {
        let texts = column::texts("classify_text", texts)?;
        let (mut places, mut distinct) = (HashMap::new(), Vec::new());
        for text in texts.iter().flatten().map(String::as_str) {
            places.entry(text).or_insert_with(|| {
                distinct.push(text);
                distinct.len() - 1
            });
        }
        let model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        let found =
            in_halves(&distinct, "texts", &self.halved, &|texts: &[&str]| model.probabilities(texts, self.tokens_max));
        let found = found.map_err(|f| f.at(format!("classify_text by {}", self.card.version)))?;
        let found: Vec<Arc<[f64]>> = found.into_iter().map(Arc::from).collect();
        let of = |text: &String| places.get(text.as_str()).map(|&place| Arc::clone(&found[place]));
        Ok(texts.iter().map(|text| text.as_ref().and_then(of)).collect())
    }
}
