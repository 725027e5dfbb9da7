//! Says what a user's intents rest on, and suggests items with their reasons.

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::sync::Arc;

use super::live::{failed, score};
use super::problem::Problem;
use super::users::{answer, json_rows, with_intents};
use crate::failure::{Failure, Result as FailureResult};
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
    Path(user_id): Path<String>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Problem> {
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
    Ok(Explained {
        user_id: scored.user_id.clone(),
        run_date: scored.run_date.to_string(),
        model_version: live.model.version.clone(),
        intent: intent.into(),
        intents,
        parts,
        items: suggestions(&live, &scored).await.map_err(Refusal::from)?,
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
async fn suggestions(live: &Live, scored: &LiveAnswer) -> FailureResult<Vec<Suggestion>> {
    let exclude = if live.config().recommendation.exclude_bought { scored.bought.clone() } else { HashSet::new() };
    let exclude = exclude.into_iter().chain(live.out_of_stock.iter().cloned()).collect();
    let met = Met::read(scored)?;
    let best = live.model.recommend(scored.taste(), exclude, SUGGESTIONS).await?;
    let mut suggested = Vec::new();
    for (rank, (item_id, score)) in (1..).zip(best) {
        let reason = met.reason(live, &item_id)?;
        suggested.push(Suggestion { rank, title: live.title(&item_id)?, item_id, score, reason });
    }
    Ok(suggested)
}

/// The last events with an item, newest first.
struct Met(Vec<MetItem>);

struct MetItem {
    item_id: String,
    event_type: String,
    at: Option<DateTime<Utc>>,
}

impl Met {
    fn read(scored: &LiveAnswer) -> FailureResult<Self> {
        let missing = || Failure::bug("the features lack recent");
        let features = scored.features.as_struct_opt().ok_or_else(missing)?;
        let recent = features.column_by_name("recent").and_then(|recent| recent.as_list_opt::<i32>());
        let events = recent.filter(|recent| !recent.is_empty()).ok_or_else(missing)?.value(0);
        let events = events.as_struct_opt().ok_or_else(missing)?;
        let column = |name: &str, to: DataType| -> FailureResult<_> {
            Ok(cast(events.column_by_name(name).ok_or_else(missing)?, &to)?)
        };
        let (items, types) = (column("item_id", DataType::Utf8)?, column("event_type", DataType::Utf8)?);
        let times = column("ts", DataType::Timestamp(TimeUnit::Microsecond, None))?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let rows = items.as_string::<i32>().iter().zip(types.as_string::<i32>()).zip(times);
        let mut met: Vec<MetItem> = rows
            .filter_map(|((item, event_type), at)| {
                Some(MetItem { item_id: item?.into(), event_type: event_type?.into(), at: at.and_then(time) })
            })
            .collect();
        met.reverse();
        Ok(Self(met))
    }

    /// Says why an item is suggested, in words that can be read out.
    fn reason(&self, live: &Live, item_id: &str) -> FailureResult<String> {
        let zone = live.config().time_zone();
        if let Some(met) = self.0.iter().find(|met| met.item_id == item_id) {
            return Ok(format!("the customer {}", met.words(zone)));
        }
        let known = self.0.iter().map(|met| met.item_id.as_str());
        match live.model.nearest_of(item_id, known).filter(|(_, cosine)| *cosine >= ALIKE) {
            Some((alike, _)) => {
                let name = live.title(alike)?.unwrap_or_else(|| alike.into());
                let met = self.0.iter().find(|met| met.item_id == alike);
                let met = met.map_or_else(String::new, |met| format!(", which the customer {}", met.words(zone)));
                Ok(format!("customers who choose it also choose {name}{met}"))
            }
            None => Ok("popular with customers who behave alike".into()),
        }
    }
}

impl MetItem {
    fn words(&self, zone: chrono_tz::Tz) -> String {
        let on = self.at.map(|at| format!(" on {}", at.with_timezone(&zone).format("%-d %B %Y")));
        format!("{}{}", did(&self.event_type, Some("it")), on.unwrap_or_default())
    }
}

fn time(micros: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(micros)
}
