//! Writes a capture of the agent to a file until it ends: for `capture run` and for `exec`.

use std::{
    fs::OpenOptions,
    io::{self, ErrorKind, IsTerminal},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{
    client::{Client, ClientError},
    human,
};
use crate::model::{RawCapture, view::CaptureView};

/// A capture that runs, and the file that it goes to.
pub(super) struct Recorder {
    client: Client,
    capture: CaptureView,
    stream: Incoming,
    output: PathBuf,
    sink: Box<dyn AsyncWrite + Send + Unpin>,
}

impl Recorder {
    /// Starts a capture; it takes packets when this returns. The file, `-` for standard output, is made only then.
    pub(super) async fn start(client: &Client, request: &RawCapture, output: &Path) -> Result<Self> {
        if output == Path::new("-") && io::stdout().is_terminal() {
            bail!(
                "packets do not go to a terminal: write them to a file, or pipe them, as in: --output - | tshark -r -"
            );
        }
        let capture: CaptureView = client.post("/v1/captures", request).await?;
        let begun = Self::begin(client, capture.clone(), output).await;
        if begun.is_err() {
            // Best effort: the agent stops a capture without a reader by itself.
            let _ = stop(client, &capture.id).await;
        }
        begun
    }

    async fn begin(client: &Client, capture: CaptureView, output: &Path) -> Result<Self> {
        let sink: Box<dyn AsyncWrite + Send + Unpin> = match output == Path::new("-") {
            true => Box::new(tokio::io::stdout()),
            false => Box::new(create(output).with_context(|| format!("create {}", output.display()))?),
        };
        let stream = client
            .stream(&format!("/v1/captures/{}/pcapng", capture.id))
            .await?;
        Ok(Self {
            client: client.clone(),
            capture,
            stream,
            output: output.to_owned(),
            sink,
        })
    }

    /// Names the capture, for [`stop`].
    pub(super) fn id(&self) -> &str {
        &self.capture.id
    }

    /// Writes what comes until the capture ends; answers its last counts.
    pub(super) async fn write_all(mut self) -> Result<Summary> {
        let mut written = 0_u64;
        while let Some(frame) = self.stream.frame().await {
            let frame = frame
                .map_err(|error| self.client.went_away(error))
                .with_context(|| {
                    format!(
                        "the capture broke off after {} in {}",
                        human::bytes(written),
                        self.output.display()
                    )
                })?;
            let Some(piece) = frame.data_ref() else { continue };
            match self.sink.write_all(piece).await {
                Ok(()) => written += piece.len() as u64,
                // Who reads the pipe has had enough; dropping the stream stops the capture.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
                Err(error) => {
                    return Err(error).with_context(|| format!("write to {}", self.output.display()));
                }
            }
        }
        let flushed = self.sink.flush().await.or_else(|error| match error.kind() {
            ErrorKind::BrokenPipe => Ok(()),
            _ => Err(error),
        });
        flushed.with_context(|| format!("write to {}", self.output.display()))?;
        drop(self.stream);
        // An agent that stops ends the capture properly and is gone then.
        let capture = self
            .client
            .get(&format!("/v1/captures/{}", self.capture.id))
            .await
            .ok();
        Ok(Summary {
            capture,
            written,
            output: self.output,
        })
    }
}

/// Stops a capture; what it took until now still arrives.
pub(super) async fn stop(client: &Client, id: &str) -> Result<(), ClientError> {
    client
        .delete::<CaptureView>(&format!("/v1/captures/{id}"))
        .await
        .map(drop)
}

/// Packets hold secrets: a new file is the user's alone.
fn create(path: &Path) -> io::Result<tokio::fs::File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    Ok(tokio::fs::File::from_std(file))
}

/// What a capture took, and where it is.
pub(super) struct Summary {
    /// Its last counts, unless the agent took them with it.
    capture: Option<CaptureView>,
    written: u64,
    output: PathBuf,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let target = match self.output == Path::new("-") {
            true => "standard output".to_owned(),
            false => self.output.display().to_string(),
        };
        let written = human::bytes(self.written);
        match &self.capture {
            Some(CaptureView {
                packets,
                dropped,
                interfaces,
                ..
            }) => {
                let interfaces = interfaces.join(", ");
                write!(
                    f,
                    "{packets} packets of {interfaces} written to {target} ({written}), {dropped} lost"
                )
            }
            None => write!(
                f,
                "{written} written to {target}; the agent has stopped, and its counts are gone"
            ),
        }
    }
}
