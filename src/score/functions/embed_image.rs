//! `embed_image(image [, model or folder])`: the vector of an image by a pretrained encoder.

use arrow::array::ArrayRef;
use async_trait::async_trait;
use std::sync::Arc;

use super::embedding::{Embedding, VectorEncoder};
use super::output_cache::{OutputCache, Outputs};
use crate::failure::Result;
use crate::model::vision::{is_picture_type, read_pictures};
use crate::score::encoders::{RefusedImages, SharedImageEncoder};
use crate::score::models::Models;
use crate::score::sql_model::{CallSignature, ModelArgument};

pub(super) static EMBED_IMAGE: Embedding<SharedImageEncoder> = Embedding::new();

#[async_trait]
impl VectorEncoder for SharedImageEncoder {
    const NAME: &'static str = "embed_image";
    const SIGNATURE: CallSignature = CallSignature {
        inputs: 1,
        accepts: |inputs| inputs.iter().all(is_picture_type),
        model: ModelArgument::Optional,
        expected: "the bytes of an image and optionally a model version or a folder",
    };

    async fn load(models: &Models, named: &str) -> Result<Arc<Self>> {
        models.image_encoder(named).await
    }

    fn hash(&self) -> &str {
        &self.hash
    }

    fn width(&self) -> usize {
        self.width
    }

    /// None for null, and for images that cannot be decoded, of which the log warns.
    fn vectors(&self, images: &ArrayRef, cache: &OutputCache<f32>) -> Result<Outputs<f32>> {
        let images = read_pictures(images)?;
        let images: Vec<Option<&[u8]>> = images.iter().collect();
        cache.outputs(&images, |distinct| {
            Ok(RefusedImages::accept_call(Self::NAME, "have no vector", self.encode(distinct)?))
        })
    }
}
