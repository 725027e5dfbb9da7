//! Functions that label rows by a trained model: everything but how it is loaded and reads its column.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use async_trait::async_trait;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use super::label_columns::{self, Probabilities};
use super::output_cache::OutputCache;
use crate::failure::Result;
use crate::model::cards::Card;
use crate::score::models::{ModelInputs, ModelRef, Models};
use crate::score::sql_model::{CallSignature, LoadedModel, SqlModel, columns, run_blocking};

/// A model that gives each value of one column the probabilities of its labels.
#[async_trait]
pub(super) trait Classifier: Debug + Send + Sync + Sized + 'static {
    /// The name that SQL calls.
    const NAME: &'static str;
    const SIGNATURE: CallSignature;

    type Card: Card;

    /// Loads the model of a version from the registry.
    async fn load(models: &Models, version: &str) -> Result<Self>;

    fn card(&self) -> &Self::Card;

    fn labels(&self) -> &[String];

    /// The probability of each label of each row. Computes only rows that are not cached.
    fn probabilities(&self, column: &ArrayRef, cache: &OutputCache<f64>) -> Result<Probabilities>;
}

/// The function of a classifier.
#[derive(Debug)]
pub(super) struct Classification<C>(PhantomData<C>);

impl<C> Classification<C> {
    pub(super) const fn new() -> Self {
        Self(PhantomData)
    }
}

#[async_trait]
impl<C: Classifier> SqlModel for Classification<C> {
    fn name(&self) -> &'static str {
        C::NAME
    }

    fn signature(&self) -> CallSignature {
        C::SIGNATURE
    }

    fn result_type(&self, labelled: bool) -> DataType {
        label_columns::data_type(labelled)
    }

    fn nullable(&self) -> bool {
        true
    }

    async fn pin(&self, models: &Models, version: &str) -> Result<ModelRef> {
        models.pin_card::<C::Card>(version).await
    }

    async fn load(&self, models: &Models, inputs: &ModelInputs) -> Result<Arc<dyn LoadedModel>> {
        let version = &inputs.model.version;
        let load = async {
            let classifier = C::load(models, version).await?;
            models.count_load(version);
            let cache = OutputCache::new(models.config().score.answers_bytes_max, classifier.labels().len());
            Ok(CachedClassifier { classifier, cache })
        };
        let cached: Arc<CachedClassifier<C>> = models
            .get_or_load_pinned(&inputs.model, Box::pin(load), |cached| cached.classifier.card().weights_hash())
            .await?;
        Ok(cached)
    }
}

#[derive(Debug)]
struct CachedClassifier<C> {
    classifier: C,
    cache: OutputCache<f64>,
}

#[async_trait]
impl<C: Classifier> LoadedModel for CachedClassifier<C> {
    async fn evaluate(self: Arc<Self>, inputs: Vec<ArrayRef>, label: Option<ArrayRef>) -> Result<ArrayRef> {
        let [column] = columns(C::NAME, inputs)?;
        run_blocking(C::NAME, move || {
            let Self { classifier, cache } = self.as_ref();
            let (labels, version) = (classifier.labels(), classifier.card().version());
            let wanted = label.as_ref().map(label_columns::named).transpose()?;
            let wanted = wanted.map(|label| label_columns::find(labels, &label, C::NAME, version)).transpose()?;
            Ok(label_columns::column(labels, wanted, &classifier.probabilities(&column, cache)?))
        })
        .await
    }
}
