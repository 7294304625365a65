//! `/v1/blacklist`: who is shut out.
#![forbid(unsafe_code)]

use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::mpsc;
use weir_dataplane::defense::access::Prefix;

use super::server::{answer, ask};
use super::{BlacklistRequest, Problem, Request};

/// What may follow `/v1/blacklist?`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntryQuery {
    prefix: String,
    service: Option<String>,
    milliseconds: Option<u64>,
}

impl EntryQuery {
    fn prefix(&self) -> Result<Prefix, Problem> {
        let parsed = self.prefix.parse();
        parsed.map_err(|why| Problem::BadRequest(format!("prefix: {why}")))
    }
}

type Control = State<mpsc::Sender<Request>>;
type Wanted = Result<Query<EntryQuery>, QueryRejection>;

pub(super) async fn list(State(control): Control) -> Response {
    asked(&control, Ok(BlacklistRequest::List)).await
}

pub(super) async fn add(State(control): Control, query: Wanted) -> Response {
    let wanted = read(query).and_then(|query| {
        Ok(BlacklistRequest::Add {
            prefix: query.prefix()?,
            lasts: query.milliseconds.map(Duration::from_millis),
            service: query.service,
        })
    });
    asked(&control, wanted).await
}

pub(super) async fn remove(State(control): Control, query: Wanted) -> Response {
    let wanted = read(query).and_then(|query| {
        if query.milliseconds.is_some() {
            let why = "milliseconds: an entry is removed at once; leave it out";
            return Err(Problem::BadRequest(why.to_owned()));
        }
        Ok(BlacklistRequest::Remove {
            prefix: query.prefix()?,
            service: query.service,
        })
    });
    asked(&control, wanted).await
}

fn read(query: Wanted) -> Result<EntryQuery, Problem> {
    let Query(query) = query.map_err(|e| Problem::BadRequest(e.body_text()))?;
    Ok(query)
}

async fn asked(
    control: &mpsc::Sender<Request>,
    wanted: Result<BlacklistRequest, Problem>,
) -> Response {
    match wanted {
        Ok(wanted) => {
            let asked = ask(control, |back| Request::Blacklist(wanted, back)).await;
            answer(asked.and_then(|done| done))
        }
        Err(problem) => problem.into_response(),
    }
}
