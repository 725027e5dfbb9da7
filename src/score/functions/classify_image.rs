//! `classify_image(image, model [, label])`: images of any query labelled by an image model.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use async_trait::async_trait;
use std::sync::{Arc, Mutex, PoisonError};

use super::label_columns::{self, Probabilities};
use super::output_cache::OutputCache;
use crate::failure::Result;
use crate::model::vision::{ImageModel, ImageModelCard, is_picture_type, read_pictures};
use crate::score::encoders::RefusedImages;
use crate::score::models::{ModelInputs, ModelRef, Models};
use crate::score::sql_model::{CallSignature, LoadedModel, ModelArgument, SqlModel, columns, run_blocking};

const NAME: &str = "classify_image";

#[derive(Debug)]
pub(super) struct ClassifyImage;

#[async_trait]
impl SqlModel for ClassifyImage {
    fn name(&self) -> &'static str {
        NAME
    }

    fn signature(&self) -> CallSignature {
        let expected = "the bytes of an image, a model version and optionally a label";
        CallSignature { inputs: 1, model: ModelArgument::ThenLabel, expected }
    }

    fn accepts(&self, inputs: &[DataType]) -> bool {
        inputs.iter().all(is_picture_type)
    }

    fn result_type(&self, labelled: bool) -> DataType {
        label_columns::data_type(labelled)
    }

    fn nullable(&self) -> bool {
        true
    }

    async fn pin(&self, models: &Models, version: &str) -> Result<ModelRef> {
        let card = models.registry()?.image_card(version).await?;
        Ok(ModelRef::new(card.version, card.weights_hash))
    }

    async fn load(&self, models: &Models, inputs: &ModelInputs) -> Result<Arc<dyn LoadedModel>> {
        let version = &inputs.model.version;
        let load = async {
            let model = models.registry()?.load_image(version, models.device()?).await?;
            models.count_load(version);
            Ok(SharedImageModel {
                card: model.card.clone(),
                cache: OutputCache::new(models.config().score.answers_bytes_max, model.card.labels.len()),
                model: Mutex::new(model),
            })
        };
        let image: Arc<SharedImageModel> = models.get_or_load(version, Box::pin(load)).await?;
        inputs.model.refuse_other(&image.card.weights_hash)?;
        Ok(image)
    }
}

/// An image model that partitions share. Forward passes take turns: two threads must not reach one tensor at once.
#[derive(Debug)]
struct SharedImageModel {
    card: ImageModelCard,
    model: Mutex<ImageModel>,
    cache: OutputCache<f64>,
}

#[async_trait]
impl LoadedModel for SharedImageModel {
    async fn evaluate(self: Arc<Self>, inputs: Vec<ArrayRef>, label: Option<ArrayRef>) -> Result<ArrayRef> {
        let [images] = columns(NAME, inputs)?;
        run_blocking(NAME, move || {
            let (labels, version) = (&self.card.labels, &self.card.version);
            let wanted = label.map(|label| label_columns::find(labels, &label, NAME, version)).transpose()?;
            Ok(label_columns::column(labels, wanted, &self.probabilities(&images)?))
        })
        .await
    }
}

impl SharedImageModel {
    /// The probability of each label of each image; none for images that cannot be decoded, of which the log warns.
    fn probabilities(&self, images: &ArrayRef) -> Result<Probabilities> {
        let images = read_pictures(images)?;
        let images: Vec<Option<&[u8]>> = images.iter().collect();
        self.cache.outputs(&images, |distinct| {
            let model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
            let found = model.probabilities(distinct);
            let found = found.map_err(|f| f.at(format!("{NAME} by {}", self.card.version)))?;
            let mut refused = RefusedImages::default();
            let rows = found.into_iter().map(|row| refused.accept(row, None)).collect();
            refused.warn_of_call(NAME, "have no label", distinct.len());
            Ok(rows)
        })
    }
}
