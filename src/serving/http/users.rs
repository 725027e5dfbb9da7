//! One user's stored intents and recommendations.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use axum::Extension;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

use super::problem::Problem;
use crate::failure::Failure;
use crate::ids::RunDate;
use crate::serving::access::Account;
use crate::serving::nights::Night;
use crate::serving::queries::Queries;
use crate::serving::refusal::Refusal;

/// Times as RFC 3339.
const FORMAT: FormatOptions<'static> = FormatOptions::new();

/// Prefix of the columns that are probabilities of intents.
const PROBABILITY: &str = "p_";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    run_date: Option<String>,
    k: Option<usize>,
}

pub(super) async fn intents(
    State(queries): State<Arc<Queries>>,
    Extension(account): Extension<Account>,
    asked_id: Result<Path<String>, PathRejection>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Problem> {
    let Path(asked_id) = asked_id?;
    let Query(asked) = asked?;
    let night = night(&queries, asked.run_date.as_deref()).await?;
    let user_id = night.meant_id(&account, &asked_id).ok_or_else(|| unknown(&night, &asked_id))?;
    let row = json_rows(&night.intents.of(&user_id))?.pop().ok_or_else(|| unknown(&night, &asked_id))?;
    let mut body = with_intents(row);
    body.insert("user_id".into(), asked_id.into());
    body.insert("run_date".into(), night.run_date.map_or(Value::Null, |date| date.to_string().into()));
    Ok(answer(&body.into()))
}

/// Puts the probabilities of a row under `intents`.
pub(super) fn with_intents(row: Map<String, Value>) -> Map<String, Value> {
    let (probabilities, mut rest): (Map<_, _>, Map<_, _>) =
        row.into_iter().partition(|(name, _)| name.starts_with(PROBABILITY));
    rest.insert("intents".into(), probabilities.into());
    rest
}

pub(super) async fn recommendations(
    State(queries): State<Arc<Queries>>,
    Extension(account): Extension<Account>,
    asked_id: Result<Path<String>, PathRejection>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Problem> {
    let Path(asked_id) = asked_id?;
    let Query(asked) = asked?;
    let night = night(&queries, asked.run_date.as_deref()).await?;
    let user_id = night.meant_id(&account, &asked_id).ok_or_else(|| unknown(&night, &asked_id))?;
    if night.intents.of(&user_id).num_rows() == 0 {
        return Err(unknown(&night, &asked_id));
    }
    let rows = night.recommendations.of(&user_id);
    let mut items = json_rows(&rows.slice(0, rows.num_rows().min(asked.k.unwrap_or(usize::MAX))))?;
    for item in &mut items {
        item.remove("user_id");
        item.remove("run_date");
    }
    Ok(answer(&json!({
        "user_id": asked_id,
        "run_date": night.run_date.map(|date| date.to_string()),
        "model_version": night.model_version,
        "items": items,
    })))
}

async fn night(queries: &Queries, run_date: Option<&str>) -> Result<Arc<Night>, Problem> {
    let parse = |text: &str| text.parse::<RunDate>().map_err(|e| Problem::bad_request(format!("run_date: {e}")));
    let run_date = run_date.map(parse).transpose()?;
    queries.nights.at(run_date).await.map_err(|failure: Failure| match run_date {
        Some(_) => Problem::not_found(failure.to_string()),
        None => Problem::from(Refusal::from(failure)),
    })
}

/// The answer for a user without a row, and for one who may not be shown: both look alike.
pub(super) fn unknown(night: &Night, user_id: &str) -> Problem {
    match night.run_date {
        Some(date) => Problem::not_found(format!(
            "there is no customer {user_id:?} in the night of {date}: check the id (upper and lower case differ); without consent, \
             excluded or erased, a customer isn't shown either"
        )),
        None => Problem::not_found("no night is visible"),
    }
}

/// Returns each row as an object. Numbers stay exact, which a detour through text would not guarantee.
pub(super) fn json_rows(rows: &RecordBatch) -> Result<Vec<Map<String, Value>>, Problem> {
    let bug = |e: arrow::error::ArrowError| Problem::from(Refusal::from(Failure::bug(e)));
    let mut objects = vec![Map::new(); rows.num_rows()];
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        let texts = ArrayFormatter::try_new(column, &FORMAT).map_err(bug)?;
        for (row, object) in objects.iter_mut().enumerate() {
            let value = match column.data_type() {
                _ if column.is_null(row) => Value::Null,
                DataType::Float64 => column.as_primitive::<Float64Type>().value(row).into(),
                DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
                DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
                DataType::Boolean => column.as_boolean().value(row).into(),
                _ => texts.value(row).to_string().into(),
            };
            object.insert(field.name().clone(), value);
        }
    }
    Ok(objects)
}

pub(super) fn answer(body: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}
