//! What the agent answers: the shapes of its API, for the doors to send and for the command line to read.

mod analysis;
mod audit;
mod call;
mod capture;
mod diff;
mod fault;
mod graph;
mod map;
mod problem;
mod recording;
mod replay;
mod service;
mod status;

pub use analysis::{AffectedView, AnalysisView, FindingKind, FindingView, Severity, WithoutView};
pub use audit::{Actor, AuditEntry, AuditEvent, AuditList};
pub use call::{CALL_FIELDS, CallEvent, CallView, DecodingView};
pub use capture::{CaptureList, CaptureState, CaptureView};
pub use diff::{ChangeView, Changed, DiffView, StretchView};
pub use fault::{FaultList, FaultView, FaultsRemoved, PanicView};
pub use graph::{EdgeHistoryView, GraphView, Group, LINK_FIELDS, LinkView, NodeView, StepView};
pub use map::{
    DestinationView, EdgeDecodingView, EdgeView, EndView, FailuresView, LatencyView, MapView, Role,
};
pub use problem::Problem;
pub use recording::{RecordingList, RecordingView};
pub use replay::{DifferenceView, MissList, MissView, StubList, StubServerView, StubView};
pub use service::{BucketView, EdgeDetailView, ServiceList, ServiceView, TrafficView};
pub use status::{CounterView, ExecView, InterceptView, NamespaceState, NamespaceView, OtlpView, Status};
