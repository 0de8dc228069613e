//! The recordings that run, and the last that ended.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use super::{Control, ControlError};
use crate::{
    model::{FieldError, RawRecording, RecordingSpec, view::RecordingView},
    recording::{Redaction, live::Live},
};

/// Most recordings that may run at one time.
const MAX_RUNNING: usize = 16;
/// How many that ended stay for their last counts.
const MAX_ENDED: usize = 32;

/// All recordings, oldest first.
#[derive(Default)]
pub(super) struct Recordings {
    entries: Mutex<Vec<Arc<Entry>>>,
    last: AtomicU64,
}

struct Entry {
    id: String,
    raw: RawRecording,
    live: Arc<Live>,
}

impl Control {
    /// Starts a recording; answers once it records.
    pub async fn recording_start(&self, raw: &RawRecording) -> Result<RecordingView, ControlError> {
        let spec = RecordingSpec::try_from(raw)?;
        let redaction = Redaction::parse(&raw.redact).map_err(|error| FieldError::new("redact", error))?;
        self.check_selector(&spec.selector)?;
        if raw.output.is_some() && !self.may_write_anywhere() {
            let message = "only root may say where the agent writes; leave it out, and the agent keeps the file in its own directory";
            return Err(FieldError::new("output", message).into());
        }
        let running = self
            .recordings
            .lock()
            .iter()
            .filter(|entry| !entry.live.is_stopping())
            .count();
        if running >= MAX_RUNNING {
            return Err(ControlError::Unavailable(format!(
                "{MAX_RUNNING} recordings run, and no more can; stop one first"
            )));
        }
        let live = self
            .planes
            .recording_start(spec, redaction)
            .await
            .map_err(ControlError::from_planes("start the recording"))?;
        let id = format!("r{}", self.recordings.last.fetch_add(1, Ordering::Relaxed) + 1);
        tracing::info!(recording = id, file = %live.path().display(), "recording started");
        let entry = Arc::new(Entry {
            id,
            raw: raw.clone(),
            live,
        });
        let view = entry.view();
        self.recordings.insert(entry);
        Ok(view)
    }

    /// All recordings: those that run and the last that ended.
    pub fn recordings(&self) -> Vec<RecordingView> {
        self.recordings.lock().iter().map(|entry| entry.view()).collect()
    }

    /// One recording.
    pub fn recording(&self, id: &str) -> Result<RecordingView, ControlError> {
        self.recordings.get(id).map(|entry| entry.view())
    }

    /// Stops a recording; answers once its file is whole.
    pub async fn recording_stop(&self, id: &str) -> Result<RecordingView, ControlError> {
        let entry = self.recordings.get(id)?;
        self.recording_end(&entry).await?;
        Ok(entry.view())
    }

    /// Stops all recordings that run; answers with their ids.
    pub async fn recording_stop_all(&self) -> Vec<String> {
        self.recording_stop_where(|_| true).await
    }

    pub(super) async fn recording_stop_of_cgroup(&self, cgroup: &str) {
        self.recording_stop_where(|entry| entry.raw.from.cgroup.as_deref() == Some(cgroup))
            .await;
    }

    async fn recording_stop_where(&self, is_chosen: impl Fn(&Entry) -> bool) -> Vec<String> {
        let entries = self.recordings.lock().clone();
        let mut stopped = Vec::new();
        for entry in entries
            .iter()
            .filter(|entry| is_chosen(entry) && !entry.live.is_stopping())
        {
            if let Err(error) = self.recording_end(entry).await {
                tracing::warn!(recording = entry.id, "stop the recording: {error}");
            }
            stopped.push(entry.id.clone());
        }
        stopped
    }

    async fn recording_end(&self, entry: &Entry) -> Result<(), ControlError> {
        let stopped = self.planes.recording_stop(entry.live.clone()).await;
        stopped.map_err(|error| ControlError::unavailable("stop the recording", &error))
    }

    /// Root, and who has the token, which is root's.
    pub(super) fn may_write_anywhere(&self) -> bool {
        match self.actor.door.as_str() {
            "unix" => self.actor.uid == Some(0),
            _ => true,
        }
    }
}

impl Entry {
    fn view(&self) -> RecordingView {
        let counts = self.live.counts();
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        RecordingView {
            id: self.id.clone(),
            running: !self.live.is_stopping(),
            recording: self.raw.clone(),
            file: self.live.path().display().to_string(),
            connections: get(&counts.connections),
            calls: get(&counts.calls),
            bytes: get(&counts.bytes),
            lost_bytes: get(&counts.lost_bytes),
            cut_bytes: get(&counts.cut_bytes),
            note: counts.failure.get().cloned(),
        }
    }
}

impl Recordings {
    fn insert(&self, entry: Arc<Entry>) {
        let mut entries = self.lock();
        let ended = entries.iter().filter(|entry| entry.live.is_stopping()).count();
        let mut surplus = (ended + 1).saturating_sub(MAX_ENDED);
        entries.retain(|entry| {
            let goes = surplus > 0 && entry.live.is_stopping();
            surplus -= usize::from(goes);
            !goes
        });
        entries.push(entry);
    }

    fn get(&self, id: &str) -> Result<Arc<Entry>, ControlError> {
        let found = self.lock().iter().find(|entry| entry.id == id).cloned();
        found.ok_or_else(|| ControlError::no_such("recording", id))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
