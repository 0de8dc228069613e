//! The threads that carry connections: one a processor, each with a reactor of its own, so that bytes wake the very
//! thread that passes them on.

use std::{
    future,
    sync::OnceLock,
    thread::{self, available_parallelism},
};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::fault::timer;

/// The threads, which start with the first connection and end when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Threads {
    running: OnceLock<Running>,
}

#[derive(Debug)]
struct Running {
    /// At least one.
    reactors: Vec<Handle>,
    _stop: DropGuard,
}

impl Threads {
    /// Runs `task` on the thread that has the fewest. Sockets are to be registered by the task itself: those of another
    /// reactor would wake this one the long way.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let running = self.running.get_or_init(start);
        let least = running
            .reactors
            .iter()
            .min_by_key(|reactor| reactor.metrics().num_alive_tasks());
        if let Some(reactor) = least {
            reactor.spawn(task);
        }
    }
}

fn start() -> Running {
    let stop = CancellationToken::new();
    let count = available_parallelism().map_or(1, usize::from);
    let mut reactors: Vec<Handle> = (0..count).filter_map(|_| start_one(stop.clone())).collect();
    if reactors.is_empty() {
        tracing::warn!(
            "no thread could be started for intercepted calls; the agent's other threads carry them"
        );
        reactors.push(Handle::current());
    }
    Running {
        reactors,
        _stop: stop.drop_guard(),
    }
}

fn start_one(stop: CancellationToken) -> Option<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build().ok()?;
    let reactor = runtime.handle().clone();
    thread::Builder::new()
        .name("spike-proxy".to_owned())
        .spawn(move || runtime.block_on(stop.run_until_cancelled(keep_time())))
        .ok()?;
    Some(reactor)
}

/// Keeps the time of what the thread carries.
async fn keep_time() {
    if let Err(error) = timer::serve().await {
        tracing::warn!(%error, "keep time on a thread of its own; delays are less exact");
    }
    future::pending().await
}
