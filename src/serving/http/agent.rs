//! The page of a support agent: one customer's intents, what they rest on, and what to suggest.

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use minijinja::value::Serde;
use minijinja::{Environment, Value as Shown, context};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::explanation::{Explained, Suggestion, days_of, explain, noun, sentence, times_average};
use super::problem::Problem;
use crate::failure::Failure;
use crate::model::targets::{BINARY, TARGETS, Target};
use crate::score::functions::explain_intents::Part;
use crate::serving::access::Account;
use crate::serving::queries::Queries;
use crate::serving::refusal::Refusal;

const TEMPLATE: &str = include_str!("agent.html");

/// Parts of an explanation that are read out.
const REASONS: usize = 7;

/// Nothing is loaded from elsewhere, and no script runs.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    #[serde(default)]
    user: String,
    #[serde(default)]
    intent: String,
}

/// Answers with the page: empty, of a customer, or with what is wrong.
pub(super) async fn page(
    State(queries): State<Arc<Queries>>,
    Extension(account): Extension<Account>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let (asked, refused) = match asked {
        Ok(Query(asked)) => (asked, None),
        Err(rejection) => (Asked::default(), Some(Problem::from(rejection))),
    };
    let intent = if asked.intent.is_empty() { "purchase".into() } else { asked.intent };
    let user = asked.user.trim();
    let found = match (refused, user) {
        (Some(problem), _) => Err(problem),
        (None, "") => Ok(None),
        (None, user) => explain(&queries, &account, user, &intent).await.map(Some),
    };
    let (status, found, problem) = match found {
        Ok(found) => (StatusCode::OK, found, None),
        Err(problem) => (problem.status(), None, Some(sentence(&problem.text()))),
    };
    let days = queries.nights.horizons();
    match render(user, &intent, found.as_ref(), problem.as_deref(), days) {
        Ok(page) => {
            let headers = [
                (header::CONTENT_TYPE, "text/html; charset=utf-8"),
                (header::CONTENT_SECURITY_POLICY, POLICY),
                (header::CACHE_CONTROL, "no-store"),
                (header::REFERRER_POLICY, "no-referrer"),
            ];
            (status, headers, page).into_response()
        }
        Err(error) => Problem::from(Refusal::from(Failure::bug(error))).into_response(),
    }
}

fn render(
    user: &str,
    intent: &str,
    found: Option<&Explained>,
    problem: Option<&str>,
    days: (u32, u32),
) -> Result<String, minijinja::Error> {
    let binary = &TARGETS[..BINARY];
    let words: BTreeMap<&str, &str> = binary.iter().map(|target| (target.name, noun(target))).collect();
    let chance = |target: &Target| {
        let probability = found?.intents.get(target.output)?.as_f64()?;
        let average = found?.averages.get(target.output).copied();
        Some(json!({
            "name": target.name,
            "percent": percent(probability),
            "days": days_of(target, days),
            "average": average.map(percent),
            "compared": average.and_then(|average| times_average(probability, average)),
        }))
    };
    let chances: Vec<Value> = binary.iter().filter_map(chance).collect();
    let of = |output: &str| found.and_then(|found| found.intents.get(output)?.as_f64());
    // A cart add of earlier days can still be bought.
    let buys_from_cart = of("p_purchase").zip(of("p_cart")).is_some_and(|(purchase, cart)| purchase > cart);
    let parts = found.map_or(&[][..], |found| &found.parts);
    let mut reasons: Vec<&Part> = parts.iter().filter(|part| part.counts()).collect();
    reasons.sort_by(|a, b| b.log_odds.abs().total_cmp(&a.log_odds.abs()));
    let largest = reasons.first().map_or(1.0, |part| part.log_odds.abs());
    let row = |part: &Part| {
        json!({
            "part": part.part, "name": part.name, "item_id": part.item_id, "words": sentence(&part.words),
            "log_odds": format!("{:.3}", part.log_odds), "rises": part.log_odds > 0.0,
            "width": (part.log_odds.abs() / largest * 100.0).round(),
        })
    };
    let item =
        |item: &Suggestion| json!({ "item_id": item.item_id, "title": item.title, "reason": sentence(&item.reason) });
    let mut environment = Environment::new();
    environment.add_template("agent.html", TEMPLATE)?;
    environment.get_template("agent.html")?.render(context! {
        user => user,
        intent => intent,
        intents => binary.iter().map(|target| target.name).collect::<Vec<_>>(),
        words => words,
        problem => problem,
        found => shown(&found.map(|found| json!({
            "user_id": found.user_id, "run_date": found.run_date, "model_version": found.model_version,
            "segment": found.segment, "last_seen": found.last_seen, "summary": found.summary,
        }))),
        chances => shown(&chances),
        buys_from_cart => buys_from_cart,
        reasons => shown(&reasons.into_iter().take(REASONS).map(row).collect::<Vec<_>>()),
        items => shown(&found.map_or(&[][..], |found| &found.items).iter().map(item).collect::<Vec<_>>()),
        parts => shown(&parts.iter().map(row).collect::<Vec<_>>()),
    })
}

fn shown(value: &impl serde::Serialize) -> Shown {
    Shown::from(Serde(value))
}

/// A probability as a percentage with one decimal.
fn percent(probability: f64) -> String {
    format!("{:.1}", probability * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_sends_is_escaped() {
        let page = render("<script>alert(1)</script>", "purchase", None, Some("no user \"><b>"), (7, 28)).unwrap();
        assert!(!page.contains("<script>") && !page.contains("\"><b>"), "{page}");
        assert!(page.contains("&lt;script&gt;"));
    }
}
