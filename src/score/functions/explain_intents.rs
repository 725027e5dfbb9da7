//! `explain_intents(features [, model [, intent]])`: what an intent of each user rests on.

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Builder, ListBuilder, StringBuilder, StructArray, StructBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, TimeUnit, TimestampMicrosecondType};
use async_trait::async_trait;
use std::sync::Arc;

use crate::failure::{Failure, Result};
use crate::features::feature_groups::{FeatureGroup, GROUPS, OTHER, VISITS, group_of};
use crate::model::targets::{BINARY, PURCHASE, TARGETS};
use crate::score::models::{LakeInputs, ModelInputs, Models};
use crate::score::service::explanation::Explanation;
use crate::score::service::{ScoringService, as_struct};
use crate::score::sql_model::{CallSignature, LoadedModel, ModelArgument, SqlModel, columns};

pub(crate) const NAME: &str = "explain_intents";

/// Name of the group of contents of events (text, picture, video), where the network reads their means.
const CONTENTS: &str = "contents";

#[derive(Debug)]
pub(super) struct ExplainIntents;

#[async_trait]
impl SqlModel for ExplainIntents {
    fn name(&self) -> &'static str {
        NAME
    }

    fn signature(&self) -> CallSignature {
        CallSignature {
            model: ModelArgument::OptionalThenWord,
            expected: "a struct, optionally a model version, and optionally an intent such as purchase",
            ..CallSignature::STRUCT
        }
    }

    fn result_type(&self, _: bool) -> DataType {
        DataType::new_list(DataType::Struct(fields()), true)
    }

    fn lake_inputs(&self) -> LakeInputs {
        LakeInputs::Contents
    }

    async fn load(&self, models: &Models, inputs: &ModelInputs) -> Result<Arc<dyn LoadedModel>> {
        Ok(Arc::new(Explainer(models.service_with_contents(inputs).await?)))
    }
}

struct Explainer(ScoringService);

#[async_trait]
impl LoadedModel for Explainer {
    async fn evaluate(self: Arc<Self>, inputs: Vec<ArrayRef>, intent: Option<ArrayRef>) -> Result<ArrayRef> {
        let [features] = columns(NAME, inputs)?;
        let features = as_struct(&features)?;
        let target = target(intent.as_ref())?;
        let names = feature_names(&self.0);
        let mut lists = ListBuilder::new(StructBuilder::from_fields(fields(), 0));
        for (row, explanation) in self.0.explain(features, target).await?.iter().enumerate() {
            for part in parts(explanation, target, &names, &Recent::read(features, row)?) {
                part.append_to(lists.values());
            }
            lists.append(true);
        }
        Ok(Arc::new(lists.finish()))
    }
}

/// One part of an explanation.
#[derive(Debug, PartialEq)]
pub(crate) struct Part {
    /// `baseline`, `group`, `event`, `rest` or `total`.
    pub(crate) part: &'static str,
    pub(crate) name: String,
    /// Time in microseconds and item of an event.
    pub(crate) ts: Option<i64>,
    pub(crate) item_id: Option<String>,
    pub(crate) log_odds: f64,
    pub(crate) words: String,
}

/// Explains the user of one row of features; the parts are those of the SQL function.
pub(crate) async fn explain_one(
    service: &ScoringService,
    features: &StructArray,
    target: usize,
) -> Result<(Explanation, Vec<Part>)> {
    let found = service.explain(features, target).await?.pop();
    let found = found.ok_or_else(|| Failure::bug(format!("{NAME}: expected one row, got none")))?;
    let parts = parts(&found, target, &feature_names(service), &Recent::read(features, 0)?);
    Ok((found, parts))
}

fn feature_names(service: &ScoringService) -> Vec<&str> {
    service.card.features.0.iter().map(|column| column.name.as_str()).collect()
}

/// Fields of [`Part`].
fn fields() -> Fields {
    let at = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    vec![
        Field::new("part", DataType::Utf8, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("ts", at, true),
        Field::new("item_id", DataType::Utf8, true),
        Field::new("log_odds", DataType::Float64, true),
        Field::new("words", DataType::Utf8, true),
    ]
    .into()
}

impl Part {
    fn append_to(self, rows: &mut StructBuilder) {
        let texts = [(0, Some(self.part.to_string())), (1, Some(self.name)), (3, self.item_id), (5, Some(self.words))];
        for (place, text) in texts {
            if let Some(column) = rows.field_builder::<StringBuilder>(place) {
                column.append_option(text);
            }
        }
        if let Some(times) = rows.field_builder::<TimestampMicrosecondBuilder>(2) {
            times.append_option(self.ts);
        }
        if let Some(odds) = rows.field_builder::<Float64Builder>(4) {
            odds.append_value(self.log_odds);
        }
        rows.append(true);
    }
}

/// The target that a call names, the same on every row.
fn target(intent: Option<&ArrayRef>) -> Result<usize> {
    let Some(intent) = intent else { return Ok(PURCHASE) };
    let words = cast(intent, &DataType::Utf8)?;
    target_of(words.as_string::<i32>().iter().flatten().next().unwrap_or("purchase"))
}

/// Returns the binary target of an intent; refuses (exit 2) an unknown one.
pub(crate) fn target_of(word: &str) -> Result<usize> {
    let target = TARGETS[..BINARY].iter().position(|target| target.name == word);
    target.ok_or_else(|| {
        let known: Vec<&str> = TARGETS[..BINARY].iter().map(|target| target.name).collect();
        Failure::usage(format!("{NAME}: expected an intent ({}), got {word:?}", known.join(", ")))
    })
}

/// The last events of one user, oldest first.
struct Recent {
    times: ArrayRef,
    types: ArrayRef,
    items: ArrayRef,
}

impl Recent {
    fn read(features: &StructArray, row: usize) -> Result<Self> {
        let missing = || Failure::model(format!("{NAME}: the features lack recent"));
        let lists = features.column_by_name("recent").and_then(|recent| recent.as_list_opt::<i32>());
        let events = lists.ok_or_else(missing)?.value(row);
        let events = as_struct(&events)?;
        let column = |name: &str, to: DataType| -> Result<ArrayRef> {
            Ok(cast(events.column_by_name(name).ok_or_else(missing)?, &to)?)
        };
        Ok(Self {
            times: column("ts", DataType::Timestamp(TimeUnit::Microsecond, None))?,
            types: column("event_type", DataType::Utf8)?,
            items: column("item_id", DataType::Utf8)?,
        })
    }
}

/// Divides an explanation into its parts: the baseline, groups by size, events from the newest, the rest and the total.
fn parts(found: &Explanation, target: usize, names: &[&str], recent: &Recent) -> Vec<Part> {
    let plain = |part, name: &str, log_odds, words: String| Part {
        part,
        name: name.into(),
        ts: None,
        item_id: None,
        log_odds,
        words,
    };
    let intent = TARGETS[target].name;
    let mut all = vec![plain("baseline", intent, found.baseline_log_odds, "where an average customer starts".into())];
    let share_of = |group: &FeatureGroup| -> f64 {
        let of_features = names.iter().zip(&found.features).filter(|(name, _)| group_of(name) == *group);
        of_features.map(|(_, share)| share).sum::<f64>() + if *group == VISITS { found.idle } else { 0.0 }
    };
    let mut groups: Vec<(&str, &str, f64)> =
        GROUPS.iter().chain([&OTHER]).map(|group| (group.name, group.phrase, share_of(group))).collect();
    groups.push((CONTENTS, "texts and pictures of what the customer looked at", found.contents));
    groups.retain(|(name, _, share)| *share != 0.0 || ![OTHER.name, CONTENTS].contains(name));
    groups.sort_by(|a, b| b.2.abs().total_cmp(&a.2.abs()));
    all.extend(groups.into_iter().map(|(name, phrase, share)| {
        plain("group", name, share, format!("{phrase} {} it {}", verb(name), direction(share)))
    }));
    let (times, types, items) = (
        recent.times.as_primitive::<TimestampMicrosecondType>(),
        recent.types.as_string::<i32>(),
        recent.items.as_string::<i32>(),
    );
    for (event, share) in found.events.iter().enumerate().rev() {
        let event_type = types.iter().nth(event).flatten().unwrap_or("event");
        let item = (event < items.len() && items.is_valid(event)).then(|| items.value(event).to_string());
        all.push(Part {
            part: "event",
            name: event_type.into(),
            ts: (event < times.len()).then(|| times.value(event)),
            log_odds: *share,
            words: event_words(event_type, item.as_deref(), *share),
            item_id: item,
        });
    }
    all.push(plain("rest", intent, found.rest, "what the calculation leaves over".into()));
    let percent = found.probability * 100.0;
    all.push(plain("total", intent, found.log_odds, format!("a probability of {percent:.1} % after calibration")));
    all
}

/// Says what an event does to an intent.
pub(crate) fn event_words(event_type: &str, item: Option<&str>, share: f64) -> String {
    format!("the customer {}, which makes it {}", did(event_type, item), direction(share))
}

fn verb(group: &str) -> &'static str {
    // "the hours … make", "texts … make"; all other phrases are singular.
    if ["times", CONTENTS].contains(&group) { "make" } else { "makes" }
}

fn direction(share: f64) -> &'static str {
    match share {
        share if share > 0.0 => "likelier",
        share if share < 0.0 => "less likely",
        _ => "neither likelier nor less likely",
    }
}

/// Says what a customer did with an item, in the past tense.
pub(crate) fn did(event_type: &str, item: Option<&str>) -> String {
    let item = item.unwrap_or("an item");
    match event_type {
        "view" => format!("viewed {item}"),
        "click" => format!("clicked {item}"),
        "search" => "searched".into(),
        "favorite" => format!("chose {item} as a favourite"),
        "cart" => format!("put {item} into the cart"),
        "remove_from_cart" => format!("took {item} out of the cart"),
        "purchase" => format!("bought or returned {item}"),
        "review" => format!("reviewed {item}"),
        other => format!("{other} {item}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{StringArray, TimestampMicrosecondArray};

    #[test]
    fn parts_add_up_and_can_be_read_out() {
        let found = Explanation {
            probability: 0.25,
            log_odds: 1.0,
            baseline_log_odds: -1.0,
            features: vec![0.5, -0.25, 0.25],
            idle: 0.5,
            events: vec![0.25, 0.5],
            rest: 0.25,
            ..Explanation::default()
        };
        let recent = Recent {
            times: Arc::new(TimestampMicrosecondArray::from(vec![1, 2])),
            types: Arc::new(StringArray::from(vec!["search", "cart"])),
            items: Arc::new(StringArray::from(vec![None, Some("i7")])),
        };
        let parts = parts(&found, PURCHASE, &["events_7d", "carts_1d", "loyalty"], &recent);
        let sum: f64 = parts.iter().filter(|part| part.part != "total").map(|part| part.log_odds).sum();
        let total = parts.last().unwrap();
        assert_eq!((sum, total.part, total.log_odds), (1.0, "total", 1.0));
        assert_eq!(total.words, "a probability of 25.0 % after calibration");
        let words: Vec<&str> = parts.iter().map(|part| part.words.as_str()).collect();
        for expected in [
            "how recently and how often the customer came makes it likelier",
            "how much went into the cart and when makes it less likely",
            "what the shop's own features say makes it likelier",
            "the customer put i7 into the cart, which makes it likelier",
            "the customer searched, which makes it likelier",
        ] {
            assert!(words.contains(&expected), "{expected}\n{words:#?}");
        }
        assert_eq!(parts[1].name, "visits", "the largest group first");
        let newest = parts.iter().find(|part| part.part == "event").unwrap();
        assert_eq!((newest.ts, newest.item_id.as_deref()), (Some(2), Some("i7")));
        assert!(parts.iter().all(|part| part.name != CONTENTS), "the network reads no means of contents");
    }

    #[test]
    fn an_unknown_intent_is_refused_with_those_that_there_are() {
        let word = |word: &str| -> ArrayRef { Arc::new(StringArray::from(vec![word])) };
        assert_eq!(target(None).unwrap(), PURCHASE);
        assert_eq!(target(Some(&word("churn"))).unwrap(), BINARY - 1);
        let refused = target(Some(&word("money"))).unwrap_err().to_string();
        assert!(refused.contains("cart, purchase, review, churn), got \"money\""), "{refused}");
    }
}
