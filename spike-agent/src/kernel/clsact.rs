//! The clsact qdisc that packet programs hang on before kernel 6.6: shared by captures and packet faults, gone with the
//! last of them.

use anyhow::{Context, Result};

use crate::safety::tc::Tc;
use crate::safety::{Entry, EntryId, Journal, current_netns};

/// Makes sure that an interface of the calling thread's network namespace has one; one that is made is written down.
pub(super) fn ensure(name: &str, index: u32, journal: &Journal) -> Result<()> {
    let tc = Tc::open().context("open netlink")?;
    if tc.clsacts().context("list the qdiscs")?.contains(&index) {
        return Ok(());
    }
    let entry = journal.record(Entry::ClsactQdisc {
        netns: current_netns()?,
        ifindex: index,
        ifname: name.to_owned(),
        created_by_us: true,
    })?;
    let added = aya::programs::tc::qdisc_add_clsact(name);
    if added.is_err() {
        _ = journal.done(entry);
    }
    added.with_context(|| format!("add a clsact qdisc to {name}"))
}

/// Removes the one of an interface, if it was made by this agent and no filter hangs there any more.
pub(super) fn release(index: u32, journal: &Journal) {
    let Some(entry) = current_netns().ok().and_then(|netns| ours(netns, index, journal)) else {
        return;
    };
    let Ok(tc) = Tc::open() else { return };
    // Where it cannot be known, the journal keeps it for the next start.
    let Ok(filters) = tc.filters(index) else { return };
    let is_done = if filters.is_empty() {
        // It is not there any more where its interface went.
        tc.delete_clsact(index).is_ok() || !tc.clsacts().is_ok_and(|clsacts| clsacts.contains(&index))
    } else {
        // With filters of others alone it is theirs now.
        !filters.iter().any(|filter| filter.is_spikes())
    };
    if is_done {
        _ = journal.done(entry);
    }
}

fn ours(here: u64, index: u32, journal: &Journal) -> Option<EntryId> {
    journal.pending().into_iter().find_map(|(id, entry)| match entry {
        Entry::ClsactQdisc { netns, ifindex, .. } if netns == here && ifindex == index => Some(id),
        _ => None,
    })
}
