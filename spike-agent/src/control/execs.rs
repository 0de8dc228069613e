//! Commands that run in a cgroup of their own, and the clients that started them.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::{Interest, unix::AsyncFd};

use super::ControlError;
use crate::model::view::ExecView;

/// Commands by id.
#[derive(Default)]
pub(super) struct Execs {
    by_id: Mutex<HashMap<String, ExecView>>,
}

impl Execs {
    pub(super) fn insert(&self, exec: ExecView) {
        self.by_id
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(exec.id.clone(), exec);
    }

    /// Of several callers only one gets it.
    pub(super) fn take(&self, id: &str) -> Option<ExecView> {
        self.by_id
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id)
    }
}

/// Sees a process end, even when its id is given to another one at once.
pub(super) struct Watch(AsyncFd<OwnedFd>);

/// Watches the process `pid`, which must still run.
pub(super) fn watch(pid: u32) -> Result<Watch, ControlError> {
    let gone = || ControlError::no_such("client process", &pid.to_string());
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
    let pidfd = pidfd_open(number, PidfdFlags::NONBLOCK).map_err(|_| gone())?;
    // SAFETY: the pidfd is owned, so its descriptor stays the same and open for as long as the registration lives.
    let watched = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
    watched
        .map(Watch)
        .map_err(|error| ControlError::Internal(format!("watch process {pid}: {error}")))
}

impl Watch {
    /// Resolves when the process has ended.
    pub(super) async fn ended(&self) {
        // The guard is dropped uncleared: readiness stays, as the process stays ended.
        let _ = self.0.readable().await;
    }
}
