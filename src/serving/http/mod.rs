//! HTTP: one user's intents and recommendations, stored or with new events, related items, explanations and a page of them, health, metrics, and the description of all this.

mod agent;
mod explanation;
mod live;
mod problem;
mod users;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, FromRequest, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use super::access::{Access, Account, Incoming};
use super::audit::{self, AuditLine};
use super::caller::Caller;
use super::queries::Queries;
use super::refusal;
use problem::Problem;

/// Description of the routes (OpenAPI 3.1).
const OPENAPI: &str = include_str!("openapi.json");

/// Largest body that is read, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// The route of tokens, which any user may ask for.
const TOKEN: &str = "/v1/token";

/// The route of the page of support agents.
const AGENT: &str = "/agent";

/// Length of the shortest request line.
pub(super) const OPENING_BYTES: usize = "GET / HTTP/1.1\r\n".len();

/// Time for the head of a request, also of the next one on an open connection.
const HEAD: Duration = Duration::from_secs(30);

/// Time for the body of a request.
const BODY: Duration = Duration::from_secs(30);

/// Address of the client of a connection.
#[derive(Clone, Copy)]
struct Peer(SocketAddr);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Serves HTTP until `stopping`, then answers what was asked before. `axum::serve` has no limit of time for a request's head.
pub(super) async fn serve(mut incoming: Incoming, queries: Arc<Queries>, stopping: CancellationToken) {
    let routes = routes(queries);
    let mut http = auto::Builder::new(TokioExecutor::new()).http1_only();
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    let open = GracefulShutdown::new();
    loop {
        let transport = tokio::select! {
            () = stopping.cancelled() => break,
            transport = incoming.next() => transport,
        };
        let address = transport.address;
        let service = TowerToHyperService::new(routes.clone().layer(Extension(Peer(address))));
        let connection = http.serve_connection(TokioIo::new(transport), service).into_owned();
        let connection = open.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("http: connection of {address} ended: {error}");
            }
        });
    }
    open.shutdown().await;
}

// No async closures here: rustc 1.95 then finds a cycle when it optimises this crate.
fn routes(queries: Arc<Queries>) -> Router {
    Router::new()
        .route("/v1/users/{id}/intents", get(users::intents).post(live::intents))
        .route("/v1/users/{id}/recommendations", get(users::recommendations).post(live::recommendations))
        .route("/v1/users/{id}/explanation", get(explanation::explanation))
        .route(AGENT, get(agent::page))
        .route("/v1/items/{id}/related", get(live::related))
        .route("/v1/items/scores", post(live::item_scores))
        .route(TOKEN, post(token))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&queries), let_in))
        .route("/", get(home))
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(openapi))
        .fallback(no_such_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&queries), observe))
        .with_state(queries)
}

/// Leads a browser to the page.
async fn home() -> Redirect {
    Redirect::temporary(AGENT)
}

async fn healthy() -> &'static str {
    "ok\n"
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

async fn no_such_route(uri: Uri) -> Problem {
    Problem::not_found(format!("{}: no such route; /openapi.json lists all", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} does not answer {method}; /openapi.json lists what it does", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "wrong method", detail)
}

/// Answers 503 before the first night, so that a load balancer waits for it.
async fn ready(State(queries): State<Arc<Queries>>) -> Response {
    match queries.nights.newest().run_date {
        Some(date) => format!("serving the night of {date}\n").into_response(),
        None => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not ready", "no night is visible").into_response(),
    }
}

async fn metrics(State(queries): State<Arc<Queries>>) -> Response {
    let text = queries.metrics.to_prometheus();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// Lets in who proves who they are, and adds their account to the request.
async fn let_in(State(queries): State<Arc<Queries>>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_string()).unwrap_or_default();
    let address = request.extensions().get::<Peer>().map(|peer| peer.0);
    let known = queries.access.account_of_header(header).await;
    // A caller who has proved nothing has no name.
    let account = known.as_ref().map_or_else(|_| Access::open_account(""), Account::clone);
    let caller = Caller { account, address, protocol: "http" };
    let response = match known {
        Err(refusal) => {
            let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"intentcast\", charset=\"UTF-8\"")];
            (challenge, Problem::from(refusal)).into_response()
        }
        Ok(account) => match may_ask(&queries.access, &account, request.method(), &path) {
            Err(refusal) => Problem::from(refusal).into_response(),
            Ok(()) => {
                request.extensions_mut().insert(account);
                match with_whole_body(request, BODY).await {
                    Ok(request) => next.run(request).await,
                    Err(problem) => problem.into_response(),
                }
            }
        },
    };
    audit::write(&AuditLine {
        caller: &caller,
        // Of the route, which names no user.
        statement_hash: &audit::statement_hash(&path),
        tables: &BTreeSet::new(),
        rows: u64::from(response.status().is_success()),
        seconds: begun.elapsed().as_secs_f64(),
        outcome: response.status().as_str(),
    });
    response
}

/// Reads the body of a request. A client that never ends it would hold its connection for as long as it likes.
async fn with_whole_body(request: Request, time: Duration) -> Result<Request, Problem> {
    let (parts, body) = request.into_parts();
    let reading = Bytes::from_request(Request::from_parts(parts.clone(), body), &());
    match tokio::time::timeout(time, reading).await {
        Ok(Ok(bytes)) => Ok(Request::from_parts(parts, Body::from(bytes))),
        Ok(Err(rejection)) => Err(Problem::new(rejection.status(), "unreadable", rejection.body_text())),
        Err(_) => {
            let detail = format!("the body did not come within {} seconds", time.as_secs_f64());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "too slow", detail))
        }
    }
}

/// Refuses what the role of an account does not allow.
fn may_ask(access: &Access, account: &Account, method: &Method, path: &str) -> refusal::Result<()> {
    match (method == Method::POST, path) {
        (_, TOKEN) => Ok(()),
        (_, AGENT) => account.may_open_page(),
        (true, _) => account.may_send_events(access.is_open()),
        (false, _) => account.may_ask_for_users(),
    }
}

/// Answers name and password with a token, which is checked faster.
async fn token(
    State(queries): State<Arc<Queries>>,
    Extension(account): Extension<Account>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = queries.access.issue_token(&account, header)?;
    let body = serde_json::json!({ "token": token, "token_type": "Bearer" });
    Ok(([(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response())
}

/// Gives each request an id, refuses those that a web page elsewhere may have caused, and counts.
async fn observe(State(queries): State<Arc<Queries>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_string());
    let route = path.unwrap_or_else(|| "other".into());
    let id = request.headers().get(&REQUEST_ID).filter(|id| id.len() <= 128).cloned();
    let id = id.or_else(|| HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).ok());
    let mut response = match !queries.access.is_open() || has_loopback_host(&request) {
        true => next.run(request).await,
        false => Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "wrong host",
            "Host: expected localhost or a loopback address, because this server lets everyone in",
        )
        .into_response(),
    };
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    queries.metrics.request_ended(route, response.status().as_u16(), begun.elapsed());
    response
}

/// Returns whether the host that a client asked for is this machine. A page whose name was made to point here (DNS rebinding)
/// asks for its own name.
fn has_loopback_host(request: &Request) -> bool {
    let header = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(host) = header.or_else(|| request.uri().authority().map(|authority| authority.as_str())) else {
        return false;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let time = Duration::from_millis(20);
        let never = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let problem = with_whole_body(Request::new(never), time).await.unwrap_err();
        assert_eq!(problem.status(), StatusCode::REQUEST_TIMEOUT);
        let read = with_whole_body(Request::new(Body::from("[]")), time).await.unwrap();
        assert_eq!(Bytes::from_request(read, &()).await.unwrap(), "[]");
        let broken = Body::from_stream(futures::stream::iter([Err::<Bytes, _>(std::io::Error::other("cut off"))]));
        let problem = with_whole_body(Request::new(broken), time).await.unwrap_err();
        assert_eq!(problem.status(), StatusCode::BAD_REQUEST);
    }
}
