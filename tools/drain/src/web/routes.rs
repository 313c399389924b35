//! What may be asked for.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tandem_core::level::Level;

use super::topics::{Asked, TOPICS, topic};
use super::{Shared, StreamPlace, assets, guard};

/// Bytes of a request's body.
const BODY_MAX: usize = 4 << 10;
/// A body must be there within this time.
const BODY_WITHIN: Duration = Duration::from_secs(5);
/// Longest reason.
const REASON_MAX: usize = 200;
/// Between two parts of a live stream.
const STREAM_EVERY: Duration = Duration::from_millis(250);

type At = State<Arc<Shared>>;

/// Returns everything that is served.
pub fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/api/v1/stream", get(live))
        .route("/api/v1/pause", any(pause))
        .route("/api/v1/kill", any(kill))
        .route("/api/v1/opportunity/{run}/{id}", get(opportunity))
        .route("/api/v1/round/{run}/{id}", get(round))
        .route("/api/v1/{topic}", get(one))
        .fallback(file)
        .layer(axum::middleware::from_fn_with_state(shared.clone(), guard::pass))
        .with_state(shared)
}

async fn file(request: Request) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return guard::refuse(StatusCode::METHOD_NOT_ALLOWED, "only GET", "use GET");
    }
    assets::file(request.uri().path()).unwrap_or_else(nothing)
}

fn nothing() -> Response {
    let fix = "the pages are at /, the data below /api/v1/, figures at /metrics";
    guard::refuse(StatusCode::NOT_FOUND, "there is nothing here", fix)
}

async fn metrics(State(shared): At, headers: HeaderMap) -> Response {
    let Some(encode) = &shared.settings.metrics else { return nothing() };
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let (kind, body) = encode(accept);
    ([(header::CONTENT_TYPE, kind)], Body::from(body)).into_response()
}

/// What a client asks of a topic.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Ask {
    /// Only what changed after this revision.
    after: u64,
    /// Topics of a live stream, by commas.
    topics: String,
    /// Pair whose books are wanted with depth: `BTC/USD`.
    pair: Option<String>,
}

impl Ask {
    fn asked(&self) -> Asked {
        Asked { after: self.after, pair: self.pair.clone() }
    }
}

fn bad(error: &str) -> Response {
    guard::refuse(StatusCode::BAD_REQUEST, error, "see the topics at /api/v1/topics")
}

async fn one(
    State(shared): At,
    Path(name): Path<String>,
    ask: Result<Query<Ask>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Ok(Query(ask)) = ask else { return bad("unknown parameter") };
    if name == "topics" {
        return axum::Json(json!(TOPICS)).into_response();
    }
    let mut asked = ask.asked();
    match topic(&shared, &name, &mut asked) {
        Some(value) => axum::Json(json!({ "rev": asked.after, "data": value })).into_response(),
        None if TOPICS.contains(&name.as_str()) => {
            axum::Json(json!({ "rev": asked.after, "data": Value::Null })).into_response()
        }
        None => nothing(),
    }
}

async fn opportunity(State(shared): At, Path((run, id)): Path<(u32, i64)>) -> Response {
    let found = shared.model().opportunity(run, id);
    found.map_or_else(nothing, |found| axum::Json(&*found).into_response())
}

async fn round(State(shared): At, Path((run, id)): Path<(u32, u64)>) -> Response {
    let model = shared.model();
    let Some(found) = model.round(run, id) else { return nothing() };
    let orders: Vec<_> = model.orders().of_round(run, id).cloned().collect();
    let seen = found.opportunity.and_then(|id| model.opportunity(run, i64::try_from(id).ok()?));
    drop(model);
    let orders: Vec<_> = orders.iter().map(Arc::as_ref).collect();
    axum::Json(json!({ "round": &*found, "orders": orders, "opportunity": seen.as_deref() }))
        .into_response()
}

/// What a live stream is at.
struct Live {
    place: StreamPlace,
    topics: Vec<(String, Asked)>,
    next: usize,
    ends: tokio::sync::watch::Receiver<bool>,
}

async fn live(
    State(shared): At,
    ask: Result<Query<Ask>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Ok(Query(ask)) = ask else { return bad("unknown parameter") };
    let names: Vec<&str> = ask.topics.split(',').filter(|name| !name.is_empty()).collect();
    if names.is_empty() || TOPICS.len() < names.len() {
        return bad("name topics: ?topics=overview,opportunities");
    }
    if let Some(unknown) = names.iter().find(|name| !TOPICS.contains(name)) {
        let unknown: String = unknown.chars().filter(|c| c.is_ascii_graphic()).take(40).collect();
        return bad(&format!("there is no topic `{unknown}`"));
    }
    let Some(place) = StreamPlace::take(&shared) else {
        let fix = "close other tabs of the dashboard";
        return guard::refuse(StatusCode::SERVICE_UNAVAILABLE, "too many live streams", fix);
    };
    let topics = names.iter().map(|name| ((*name).to_owned(), ask.asked())).collect();
    let ends = shared.ends.clone();
    let parts = stream::unfold(Live { place, topics, next: 0, ends }, |mut live| async move {
        loop {
            if live.topics.len() <= live.next {
                live.next = 0;
                tokio::select! {
                    () = tokio::time::sleep(STREAM_EVERY) => {}
                    _ = live.ends.wait_for(|ended| *ended) => return None,
                }
            }
            let (name, asked) = &mut live.topics[live.next];
            live.next += 1;
            if let Some(value) = topic(&live.place.0, name, asked) {
                let event = Event::default().event(name.as_str()).id(asked.after.to_string());
                let event =
                    event.json_data(value).unwrap_or_else(|_| Event::default().comment("?"));
                return Some((Ok::<_, Infallible>(event), live));
            }
        }
    });
    Sse::new(parts).keep_alive(KeepAlive::new().interval(Duration::from_secs(10))).into_response()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reason {
    reason: String,
}

async fn pause(State(shared): At, request: Request) -> Response {
    act(&shared, request, Level::Pause).await
}

async fn kill(State(shared): At, request: Request) -> Response {
    act(&shared, request, Level::Kill).await
}

async fn act(shared: &Arc<Shared>, request: Request, level: Level) -> Response {
    if *request.method() != Method::POST {
        let mut response = guard::refuse(StatusCode::METHOD_NOT_ALLOWED, "only POST", "use POST");
        response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("POST"));
        return response;
    }
    if let Err(refused) = guard::authorise(shared, request.headers()) {
        return *refused;
    }
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if kind != Some("application/json") {
        let fix = "send Content-Type: application/json";
        return guard::refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not JSON", fix);
    }
    let body = tokio::time::timeout(BODY_WITHIN, to_bytes(request.into_body(), BODY_MAX)).await;
    let Ok(Ok(body)) = body else {
        let fix = "send {\"reason\": \"…\"}";
        return guard::refuse(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large or late", fix);
    };
    let reason = serde_json::from_slice::<Reason>(&body).ok().map(|body| body.reason);
    let reason = reason.filter(|text| {
        !text.trim().is_empty()
            && text.chars().count() <= REASON_MAX
            && !text.chars().any(char::is_control)
    });
    let Some(reason) = reason else {
        let fix = "send {\"reason\": \"…\"}, one line of at most 200 characters";
        return guard::refuse(StatusCode::BAD_REQUEST, "a reason is needed", fix);
    };
    if shared.settings.operator.is_none() {
        let fix = "the run only observes: there is nothing to hold back";
        return guard::refuse(StatusCode::CONFLICT, "there is no level", fix);
    }
    let shared = shared.clone();
    // It takes a file lock and an fsync: not on the thread that serves everybody.
    let raised = tokio::task::spawn_blocking(move || {
        let operator = shared.settings.operator.as_ref();
        operator.map_or_else(|| Err("no operator".to_owned()), |op| op.raise(level, &reason))
    });
    match raised.await {
        Ok(Ok(changed)) => {
            axum::Json(json!({ "level": level.name(), "changed": changed })).into_response()
        }
        Ok(Err(error)) => {
            let fix = "use `tandem pause` or `tandem kill` on the host, now";
            guard::refuse(StatusCode::INTERNAL_SERVER_ERROR, &error, fix)
        }
        Err(error) => {
            tracing::error!(%error, "the dashboard's button");
            let fix = "use `tandem pause` or `tandem kill` on the host, now";
            guard::refuse(StatusCode::INTERNAL_SERVER_ERROR, "it failed", fix)
        }
    }
}
