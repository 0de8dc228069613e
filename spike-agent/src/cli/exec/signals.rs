//! The signals that this process gets on behalf of its command.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use rustix::process::Signal;
use tokio::io::{Interest, unix::AsyncFd};

/// What is handed on. SIGQUIT is among them so that Ctrl-\ does not end this process before its command.
const FORWARDED: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];

/// Blocked signals, to be read one by one.
pub(super) struct Signals {
    before: libc::sigset_t,
    signalfd: OwnedFd,
}

/// Blocks the signals in this thread, those that it starts, and the processes that these start.
pub(super) fn block() -> io::Result<Signals> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set before anything else uses it; all pointers are to living locals.
    let signalfd = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in FORWARDED {
            libc::sigaddset(set.as_mut_ptr(), signal.as_raw());
        }
        let blocked = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), before.as_mut_ptr());
        if blocked != 0 {
            return Err(io::Error::from_raw_os_error(blocked));
        }
        libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if signalfd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and nothing else owns it; pthread_sigmask has filled in the mask.
    let (signalfd, before) = unsafe { (OwnedFd::from_raw_fd(signalfd), before.assume_init()) };
    Ok(Signals { before, signalfd })
}

impl Signals {
    /// What was blocked before, which is what a command must start with.
    pub(super) fn mask_before(&self) -> libc::sigset_t {
        self.before
    }

    /// Makes them readable on this runtime.
    pub(super) fn listen(self) -> io::Result<Arrivals> {
        // SAFETY: the signalfd is owned, so its descriptor stays the same and open while it is registered.
        let registered = unsafe { AsyncFd::register_with_interest(self.signalfd, Interest::READABLE) };
        Ok(Arrivals {
            signalfd: registered?,
        })
    }
}

/// The signals as they come.
pub(super) struct Arrivals {
    signalfd: AsyncFd<OwnedFd>,
}

impl Arrivals {
    /// The next signal to hand on; `None` for one that the terminal sent, for the command has had that one too.
    pub(super) async fn next(&self) -> io::Result<Option<Signal>> {
        loop {
            let mut guard = self.signalfd.readable().await?;
            match guard.try_io(|fd| read(fd.get_ref())) {
                Ok(info) => return info.map(|info| to_forward(&info)),
                Err(_would_block) => {}
            }
        }
    }
}

fn read(signalfd: &OwnedFd) -> io::Result<libc::signalfd_siginfo> {
    let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
    let size = size_of_val(&info);
    // SAFETY: the kernel writes at most `size` bytes to `info`, which has room for them.
    let count = unsafe { libc::read(signalfd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
    match usize::try_from(count) {
        // SAFETY: the kernel has written the whole structure.
        Ok(count) if count == size => Ok(unsafe { info.assume_init() }),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

fn to_forward(info: &libc::signalfd_siginfo) -> Option<Signal> {
    let is_from_terminal = info.ssi_code == libc::SI_KERNEL;
    let number = i32::try_from(info.ssi_signo).ok()?;
    FORWARDED
        .into_iter()
        .find(|signal| signal.as_raw() == number && !is_from_terminal)
}
