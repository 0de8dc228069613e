//! The captures that run, the last that ended, and those that are kept.

mod entry;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub use self::entry::CaptureStream;
use self::entry::Entry;
use super::{CaptureHandle, ControlError};
use crate::{capture::store::Kept, model::view::CaptureView};

/// Most captures that may run at one time.
const MAX_RUNNING: usize = 32;
/// How many captures that ended and are not kept stay for their last counts.
const MAX_ENDED: usize = 32;
/// How long the last packets may take to reach the disk.
const WHOLE: Duration = Duration::from_secs(5);
/// A capture that is not kept and that nobody reads for this long after its start is stopped.
const READER_PATIENCE: Duration = Duration::from_secs(60);

/// All captures, oldest first.
#[derive(Default)]
pub(super) struct Captures {
    entries: Mutex<Vec<Arc<Entry>>>,
}

impl Captures {
    /// Begins with what earlier agents left.
    pub(super) fn of_earlier_agents(kept: Vec<Arc<Kept>>) -> Self {
        let entries = kept.into_iter().map(|kept| Arc::new(Entry::found(kept)));
        Self {
            entries: Mutex::new(entries.collect()),
        }
    }

    /// Number of captures that take packets.
    pub(super) fn running(&self) -> u64 {
        self.entries().iter().filter(|entry| entry.is_running()).count() as u64
    }

    /// Refuses one more when too many run.
    pub(super) fn check_room(&self) -> Result<(), ControlError> {
        if self.running() < MAX_RUNNING as u64 {
            return Ok(());
        }
        Err(ControlError::Unavailable(format!(
            "{MAX_RUNNING} captures run, and no more can; stop one first"
        )))
    }

    /// Keeps a capture that was started; one that goes to a reader is stopped when none comes.
    pub(super) fn insert(&self, handle: CaptureHandle) -> CaptureView {
        let entry = Arc::new(Entry::new(handle));
        let mut entries = self.entries();
        let has_ended = |entry: &Arc<Entry>| !entry.is_running() && entry.kept().is_none();
        let ended = entries.iter().filter(|entry| has_ended(entry)).count();
        let mut surplus = (ended + 1).saturating_sub(MAX_ENDED);
        entries.retain(|entry| {
            let goes = surplus > 0 && has_ended(entry);
            surplus -= usize::from(goes);
            !goes
        });
        entries.push(entry.clone());
        drop(entries);
        let view = entry.view();
        tokio::spawn(async move {
            if let Some(kept) = entry.kept() {
                entry.describe();
                kept.ended().await;
                entry.describe();
                return;
            }
            tokio::time::sleep(READER_PATIENCE).await;
            if entry.give_up_unread() {
                tracing::warn!(capture = entry.id(), "nobody reads the capture; it is stopped");
            }
        });
        view
    }

    pub(super) fn list(&self) -> Vec<CaptureView> {
        self.entries().iter().map(|entry| entry.view()).collect()
    }

    pub(super) fn view(&self, id: &str) -> Result<CaptureView, ControlError> {
        self.get(id).map(|entry| entry.view())
    }

    pub(super) fn stream(&self, id: &str, follows: bool) -> Result<CaptureStream, ControlError> {
        let stream = self.get(id)?.stream(follows);
        stream.ok_or_else(|| {
            ControlError::Conflict(format!(
                "capture `{id}` has or had its reader already; one with \"keep\": true (`spike capture start`) may have any number"
            ))
        })
    }

    pub(super) fn stop(&self, id: &str) -> Result<CaptureView, ControlError> {
        let entry = self.get(id)?;
        entry.stop();
        Ok(entry.view())
    }

    /// Waits until a kept capture that was stopped is whole.
    pub(super) async fn settled(&self, id: &str) -> Result<CaptureView, ControlError> {
        let entry = self.get(id)?;
        if let Some(kept) = entry.kept() {
            // Its view tells when it is not.
            let _ = tokio::time::timeout(WHOLE, kept.ended()).await;
        }
        Ok(entry.view())
    }

    /// Tells a capture that waits that it has happened.
    pub(super) fn trigger(&self, id: &str) -> Result<CaptureView, ControlError> {
        let entry = self.get(id)?;
        if !entry.trigger() {
            return Err(ControlError::Conflict(format!(
                "capture `{id}` does not wait for anything: it was not started with `before`, or has ended"
            )));
        }
        Ok(entry.view())
    }

    /// Stops a capture; one that is kept is taken off the disk.
    pub(super) fn remove(&self, id: &str) -> Result<CaptureView, ControlError> {
        let entry = self.get(id)?;
        entry.stop();
        let view = entry.view();
        if let Some(kept) = entry.kept() {
            kept.remove();
            self.entries().retain(|other| other.id() != id);
        }
        Ok(view)
    }

    /// Stops all that run and tells their ids.
    pub(super) fn stop_all(&self) -> Vec<String> {
        self.stop_where(|_| true)
    }

    pub(super) fn stop_of_cgroup(&self, cgroup: &str) {
        self.stop_where(|entry| entry.cgroup() == Some(cgroup));
    }

    fn stop_where(&self, is_chosen: impl Fn(&Entry) -> bool) -> Vec<String> {
        let entries = self.entries();
        let chosen = entries
            .iter()
            .filter(|entry| entry.is_running() && is_chosen(entry));
        chosen.map(|entry| entry.stop()).collect()
    }

    fn get(&self, id: &str) -> Result<Arc<Entry>, ControlError> {
        let found = self.entries().iter().find(|entry| entry.id() == id).cloned();
        found.ok_or_else(|| ControlError::no_such("capture", id))
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
