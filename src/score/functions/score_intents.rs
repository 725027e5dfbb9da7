//! `score_intents(features [, model [, 'members']])`: the intents, amounts and taste of each user; with `members` also the
//! probabilities of each member of the blend.

use arrow::array::{ArrayRef, AsArray, Float32Builder, Float64Array, ListBuilder, StringArray, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields};
use async_trait::async_trait;
use std::sync::Arc;

use crate::failure::{Failure, Result};
use crate::model::blend::{MemberOutputs, sigmoid};
use crate::model::targets::{BINARY, OUTPUTS};
use crate::score::models::{LakeInputs, ModelInputs, Models};
use crate::score::service::{IntentScores, ScoringService, as_struct};
use crate::score::sql_model::{CallSignature, LoadedModel, ModelArgument, SqlModel, columns};

const NAME: &str = "score_intents";
/// The argument that asks for the members' probabilities, and the field that has them.
const MEMBERS: &str = "members";

#[derive(Debug)]
pub(super) struct ScoreIntents;

#[async_trait]
impl SqlModel for ScoreIntents {
    fn name(&self) -> &'static str {
        NAME
    }

    fn signature(&self) -> CallSignature {
        CallSignature {
            model: ModelArgument::OptionalThenWord,
            expected: "a struct, optionally a model version, and optionally the word members",
            ..CallSignature::STRUCT
        }
    }

    fn result_type(&self, with_members: bool) -> DataType {
        DataType::Struct(fields(with_members))
    }

    fn lake_inputs(&self) -> LakeInputs {
        LakeInputs::Contents
    }

    async fn load(&self, models: &Models, inputs: &ModelInputs) -> Result<Arc<dyn LoadedModel>> {
        Ok(Arc::new(IntentModel(models.service_with_contents(inputs).await?)))
    }
}

struct IntentModel(ScoringService);

#[async_trait]
impl LoadedModel for IntentModel {
    async fn evaluate(self: Arc<Self>, inputs: Vec<ArrayRef>, detail: Option<ArrayRef>) -> Result<ArrayRef> {
        let [features] = columns(NAME, inputs)?;
        if let Some(detail) = &detail {
            require_members(detail)?;
        }
        column(&self.0.score(as_struct(&features)?).await?, &self.0.card.version, detail.is_some())
    }
}

/// Refuses another word than `members` as the last argument.
fn require_members(detail: &ArrayRef) -> Result<()> {
    let words = cast(detail, &DataType::Utf8)?;
    match words.as_string::<i32>().iter().find(|word| *word != Some(MEMBERS)) {
        None => Ok(()),
        Some(word) => Err(Failure::usage(format!(
            "{NAME}: expected the word {MEMBERS} as the third argument, got {}",
            word.unwrap_or("null")
        ))),
    }
}

/// The probabilities of one member.
fn member_fields() -> Fields {
    OUTPUTS[..BINARY].iter().map(|name| Field::new(*name, DataType::Float64, true)).collect()
}

/// The members of a blend.
fn members_fields() -> Fields {
    ["network", "trees"].into_iter().map(|name| Field::new(name, DataType::Struct(member_fields()), false)).collect()
}

fn fields(with_members: bool) -> Fields {
    let mut fields: Vec<Field> = OUTPUTS.iter().map(|n| Field::new(*n, DataType::Float64, false)).collect();
    fields.push(Field::new("taste", DataType::new_list(DataType::Float32, true), false));
    fields.push(Field::new("model_version", DataType::Utf8, false));
    if with_members {
        fields.push(Field::new(MEMBERS, DataType::Struct(members_fields()), false));
    }
    fields.into()
}

/// The scores as structs.
pub(crate) fn column(scores: &IntentScores, version: &str, with_members: bool) -> Result<ArrayRef> {
    let n = scores.scores.len() / OUTPUTS.len();
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(OUTPUTS.len() + 2);
    for output in 0..OUTPUTS.len() {
        let values = scores.scores.iter().skip(output).step_by(OUTPUTS.len()).map(|&s| f64::from(s));
        columns.push(Arc::new(values.collect::<Float64Array>()));
    }
    let width = scores.tastes.len() / n.max(1);
    let mut tastes = ListBuilder::new(Float32Builder::new());
    for taste in scores.tastes.chunks(width.max(1)) {
        tastes.values().append_slice(taste);
        tastes.append(true);
    }
    columns.push(Arc::new(tastes.finish()));
    columns.push(Arc::new(StringArray::from(vec![version; n])));
    if with_members {
        columns.push(members_column(&scores.members, n)?);
    }
    Ok(Arc::new(StructArray::try_new(fields(with_members), columns, None)?))
}

/// The members' probabilities of `rows` rows; null where a target has no trees.
fn members_column(members: &MemberOutputs, rows: usize) -> Result<ArrayRef> {
    let member = |of: &dyn Fn(usize) -> Option<f64>| -> Result<ArrayRef> {
        let target = |target: usize| -> ArrayRef {
            Arc::new((0..rows).map(|row| of(row * BINARY + target)).collect::<Float64Array>())
        };
        Ok(Arc::new(StructArray::try_new(member_fields(), (0..BINARY).map(target).collect(), None)?))
    };
    let network = |place: usize| members.network.get(place).map(|&probability| f64::from(probability));
    let trees = |place: usize| members.trees.get(place).filter(|odds| !odds.is_nan()).map(|&odds| sigmoid(odds));
    let both = vec![member(&network)?, member(&trees)?];
    Ok(Arc::new(StructArray::try_new(members_fields(), both, None)?))
}
