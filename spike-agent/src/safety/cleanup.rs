//! Undoes what an agent that was killed could not: what its journal lists, and what can only be Spike's by its name.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;
use thiserror::Error;
use utoipa::ToSchema;

use super::journal::{Direction, Entry, EntryId, Journal, JournalError, Pending};
use super::lock::{Holder, InstanceLock, LockError, Locks, StateLock};
use super::tc::{Filter, Tc};
use super::{cgroup, find_cgroup2, netns};

/// How to clean up.
#[derive(Debug, Clone, Copy)]
pub struct CleanupOptions<'a> {
    /// Where the agent kept its journal.
    pub state_dir: &'a Path,
    /// Only list; change nothing.
    pub check: bool,
    /// An agent that cleans up at its own start says so with its lock, else it would wait for itself.
    pub held: Option<&'a InstanceLock>,
}

/// What was found, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Cleanup {
    /// An agent is at work, with this pid when that is known: what may be its own was not looked at.
    pub agent: Option<LiveAgent>,
    /// Things of dead agents.
    pub leftovers: Vec<Leftover>,
}

/// An agent at work while another process cleans up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct LiveAgent {
    /// Its process, where the kernel shows it to us.
    pub pid: Option<u32>,
}

/// A thing on the host that an agent made and did not take away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Leftover {
    /// What sort of thing.
    pub kind: LeftoverKind,
    /// Which one, in words.
    pub what: String,
    /// It is gone now.
    pub removed: bool,
    /// Why it is not gone, although it should be.
    pub problem: Option<String>,
}

/// The sorts of things that outlive a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeftoverKind {
    /// A filter on an interface.
    TcFilter,
    /// The qdisc that such filters hang on.
    ClsactQdisc,
    /// The qdisc that keeps delayed packets, in the place of an interface's own.
    FqQdisc,
    /// A cgroup of `spike exec`.
    Cgroup,
}

/// Why cleaning up could not be done at all.
#[derive(Debug, Error)]
pub enum CleanupError {
    /// The state directory cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The journal cannot be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The kernel does not tell about interfaces.
    #[error(
        "list tc filters{of}: {source}; needs CAP_NET_ADMIN, and CAP_SYS_ADMIN for other network namespaces"
    )]
    Tc {
        /// Of which namespace, where it is not this one.
        of: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// Finds what dead agents left on this host and, unless `check`, removes it. Never touches what is not Spike's.
///
/// # Errors
///
/// When it could not even look; a thing that resists is reported with its problem instead.
pub fn cleanup(options: CleanupOptions<'_>) -> Result<Cleanup, CleanupError> {
    let CleanupOptions {
        state_dir,
        check,
        held,
    } = options;
    let cgroup2 = find_cgroup2().ok();
    let holder = if held.is_some() {
        None
    } else {
        StateLock::holder(state_dir)
    };
    let mut leftovers = match holder {
        Some(_) => Vec::new(), // the journal is of the living
        None => journaled(options)?,
    };

    // What no journal tells of could belong to any agent of the host, so it is judged only when none is at work.
    let holder = holder.or_else(|| other_agent(cgroup2.as_deref()?));
    let mut strays = Vec::new();
    if holder.is_none() {
        strays = cgroup2.map_or_else(Vec::new, |tree| stray_cgroups(&tree, check));
        strays.extend(stray_filters(check)?);
    }
    // Something that is still there was listed from the journal already.
    strays.retain(|stray| !leftovers.iter().any(|listed| listed.what == stray.what));
    leftovers.extend(strays);
    Ok(Cleanup {
        agent: holder.map(|Holder(pid)| LiveAgent { pid }),
        leftovers,
    })
}

/// What the journal of a dead agent lists.
fn journaled(options: CleanupOptions<'_>) -> Result<Vec<Leftover>, CleanupError> {
    let CleanupOptions {
        state_dir,
        check,
        held,
    } = options;
    let pending = Pending::read(state_dir)?.entries;
    if pending.is_empty() {
        return Ok(Vec::new());
    }
    // Keeps an agent from starting in the middle of it.
    let _lock = if check || held.is_some() {
        None
    } else {
        Some(StateLock::acquire(state_dir)?)
    };
    let journal = if check {
        None
    } else {
        Some(Journal::open_in(state_dir)?)
    };
    let mut leftovers = Vec::new();
    for (id, entry) in in_order(&pending) {
        let found = match entry {
            Entry::TcFilter { netns, .. }
            | Entry::ClsactQdisc { netns, .. }
            | Entry::FqQdisc { netns, .. } => undo_tc(*netns, entry, check)?,
            Entry::Cgroup { path } => undo_cgroup(path, check),
        };
        // What is not there any more is done as well.
        let done = found.as_ref().is_none_or(|leftover| leftover.removed);
        if let (Some(journal), true) = (&journal, done) {
            journal.done(id)?;
        }
        leftovers.extend(found);
    }
    Ok(leftovers)
}

/// Filters first: a qdisc can only be judged when our own have gone from it.
fn in_order(pending: &BTreeMap<EntryId, Entry>) -> Vec<(EntryId, &Entry)> {
    let mut entries: Vec<_> = pending.iter().map(|(id, entry)| (*id, entry)).collect();
    entries.sort_by_key(|(id, entry)| (!matches!(entry, Entry::TcFilter { .. }), *id));
    entries
}

/// Exec cgroups that nobody owns.
fn stray_cgroups(tree: &Path, check: bool) -> Vec<Leftover> {
    cgroup::find(tree)
        .iter()
        .filter_map(|path| stray_cgroup(path, check))
        .collect()
}

/// Filters named like ours on the interfaces of this network namespace.
fn stray_filters(check: bool) -> Result<Vec<Leftover>, CleanupError> {
    let list = || {
        let tc = Tc::open()?;
        let mut found = Vec::new();
        for ifindex in tc.clsacts()? {
            let filters = tc.filters(ifindex)?;
            let ours = filters.iter().filter(|filter| filter.is_spikes());
            found.extend(ours.map(|filter| remove_filter(&tc, filter, &interface_name(ifindex), "", check)));
        }
        Ok(found)
    };
    list().map_err(|source| CleanupError::Tc {
        of: String::new(),
        source,
    })
}

/// An agent other than this process, known by the lock on its cgroup directory.
fn other_agent(cgroup2: &Path) -> Option<Holder> {
    let device = fs::metadata(cgroup2).ok()?.dev();
    let locks = Locks::read()?;
    locks
        .writers_on(device)
        .find(|pid| *pid != std::process::id())
        .map(|pid| Holder(Some(pid)))
}

/// Goes to the entry's network namespace; where that is gone, so is everything in it.
fn undo_tc(number: u64, entry: &Entry, check: bool) -> Result<Option<Leftover>, CleanupError> {
    let Some(namespace) = netns::find(number) else {
        return Ok(None);
    };
    let of = if netns::current().is_ok_and(|here| here == number) {
        String::new()
    } else {
        format!(" of network namespace {number}")
    };
    netns::inside(&namespace, || undo_tc_here(entry, &of, check))
        .and_then(|result| result)
        .map_err(|source| CleanupError::Tc { of, source })
}

fn undo_tc_here(entry: &Entry, of: &str, check: bool) -> io::Result<Option<Leftover>> {
    let (Entry::TcFilter { ifindex, ifname, .. }
    | Entry::ClsactQdisc { ifindex, ifname, .. }
    | Entry::FqQdisc { ifindex, ifname, .. }) = entry
    else {
        return Ok(None);
    };
    let tc = Tc::open()?;
    if matches!(entry, Entry::FqQdisc { .. }) {
        return undo_fq(&tc, *ifindex, ifname, of, check);
    }
    if interface_name(*ifindex) != *ifname || !tc.clsacts()?.contains(ifindex) {
        return Ok(None); // gone, or another interface by now
    }
    let filters = tc.filters(*ifindex)?;
    match entry {
        Entry::TcFilter {
            direction,
            name,
            handle,
            priority,
            ..
        } => {
            let ours = filters.iter().find(|filter| {
                filter.direction == *direction
                    && filter.name.as_ref() == Some(name)
                    && [0, filter.handle].contains(handle)
                    && [0, filter.priority].contains(priority)
            });
            Ok(ours.map(|filter| remove_filter(&tc, filter, ifname, of, check)))
        }
        Entry::ClsactQdisc {
            created_by_us: true, ..
        } => {
            let mut others = filters.iter().filter(|filter| !filter.is_spikes());
            if others.next().is_some() {
                return Ok(None); // somebody has come to rely on it: it is theirs now
            }
            let what = format!("clsact qdisc on {ifname}{of}");
            Ok(Some(leftover(LeftoverKind::ClsactQdisc, what, check, || {
                tc.delete_clsact(*ifindex)
                    .map_err(|error| format!("remove it: {error}"))
            })))
        }
        Entry::ClsactQdisc {
            created_by_us: false, ..
        }
        | Entry::FqQdisc { .. }
        | Entry::Cgroup { .. } => Ok(None),
    }
}

/// With it gone the kernel gives the interface its default root again. Another root in its place is somebody's wish.
fn undo_fq(tc: &Tc, ifindex: u32, ifname: &str, of: &str, check: bool) -> io::Result<Option<Leftover>> {
    if interface_name(ifindex) != *ifname || !tc.has_our_fq(ifindex)? {
        return Ok(None);
    }
    let what = format!("fq qdisc on {ifname}{of}");
    Ok(Some(leftover(LeftoverKind::FqQdisc, what, check, || {
        tc.delete_fq(ifindex)
            .map_err(|error| format!("remove it: {error}"))
    })))
}

fn undo_cgroup(path: &Path, check: bool) -> Option<Leftover> {
    // A journal is a file that others may have edited: only what carries our name goes.
    if !cgroup::is_ours(path) || super::check_cgroup2(path).is_err() {
        return None;
    }
    stray_cgroup(path, check)
}

/// An exec cgroup, if it has no owner.
fn stray_cgroup(path: &Path, check: bool) -> Option<Leftover> {
    let cgroup::State::Orphan(_lock) = cgroup::state(path).ok()? else {
        return None;
    };
    let processes = cgroup::processes(path).len();
    let what = match processes {
        0 => path.display().to_string(),
        1 => format!("{} with 1 process", path.display()),
        n => format!("{} with {n} processes", path.display()),
    };
    Some(leftover(LeftoverKind::Cgroup, what, check, || {
        cgroup::remove(path)
    }))
}

fn remove_filter(tc: &Tc, filter: &Filter, ifname: &str, of: &str, check: bool) -> Leftover {
    let direction = match filter.direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    let name = filter.name.as_deref().unwrap_or_default();
    let what = format!("filter {name} on {ifname} {direction}{of}");
    leftover(LeftoverKind::TcFilter, what, check, || {
        tc.delete_filter(filter)
            .map_err(|error| format!("remove it: {error}"))
    })
}

fn leftover(
    kind: LeftoverKind,
    what: String,
    check: bool,
    remove: impl FnOnce() -> Result<(), String>,
) -> Leftover {
    let problem = if check { None } else { remove().err() };
    Leftover {
        kind,
        what,
        removed: !check && problem.is_none(),
        problem,
    }
}

/// The name of an interface in this thread's network namespace; its number where it has none.
fn interface_name(ifindex: u32) -> String {
    use rustix::net::{AddressFamily, SocketType, netdevice, socket};
    socket(AddressFamily::INET, SocketType::DGRAM, None)
        .and_then(|socket| netdevice::index_to_name(&socket, ifindex))
        .unwrap_or_else(|_| ifindex.to_string())
}

#[cfg(test)]
mod tests;
