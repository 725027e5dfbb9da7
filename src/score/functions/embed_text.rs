//! `embed_text(text [, model or folder])`: the vector of a text by a pretrained encoder.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use async_trait::async_trait;
use std::sync::Arc;

use super::output_cache::{self, OutputCache};
use crate::failure::Result;
use crate::model::text::text_column;
use crate::score::encoders::SharedTextEncoder;
use crate::score::models::{ModelInputs, ModelRef, Models};
use crate::score::sql_model::{CallSignature, LoadedModel, ModelArgument, SqlModel, columns, run_blocking};

const NAME: &str = "embed_text";

#[derive(Debug)]
pub(super) struct EmbedText;

#[async_trait]
impl SqlModel for EmbedText {
    fn name(&self) -> &'static str {
        NAME
    }

    fn signature(&self) -> CallSignature {
        let expected = "a text and optionally a model version or a folder";
        CallSignature { inputs: 1, model: ModelArgument::Optional, expected }
    }

    fn accepts(&self, inputs: &[DataType]) -> bool {
        inputs.iter().all(text_column::is_text_type)
    }

    fn result_type(&self, _: bool) -> DataType {
        DataType::new_list(DataType::Float32, true)
    }

    fn nullable(&self) -> bool {
        true
    }

    async fn pin(&self, models: &Models, version: &str) -> Result<ModelRef> {
        let name = models.encoder_name(version).await?;
        let encoder = models.text_encoder(&name).await?;
        Ok(ModelRef::new(name, encoder.hash.clone()))
    }

    async fn load(&self, models: &Models, inputs: &ModelInputs) -> Result<Arc<dyn LoadedModel>> {
        let version = &inputs.model.version;
        let load = async {
            let encoder = models.text_encoder(version).await?;
            let cache = OutputCache::new(models.config().score.answers_bytes_max, encoder.width);
            Ok(CachedTextEncoder { encoder, cache })
        };
        let cached: Arc<CachedTextEncoder> = models.get_or_load(version, Box::pin(load)).await?;
        inputs.model.refuse_other(&cached.encoder.hash)?;
        Ok(cached)
    }
}

#[derive(Debug)]
struct CachedTextEncoder {
    encoder: Arc<SharedTextEncoder>,
    cache: OutputCache<f32>,
}

#[async_trait]
impl LoadedModel for CachedTextEncoder {
    async fn evaluate(self: Arc<Self>, inputs: Vec<ArrayRef>, _: Option<ArrayRef>) -> Result<ArrayRef> {
        let [texts] = columns(NAME, inputs)?;
        run_blocking(NAME, move || self.column(&texts)).await
    }
}

impl CachedTextEncoder {
    /// list<float32> [texts]; null for null.
    fn column(&self, texts: &ArrayRef) -> Result<ArrayRef> {
        let texts = text_column::read_texts(NAME, texts)?;
        let texts: Vec<Option<&str>> = texts.iter().map(Option::as_deref).collect();
        let encode = |distinct: &[&str]| Ok(self.encoder.encode(distinct)?.into_iter().map(Some).collect());
        Ok(output_cache::vectors(&self.cache.outputs(&texts, encode)?))
    }
}
