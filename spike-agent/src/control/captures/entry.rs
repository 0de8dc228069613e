//! One capture: its counts, its end, and where its packets are: on their way to one reader, or on the disk.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream::BoxStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    capture::store::Kept,
    control::{CaptureCounts, CaptureHandle, CaptureOutput},
    model::{
        RawCapture,
        view::{CaptureState, CaptureView},
    },
};

/// What `spike capture trigger` says has happened.
const BY_HAND: &str = "by hand";

pub(super) struct Entry {
    id: String,
    spec: RawCapture,
    interfaces: Vec<String>,
    counts: Arc<CaptureCounts>,
    stop: CancellationToken,
    trigger: watch::Sender<Option<String>>,
    output: Output,
}

enum Output {
    Stream(Arc<Unread>),
    Kept(Arc<Kept>),
}

/// What one reader gets.
struct Unread {
    /// Until a reader takes it.
    bytes_rx: Mutex<Option<mpsc::Receiver<Bytes>>>,
    /// What the reader has had so far.
    bytes_read: AtomicU64,
    /// The reader has had the last piece, or has gone.
    is_read: AtomicBool,
}

impl Entry {
    pub(super) fn new(handle: CaptureHandle) -> Self {
        let CaptureHandle {
            id,
            spec,
            interfaces,
            counts,
            output,
            stop,
            trigger,
        } = handle;
        let output = match output {
            CaptureOutput::Kept(kept) => Output::Kept(kept),
            CaptureOutput::Stream(bytes) => Output::Stream(Arc::new(Unread {
                bytes_rx: Mutex::new(Some(bytes)),
                bytes_read: AtomicU64::new(0),
                is_read: AtomicBool::new(false),
            })),
        };
        Self {
            id,
            spec: RawCapture::from(&spec),
            interfaces,
            counts,
            stop,
            trigger,
            output,
        }
    }

    /// One that an earlier agent kept, by what it wrote of it.
    pub(super) fn found(kept: Arc<Kept>) -> Self {
        let described = kept.description();
        let view: Option<CaptureView> = described.and_then(|text| serde_json::from_slice(&text).ok());
        let counts = CaptureCounts::default();
        let (mut spec, mut interfaces) = (RawCapture::default(), Vec::new());
        let mut note = None;
        if let Some(view) = view {
            counts.packets.store(view.packets, Ordering::Relaxed);
            counts.dropped.store(view.dropped, Ordering::Relaxed);
            if let Some(what) = view.triggered {
                let _ = counts.triggered.set(what);
            }
            note = view.note;
            if view.state != CaptureState::Ended {
                note =
                    Some("the agent was killed while it ran: its counts are those of its start".to_owned());
            }
            (spec, interfaces) = (view.capture, view.interfaces);
        }
        if let Some(note) = note {
            let _ = counts.note.set(note);
        }
        Self {
            id: kept.id().to_owned(),
            spec,
            interfaces,
            counts: Arc::new(counts),
            stop: CancellationToken::new(),
            trigger: watch::Sender::new(None),
            output: Output::Kept(kept),
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn cgroup(&self) -> Option<&str> {
        self.spec.from.cgroup.as_deref()
    }

    pub(super) fn kept(&self) -> Option<&Arc<Kept>> {
        match &self.output {
            Output::Kept(kept) => Some(kept),
            Output::Stream(_) => None,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        let has_ended = match &self.output {
            Output::Kept(kept) => kept.is_over(),
            Output::Stream(unread) => {
                let has_ended_unread = unread.bytes_rx().as_ref().is_some_and(mpsc::Receiver::is_closed);
                unread.is_read.load(Ordering::Acquire) || has_ended_unread
            }
        };
        !self.stop.is_cancelled() && !has_ended
    }

    fn is_waiting(&self) -> bool {
        self.spec.before.is_some() && self.counts.triggered.get().is_none()
    }

    /// Stops it and tells its id.
    pub(super) fn stop(&self) -> String {
        self.stop.cancel();
        self.id.clone()
    }

    /// Tells it that what it waits for has happened; false when it does not wait.
    pub(super) fn trigger(&self) -> bool {
        let waits = self.is_running() && self.spec.before.is_some();
        if waits {
            self.trigger.send_if_modified(|what| {
                let is_first = what.is_none();
                what.get_or_insert_with(|| BY_HAND.to_owned());
                is_first
            });
        }
        waits
    }

    /// Stops it and throws away what it took, unless there is or was a reader.
    pub(super) fn give_up_unread(&self) -> bool {
        let Output::Stream(unread) = &self.output else {
            return false;
        };
        let is_unread = unread.bytes_rx().take().is_some();
        if is_unread {
            self.stop.cancel();
            unread.is_read.store(true, Ordering::Release);
        }
        is_unread
    }

    pub(super) fn stream(&self, follows: bool) -> Option<CaptureStream> {
        match &self.output {
            Output::Kept(kept) => Some(CaptureStream::Kept(kept.read(follows).boxed())),
            Output::Stream(unread) => {
                let bytes_rx = unread.bytes_rx().take()?;
                Some(CaptureStream::Live(LiveStream {
                    bytes_rx,
                    unread: Arc::clone(unread),
                    stop: self.stop.clone(),
                }))
            }
        }
    }

    /// Keeps what is known of it beside its files, for the next agent.
    pub(super) fn describe(&self) {
        if let (Some(kept), Ok(text)) = (self.kept(), serde_json::to_vec(&self.view())) {
            kept.describe(&text);
        }
    }

    pub(super) fn view(&self) -> CaptureView {
        let state = match (self.is_running(), self.is_waiting()) {
            (true, true) => CaptureState::Waiting,
            (true, false) => CaptureState::Running,
            (false, _) => CaptureState::Ended,
        };
        let (bytes, files) = match &self.output {
            Output::Kept(kept) => kept.size(),
            Output::Stream(unread) => (unread.bytes_read.load(Ordering::Relaxed), 0),
        };
        let error = self.kept().and_then(|kept| kept.error());
        CaptureView {
            id: self.id.clone(),
            state,
            capture: self.spec.clone(),
            interfaces: self.interfaces.clone(),
            packets: self.counts.packets.load(Ordering::Relaxed),
            bytes,
            dropped: self.counts.dropped.load(Ordering::Relaxed),
            files,
            triggered: self.counts.triggered.get().cloned(),
            note: error.or_else(|| self.counts.note.get().cloned()),
        }
    }
}

impl Unread {
    fn bytes_rx(&self) -> MutexGuard<'_, Option<mpsc::Receiver<Bytes>>> {
        self.bytes_rx.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A capture's pcapng file, in pieces.
pub enum CaptureStream {
    /// As it is captured. Dropping it stops the capture.
    Live(LiveStream),
    /// From the disk.
    Kept(BoxStream<'static, io::Result<Bytes>>),
}

/// The packets of a capture that nobody else gets.
pub struct LiveStream {
    bytes_rx: mpsc::Receiver<Bytes>,
    unread: Arc<Unread>,
    stop: CancellationToken,
}

impl Stream for CaptureStream {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        match self.get_mut() {
            Self::Live(live) => live.poll(cx).map(|piece| piece.map(Ok)),
            Self::Kept(kept) => kept.poll_next_unpin(cx),
        }
    }
}

impl LiveStream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let piece = ready!(self.bytes_rx.poll_recv(cx));
        match &piece {
            Some(piece) => drop(
                self.unread
                    .bytes_read
                    .fetch_add(piece.len() as u64, Ordering::Relaxed),
            ),
            None => self.unread.is_read.store(true, Ordering::Release),
        }
        Poll::Ready(piece)
    }
}

impl Drop for LiveStream {
    fn drop(&mut self) {
        self.stop.cancel();
        self.unread.is_read.store(true, Ordering::Release);
    }
}
