//! Says what a user's intents rest on, and suggests items with their reasons.

use axum::Extension;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;

use super::live::{failed, score};
use super::problem::Problem;
use super::users::{answer, json_rows, with_intents};
use crate::failure::Result as FailureResult;
use crate::model::attributions::TOLERANCE;
use crate::score::functions::explain_intents::{Part, did, event_words, target_of};
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
        "intents": found.intents,
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
    let target = target_of(intent).map_err(|failure| Problem::bad_request(failure.message))?;
    let night = queries.nights.newest();
    let has_intents = |id: String| night.intents.of(&id).num_rows() > 0;
    if !night.meant_id(account, user_id).is_some_and(has_intents) {
        return Err(super::users::unknown(&night, user_id));
    }
    let (live, scored) = score(queries, account, user_id, &[]).await?;
    let _turn = queries.live_turn().await?;
    let (found, mut parts) =
        live.model.explain(&scored.features, target).await.map_err(|failure| failed(account, failure))?;
    name_items(&live, &mut parts).map_err(Refusal::from)?;
    let mut row = with_intents(json_rows(&(&scored.scores).into())?.pop().unwrap_or_default());
    let intents = row.remove("intents").and_then(|intents| intents.as_object().cloned()).unwrap_or_default();
    let items = suggestions(&live, &scored, &Met::of(&parts)).await.map_err(Refusal::from)?;
    Ok(Explained {
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

/// Calls the items of events what the catalogue calls them.
fn name_items(live: &Live, parts: &mut [Part]) -> FailureResult<()> {
    for part in parts.iter_mut().filter(|part| part.part == "event") {
        let title = part.item_id.as_deref().map(|item| live.title(item)).transpose()?.flatten();
        if let Some(title) = title {
            part.words = event_words(&part.name, Some(&title), part.log_odds);
        }
    }
    Ok(())
}

/// Ranks the best items for a user, each with its reason.
async fn suggestions(live: &Live, scored: &LiveAnswer, met: &Met<'_>) -> FailureResult<Vec<Suggestion>> {
    let (bought, out_of_stock) = (scored.exclude.clone(), Arc::clone(&live.out_of_stock));
    let exclude = move |id: &str| bought.contains(id) || out_of_stock.contains(id);
    let best = live.model.recommend(scored.taste(), SUGGESTIONS, exclude).await?;
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
        let on = self.at.map(|at| format!(" on {}", at.with_timezone(&zone).format("%-d %B %Y")));
        let did = did(self.event_type, Some(item));
        format!("{}{}", did.trim_end().replace("  ", " "), on.unwrap_or_default())
    }
}

fn time(micros: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(micros)
}
