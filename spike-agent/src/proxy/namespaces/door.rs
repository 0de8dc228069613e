//! Lets work be done inside another network namespace, on one thread that goes in and comes back: a thread of the
//! runtime must never change namespaces, since any task may run on it next.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel, sync_channel},
    },
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Work for the thread; it is told whether it is inside, and answers for itself.
struct Errand {
    namespace: Arc<OwnedFd>,
    work: Box<dyn FnOnce(io::Result<()>) + Send>,
}

/// The way into other namespaces.
#[derive(Default)]
pub(super) struct Door {
    /// Door --Errand--> thread; none before the first, and a new one after the thread had to die.
    errands: Mutex<Option<Sender<Errand>>>,
}

impl Door {
    /// Does `work` inside `namespace` and waits for it; it must be quick.
    pub(super) fn inside<T: Send + 'static>(
        &self,
        namespace: Arc<OwnedFd>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let (done, done_rx) = sync_channel(1);
        let work = move |entered: io::Result<()>| {
            let _ = done.send(entered.map(|()| work()));
        };
        self.send(Errand {
            namespace,
            work: Box::new(work),
        })?;
        done_rx
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that enters namespaces ended")))
    }

    fn send(&self, errand: Errand) -> io::Result<()> {
        let mut errands = self.errands.lock().unwrap_or_else(PoisonError::into_inner);
        let unsent = match &*errands {
            Some(sender) => match sender.send(errand) {
                Ok(()) => return Ok(()),
                Err(unsent) => unsent.0,
            },
            None => errand,
        };
        let (sender, receiver) = channel();
        let home = File::open("/proc/self/ns/net")?;
        thread::Builder::new()
            .name("spike-netns".to_owned())
            .spawn(move || work_off(&receiver, home.as_fd()))?;
        let _ = sender.send(unsent);
        *errands = Some(sender);
        Ok(())
    }
}

/// Comes home after each errand: a thread inside a namespace keeps it alive.
fn work_off(errands: &Receiver<Errand>, home: BorrowedFd<'_>) {
    for errand in errands {
        let entered = enter(errand.namespace.as_fd());
        let inside = entered.is_ok();
        (errand.work)(entered);
        drop(errand.namespace);
        if inside && let Err(error) = enter(home) {
            tracing::error!(%error, "come back from a network namespace; its thread ends, the next errand gets a new one");
            return;
        }
    }
}

fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_into_link_name_space(
        namespace,
        Some(LinkNameSpaceType::Network),
    )?)
}
