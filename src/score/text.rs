//! `classify_text`: texts of any query labelled by a text model.

use arrow::array::ArrayRef;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use super::distinct::Kept;
use super::labels::{self, Probabilities};
use crate::config::ScoreConfig;
use crate::failure::Result;
use crate::model::out_of_memory::retry_in_halves;
use crate::model::text::bundle::{TextCard, TextModel};
use crate::model::text::text_column;

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
    kept: Kept<f64>,
}

impl TextScorer {
    pub fn new(model: TextModel, tokens_max: usize, config: &ScoreConfig) -> Self {
        let kept = Kept::new(config.answers_bytes_max, model.card.labels.len());
        Self { card: model.card.clone(), model: Mutex::new(model), tokens_max, halved: AtomicU64::new(0), kept }
    }

    /// All labels of each text, as [`labels::lists`] gives them; null where the text is null.
    pub fn lists(&self, texts: &ArrayRef) -> Result<ArrayRef> {
        Ok(labels::lists(&self.card.labels, &self.rows(texts)?))
    }

    /// float64 [rows]: the probability of the label that `wanted` names on every row; null where the text is null.
    pub fn column(&self, texts: &ArrayRef, wanted: &ArrayRef) -> Result<ArrayRef> {
        let place = labels::place(&self.card.labels, wanted, "classify_text", &self.card.version)?;
        Ok(labels::column(&self.rows(texts)?, place))
    }

    /// Equal texts, as queries and short reviews often are, cost one pass while their answers are kept.
    fn rows(&self, texts: &ArrayRef) -> Result<Probabilities> {
        let texts = text_column::read_texts("classify_text", texts)?;
        let texts: Vec<Option<&str>> = texts.iter().map(Option::as_deref).collect();
        self.kept.answers(&texts, |distinct| {
            let model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
            let of = |texts: &[&str]| model.probabilities(texts, self.tokens_max);
            let found = retry_in_halves(distinct, "texts", &self.halved, &of);
            let found = found.map_err(|f| f.at(format!("classify_text by {}", self.card.version)))?;
            Ok(found.into_iter().map(Some).collect())
        })
    }
}
