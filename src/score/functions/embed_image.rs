//! `embed_image(image [, model or folder])`: the vector of an image by a pretrained encoder.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use async_trait::async_trait;
use std::sync::Arc;

use super::output_cache::{self, OutputCache};
use crate::failure::Result;
use crate::model::vision::{is_picture_type, read_pictures};
use crate::score::encoders::{RefusedImages, SharedImageEncoder};
use crate::score::models::{ModelInputs, ModelRef, Models};
use crate::score::sql_model::{CallSignature, LoadedModel, ModelArgument, SqlModel, columns, run_blocking};

const NAME: &str = "embed_image";

#[derive(Debug)]
pub(super) struct EmbedImage;

#[async_trait]
impl SqlModel for EmbedImage {
    fn name(&self) -> &'static str {
        NAME
    }

    fn signature(&self) -> CallSignature {
        let expected = "the bytes of an image and optionally a model version or a folder";
        CallSignature { inputs: 1, model: ModelArgument::Optional, expected }
    }

    fn accepts(&self, inputs: &[DataType]) -> bool {
        inputs.iter().all(is_picture_type)
    }

    fn result_type(&self, _: bool) -> DataType {
        DataType::new_list(DataType::Float32, true)
    }

    fn nullable(&self) -> bool {
        true
    }

    async fn pin(&self, models: &Models, version: &str) -> Result<ModelRef> {
        let name = models.encoder_name(version).await?;
        let encoder = models.image_encoder(&name).await?;
        Ok(ModelRef::new(name, encoder.hash.clone()))
    }

    async fn load(&self, models: &Models, inputs: &ModelInputs) -> Result<Arc<dyn LoadedModel>> {
        let version = &inputs.model.version;
        let load = async {
            let encoder = models.image_encoder(version).await?;
            let cache = OutputCache::new(models.config().score.answers_bytes_max, encoder.width);
            Ok(CachedImageEncoder { encoder, cache })
        };
        let cached: Arc<CachedImageEncoder> = models.get_or_load(version, Box::pin(load)).await?;
        inputs.model.refuse_other(&cached.encoder.hash)?;
        Ok(cached)
    }
}

#[derive(Debug)]
struct CachedImageEncoder {
    encoder: Arc<SharedImageEncoder>,
    cache: OutputCache<f32>,
}

#[async_trait]
impl LoadedModel for CachedImageEncoder {
    async fn evaluate(self: Arc<Self>, inputs: Vec<ArrayRef>, _: Option<ArrayRef>) -> Result<ArrayRef> {
        let [images] = columns(NAME, inputs)?;
        run_blocking(NAME, move || self.column(&images)).await
    }
}

impl CachedImageEncoder {
    /// list<float32> [images]; null for null, and for images that cannot be decoded, of which the log warns.
    fn column(&self, images: &ArrayRef) -> Result<ArrayRef> {
        let images = read_pictures(images)?;
        let images: Vec<Option<&[u8]>> = images.iter().collect();
        let encode = |distinct: &[&[u8]]| {
            let mut refused = RefusedImages::default();
            let vectors = self.encoder.encode(distinct)?;
            let vectors = vectors.into_iter().map(|vector| refused.accept(vector, None)).collect();
            refused.warn_of_call(NAME, "have no vector", distinct.len());
            Ok(vectors)
        };
        Ok(output_cache::vectors(&self.cache.outputs(&images, encode)?))
    }
}
