//! A connection to the real server, for requests that were not recorded.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::session::Session;

/// How long the real server may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to the real server.
pub(super) struct Upstream {
    stream: TcpStream,
    /// What it has said and nobody has read.
    pub(super) bytes: Vec<u8>,
    /// It says no more.
    pub(super) ended: bool,
}

impl Upstream {
    pub(super) async fn connect(session: &Session) -> Result<Self, String> {
        let stream = timeout(PATIENCE, session.dial()).await;
        let stream = stream.map_err(|_| "it does not accept the connection".to_owned())?;
        Ok(Self {
            stream: stream.map_err(|error| error.to_string())?,
            bytes: Vec::new(),
            ended: false,
        })
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let sent = self.stream.write_all(bytes).await;
        sent.map_err(|error| error.to_string())
    }

    /// Reads more of what it says.
    pub(super) async fn more(&mut self, since: Instant) -> Result<(), String> {
        let left = PATIENCE.saturating_sub(since.elapsed());
        match timeout(left, self.stream.read_buf(&mut self.bytes)).await {
            Ok(Ok(0)) => self.ended = true,
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err(format!("no answer within {PATIENCE:?}")),
        }
        Ok(())
    }
}
