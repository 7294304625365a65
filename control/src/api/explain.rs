//! `POST /v1/explain`: a capture in the body, what would become of its packets as the answer.
#![forbid(unsafe_code)]

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;
use tokio::sync::{Semaphore, mpsc};

use super::server::{answer, ask};
use super::{Problem, Request};
use crate::explain::{self, Wishes, capture};

/// One at a time: it takes a processor for up to some seconds.
static ONE_AT_A_TIME: Semaphore = Semaphore::const_new(1);

/// What may follow `/v1/explain?`. Everything is optional.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ExplainQuery {
    port: Option<String>,
    keep_macs: bool,
    frames: bool,
}

/// The packets are replayed on a thread of their own, in the state of now: the control loop only
/// says what that is, and no worker hears of it.
pub(super) async fn explain(
    State(control): State<mpsc::Sender<Request>>,
    query: Result<Query<ExplainQuery>, QueryRejection>,
    body: Bytes,
) -> Response {
    let explained = async {
        let Query(query) = query.map_err(|e| Problem::BadRequest(e.body_text()))?;
        let wishes = Wishes {
            port: query.port,
            keep_macs: query.keep_macs,
            frames: query.frames,
        };
        let busy = |_| Problem::Unavailable("another explanation is under way; try again".into());
        let _permit = ONE_AT_A_TIME.try_acquire().map_err(busy)?;
        let picture = ask(&control, Request::Picture).await?;
        let work = move || {
            let bad = |e: &dyn std::fmt::Display| Problem::BadRequest(e.to_string());
            let packets = capture::read(&body).map_err(|e| bad(&format!("the capture {e}")))?;
            explain::explain(&picture, &packets, &wishes).map_err(|e| bad(&e))
        };
        let worked = tokio::task::spawn_blocking(work).await;
        worked.unwrap_or_else(|_| Err(Problem::Unavailable("weir is stopping".into())))
    };
    answer(explained.await)
}
