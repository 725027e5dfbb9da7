//! Answers for one user with new events, and about items.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

use super::problem::Problem;
use super::users::{answer, json_rows, unknown, with_intents};
use crate::failure::{Failure, FailureKind};
use crate::score::live_model::ScoredItem;
use crate::serving::access::Account;
use crate::serving::live::{Event, Live, LiveAnswer, LiveRefusal, Named};
use crate::serving::queries::Queries;
use crate::serving::refusal::Refusal;

/// Items of one answer.
const ITEMS_MAX: usize = 1_000;

/// Items of an answer where the client does not say how many.
const ITEMS: usize = 10;

/// Fields of the scores that are for the model's own use.
const TASTE: &str = "taste";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    k: Option<usize>,
}

/// The items that a client wants scores of.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskedItems {
    user_id: String,
    item_ids: Vec<String>,
    #[serde(default)]
    events: Vec<Event>,
}

type Body<T> = Result<Json<T>, JsonRejection>;
type Parameters = Result<Query<Asked>, QueryRejection>;

pub(super) async fn intents(
    State(queries): State<Arc<Queries>>,
    Extension(account): Extension<Account>,
    user_id: Result<Path<String>, PathRejection>,
    events: Body<Vec<Event>>,
) -> Result<Response, Problem> {
    let Path(user_id) = user_id?;
    let Json(events) = events?;
    let (live, scored) = score(&queries, &account, &user_id, &events).await?;
    let mut row = json_rows(&(&scored.scores).into())?.pop().unwrap_or_default();
    row.remove(TASTE);
    let mut body = with_intents(row);
    body.extend(head(&live, &scored));
    Ok(answer(&body.into()))
}

pub(super) async fn recommendations(
    State(queries): State<Arc<Queries>>,
    Extension(account): Extension<Account>,
    user_id: Result<Path<String>, PathRejection>,
    asked: Parameters,
    events: Body<Vec<Event>>,
) -> Result<Response, Problem> {
    let Path(user_id) = user_id?;
    let (Json(events), k) = (events?, k(asked)?);
    let (live, scored) = score(&queries, &account, &user_id, &events).await?;
    let k = k.unwrap_or(live.config().recommendation.top_k as usize);
    let latest = live.model.latest_items(&scored.features).map_err(Refusal::from)?;
    // As the night recommends, which reads no stock.
    let items = live.model.recommend(scored.taste(), latest, k, scored.exclude.clone(), Arc::default());
    let items = queries.in_time(items).await?.map_err(Refusal::from)?;
    let mut body = head(&live, &scored);
    body.insert("items".into(), ranked(items, "score"));
    Ok(answer(&body.into()))
}

pub(super) async fn related(
    State(queries): State<Arc<Queries>>,
    item_id: Result<Path<String>, PathRejection>,
    asked: Parameters,
) -> Result<Response, Problem> {
    let Path(item_id) = item_id?;
    let k = k(asked)?.unwrap_or(ITEMS);
    let live = queries.nights.live().await.map_err(Refusal::from)?;
    let _turn = queries.live_turn().await?;
    let found = live.model.related(item_id.clone(), Arc::clone(&live.out_of_stock), k);
    let items = queries.in_time(found).await?.map_err(Refusal::from)?;
    let items = items
        .ok_or_else(|| Problem::not_found(format!("item {item_id:?} is not among those that the model recommends")))?;
    Ok(answer(&json!({
        "item_id": item_id,
        "model_version": live.model.version,
        "items": ranked(items, "cosine"),
    })))
}

pub(super) async fn item_scores(
    State(queries): State<Arc<Queries>>,
    Extension(account): Extension<Account>,
    asked: Body<AskedItems>,
) -> Result<Response, Problem> {
    let Json(AskedItems { user_id, item_ids, events }) = asked?;
    if item_ids.len() > ITEMS_MAX {
        return Err(Problem::unusable(format!("item_ids: expected at most {ITEMS_MAX}, got {}", item_ids.len())));
    }
    let (live, scored) = score(&queries, &account, &user_id, &events).await?;
    let latest = live.model.latest_items(&scored.features).map_err(Refusal::from)?;
    let scores = live.model.item_scores(&scored.taste(), &latest, &item_ids);
    let items = item_ids.into_iter().zip(scores);
    let items: Vec<Value> = items.map(|(item_id, score)| json!({ "item_id": item_id, "score": score })).collect();
    let mut body = head(&live, &scored);
    body.insert("items".into(), items.into());
    Ok(answer(&body.into()))
}

/// Scores a user with new events, within the limits of the server; the answer has the user's id as the account sees it.
pub(super) async fn score(
    queries: &Queries,
    account: &Account,
    asked_id: &str,
    events: &[Event],
) -> Result<(Arc<Live>, LiveAnswer), Problem> {
    let night = queries.nights.newest();
    let user_id = night.meant_id(account, asked_id).ok_or_else(|| unknown(&night, asked_id))?;
    let live = queries.nights.live().await.map_err(Refusal::from)?;
    let _turn = queries.live_turn().await?;
    let named = Named { user_id: &user_id, asked_id };
    let scored = queries.in_time(live.answer(named, events, chrono::Utc::now())).await?;
    let scored = scored.map_err(|refusal| match refusal {
        LiveRefusal::Events(detail) => Problem::unusable(detail),
        LiveRefusal::LeftOut => Problem::new(
            StatusCode::FORBIDDEN,
            "left out",
            "this user must not be scored: no consent, excluded or erased",
        ),
        LiveRefusal::Unknown => Problem::not_found(format!("user {asked_id:?} has no event")),
        LiveRefusal::Failed(failure) => failed(account, failure),
    })?;
    Ok((live, LiveAnswer { user_id: night.shown_id(account, &scored.user_id), ..scored }))
}

/// Tells of a failure. Its message may name the user, which is not for those who see pseudonyms.
pub(super) fn failed(account: &Account, failure: Failure) -> Problem {
    if account.pseudonyms && failure.kind == FailureKind::Model {
        tracing::warn!("a user cannot be scored: {failure}");
        return Problem::from(Refusal::from(Failure::model("the model cannot score this user; the log says why")));
    }
    Problem::from(Refusal::from(failure))
}

/// Says whose answer it is, of which date and model, and how many events count.
fn head(live: &Live, scored: &LiveAnswer) -> Map<String, Value> {
    let LiveAnswer { user_id, run_date, events, repeated, .. } = scored;
    let mut head = Map::new();
    head.insert("user_id".into(), user_id.as_str().into());
    head.insert("run_date".into(), run_date.to_string().into());
    head.insert("model_version".into(), live.model.version.as_str().into());
    head.insert("events".into(), json!({ "used": events, "repeated": repeated }));
    head
}

fn ranked(items: Vec<ScoredItem>, score_name: &str) -> Value {
    let row =
        |(rank, (item_id, score)): (usize, ScoredItem)| json!({ "rank": rank, "item_id": item_id, score_name: score });
    (1..).zip(items).map(row).collect()
}

fn k(asked: Parameters) -> Result<Option<usize>, Problem> {
    let Query(Asked { k }) = asked?;
    match k {
        Some(k) if !(1..=ITEMS_MAX).contains(&k) => {
            Err(Problem::bad_request(format!("k: expected 1 to {ITEMS_MAX}, got {k}")))
        }
        k => Ok(k),
    }
}
