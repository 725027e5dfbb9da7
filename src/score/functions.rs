//! `score_intents`, `forecast_demand` and their like as SQL sees them: names and types. The operator does the work.

use arrow::array::{
    ArrayRef, Float32Builder, Float64Array, Int32Array, ListArray, ListBuilder, StringArray, StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::sync::Arc;

use super::service::{IntentScores, ItemForecast};
use crate::model::intent::OUTPUTS;
use crate::model::text::text_column;

/// Which of the functions that a model answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Scorer {
    Intents,
    Demand,
    Recommend,
    /// A table model, always named: there is no champion among them.
    Table,
    /// A pretrained text encoder.
    Embed,
    /// An image encoder.
    EmbedImage,
    /// All labels of a text by a text model, always named.
    Text,
    /// One of them: `classify_text` with a third argument.
    TextLabel,
    /// All labels of a picture by an image model, always named.
    Image,
    /// One of them: `classify_image` with a third argument.
    ImageLabel,
}

impl Scorer {
    /// One of each name.
    pub const ALL: [Scorer; 8] = [
        Scorer::Intents,
        Scorer::Demand,
        Scorer::Recommend,
        Scorer::Table,
        Scorer::Embed,
        Scorer::EmbedImage,
        Scorer::Text,
        Scorer::Image,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Scorer::Intents => "score_intents",
            Scorer::Demand => "forecast_demand",
            Scorer::Recommend => "recommend",
            Scorer::Table => "predict_table",
            Scorer::Embed => "embed_text",
            Scorer::EmbedImage => "embed_image",
            Scorer::Text | Scorer::TextLabel => "classify_text",
            Scorer::Image | Scorer::ImageLabel => "classify_image",
        }
    }

    pub fn data_type(self) -> DataType {
        match self {
            Scorer::Intents => DataType::Struct(intent_fields()),
            Scorer::Demand => DataType::List(Arc::new(Field::new_list_field(DataType::Struct(demand_fields()), true))),
            Scorer::Recommend => DataType::new_list(DataType::Struct(super::recommend::fields()), true),
            Scorer::Table | Scorer::TextLabel | Scorer::ImageLabel => DataType::Float64,
            Scorer::Embed | Scorer::EmbedImage => DataType::new_list(DataType::Float32, true),
            Scorer::Text | Scorer::Image => DataType::new_list(DataType::Struct(super::labels::fields()), true),
        }
    }

    /// Whether a row may have no result: a text or picture that is null, or that can not be read.
    pub fn nullable(self) -> bool {
        !matches!(self, Scorer::Intents | Scorer::Demand | Scorer::Recommend | Scorer::Table)
    }

    /// How many arguments it takes before the model version, which `predict_table`, `classify_text` and
    /// `classify_image` must have.
    pub fn arity(self) -> usize {
        match self {
            Scorer::Recommend => 3,
            _ => 1,
        }
    }

    /// What a call with a label as third argument computes, where it computes something else.
    pub fn of_label(self) -> Self {
        match self {
            Scorer::Text => Scorer::TextLabel,
            Scorer::Image => Scorer::ImageLabel,
            other => other,
        }
    }

    /// Whether the label that is asked for is an argument, too.
    pub fn takes_label(self) -> bool {
        matches!(self, Scorer::Table | Scorer::TextLabel | Scorer::ImageLabel)
    }

    pub fn function(self) -> ScalarUDF {
        ScalarUDF::from(Declared { scorer: self, signature: Signature::variadic_any(Volatility::Stable) })
    }
}

/// Bytes of pictures. Null is the type of a literal NULL.
fn is_picture(of: &DataType) -> bool {
    matches!(of, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::Null)
}

/// A model version, and perhaps a label.
fn is_named(rest: &[DataType]) -> bool {
    matches!(rest.len(), 1 | 2) && rest.iter().all(|t| matches!(t, DataType::Utf8 | DataType::Utf8View))
}

fn intent_fields() -> Fields {
    let mut fields: Vec<Field> = OUTPUTS.iter().map(|n| Field::new(*n, DataType::Float64, false)).collect();
    fields.push(Field::new("taste", DataType::new_list(DataType::Float32, true), false));
    fields.push(Field::new("model_version", DataType::Utf8, false));
    fields.into()
}

fn demand_fields() -> Fields {
    let mut fields = vec![Field::new("step", DataType::Int32, false)];
    fields.extend(
        ["mean", "q05", "q10", "q25", "q50", "q75", "q90", "q95"].map(|n| Field::new(n, DataType::Float64, false)),
    );
    fields.into()
}

/// The struct column of `score_intents`.
pub fn intent_column(scores: &IntentScores, version: &str) -> ArrayRef {
    let n = scores.scores.len() / OUTPUTS.len();
    let mut columns: Vec<ArrayRef> = (0..OUTPUTS.len())
        .map(|k| {
            let values = scores.scores.iter().skip(k).step_by(OUTPUTS.len()).map(|&s| f64::from(s));
            Arc::new(values.collect::<Float64Array>()) as ArrayRef
        })
        .collect();
    let width = scores.tastes.len() / n.max(1);
    let mut tastes = ListBuilder::new(Float32Builder::new());
    for taste in scores.tastes.chunks(width.max(1)) {
        tastes.values().append_slice(taste);
        tastes.append(true);
    }
    columns.push(Arc::new(tastes.finish()));
    columns.push(Arc::new(StringArray::from(vec![version; n])));
    Arc::new(StructArray::new(intent_fields(), columns, None))
}

/// The list column of `forecast_demand`: step 0 is the lead time's cumulative demand, steps 1.. are days.
pub fn demand_column(forecasts: &[ItemForecast]) -> ArrayRef {
    let mut steps = Vec::new();
    let mut columns: [Vec<f64>; 8] = Default::default();
    let mut lengths = Vec::new();
    for forecast in forecasts {
        lengths.push(1 + forecast.daily.len());
        for (step, values) in std::iter::once(&forecast.lead_time).chain(&forecast.daily).enumerate() {
            steps.push(step as i32);
            columns.iter_mut().zip(values).for_each(|(column, value)| column.push(*value));
        }
    }
    let mut arrays: Vec<ArrayRef> = vec![Arc::new(Int32Array::from(steps))];
    arrays.extend(columns.map(|c| Arc::new(Float64Array::from(c)) as ArrayRef));
    let rows = StructArray::new(demand_fields(), arrays, None);
    let item = Arc::new(Field::new_list_field(DataType::Struct(demand_fields()), true));
    Arc::new(ListArray::new(item, OffsetBuffer::from_lengths(lengths), Arc::new(rows), None))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Declared {
    scorer: Scorer,
    signature: Signature,
}

impl ScalarUDFImpl for Declared {
    fn name(&self) -> &str {
        self.scorer.name()
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let (own, rest) = arguments.split_at(self.scorer.arity().min(arguments.len()));
        let version = matches!(rest, [] | [DataType::Utf8 | DataType::Utf8View]);
        let labelled = if rest.len() == 2 { self.scorer.of_label() } else { self.scorer };
        match (self.scorer, own) {
            (Scorer::Intents | Scorer::Demand, [DataType::Struct(_)]) if version => Ok(self.scorer.data_type()),
            (Scorer::Recommend, [DataType::List(_), DataType::List(_) | DataType::Null, DataType::Int64])
                if version =>
            {
                Ok(self.scorer.data_type())
            }
            (Scorer::Table, [DataType::Struct(_)]) if is_named(rest) => Ok(self.scorer.data_type()),
            (Scorer::Embed, [text]) if text_column::is_text_type(text) && version => Ok(self.scorer.data_type()),
            (Scorer::Embed, _) => {
                plan_err!("embed_text: expected a text and optionally a model version or a folder, got {arguments:?}")
            }
            (Scorer::EmbedImage, [picture]) if is_picture(picture) && version => Ok(self.scorer.data_type()),
            (Scorer::EmbedImage, _) => {
                plan_err!(
                    "embed_image: expected the bytes of a picture and optionally a model version or a folder, \
                     got {arguments:?}"
                )
            }
            (Scorer::Text, [text]) if text_column::is_text_type(text) && is_named(rest) => Ok(labelled.data_type()),
            (Scorer::Text, _) => {
                plan_err!("classify_text: expected a text, a model version and optionally a label, got {arguments:?}")
            }
            (Scorer::Image, [picture]) if is_picture(picture) && is_named(rest) => Ok(labelled.data_type()),
            (Scorer::Image, _) => {
                plan_err!(
                    "classify_image: expected the bytes of a picture, a model version and optionally a label, \
                     got {arguments:?}"
                )
            }
            (Scorer::Table, _) => {
                plan_err!("predict_table: expected a struct, a model version and optionally a label, got {arguments:?}")
            }
            (Scorer::Recommend, _) => {
                plan_err!("recommend: expected taste, list of excluded item ids and k, got {arguments:?}")
            }
            _ => plan_err!("{}: expected a struct and optionally a model version, got {arguments:?}", self.name()),
        }
    }
    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        exec_err!("{}: only works in queries of a session with a model", self.name())
    }
}
