//! Functions that return the vectors of an encoder: everything but how it is loaded and reads its column.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use async_trait::async_trait;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use super::output_cache::{self, OutputCache, Outputs};
use crate::failure::Result;
use crate::score::models::{ModelInputs, ModelRef, Models};
use crate::score::sql_model::{CallSignature, LoadedModel, SqlModel, columns, run_blocking};

/// An encoder of the values of one column.
#[async_trait]
pub(super) trait VectorEncoder: Debug + Send + Sync + 'static {
    /// The name that SQL calls.
    const NAME: &'static str;
    const SIGNATURE: CallSignature;

    /// Loads the encoder of a version or a folder, unless it is loaded.
    async fn load(models: &Models, named: &str) -> Result<Arc<Self>>;

    /// Hash of everything but the value that a vector depends on.
    fn hash(&self) -> &str;

    /// Numbers in a vector.
    fn width(&self) -> usize;

    /// The vector of each row. Encodes only rows that are not cached.
    fn vectors(&self, column: &ArrayRef, cache: &OutputCache<f32>) -> Result<Outputs<f32>>;
}

/// The function of an encoder.
#[derive(Debug)]
pub(super) struct Embedding<E>(PhantomData<E>);

impl<E> Embedding<E> {
    pub(super) const fn new() -> Self {
        Self(PhantomData)
    }
}

#[async_trait]
impl<E: VectorEncoder> SqlModel for Embedding<E> {
    fn name(&self) -> &'static str {
        E::NAME
    }

    fn signature(&self) -> CallSignature {
        E::SIGNATURE
    }

    fn result_type(&self, _: bool) -> DataType {
        DataType::new_list(DataType::Float32, true)
    }

    fn nullable(&self) -> bool {
        true
    }

    async fn pin(&self, models: &Models, version: &str) -> Result<ModelRef> {
        let name = models.encoder_name(version).await?;
        let encoder = E::load(models, &name).await?;
        Ok(ModelRef::new(name, encoder.hash().into()))
    }

    async fn load(&self, models: &Models, inputs: &ModelInputs) -> Result<Arc<dyn LoadedModel>> {
        let load = async {
            let encoder = E::load(models, &inputs.model.version).await?;
            let cache = OutputCache::new(models.config().score.answers_bytes_max, encoder.width());
            Ok(CachedEncoder { encoder, cache })
        };
        let cached: Arc<CachedEncoder<E>> =
            models.get_or_load_pinned(&inputs.model, Box::pin(load), |cached| cached.encoder.hash()).await?;
        Ok(cached)
    }
}

#[derive(Debug)]
struct CachedEncoder<E> {
    encoder: Arc<E>,
    cache: OutputCache<f32>,
}

#[async_trait]
impl<E: VectorEncoder> LoadedModel for CachedEncoder<E> {
    async fn evaluate(self: Arc<Self>, inputs: Vec<ArrayRef>, _: Option<ArrayRef>) -> Result<ArrayRef> {
        let [column] = columns(E::NAME, inputs)?;
        run_blocking(E::NAME, move || Ok(output_cache::vectors(&self.encoder.vectors(&column, &self.cache)?))).await
    }
}
