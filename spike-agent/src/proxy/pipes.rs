//! Lends pipes to connections that carry floods, so that bytes go from socket to socket without being copied: splice(2).

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// Most bytes that a pipe takes at a time. A pipe of this size needs no privilege (`fs.pipe-max-size`, pipe(7)).
const SIZE: usize = 1 << 20;
/// Most pipes kept for later; each is two descriptors.
const MAX_KEPT: usize = 16;

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// Pipes that nobody uses now.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    kept: Mutex<Vec<Ends>>,
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipes {
    /// # Errors
    /// When the process has no descriptors left.
    pub(super) fn take(&self) -> io::Result<Pipe<'_>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let ends = match kept {
            Some(ends) => ends,
            None => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
                // Smaller where an administrator set the limit lower; it only carries less at a time.
                let _ = fcntl_setpipe_size(&write, SIZE);
                Ends { read, write }
            }
        };
        Ok(Pipe {
            ends: Some(ends),
            length: 0,
            pool: self,
        })
    }
}

/// A pipe with nothing in it at first; goes back when dropped, unless bytes are left in it.
pub(super) struct Pipe<'a> {
    ends: Option<Ends>,
    length: usize,
    pool: &'a Pipes,
}

impl Pipe<'_> {
    /// How many bytes are in it.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Takes what `from` has; 0 at its end. To be called when the pipe is empty.
    pub(super) fn fill(&mut self, from: impl AsFd) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let moved = splice(from, None, &ends.write, None, SIZE, FLAGS)?;
        self.length += moved;
        Ok(moved)
    }

    /// Gives `to` what it takes.
    pub(super) fn drain(&mut self, to: impl AsFd) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let moved = splice(&ends.read, None, to, None, self.length, FLAGS)?;
        self.length -= moved;
        Ok(moved)
    }
}

impl Drop for Pipe<'_> {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take() else { return };
        let mut kept = self.pool.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if self.length == 0 && kept.len() < MAX_KEPT {
            kept.push(ends);
        }
    }
}
