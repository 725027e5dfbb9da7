//! The functions that SQL calls and a model answers, one file each. Adding one takes a file and its line in [`ALL`]. The file
//! implements [`SqlModel`], or only `VectorEncoder` (`embedding`) or `Classifier` (`classification`) for a function of one column
//! that returns vectors or labels.
//!
//! In: columns of arguments. Out: one column of results. `operator` declares the functions in a session and evaluates them;
//! `cluster::codec` sends their names.

mod classification;
mod classify_image;
mod classify_text;
mod embed_image;
mod embed_text;
mod embedding;
pub(crate) mod explain_intents;
mod forecast_demand;
mod label_columns;
mod latest_items;
mod output_cache;
mod predict_table;
mod recommend;
pub(crate) mod score_intents;

use arrow::datatypes::DataType;
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use super::sql_model::{ModelArgument, SqlModel};

/// Every scoring function.
pub(crate) static ALL: [ScoringFunction; 10] = [
    ScoringFunction(&score_intents::ScoreIntents),
    ScoringFunction(&explain_intents::ExplainIntents),
    ScoringFunction(&forecast_demand::ForecastDemand),
    ScoringFunction(&latest_items::LatestItemsOfUsers),
    ScoringFunction(&recommend::Recommend),
    ScoringFunction(&predict_table::PredictTable),
    ScoringFunction(&embed_text::EMBED_TEXT),
    ScoringFunction(&embed_image::EMBED_IMAGE),
    ScoringFunction(&classify_text::CLASSIFY_TEXT),
    ScoringFunction(&classify_image::CLASSIFY_IMAGE),
];

/// A registered function. Equality and order are those of its name.
#[derive(Clone, Copy)]
pub(crate) struct ScoringFunction(&'static dyn SqlModel);

impl ScoringFunction {
    /// The function of a name.
    pub(crate) fn find(name: &str) -> Option<Self> {
        ALL.into_iter().find(|function| function.name() == name)
    }

    /// The function as a session declares it.
    pub(crate) fn declare(self) -> ScalarUDF {
        ScalarUDF::from(Declared { function: self, signature: Signature::variadic_any(Volatility::Stable) })
    }

    /// Type of a call's result.
    fn check(self, arguments: &[DataType]) -> Result<DataType> {
        let signature = self.signature();
        let (inputs, rest) = arguments.split_at(signature.inputs.min(arguments.len()));
        let texts = rest.iter().all(|t| matches!(t, DataType::Utf8 | DataType::Utf8View));
        let named = match signature.model {
            ModelArgument::Optional => rest.len() <= 1,
            ModelArgument::OptionalThenWord => rest.len() <= 2,
            ModelArgument::ThenLabel => matches!(rest.len(), 1 | 2),
        };
        if inputs.len() == signature.inputs && texts && named && (signature.accepts)(inputs) {
            return Ok(self.result_type(rest.len() == 2));
        }
        plan_err!("{}: expected {}, got {arguments:?}", self.name(), signature.expected)
    }
}

impl Deref for ScoringFunction {
    type Target = dyn SqlModel;

    fn deref(&self) -> &Self::Target {
        self.0
    }
}

impl fmt::Debug for ScoringFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PartialEq for ScoringFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for ScoringFunction {}

impl PartialOrd for ScoringFunction {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.name().partial_cmp(other.name())
    }
}

impl Hash for ScoringFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

/// Name and types for the planner; the operator replaces every call.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Declared {
    function: ScoringFunction,
    signature: Signature,
}

impl ScalarUDFImpl for Declared {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.function.check(arguments)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        exec_err!("{}: only works in queries of a session with a model", self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Fields;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_found() {
        let names: BTreeSet<_> = ALL.iter().map(|function| function.name()).collect();
        assert_eq!(names.len(), ALL.len());
        assert!(ALL.into_iter().all(|function| ScoringFunction::find(function.name()) == Some(function)));
        assert!(ScoringFunction::find("lower").is_none());
    }

    #[test]
    fn a_call_that_does_not_fit_is_refused_by_name() {
        let text = DataType::Utf8;
        let features = DataType::Struct(Fields::empty());
        for (name, arguments) in [
            ("score_intents", vec![text.clone()]),
            ("score_intents", vec![features.clone(), text.clone(), text.clone(), text.clone()]),
            ("forecast_demand", vec![features.clone(), text.clone(), text.clone()]),
            ("predict_table", vec![features.clone()]),
            ("latest_items", vec![text.clone()]),
            ("recommend", vec![]),
            ("classify_text", vec![text.clone()]),
            ("embed_text", vec![text.clone(), DataType::Int64]),
        ] {
            let refused = ScoringFunction::find(name).unwrap().check(&arguments).unwrap_err().to_string();
            assert!(refused.contains(&format!("{name}: expected ")), "{refused}");
        }
        let label = ScoringFunction::find("classify_text").unwrap().check(&[text.clone(), text.clone(), text]);
        assert_eq!(label.unwrap(), DataType::Float64);
    }
}
