//! Asks a Unix socket that speaks Docker's HTTP API, as Podman's does, too.
//!
//! Of the whole API one request is needed, and of its answer two fields. Nothing else of it is parsed, since engines
//! differ there; it is not kept or logged, since it holds the container's environment; and it is bounded, since a user's
//! socket may answer anything. The path names no version, so that each engine speaks its own.

use std::{collections::BTreeMap, io, path::Path};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;

use super::ContainerInfo;

/// Longest answer in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Why an engine gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("connect: {0}")]
    Connect(#[from] io::Error),
    #[error("it took too long")]
    Slow,
    #[error("talk HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("make the request: {0}")]
    Request(#[from] http::Error),
    #[error("read the answer: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("not the JSON that was asked for: {0}")]
    Json(#[from] serde_json::Error),
}

/// `GET /containers/{id}/json` (Docker Engine API, ContainerInspect).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspect {
    #[serde(default)]
    name: String,
    config: Option<Config>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    labels: Option<BTreeMap<String, String>>,
}

/// Asks the engine at `path` for a container; `None` when it has none with this id.
pub(super) async fn inspect(path: &Path, id: &str) -> Result<Option<ContainerInfo>, AskError> {
    let stream = UnixStream::connect(path).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(format!("/containers/{id}/json"))
        .header(HOST, "localhost")
        .body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            status => return Err(AskError::Status(status)),
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let inspect: Inspect = serde_json::from_slice(&body.map_err(AskError::Body)?.to_bytes())?;
        let labels = inspect
            .config
            .and_then(|config| config.labels)
            .unwrap_or_default();
        Ok(Some(ContainerInfo::new(
            inspect.name.trim_start_matches('/'),
            labels,
        )))
    };
    tokio::pin!(answer);
    // The connection is driven here and not in a task, so that it ends with the question.
    tokio::select! {
        answer = &mut answer => answer,
        closed = connection => {
            closed?;
            answer.await
        }
    }
}
