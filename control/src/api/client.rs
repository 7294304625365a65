//! The command line's side of the API: one request over the unix socket, one document back.
#![forbid(unsafe_code)]

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::documents::Refusal;

/// How long an answer may take: a reload waits for every worker, a long listing for many pages.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody listens.
    #[error(
        "no weir listens on {0}; start it (`weir run --config FILE`) or name its socket with \
         --socket"
    )]
    NotRunning(PathBuf),
    /// The socket is not for this user.
    #[error("not allowed to use {0}; run as root or join the socket's group")]
    NotAllowed(PathBuf),
    /// Weir understood and said no; the text is its own.
    #[error("{0}")]
    Refused(String),
    /// The connection broke, or is no HTTP.
    #[error("weir on {path} does not answer as it should: {problem}")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        problem: String,
    },
}

/// `GET`s the document at `target` (path and query).
///
/// # Errors
/// See [`ClientError`].
pub(crate) fn get<T: DeserializeOwned>(socket: &Path, target: &str) -> Result<T, ClientError> {
    call(socket, Method::GET, target, Bytes::new())
}

/// `POST`s to `target` and returns the document that answers.
///
/// # Errors
/// See [`ClientError`].
pub(crate) fn post<T: DeserializeOwned>(socket: &Path, target: &str) -> Result<T, ClientError> {
    call(socket, Method::POST, target, Bytes::new())
}

/// `POST`s `body` to `target` and returns the document that answers.
///
/// # Errors
/// See [`ClientError`].
pub(crate) fn post_bytes<T: DeserializeOwned>(
    socket: &Path,
    target: &str,
    body: Vec<u8>,
) -> Result<T, ClientError> {
    call(socket, Method::POST, target, body.into())
}

/// `DELETE`s what `target` names and returns the document that answers.
///
/// # Errors
/// See [`ClientError`].
pub(crate) fn delete<T: DeserializeOwned>(socket: &Path, target: &str) -> Result<T, ClientError> {
    call(socket, Method::DELETE, target, Bytes::new())
}

fn call<T: DeserializeOwned>(
    socket: &Path,
    method: Method,
    target: &str,
    body: Bytes,
) -> Result<T, ClientError> {
    let broken = |problem: String| ClientError::Broken {
        path: socket.to_owned(),
        problem,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| broken(e.to_string()))?;
    let (status, body) = runtime.block_on(async {
        let exchanged =
            tokio::time::timeout(PATIENCE, exchange(socket, method, target, body)).await;
        exchanged.unwrap_or_else(|_| {
            let seconds = PATIENCE.as_secs();
            Err(broken(format!("no answer in {seconds} seconds")))
        })
    })?;
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|e| broken(e.to_string()));
    }
    match serde_json::from_slice::<Refusal>(&body) {
        Ok(refusal) => Err(ClientError::Refused(refusal.error)),
        Err(_) => Err(broken(format!("HTTP status {status}"))),
    }
}

async fn exchange(
    socket: &Path,
    method: Method,
    target: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), ClientError> {
    let path = || socket.to_owned();
    let broken = |e: &dyn std::error::Error| ClientError::Broken {
        path: path(),
        problem: e.to_string(),
    };
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|e: io::Error| match e.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => ClientError::NotRunning(path()),
            ErrorKind::PermissionDenied => ClientError::NotAllowed(path()),
            _ => broken(&e),
        })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| broken(&e))?;
    let driver = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header("host", "weir")
        .body(Body::from(body))
        .map_err(|e| broken(&e))?;
    let response = sender.send_request(request).await.map_err(|e| broken(&e))?;
    let status = response.status();
    let body = response.into_body().collect().await;
    let body = body.map_err(|e| broken(&e))?.to_bytes();
    driver.abort();
    Ok((status, body))
}
