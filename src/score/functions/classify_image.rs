//! `classify_image(image, model [, label])`: images of any query labelled by an image model.

use arrow::array::ArrayRef;
use async_trait::async_trait;
use std::sync::Mutex;

use super::classification::{Classification, Classifier};
use super::label_columns::Probabilities;
use super::output_cache::OutputCache;
use crate::failure::Result;
use crate::model::vision::{ImageModel, ImageModelCard, is_picture_type, read_pictures};
use crate::score::encoders::RefusedImages;
use crate::score::lock::lock;
use crate::score::models::Models;
use crate::score::sql_model::{CallSignature, ModelArgument};

pub(super) static CLASSIFY_IMAGE: Classification<SharedImageModel> = Classification::new();

/// An image model that partitions share. Forward passes take turns: two threads must not reach one tensor at once.
#[derive(Debug)]
pub(super) struct SharedImageModel {
    card: ImageModelCard,
    model: Mutex<ImageModel>,
}

#[async_trait]
impl Classifier for SharedImageModel {
    const NAME: &'static str = "classify_image";
    const SIGNATURE: CallSignature = CallSignature {
        inputs: 1,
        accepts: |inputs| inputs.iter().all(is_picture_type),
        model: ModelArgument::ThenLabel,
        expected: "the bytes of an image, a model version and optionally a label",
    };

    type Card = ImageModelCard;

    async fn load(models: &Models, version: &str) -> Result<Self> {
        let model = models.registry()?.load_image(version, models.device()?).await?;
        Ok(Self { card: model.card.clone(), model: Mutex::new(model) })
    }

    fn card(&self) -> &ImageModelCard {
        &self.card
    }

    fn labels(&self) -> &[String] {
        &self.card.labels
    }

    /// None for images that cannot be decoded, of which the log warns.
    fn probabilities(&self, images: &ArrayRef, cache: &OutputCache<f64>) -> Result<Probabilities> {
        let images = read_pictures(images)?;
        let images: Vec<Option<&[u8]>> = images.iter().collect();
        cache.outputs(&images, |distinct| {
            let found = lock(&self.model).probabilities(distinct);
            let found = found.map_err(|f| f.at(format!("{} by {}", Self::NAME, self.card.version)))?;
            Ok(RefusedImages::accept_call(Self::NAME, "have no label", found))
        })
    }
}
