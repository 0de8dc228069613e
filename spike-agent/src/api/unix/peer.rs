//! Who is at the other end of a Unix socket, as the kernel says.

use std::{fs, io, os::fd::AsRawFd, os::unix::fs::MetadataExt, path::Path};

use tokio::net::UnixStream;

/// Most supplementary groups that the kernel lets a process have.
const MAX_GROUPS: usize = 65_536;

/// A client at the other end of the socket.
#[derive(Clone, Copy, Debug)]
pub(in crate::api) struct Peer {
    pid: Option<u32>,
    uid: Option<u32>,
    is_allowed: bool,
}

impl Peer {
    /// Asks the kernel; a client that cannot be known is not allowed anything.
    pub(super) fn of(stream: &UnixStream, socket: &Path) -> Self {
        let nobody = Self {
            pid: None,
            uid: None,
            is_allowed: false,
        };
        let Ok(credentials) = stream.peer_cred() else {
            return nobody;
        };
        let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok());
        let own_user = rustix::process::geteuid().as_raw();
        let is_user = credentials.uid() == 0 || credentials.uid() == own_user;
        let in_group = || -> io::Result<bool> {
            // Read each time, so that a chgrp of the socket takes effect at once.
            let group = fs::metadata(socket)?.gid();
            Ok(credentials.gid() == group || supplementary_groups(stream)?.contains(&group))
        };
        Self {
            pid,
            uid: Some(credentials.uid()),
            is_allowed: is_user || in_group().unwrap_or(false),
        }
    }

    pub(super) fn is_allowed(self) -> bool {
        self.is_allowed
    }

    /// Its process id as the agent sees it; none when it is in a pid namespace out of sight.
    pub(in crate::api) fn pid(self) -> Option<u32> {
        self.pid.filter(|pid| *pid != 0)
    }

    /// Its user.
    pub(in crate::api) fn uid(self) -> Option<u32> {
        self.uid
    }

    #[cfg(test)]
    pub(in crate::api) fn test(pid: u32, is_allowed: bool) -> Self {
        Self {
            pid: Some(pid),
            uid: None,
            is_allowed,
        }
    }
}

/// The peer's supplementary groups when it connected: membership by `usermod -aG` shows here only.
fn supplementary_groups(stream: &UnixStream) -> io::Result<Vec<libc::gid_t>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut length =
            libc::socklen_t::try_from(size_of_val(groups.as_slice())).map_err(io::Error::other)?;
        // SAFETY: the kernel writes at most `length` bytes to `groups`, which holds as many.
        let result = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &mut length,
            )
        };
        let count = usize::try_from(length).map_err(io::Error::other)? / size_of::<libc::gid_t>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // ERANGE tells how many there are.
        if error.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() || count > MAX_GROUPS {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}
