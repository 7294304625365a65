//! The API's server: every request becomes a [`Request`] to the control loop.
#![forbid(unsafe_code)]

use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use weir_dataplane::conn::state::State as ConnState;

use super::documents::Refusal;
use super::explain::explain;
use super::{
    ConnectionFilter, DrainRequest, Endpoint, Problem, Request, TemplateFilter, blacklist,
};
use crate::explain::MAX_BYTES;

/// Requests that may wait for the control loop; more get 503 at once.
pub(crate) const WAITING: usize = 64;

type Control = State<mpsc::Sender<Request>>;

/// Serves requests on `listener` until the task is dropped.
///
/// # Errors
/// Those of the socket itself; a broken client is its own problem.
pub(crate) async fn serve(
    listener: UnixListener,
    control: mpsc::Sender<Request>,
) -> std::io::Result<()> {
    axum::serve(listener, router(control)).await
}

fn router(control: mpsc::Sender<Request>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/services", get(services))
        .route("/v1/connections", get(connections))
        .route("/v1/templates", get(templates))
        .route("/v1/counters", get(counters))
        .route("/v1/reload", post(reload))
        .route("/v1/drain", post(drain))
        .route("/v1/blacklist", get(blacklist::list))
        .route("/v1/blacklist", post(blacklist::add))
        .route("/v1/blacklist", delete(blacklist::remove))
        .route(
            "/v1/explain",
            post(explain).layer(DefaultBodyLimit::max(MAX_BYTES)),
        )
        .fallback(unknown)
        .method_not_allowed_fallback(unknown_method)
        .with_state(control)
}

async fn status(State(control): Control) -> Response {
    answer(ask(&control, Request::Status).await)
}

async fn services(State(control): Control) -> Response {
    answer(ask(&control, Request::Services).await)
}

async fn counters(State(control): Control) -> Response {
    answer(ask(&control, Request::Counters).await)
}

async fn reload(State(control): Control) -> Response {
    answer(ask(&control, Request::Reload).await.and_then(|done| done))
}

async fn drain(
    State(control): Control,
    query: Result<Query<DrainRequest>, QueryRejection>,
) -> Response {
    let wanted = match query {
        Ok(Query(wanted)) => wanted,
        Err(e) => return Problem::BadRequest(e.body_text()).into_response(),
    };
    let asked = ask(&control, |back| Request::Drain(wanted, back)).await;
    answer(asked.and_then(|done| done))
}

/// What a request's query says.
fn asked_for<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    match query {
        Ok(Query(asked)) => Ok(asked),
        Err(e) => Err(Problem::BadRequest(e.body_text())),
    }
}

async fn connections(
    State(control): Control,
    query: Result<Query<ConnectionQuery>, QueryRejection>,
) -> Response {
    let filter = match asked_for(query).and_then(ConnectionQuery::filter) {
        Ok(filter) => filter,
        Err(problem) => return problem.into_response(),
    };
    let asked = ask(&control, |back| Request::Connections(filter, back)).await;
    answer(asked.and_then(|listed| listed))
}

async fn templates(
    State(control): Control,
    query: Result<Query<TemplateQuery>, QueryRejection>,
) -> Response {
    let filter = match asked_for(query).and_then(TemplateQuery::filter) {
        Ok(filter) => filter,
        Err(problem) => return problem.into_response(),
    };
    let asked = ask(&control, |back| Request::Templates(filter, back)).await;
    answer(asked.and_then(|listed| listed))
}

async fn unknown(uri: Uri) -> Response {
    let text = format!("{} is not part of the API", uri.path());
    refusal(StatusCode::NOT_FOUND, text)
}

async fn unknown_method(method: axum::http::Method, uri: Uri) -> Response {
    let text = format!("{} does not take {method}", uri.path());
    refusal(StatusCode::METHOD_NOT_ALLOWED, text)
}

/// What may follow `/v1/connections?`. Everything is optional.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConnectionQuery {
    limit: Option<usize>,
    service: Option<String>,
    client: Option<String>,
    server: Option<String>,
    state: Option<String>,
}

impl ConnectionQuery {
    fn filter(self) -> Result<ConnectionFilter, Problem> {
        Ok(ConnectionFilter {
            service: self.service,
            client: endpoint("client", self.client)?,
            server: endpoint("server", self.server)?,
            state: self.state.map(|name| state_named(&name)).transpose()?,
            limit: limit(self.limit)?,
        })
    }
}

/// What may follow `/v1/templates?`. Everything is optional.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TemplateQuery {
    limit: Option<usize>,
    service: Option<String>,
    client: Option<String>,
    server: Option<String>,
    call_id: Option<String>,
}

impl TemplateQuery {
    fn filter(self) -> Result<TemplateFilter, Problem> {
        let client = self.client.map(|text| {
            let wrong = format!("client: {text:?} is no address; write 10.0.0.1 or 2001:db8::1");
            text.parse().map_err(|_| Problem::BadRequest(wrong))
        });
        Ok(TemplateFilter {
            service: self.service,
            client: client.transpose()?,
            server: endpoint("server", self.server)?,
            call_id: self.call_id,
            limit: limit(self.limit)?,
        })
    }
}

fn endpoint(key: &str, text: Option<String>) -> Result<Option<Endpoint>, Problem> {
    text.map(|text| text.parse())
        .transpose()
        .map_err(|e| Problem::BadRequest(format!("{key}: {e}")))
}

fn limit(asked: Option<usize>) -> Result<usize, Problem> {
    let limit = asked.unwrap_or(ConnectionFilter::DEFAULT_LIMIT);
    if !(1..=ConnectionFilter::MAX_LIMIT).contains(&limit) {
        return Err(Problem::BadRequest(format!(
            "limit: {limit} is out of range; use 1 to {}",
            ConnectionFilter::MAX_LIMIT
        )));
    }
    Ok(limit)
}

fn state_named(name: &str) -> Result<ConnState, Problem> {
    let found = ConnState::ALL
        .into_iter()
        .find(|state| state.name().eq_ignore_ascii_case(name));
    found.ok_or_else(|| {
        let mut names: Vec<_> = ConnState::ALL.iter().map(|state| state.name()).collect();
        // TCP and SCTP share a name, which means both.
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(*name));
        Problem::BadRequest(format!(
            "state: {name:?} is no connection state; use one of {}",
            names.join(", ")
        ))
    })
}

/// Passes a request to the control loop and waits for its answer.
pub(super) async fn ask<T>(
    control: &mpsc::Sender<Request>,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, Problem> {
    let (back, answer) = oneshot::channel();
    control.try_send(request(back)).map_err(|e| {
        Problem::Unavailable(match e {
            mpsc::error::TrySendError::Full(_) => "too many requests at once; try again".into(),
            mpsc::error::TrySendError::Closed(_) => "weir is stopping".into(),
        })
    })?;
    answer
        .await
        .map_err(|_| Problem::Unavailable("weir is stopping".into()))
}

pub(super) fn answer<T: Serialize>(result: Result<T, Problem>) -> Response {
    match result {
        Ok(document) => Json(document).into_response(),
        Err(problem) => problem.into_response(),
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let code = match self {
            Problem::BadRequest(_) => StatusCode::BAD_REQUEST,
            Problem::Refused(_) => StatusCode::CONFLICT,
            Problem::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        refusal(code, self.to_string())
    }
}

fn refusal(code: StatusCode, error: String) -> Response {
    (code, Json(Refusal { error })).into_response()
}
