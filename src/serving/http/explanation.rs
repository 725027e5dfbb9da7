//! Says what a user's intents rest on, and suggests items with their reasons.

use axum::Extension;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::live::{failed, score};
use super::problem::Problem;
use super::users::{answer, json_rows, with_intents};
use crate::failure::Result as FailureResult;
use crate::model::attributions::TOLERANCE;
use crate::model::targets::{TARGETS, Target, TargetKind};
use crate::score::functions::explain_intents::{Part, did, raises_and_lowers, target_of};
use crate::serving::access::Account;
use crate::serving::live::{Live, LiveAnswer};
use crate::serving::queries::Queries;
use crate::serving::refusal::Refusal;

/// Suggested items.
const SUGGESTIONS: usize = 5;

/// The smallest cosine with which two items count as alike.
const ALIKE: f32 = 0.5;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    intent: Option<String>,
}

/// Explanation of one user.
pub(super) struct Explained {
    pub(super) user_id: String,
    pub(super) run_date: String,
    pub(super) model_version: String,
    pub(super) intent: String,
    pub(super) intents: Map<String, Value>,
    /// Mean of each intent over all customers of the night.
    pub(super) averages: BTreeMap<&'static str, f64>,
    /// Segment and time of the last event, as the night publishes them.
    pub(super) segment: Option<String>,
    pub(super) last_seen_at: Option<String>,
    /// Its local day, for people to read.
    pub(super) last_seen: Option<String>,
    /// Up to three sentences: how likely it is, what raises it most and what lowers it most.
    pub(super) summary: String,
    pub(super) parts: Vec<Part>,
    pub(super) items: Vec<Suggestion>,
    /// Says how the parts become the probability, and what they start from.
    method: Value,
}

/// A suggested item.
#[derive(Debug, Serialize)]
pub(super) struct Suggestion {
    pub(super) rank: usize,
    pub(super) item_id: String,
    pub(super) title: Option<String>,
    pub(super) score: f32,
    pub(super) reason: String,
}

pub(super) async fn explanation(
    State(queries): State<Arc<Queries>>,
    Extension(account): Extension<Account>,
    user_id: Result<Path<String>, PathRejection>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Problem> {
    let Path(user_id) = user_id?;
    let Query(Asked { intent }) = asked?;
    let found = explain(&queries, &account, &user_id, intent.as_deref().unwrap_or("purchase")).await?;
    let part = |part: &Part| {
        json!({
            "part": part.part, "name": part.name, "ts": part.ts.and_then(time).map(|ts| ts.to_rfc3339()),
            "item_id": part.item_id, "log_odds": part.log_odds, "words": part.words,
        })
    };
    Ok(answer(&json!({
        "user_id": found.user_id,
        "run_date": found.run_date,
        "model_version": found.model_version,
        "segment": found.segment,
        "last_seen_at": found.last_seen_at,
        "intents": found.intents,
        "averages": found.averages,
        "summary": found.summary,
        "explained": { "intent": found.intent, "parts": found.parts.iter().map(part).collect::<Value>(), "method": found.method },
        "items": found.items,
    })))
}

/// Explains one intent of a user, as of the newest night.
pub(super) async fn explain(
    queries: &Queries,
    account: &Account,
    user_id: &str,
    intent: &str,
) -> Result<Explained, Problem> {
    let target = target_of(intent, "explanation").map_err(|failure| Problem::bad_request(failure.message))?;
    let night = queries.nights.newest();
    let stored = night.meant_id(account, user_id).map(|id| night.intents.of(&id)).filter(|rows| rows.num_rows() > 0);
    let stored = stored.ok_or_else(|| super::users::unknown(&night, user_id))?;
    let stored = json_rows(&stored)?.pop().unwrap_or_default();
    let (live, scored) = score(queries, account, user_id, &[]).await?;
    let _turn = queries.live_turn().await?;
    let explained = queries.in_time(live.model.explain(&scored.features, target)).await?;
    let (found, mut parts) = explained.map_err(|failure| failed(account, failure))?;
    name_items(&live, &mut parts, target).map_err(Refusal::from)?;
    let mut row = with_intents(json_rows(&(&scored.scores).into())?.pop().unwrap_or_default());
    let intents = row.remove("intents").and_then(|intents| intents.as_object().cloned()).unwrap_or_default();
    let items = queries.in_time(suggestions(&live, &scored, &Met::of(&parts))).await?.map_err(Refusal::from)?;
    let text = |column: &str| stored.get(column).and_then(Value::as_str).map(String::from);
    let days = queries.nights.horizons();
    let target = &TARGETS[target];
    Ok(Explained {
        summary: [chance(target, found.probability, night.averages.get(target.output).copied(), days)]
            .into_iter()
            .chain(raises_and_lowers(&parts))
            .map(|clause| sentence(&clause))
            .collect::<Vec<_>>()
            .join(" "),
        segment: text("segment"),
        last_seen: text("last_seen_at")
            .and_then(|at| at.parse::<DateTime<Utc>>().ok())
            .map(|at| day(at, live.config().time_zone())),
        last_seen_at: text("last_seen_at"),
        averages: night.averages.clone(),
        user_id: scored.user_id.clone(),
        run_date: scored.run_date.to_string(),
        model_version: live.model.version.clone(),
        intent: intent.into(),
        intents,
        parts,
        items,
        method: json!({
            "baseline": "an average user of the training whose events say nothing (network), the mean of the training (trees)",
            "network": "integrated gradients (arXiv 1703.01365)",
            "trees": "path attribution",
            "network_weight": found.network_weight,
            "calibration": { "slope": found.slope, "intercept": found.intercept },
            "probability": found.probability,
            "tolerance": TOLERANCE,
        }),
    })
}

/// Says how likely an intent is, compared with the average customer of the night.
fn chance(target: &Target, probability: f64, average: Option<f64>, days: (u32, u32)) -> String {
    let percent = |of: f64| format!("{:.1} %", of * 100.0);
    let compared = match average.and_then(|average| Some((average, times_average(probability, average)?))) {
        Some((average, times)) => format!(", {times} ({})", percent(average)),
        None => String::new(),
    };
    format!("{} within {} days has a chance of {}{compared}", noun(target), days_of(target, days), percent(probability))
}

/// Compares a probability with the mean of all customers; `None` where that is zero.
pub(super) fn times_average(probability: f64, average: f64) -> Option<String> {
    (average > 0.0).then(|| match probability / average {
        times if (0.9..=1.1).contains(&times) => "about the average of all customers".into(),
        times if times < 0.1 => "less than a tenth of the average of all customers".into(),
        times => format!("{times:.1} times the average of all customers"),
    })
}

/// Returns the days within which a target is predicted: churn's are its own.
pub(super) fn days_of(target: &Target, (horizon_days, churn_days): (u32, u32)) -> u32 {
    if target.kind == TargetKind::Churn { churn_days } else { horizon_days }
}

/// Names what the customer may do, for people to read.
pub(super) fn noun(target: &Target) -> &'static str {
    match target.name {
        "view" => "A view",
        "search" => "A search",
        "favorite" => "A favourite",
        "cart" => "A cart add",
        "purchase" => "A purchase",
        "review" => "A review",
        "churn" => "No visit at all",
        other => other,
    }
}

/// Makes a sentence of a clause.
pub(super) fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).chain(['.']).collect()).unwrap_or_default()
}

/// Calls the items of events what the catalogue calls them, and names the day of each.
fn name_items(live: &Live, parts: &mut [Part], target: usize) -> FailureResult<()> {
    for part in parts.iter_mut().filter(|part| part.part == "event") {
        let title = part.item_id.as_deref().map(|item| live.title(item)).transpose()?.flatten();
        let name = title.or_else(|| part.item_id.clone());
        let day = part.ts.and_then(time).map(|at| day(at, live.config().time_zone()));
        part.say_event(name.as_deref(), day.as_deref(), target);
    }
    Ok(())
}

/// Ranks the best items for a user, each with its reason.
async fn suggestions(live: &Live, scored: &LiveAnswer, met: &Met<'_>) -> FailureResult<Vec<Suggestion>> {
    let latest = live.model.latest_items(&scored.features)?;
    let best = live
        .model
        .recommend(scored.taste(), latest, SUGGESTIONS, scored.exclude.clone(), Arc::clone(&live.out_of_stock))
        .await?;
    let mut suggested = Vec::new();
    for (rank, (item_id, score)) in (1..).zip(best) {
        let reason = met.reason(live, &item_id)?;
        suggested.push(Suggestion { rank, title: live.title(&item_id)?, item_id, score, reason });
    }
    Ok(suggested)
}

/// The last events with an item, newest first.
struct Met<'a>(Vec<MetItem<'a>>);

struct MetItem<'a> {
    item_id: &'a str,
    event_type: &'a str,
    at: Option<DateTime<Utc>>,
}

impl<'a> Met<'a> {
    /// Takes the events of an explanation, which have the newest first.
    fn of(parts: &'a [Part]) -> Self {
        let events = parts.iter().filter(|part| part.part == "event");
        let with_item = events.filter_map(|part| {
            let item_id = part.item_id.as_deref()?;
            Some(MetItem { item_id, event_type: &part.name, at: part.ts.and_then(time) })
        });
        Self(with_item.collect())
    }

    /// Says why an item is suggested, in words that can be read out.
    fn reason(&self, live: &Live, item_id: &str) -> FailureResult<String> {
        let zone = live.config().time_zone();
        if let Some(met) = self.0.iter().find(|met| met.item_id == item_id) {
            return Ok(format!("the customer {}", met.words("it", zone)));
        }
        let known = self.0.iter().map(|met| met.item_id);
        match live.model.nearest_of(item_id, known).filter(|(_, cosine)| *cosine >= ALIKE) {
            Some((alike, _)) => {
                let name = live.title(alike)?.unwrap_or_else(|| alike.into());
                let met = self.0.iter().find(|met| met.item_id == alike);
                let met = met.map_or_else(String::new, |met| format!(", which the customer {}", met.words("", zone)));
                Ok(format!("customers who choose it also choose {name}{met}"))
            }
            None => Ok("popular with customers who behave alike".into()),
        }
    }
}

impl MetItem<'_> {
    /// Says what the customer did with an item, which the sentence may have named before.
    fn words(&self, item: &str, zone: chrono_tz::Tz) -> String {
        let on = self.at.map(|at| format!(" on {}", day(at, zone)));
        let did = did(self.event_type, Some(item));
        format!("{}{}", did.trim_end().replace("  ", " "), on.unwrap_or_default())
    }
}

/// Writes the local day of a time as people do.
pub(super) fn day(at: DateTime<Utc>, zone: chrono_tz::Tz) -> String {
    at.with_timezone(&zone).format("%-d %B %Y").to_string()
}

fn time(micros: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::targets::{BINARY, CHURN, PURCHASE};

    #[test]
    fn a_chance_is_compared_with_the_average() {
        let said = |target: usize, probability, average| chance(&TARGETS[target], probability, average, (7, 28));
        assert_eq!(
            said(PURCHASE, 0.123, Some(0.056)),
            "A purchase within 7 days has a chance of 12.3 %, 2.2 times the average of all customers (5.6 %)"
        );
        assert_eq!(
            said(CHURN as usize, 0.05, Some(0.051)),
            "No visit at all within 28 days has a chance of 5.0 %, about the average of all customers (5.1 %)"
        );
        assert!(
            said(PURCHASE, 0.002, Some(0.05))
                .ends_with("0.2 %, less than a tenth of the average of all customers (5.0 %)")
        );
        for unknown in [None, Some(0.0)] {
            assert_eq!(said(PURCHASE, 0.5, unknown), "A purchase within 7 days has a chance of 50.0 %");
        }
    }

    #[test]
    fn every_intent_has_words() {
        assert!(TARGETS[..BINARY].iter().all(|target| noun(target) != target.name));
    }
}
