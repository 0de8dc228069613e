//! Asks the agent over its Unix socket.

use std::{
    io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use crate::{config::DEFAULT_SOCKET, model::view::Problem};

/// Where the agent is.
#[derive(Clone, Debug, Args)]
pub(super) struct Client {
    /// Unix socket of the agent
    #[arg(long, value_name = "PATH", env = "SPIKE_SOCKET", default_value = DEFAULT_SOCKET, global = true,
          display_order = 1000)]
    socket: PathBuf,
}

/// Why the agent did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// Nobody answers.
    #[error("cannot reach the agent at {}: {error}; {}", socket.display(), remedy(error))]
    Unreachable {
        /// The socket that was tried.
        socket: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It answered, and then no more.
    #[error("the agent at {} went away: {reason}", socket.display())]
    WentAway {
        /// The socket that it was at.
        socket: PathBuf,
        /// What broke.
        reason: String,
    },
    /// It refused.
    #[error("{}{}", .0.field.as_ref().map(|field| format!("{field}: ")).unwrap_or_default(), .0.detail)]
    Refused(Box<Problem>),
    /// It answered what this client does not understand.
    #[error("the agent answered {status}: {reason}; it may be of another version than this client")]
    NotUnderstood {
        /// Its status.
        status: StatusCode,
        /// What was wrong with the answer.
        reason: String,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "run this as root or as a member of the socket's group",
        _ => "start it with: spike agent",
    }
}

impl ClientError {
    /// Is it because what was named does not exist?
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(problem) if problem.status == StatusCode::NOT_FOUND.as_u16())
    }
}

impl Client {
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.send(Method::GET, path, None).await?;
        self.read(response).await
    }

    /// An answer as it is.
    pub(super) async fn text(&self, path: &str) -> Result<Bytes, ClientError> {
        let response = self.send(Method::GET, path, None).await?;
        let body = response.into_body().collect().await;
        Ok(body.map_err(|error| self.went_away(error))?.to_bytes())
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.went_away(error))?;
        let response = self.send(Method::POST, path, Some(body)).await?;
        self.read(response).await
    }

    pub(super) async fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.went_away(error))?;
        let response = self.send(Method::PATCH, path, Some(body)).await?;
        self.read(response).await
    }

    pub(super) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.send(Method::DELETE, path, None).await?;
        self.read(response).await
    }

    /// An answer that is read as it comes.
    pub(super) async fn stream(&self, path: &str) -> Result<Incoming, ClientError> {
        self.send(Method::GET, path, None).await.map(Response::into_body)
    }

    /// An error for an answer that broke off.
    pub(super) fn went_away(&self, reason: impl ToString) -> ClientError {
        ClientError::WentAway {
            socket: self.socket.clone(),
            reason: reason.to_string(),
        }
    }

    async fn read<T: DeserializeOwned>(&self, response: Response<Incoming>) -> Result<T, ClientError> {
        let status = response.status();
        let bytes = response
            .into_body()
            .collect()
            .await
            .map_err(|error| self.went_away(error))?
            .to_bytes();
        // "No content" reads as the unit type.
        let bytes = if bytes.is_empty() {
            Bytes::from_static(b"null")
        } else {
            bytes
        };
        serde_json::from_slice(&bytes).map_err(|error| ClientError::NotUnderstood {
            status,
            reason: error.to_string(),
        })
    }

    /// One request on a connection of its own; an answer that is no success is an error.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = connect(&self.socket).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.went_away(error))?;
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost");
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(Bytes::from(body.unwrap_or_default())));
        let request = request.map_err(|error| self.went_away(error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| self.went_away(error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(ClientError::Refused(Box::new(self.read(response).await?)))
    }
}

async fn connect(socket: &Path) -> Result<UnixStream, ClientError> {
    let connected = UnixStream::connect(socket).await;
    connected.map_err(|error| ClientError::Unreachable {
        socket: socket.to_owned(),
        error,
    })
}
