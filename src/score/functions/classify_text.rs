//! `classify_text(text, model [, label])`: texts of any query labelled by a text model.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use async_trait::async_trait;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use super::label_columns::{self, Probabilities};
use super::output_cache::OutputCache;
use crate::failure::Result;
use crate::model::out_of_memory::retry_in_halves;
use crate::model::text::bundle::{TextCard, TextModel};
use crate::model::text::text_column;
use crate::score::devices;
use crate::score::models::{ModelInputs, ModelRef, Models};
use crate::score::sql_model::{CallSignature, LoadedModel, ModelArgument, SqlModel, columns, run_blocking};

const NAME: &str = "classify_text";

#[derive(Debug)]
pub(super) struct ClassifyText;

#[async_trait]
impl SqlModel for ClassifyText {
    fn name(&self) -> &'static str {
        NAME
    }

    fn signature(&self) -> CallSignature {
        let expected = "a text, a model version and optionally a label";
        CallSignature { inputs: 1, model: ModelArgument::ThenLabel, expected }
    }

    fn accepts(&self, inputs: &[DataType]) -> bool {
        inputs.iter().all(text_column::is_text_type)
    }

    fn result_type(&self, labelled: bool) -> DataType {
        label_columns::data_type(labelled)
    }

    fn nullable(&self) -> bool {
        true
    }

    async fn pin(&self, models: &Models, version: &str) -> Result<ModelRef> {
        let card = models.registry()?.text_card(version).await?;
        Ok(ModelRef::new(card.version, card.weights_hash))
    }

    async fn load(&self, models: &Models, inputs: &ModelInputs) -> Result<Arc<dyn LoadedModel>> {
        let version = &inputs.model.version;
        let load = async {
            let (device, settings) = (models.device()?, &models.config().score);
            let model = models.registry()?.load_text(version, device).await?;
            models.count_load(version);
            Ok(SharedTextModel {
                card: model.card.clone(),
                cache: OutputCache::new(settings.answers_bytes_max, model.card.labels.len()),
                tokens_max: devices::batch_tokens(settings, device),
                batches_halved: AtomicU64::new(0),
                model: Mutex::new(model),
            })
        };
        let text: Arc<SharedTextModel> = models.get_or_load(version, Box::pin(load)).await?;
        inputs.model.refuse_other(&text.card.weights_hash)?;
        Ok(text)
    }
}

/// A text model that partitions share. Forward passes take turns: two threads must not reach one tensor at once, and one pass
/// uses all cores.
#[derive(Debug)]
struct SharedTextModel {
    card: TextCard,
    model: Mutex<TextModel>,
    /// Padded tokens of one forward pass.
    tokens_max: usize,
    /// How often texts did not fit into memory together.
    batches_halved: AtomicU64,
    cache: OutputCache<f64>,
}

#[async_trait]
impl LoadedModel for SharedTextModel {
    async fn evaluate(self: Arc<Self>, inputs: Vec<ArrayRef>, label: Option<ArrayRef>) -> Result<ArrayRef> {
        let [texts] = columns(NAME, inputs)?;
        run_blocking(NAME, move || {
            let (labels, version) = (&self.card.labels, &self.card.version);
            let wanted = label.map(|label| label_columns::find(labels, &label, NAME, version)).transpose()?;
            Ok(label_columns::column(labels, wanted, &self.probabilities(&texts)?))
        })
        .await
    }
}

impl SharedTextModel {
    /// The probability of each label of each text. Equal texts, as search queries and short reviews often are, cost one pass.
    fn probabilities(&self, texts: &ArrayRef) -> Result<Probabilities> {
        let texts = text_column::read_texts(NAME, texts)?;
        let texts: Vec<Option<&str>> = texts.iter().map(Option::as_deref).collect();
        self.cache.outputs(&texts, |distinct| {
            let model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
            let classify = |texts: &[&str]| model.probabilities(texts, self.tokens_max);
            let found = retry_in_halves(distinct, "texts", &self.batches_halved, &classify);
            let found = found.map_err(|f| f.at(format!("{NAME} by {}", self.card.version)))?;
            Ok(found.into_iter().map(Some).collect())
        })
    }
}
