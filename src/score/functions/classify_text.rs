//! `classify_text(text, model [, label])`: texts of any query labelled by a text model.

use arrow::array::ArrayRef;
use async_trait::async_trait;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use super::classification::{Classification, Classifier};
use super::label_columns::Probabilities;
use super::output_cache::OutputCache;
use crate::failure::Result;
use crate::model::out_of_memory::retry_in_halves;
use crate::model::text::bundle::{TextCard, TextModel};
use crate::model::text::text_column;
use crate::score::devices;
use crate::score::lock::lock;
use crate::score::models::Models;
use crate::score::sql_model::{CallSignature, ModelArgument};

pub(super) static CLASSIFY_TEXT: Classification<SharedTextModel> = Classification::new();

/// A text model that partitions share. Forward passes take turns: two threads must not reach one tensor at once, and one pass
/// uses all cores.
#[derive(Debug)]
pub(super) struct SharedTextModel {
    card: TextCard,
    model: Mutex<TextModel>,
    /// Padded tokens of one forward pass.
    tokens_max: usize,
    /// Counts the batches that were halved because their texts did not fit into memory together.
    batches_halved: AtomicU64,
}

#[async_trait]
impl Classifier for SharedTextModel {
    const NAME: &'static str = "classify_text";
    const SIGNATURE: CallSignature = CallSignature {
        inputs: 1,
        accepts: |inputs| inputs.iter().all(text_column::is_text_type),
        model: ModelArgument::ThenLabel,
        expected: "a text, a model version and optionally a label",
    };

    type Card = TextCard;

    async fn load(models: &Models, version: &str) -> Result<Self> {
        let device = models.device()?;
        let model = models.registry()?.load_text(version, device).await?;
        Ok(Self {
            card: model.card.clone(),
            tokens_max: devices::batch_tokens(&models.config().score, device),
            batches_halved: AtomicU64::new(0),
            model: Mutex::new(model),
        })
    }

    fn card(&self) -> &TextCard {
        &self.card
    }

    fn labels(&self) -> &[String] {
        &self.card.labels
    }

    /// Equal texts, as search queries and short reviews often are, cost one pass.
    fn probabilities(&self, texts: &ArrayRef, cache: &OutputCache<f64>) -> Result<Probabilities> {
        let texts = text_column::read_texts(Self::NAME, texts)?;
        let texts: Vec<Option<&str>> = texts.iter().map(Option::as_deref).collect();
        cache.outputs(&texts, |distinct| {
            let model = lock(&self.model);
            let classify = |texts: &[&str]| model.probabilities(texts, self.tokens_max);
            let found = retry_in_halves(distinct, "texts", &self.batches_halved, &classify);
            let found = found.map_err(|f| f.at(format!("{} by {}", Self::NAME, self.card.version)))?;
            Ok(found.into_iter().map(Some).collect())
        })
    }
}
