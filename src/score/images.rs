//! `classify_image`: pictures of any query labelled by an image model.

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use std::sync::{Mutex, PoisonError};

use super::distinct::Kept;
use super::labels::{self, Probabilities};
use super::pictures::Refusals;
use crate::config::ScoreConfig;
use crate::failure::Result;
use crate::model::vision::{ImageModel, ImageModelCard};

/// A loaded image model that partitions share; forward passes take turns, as for texts.
#[derive(Debug)]
pub struct ImageScorer {
    pub card: ImageModelCard,
    model: Mutex<ImageModel>,
    kept: Kept<f64>,
}

impl ImageScorer {
    pub fn new(model: ImageModel, config: &ScoreConfig) -> Self {
        let kept = Kept::new(config.answers_bytes_max, model.card.labels.len());
        Self { card: model.card.clone(), model: Mutex::new(model), kept }
    }

    /// All labels of each picture, as [`labels::lists`] gives them; null for null, and for what can not be read, which the
    /// log counts.
    pub fn lists(&self, pictures: &ArrayRef) -> Result<ArrayRef> {
        Ok(labels::lists(&self.card.labels, &self.rows(pictures)?))
    }

    /// float64 [rows]: the probability of the label that `wanted` names on every row; null as in [`Self::lists`].
    pub fn column(&self, pictures: &ArrayRef, wanted: &ArrayRef) -> Result<ArrayRef> {
        let place = labels::place(&self.card.labels, wanted, "classify_image", &self.card.version)?;
        Ok(labels::column(&self.rows(pictures)?, place))
    }

    fn rows(&self, pictures: &ArrayRef) -> Result<Probabilities> {
        // With 64-bit offsets: a batch of pictures may hold more than 2 GB.
        let pictures = cast(pictures, &DataType::LargeBinary)?;
        let pictures: Vec<Option<&[u8]>> = pictures.as_binary::<i64>().iter().collect();
        self.kept.answers(&pictures, |distinct| {
            let model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
            let found = model.probabilities(distinct);
            let found = found.map_err(|f| f.at(format!("classify_image by {}", self.card.version)))?;
            let mut refusals = Refusals::default();
            let rows = found.into_iter().map(|row| refusals.heard(row)).collect();
            refusals.say("classify_image", "different pictures have no label", distinct.len());
            Ok(rows)
        })
    }
}
