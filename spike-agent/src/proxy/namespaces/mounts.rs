//! Says when a namespace got or lost a name, so that a new one is not unknown until the next look at the host.

use std::{future, io, os::fd::OwnedFd};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

use super::discover::MOUNTS;

/// Watches the directories of named namespaces.
pub(super) struct MountEvents {
    /// None when the host has no more of them: then the regular look has to do.
    inotify: Option<AsyncFd<OwnedFd>>,
}

impl MountEvents {
    pub(super) fn new() -> Self {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
            .map_err(io::Error::from)
            // SAFETY: an owned descriptor stays the same until it is dropped.
            .and_then(|inotify| Ok(unsafe { AsyncFd::register(inotify) }?))
            .inspect_err(|error| tracing::debug!(%error, "watch the names of network namespaces"));
        Self {
            inotify: inotify.ok(),
        }
    }

    /// Watches those directories that are there by now; to be called again, since they come and go.
    pub(super) fn watch(&self) {
        let Some(inotify) = &self.inotify else { return };
        let flags = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE | WatchFlags::ONLYDIR;
        for directory in MOUNTS {
            let _ = inotify::add_watch(inotify, directory, flags);
        }
    }

    /// Returns when a name came or went.
    pub(super) async fn changed(&self) {
        let Some(inotify) = &self.inotify else {
            return future::pending().await;
        };
        let mut buffer = [0; 4096];
        loop {
            let Ok(mut ready) = inotify.readable().await else {
                return future::pending().await;
            };
            let read = ready.try_io(|inotify| Ok(rustix::io::read(inotify, &mut buffer)?));
            if read.is_ok() {
                return;
            }
        }
    }
}
