//! `explain_intents(features [, model [, intent]])`: what an intent of each user rests on.

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Builder, ListBuilder, StringBuilder, StructArray, StructBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Float64Type, TimeUnit, TimestampMicrosecondType};
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
            let user = User { names: &names, values: &values_of(features, row), recent: &Recent::read(features, row)? };
            for part in user.parts(explanation, target) {
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
    /// Completes "the customer …" where a group or event can be said so.
    pub(crate) fact: Option<String>,
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
    let (names, recent) = (feature_names(service), Recent::read(features, 0)?);
    let parts = User { names: &names, values: &values_of(features, 0), recent: &recent }.parts(&found, target);
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
    target_of(words.as_string::<i32>().iter().flatten().next().unwrap_or("purchase"), NAME)
}

/// Returns the binary target of an intent; refuses (exit 2) an unknown one, as what was called.
pub(crate) fn target_of(word: &str, called: &str) -> Result<usize> {
    let target = TARGETS[..BINARY].iter().position(|target| target.name == word);
    target.ok_or_else(|| {
        let known: Vec<&str> = TARGETS[..BINARY].iter().map(|target| target.name).collect();
        Failure::usage(format!("{called}: expected an intent ({}), got {word:?}", known.join(", ")))
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

/// Returns what looks up the numeric features of a row; `None` for null and for a feature that isn't there.
fn values_of(features: &StructArray, row: usize) -> impl Fn(&str) -> Option<f64> {
    move |name| {
        let value = cast(&features.column_by_name(name)?.slice(row, 1), &DataType::Float64).ok()?;
        value.is_valid(0).then(|| value.as_primitive::<Float64Type>().value(0))
    }
}

/// Features and events of a user, for the words of an explanation.
struct User<'a> {
    /// Features in the order of the contract.
    names: &'a [&'a str],
    values: &'a dyn Fn(&str) -> Option<f64>,
    recent: &'a Recent,
}

impl User<'_> {
    /// Divides an explanation into its parts: the baseline, groups by size, events from the newest, the rest and the total.
    fn parts(&self, found: &Explanation, target: usize) -> Vec<Part> {
        let intent = TARGETS[target].name;
        let plain = |part, log_odds, words: &str| Part { words: words.into(), ..Part::new(part, intent, log_odds) };
        let mut groups: Vec<Part> =
            GROUPS.iter().chain([&OTHER]).map(|group| self.group(group, found, target)).collect();
        let contents = "the texts and pictures of what the customer looked at";
        groups.push(Part {
            words: format!("{contents}: this {}", effect(found.contents, target)),
            ..Part::new("group", CONTENTS, found.contents)
        });
        groups.retain(|part| part.log_odds != 0.0 || ![OTHER.name, CONTENTS].contains(&part.name.as_str()));
        groups.sort_by(|a, b| b.log_odds.abs().total_cmp(&a.log_odds.abs()));
        let mut all = vec![plain("baseline", found.baseline_log_odds, "where an average customer starts")];
        all.extend(groups);
        all.extend(self.events(found, target));
        all.push(plain("rest", found.rest, "what the calculation leaves over"));
        let percent = found.probability * 100.0;
        let said =
            [format!("a probability of {percent:.1} % after calibration")].into_iter().chain(raises_and_lowers(&all));
        let words = said.collect::<Vec<_>>().join("; ");
        all.push(plain("total", found.log_odds, &words));
        all
    }

    fn group(&self, group: &FeatureGroup, found: &Explanation, target: usize) -> Part {
        let of_features: Vec<(&str, f64)> = self
            .names
            .iter()
            .copied()
            .zip(found.features.iter().copied())
            .filter(|(name, _)| group_of(name) == *group)
            .collect();
        let idle = if *group == VISITS { found.idle } else { 0.0 };
        let share = of_features.iter().map(|(_, share)| share).sum::<f64>() + idle;
        let fact = group.facts(self.values);
        let effect = effect(share, target);
        let words = match &fact {
            Some(fact) => format!("the customer {fact}, which {effect}"),
            None => {
                let largest = of_features.iter().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())).map(|(name, _)| name);
                let named = largest.and_then(|name| Some(format!(" (most of all {name} = {})", (self.values)(name)?)));
                format!("{}{}: this {effect}", group.phrase, named.unwrap_or_default())
            }
        };
        Part { fact, words, ..Part::new("group", group.name, share) }
    }

    /// The events, newest first.
    fn events(&self, found: &Explanation, target: usize) -> Vec<Part> {
        let times = self.recent.times.as_primitive::<TimestampMicrosecondType>();
        let (types, items) = (self.recent.types.as_string::<i32>(), self.recent.items.as_string::<i32>());
        let events = found.events.iter().enumerate().rev().map(|(event, share)| {
            let event_type = types.iter().nth(event).flatten().unwrap_or("event");
            let item = (event < items.len() && items.is_valid(event)).then(|| items.value(event));
            let mut part = Part {
                ts: (event < times.len()).then(|| times.value(event)),
                item_id: item.map(String::from),
                ..Part::new("event", event_type, *share)
            };
            part.say_event(item, None, target);
            part
        });
        events.collect()
    }
}

impl Part {
    fn new(part: &'static str, name: &str, log_odds: f64) -> Self {
        Self { part, name: name.into(), ts: None, item_id: None, log_odds, fact: None, words: String::new() }
    }

    /// Puts an event into words, with its item as it shall be called and its day.
    pub(crate) fn say_event(&mut self, item: Option<&str>, day: Option<&str>, target: usize) {
        let on = day.map_or_else(String::new, |day| format!(" on {day}"));
        let fact = format!("{}{on}", did(&self.name, item));
        self.words = format!("the customer {fact}, which {}", effect(self.log_odds, target));
        self.fact = Some(fact);
    }

    /// Tells whether the part is large enough to be read out.
    pub(crate) fn counts(&self) -> bool {
        ["group", "event"].contains(&self.part) && self.log_odds.abs() >= LITTLE
    }
}

/// Log-odds from which a part is said to make an intent a little likelier, likelier and much likelier: factors on the odds of 1.05,
/// 1.3 and 2.7.
const LITTLE: f64 = 0.05;
const SOME: f64 = 0.25;
const MUCH: f64 = 1.0;

/// Facts named for an intent, at most; of those against it, one.
const FACTS_FOR: usize = 2;

/// Says what raises an intent most and what lowers it most, each a clause; empty where nothing is worth a word.
pub(crate) fn raises_and_lowers(parts: &[Part]) -> Vec<String> {
    let strongest = |sign: f64, most: usize| -> Option<String> {
        let mut counting: Vec<&Part> =
            parts.iter().filter(|part| part.counts() && part.log_odds * sign > 0.0 && part.fact.is_some()).collect();
        counting.sort_by(|a, b| b.log_odds.abs().total_cmp(&a.log_odds.abs()));
        let mut facts: Vec<&str> = Vec::new();
        for fact in counting.iter().filter_map(|part| part.fact.as_deref()) {
            if facts.len() < most && !facts.contains(&fact) {
                facts.push(fact);
            }
        }
        (!facts.is_empty()).then(|| facts.join("; the customer "))
    };
    let raises = strongest(1.0, FACTS_FOR).map(|facts| format!("what raises it most: the customer {facts}"));
    let lowers = strongest(-1.0, 1).map(|facts| format!("what lowers it most: the customer {facts}"));
    raises.into_iter().chain(lowers).collect()
}

/// Says what a share of the log-odds does to an intent, in the third person.
fn effect(share: f64, target: usize) -> String {
    let event = TARGETS[target].event;
    let direction = if share > 0.0 { "likelier" } else { "less likely" };
    match share.abs() {
        size if size < LITTLE => format!("hardly changes how likely {event} is"),
        size if size < SOME => format!("makes {event} a little {direction}"),
        size if size < MUCH => format!("makes {event} {direction}"),
        _ => format!("makes {event} much {direction}"),
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
        let values = |name: &str| {
            [("carts_28d", 2.0), ("cart_recency_days", 3.0), ("loyalty", 7.0)]
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| *value)
        };
        let user = User { names: &["events_7d", "carts_1d", "loyalty"], values: &values, recent: &recent };
        let parts = user.parts(&found, PURCHASE);
        let sum: f64 = parts.iter().filter(|part| part.part != "total").map(|part| part.log_odds).sum();
        let total = parts.last().unwrap();
        assert_eq!((sum, total.part, total.log_odds), (1.0, "total", 1.0));
        assert_eq!(
            total.words,
            "a probability of 25.0 % after calibration; what raises it most: the customer put i7 into the cart; the customer searched; \
             what lowers it most: the customer put 2 items into the cart in 28 days, the last one 3 days ago"
        );
        let words: Vec<&str> = parts.iter().map(|part| part.words.as_str()).collect();
        for expected in [
            "how recently and how often the customer came: this makes a purchase much likelier",
            "the customer put 2 items into the cart in 28 days, the last one 3 days ago, which makes a purchase less likely",
            "what the shop's own features say (most of all loyalty = 7): this makes a purchase likelier",
            "the customer put i7 into the cart, which makes a purchase likelier",
            "the customer searched, which makes a purchase likelier",
            "how many reviews the customer wrote: this hardly changes how likely a purchase is",
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
