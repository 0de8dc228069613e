//! One capture: its counts, its end, and the one stream that its packets go to.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    control::{CaptureCounts, CaptureHandle},
    model::{
        CaptureSpec, RawCapture,
        view::{CaptureState, CaptureView},
    },
};

pub(super) struct Entry {
    id: String,
    spec: CaptureSpec,
    interfaces: Vec<String>,
    counts: Arc<CaptureCounts>,
    stop: CancellationToken,
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
            bytes,
            stop,
        } = handle;
        Self {
            id,
            spec,
            interfaces,
            counts,
            stop,
            bytes_rx: Mutex::new(Some(bytes)),
            bytes_read: AtomicU64::new(0),
            is_read: AtomicBool::new(false),
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn cgroup(&self) -> Option<&str> {
        self.spec.selector.from.cgroup.as_deref()
    }

    pub(super) fn is_running(&self) -> bool {
        let has_ended_unread = self.bytes_rx().as_ref().is_some_and(mpsc::Receiver::is_closed);
        !self.stop.is_cancelled() && !self.is_read.load(Ordering::Acquire) && !has_ended_unread
    }

    /// Stops it and tells its id.
    pub(super) fn stop(&self) -> String {
        self.stop.cancel();
        self.id.clone()
    }

    /// Stops it and throws away what it took, unless there is or was a reader.
    pub(super) fn give_up_unread(&self) -> bool {
        let is_unread = self.bytes_rx().take().is_some();
        if is_unread {
            self.stop.cancel();
            self.is_read.store(true, Ordering::Release);
        }
        is_unread
    }

    pub(super) fn stream(self: &Arc<Self>) -> Option<CaptureStream> {
        let bytes_rx = self.bytes_rx().take()?;
        Some(CaptureStream {
            bytes_rx,
            entry: self.clone(),
        })
    }

    pub(super) fn view(&self) -> CaptureView {
        let state = if self.is_running() {
            CaptureState::Running
        } else {
            CaptureState::Ended
        };
        CaptureView {
            id: self.id.clone(),
            state,
            capture: RawCapture::from(&self.spec),
            interfaces: self.interfaces.clone(),
            packets: self.counts.packets.load(Ordering::Relaxed),
            bytes: self.bytes_read.load(Ordering::Relaxed),
            dropped: self.counts.dropped.load(Ordering::Relaxed),
        }
    }

    fn bytes_rx(&self) -> MutexGuard<'_, Option<mpsc::Receiver<Bytes>>> {
        self.bytes_rx.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A capture's pcapng file, in pieces, as it grows. Dropping it stops the capture.
pub struct CaptureStream {
    bytes_rx: mpsc::Receiver<Bytes>,
    entry: Arc<Entry>,
}

impl Stream for CaptureStream {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let piece = ready!(self.bytes_rx.poll_recv(cx));
        match &piece {
            Some(piece) => drop(
                self.entry
                    .bytes_read
                    .fetch_add(piece.len() as u64, Ordering::Relaxed),
            ),
            None => self.entry.is_read.store(true, Ordering::Release),
        }
        Poll::Ready(piece)
    }
}

impl Drop for CaptureStream {
    fn drop(&mut self) {
        self.entry.stop.cancel();
        self.entry.is_read.store(true, Ordering::Release);
    }
}
