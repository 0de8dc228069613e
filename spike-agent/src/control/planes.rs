//! What the verbs need of the rest of the agent; a test can stand in for it.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, atomic::AtomicU64};

use anyhow::Result;
use bytes::Bytes;
use futures_util::{future::BoxFuture, stream::BoxStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    capture::store::Kept,
    export::Format,
    fault::book::ArmedFault,
    model::{
        CaptureSpec, Fault, FieldError, RecordingSpec, Selector, Tally, Thresholds, Window,
        view::{CallEvent, EdgeDetailView, ExecView, MapView, Status},
    },
    recording::{Redaction, live::Live},
    topology::{Facts, Observed, RecentCall, Step},
};

/// The observe, intercept and packet planes, as far as operators reach them.
///
/// An error whose cause is a [`FieldError`] is shown as the operator's; every other one as the agent's own.
pub trait Planes: Send + Sync + 'static {
    /// How the agent is doing; the numbers of faults and captures are filled in by the caller.
    fn status(&self) -> Status;

    /// Who calls whom.
    fn service_map(&self) -> Result<MapView>;

    /// One edge of the map, by its number.
    fn edge(&self, id: u64) -> Result<Option<EdgeDetailView>>;

    /// What happened on the map in a stretch of time, with `steps` also step by step. An error's field is `at` or
    /// `since` when there is no history of it.
    fn observed(&self, window: Window, steps: bool) -> Result<Observed>;

    /// The steps in which something happened on an edge.
    fn edge_steps(&self, id: u64, window: Window) -> Result<Vec<Step>>;

    /// The last decoded calls that lie within a stretch of time, and what all calls have told of their edges.
    fn recent(&self, window: Window) -> (Vec<RecentCall>, BTreeMap<u64, Facts>);

    /// When something on the map is a finding.
    fn thresholds(&self) -> Thresholds;

    /// This host's name.
    fn host(&self) -> String;

    /// Decoded calls, from now on, as they end.
    fn calls(&self) -> BoxStream<'static, CallEvent>;

    /// All metrics as text.
    fn metrics(&self, format: Format) -> BoxFuture<'_, Result<String>>;

    /// Called after the book of faults changed; resolves when the kernel's rules and the listeners follow it.
    fn settle(&self) -> BoxFuture<'_, Result<()>>;

    /// Connections matched and affected by a fault that the kernel decides; `None` for every other fault.
    fn kernel_counts(&self, fault_id: u64) -> Option<(u64, u64)>;

    /// Can open connections be closed for `existing: reset`?
    ///
    /// # Errors
    /// Why they cannot, with the operation first.
    fn can_close(&self) -> Result<()>;

    /// Does what takes long and can be done before a fault is armed: its time to live begins when it is.
    ///
    /// # Errors
    /// Names what failed.
    fn prepare(&self, fault: &Fault) -> BoxFuture<'_, Result<()>>;

    /// Closes the connections that a fault's selector chooses and that the fault does not have; tells how many.
    fn close_existing(&self, armed: Arc<ArmedFault>) -> BoxFuture<'_, Result<u64>>;

    /// What the calls that a selector chooses came to, since the agent's start, as their callers saw it.
    fn tally(&self, selector: &Selector) -> Result<Tally>;

    /// Starts a capture; resolves when it takes packets.
    fn capture_start(&self, spec: CaptureSpec) -> BoxFuture<'_, Result<CaptureHandle>>;

    /// The captures that earlier agents kept.
    fn captures_kept(&self) -> Vec<Arc<Kept>> {
        Vec::new()
    }

    /// Starts a recording; resolves when it records. An error's field is `output` when the file cannot be made.
    fn recording_start(&self, spec: RecordingSpec, redaction: Redaction) -> BoxFuture<'_, Result<Arc<Live>>>;

    /// Has a recording take no new connections, and ends it; resolves when the file is whole.
    fn recording_stop(&self, live: Arc<Live>) -> BoxFuture<'_, Result<()>>;

    /// Puts the process `pid` into a cgroup of its own. Must refuse one that is not a child of `client_pid`, for the
    /// client may be allowed less than the agent is.
    fn exec_begin(&self, pid: u32, client_pid: u32) -> Result<ExecView>;

    /// Frees the cgroup of a command: what still runs in it goes back to where it came from.
    fn exec_end(&self, id: &str) -> Result<()>;

    /// Is there such a cgroup? The error's field is `cgroup`.
    fn check_cgroup(&self, path: &str) -> Result<(), FieldError>;

    /// Is there such a user? The error's field is `user`.
    fn check_user(&self, _name: &str) -> Result<(), FieldError> {
        Ok(())
    }
}

/// A capture that runs.
#[derive(Debug)]
pub struct CaptureHandle {
    /// Names it; unique while the agent runs.
    pub id: String,
    /// What it takes.
    pub spec: CaptureSpec,
    /// The interfaces that it listens on.
    pub interfaces: Vec<String>,
    /// What it took so far.
    pub counts: Arc<CaptureCounts>,
    /// Where its packets go.
    pub output: CaptureOutput,
    /// Cancelled to stop it; what was taken until then still arrives.
    pub stop: CancellationToken,
    /// Told that what it waits for has happened; of no effect on one that does not wait.
    pub trigger: watch::Sender<Option<String>>,
}

/// Where a capture's packets go.
#[derive(Debug)]
pub enum CaptureOutput {
    /// `capture --pieces of the pcapng file--> reader`; it closes after the last piece, once the counts are final.
    Stream(mpsc::Receiver<Bytes>),
    /// To the agent's directory.
    Kept(Arc<Kept>),
}

/// What a capture took so far.
#[derive(Debug, Default)]
pub struct CaptureCounts {
    /// Packets written.
    pub packets: AtomicU64,
    /// Packets that were chosen but lost.
    pub dropped: AtomicU64,
    /// What it waited for, once that has happened.
    pub triggered: OnceLock<String>,
    /// What a reader should know of it.
    pub note: OnceLock<String>,
}
