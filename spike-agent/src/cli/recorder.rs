//! Writes a capture of the agent to a file until it ends: for `capture run`, `capture export` and for `exec`.

mod files;

use std::{
    fs::{OpenOptions, Permissions},
    io::{self, ErrorKind, IsTerminal},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use self::files::Files;
use super::{
    client::{Client, ClientError},
    human,
};
use crate::model::{RawCapture, view::CaptureView};

/// Where a capture goes.
#[derive(Debug)]
pub(super) struct Target {
    /// The file, `-` for standard output.
    pub(super) output: PathBuf,
    /// As classic pcap.
    pub(super) is_pcap: bool,
    /// A file for each section, of which so many are kept; none for one file.
    pub(super) files: Option<Option<u32>>,
}

impl Target {
    /// One pcapng file.
    pub(super) fn file(output: PathBuf) -> Self {
        Self {
            output,
            is_pcap: false,
            files: None,
        }
    }

    fn is_stdout(&self) -> bool {
        self.output == Path::new("-")
    }

    fn check(&self) -> Result<()> {
        if self.is_stdout() && io::stdout().is_terminal() {
            bail!(
                "packets do not go to a terminal: write them to a file, or pipe them, as in: --output - | tshark -r -"
            );
        }
        if self.is_stdout() && self.files.is_some() {
            bail!("--file-size: standard output cannot be cut into files; name a file with --output");
        }
        Ok(())
    }

    fn open(&self) -> Result<Sink> {
        if let Some(most) = self.files {
            return Ok(Sink::Files(Files::new(self.output.clone(), most)));
        }
        if self.is_stdout() {
            return Ok(Sink::Single(Box::new(tokio::io::stdout())));
        }
        let created = create(&self.output).with_context(|| format!("create {}", self.output.display()))?;
        Ok(Sink::Single(Box::new(created)))
    }
}

enum Sink {
    Single(Box<dyn AsyncWrite + Send + Unpin>),
    Files(Files),
}

impl Sink {
    async fn write_all(&mut self, piece: &[u8]) -> io::Result<()> {
        match self {
            Self::Single(sink) => sink.write_all(piece).await,
            Self::Files(files) => files.write_all(piece).await,
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Single(sink) => sink.flush().await,
            Self::Files(files) => files.flush().await,
        }
    }
}

/// A capture that runs or is kept, and the file that it goes to.
pub(super) struct Recorder {
    client: Client,
    capture: CaptureView,
    stream: Incoming,
    output: PathBuf,
    sink: Sink,
}

impl Recorder {
    /// Starts a capture; it takes packets when this returns. The file is made only then.
    pub(super) async fn start(client: &Client, request: &RawCapture, target: Target) -> Result<Self> {
        target.check()?;
        let capture: CaptureView = client.post("/v1/captures", request).await?;
        let id = capture.id.clone();
        let begun = Self::begin(client, capture, target, true).await;
        if begun.is_err() {
            // Best effort: the agent stops a capture without a reader by itself.
            let _ = stop(client, &id).await;
        }
        begun
    }

    /// Reads one that is there; with `follows` until it ends.
    pub(super) async fn read(
        client: &Client,
        capture: CaptureView,
        target: Target,
        follows: bool,
    ) -> Result<Self> {
        target.check()?;
        Self::begin(client, capture, target, follows).await
    }

    async fn begin(client: &Client, capture: CaptureView, target: Target, follows: bool) -> Result<Self> {
        let sink = target.open()?;
        let format = if target.is_pcap { "pcap" } else { "pcapng" };
        let id = &capture.id;
        let stream = client
            .stream(&format!(
                "/v1/captures/{id}/pcapng?follow={follows}&format={format}"
            ))
            .await?;
        Ok(Self {
            client: client.clone(),
            capture,
            stream,
            output: target.output,
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
                    let kept = human::bytes(written);
                    return Err(error).with_context(|| {
                        format!(
                            "write to {}: the capture ends; the first {kept} of it are there and can be read",
                            self.output.display()
                        )
                    });
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

/// Packets hold secrets: the file is the user's alone, whatever the umask, also one that was there before.
fn create(path: &Path) -> io::Result<tokio::fs::File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    if file.metadata()?.is_file() {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
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
