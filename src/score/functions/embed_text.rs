//! `embed_text(text [, model or folder])`: the vector of a text by a pretrained encoder.

use arrow::array::ArrayRef;
use async_trait::async_trait;
use std::sync::Arc;

use super::embedding::{Embedding, VectorEncoder};
use super::output_cache::{OutputCache, Outputs};
use crate::failure::Result;
use crate::model::text::text_column;
use crate::score::encoders::SharedTextEncoder;
use crate::score::models::Models;
use crate::score::sql_model::{CallSignature, ModelArgument};

pub(super) static EMBED_TEXT: Embedding<SharedTextEncoder> = Embedding::new();

#[async_trait]
impl VectorEncoder for SharedTextEncoder {
    const NAME: &'static str = "embed_text";
    const SIGNATURE: CallSignature = CallSignature {
        inputs: 1,
        accepts: |inputs| inputs.iter().all(text_column::is_text_type),
        model: ModelArgument::Optional,
        expected: "a text and optionally a model version or a folder",
    };

    async fn load(models: &Models, named: &str) -> Result<Arc<Self>> {
        models.text_encoder(named).await
    }

    fn hash(&self) -> &str {
        &self.hash
    }

    fn width(&self) -> usize {
        self.width
    }

    /// None for null.
    fn vectors(&self, texts: &ArrayRef, cache: &OutputCache<f32>) -> Result<Outputs<f32>> {
        let texts = text_column::read_texts(Self::NAME, texts)?;
        let texts: Vec<Option<&str>> = texts.iter().map(Option::as_deref).collect();
        cache.outputs(&texts, |distinct| Ok(self.encode(distinct)?.into_iter().map(Some).collect()))
    }
}
