//! The contract of a function that SQL calls and a model answers. Each has a file in `functions`.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use async_trait::async_trait;
use std::fmt::Debug;
use std::sync::Arc;

use super::models::{LakeInputs, ModelInputs, ModelRef, Models};
use crate::failure::{Failure, Result};

/// A scoring function: its name and types in SQL, and how its model is found, loaded and called.
///
/// Planning calls [`pin`](Self::pin), which reads no more than a model's card (or an encoder's files, which have none);
/// execution calls [`load`](Self::load) once per partition, and [`LoadedModel::evaluate`] with each batch.
#[async_trait]
pub(crate) trait SqlModel: Debug + Send + Sync {
    /// The name that SQL calls.
    fn name(&self) -> &'static str;

    fn signature(&self) -> CallSignature;

    /// Type of the result; `labelled` for a call with an argument after the model: one label, or `members`.
    fn result_type(&self, labelled: bool) -> DataType;

    /// Reports whether a row may have no result, as a null text or an unreadable image.
    fn nullable(&self) -> bool {
        false
    }

    /// Parts of the session's lake that a call reads besides its arguments.
    fn lake_inputs(&self) -> LakeInputs {
        LakeInputs::None
    }

    /// Resolves the version that a call names (empty where it names none) to the weights that it has now; by default a bundle's.
    async fn pin(&self, models: &Models, version: &str) -> Result<ModelRef> {
        models.pin(version).await
    }

    /// Loads exactly the pinned weights, or refuses.
    async fn load(&self, models: &Models, inputs: &ModelInputs) -> Result<Arc<dyn LoadedModel>>;
}

/// A model that answers the calls of one function.
#[async_trait]
pub(crate) trait LoadedModel: Send + Sync {
    /// Computes the result of a batch: columns of the inputs, and the label of each row where the call names one.
    async fn evaluate(self: Arc<Self>, inputs: Vec<ArrayRef>, label: Option<ArrayRef>) -> Result<ArrayRef>;
}

/// The arguments of a call: inputs, then the model's version, then perhaps a label or `members`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallSignature {
    pub(crate) inputs: usize,
    /// Reports whether inputs of these types are allowed.
    pub(crate) accepts: fn(&[DataType]) -> bool,
    pub(crate) model: ModelArgument,
    /// The arguments in words, for the message about a call that does not fit.
    pub(crate) expected: &'static str,
}

impl CallSignature {
    /// A struct and perhaps a version, which is a bundle's.
    pub(crate) const STRUCT: Self = Self {
        inputs: 1,
        accepts: |inputs| matches!(inputs, [DataType::Struct(_)]),
        model: ModelArgument::Optional,
        expected: "a struct and optionally a model version",
    };
}

/// The way in which a call names its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ModelArgument {
    /// May be left out: the configured version, or else the champion.
    Optional,
    /// The same, and a word may follow that the function knows, such as `members` or an intent.
    OptionalThenWord,
    /// Always given, as these models have no champion; one of the model's labels may follow.
    ThenLabel,
}

/// The columns of a call, of which there are `N`.
pub(crate) fn columns<const N: usize>(function: &str, inputs: Vec<ArrayRef>) -> Result<[ArrayRef; N]> {
    inputs.try_into().map_err(|got: Vec<_>| Failure::bug(format!("{function}: expected {N} inputs, got {}", got.len())))
}

/// Runs a model on a thread that may block: a forward pass must not hold up the threads that serve streams.
pub(crate) async fn run_blocking(
    function: &'static str,
    evaluate: impl FnOnce() -> Result<ArrayRef> + Send + 'static,
) -> Result<ArrayRef> {
    tokio::task::spawn_blocking(evaluate).await.map_err(|e| Failure::bug(format!("{function}: {e}")))?
}
