//! Planes that do nothing, for tests of the verbs and of the doors.

use std::collections::BTreeMap;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{CaptureCounts, CaptureHandle, CaptureOutput, Planes};
use crate::{
    export::Format,
    fault::book::ArmedFault,
    model::{
        CaptureSpec, Fault, FieldError, RecordingSpec, Selector, Tally, Thresholds, Window,
        view::{CallEvent, EdgeDetailView, ExecView, MapView, Status},
    },
    recording::{
        Redaction,
        live::{Live, Options},
    },
    topology::{Facts, Observed, RecentCall, Step},
};

/// The kernel is said to have matched 5 connections and affected 3; `/nowhere` is the cgroup that does not exist. At
/// each look 100 more connections have been opened, half of which were reset.
#[derive(Default)]
pub(crate) struct TestPlanes {
    pub(crate) settled: Arc<AtomicU64>,
    pub(crate) fails_to_settle: bool,
    pub(crate) ids: AtomicU64,
    pub(crate) looks: AtomicU64,
}

impl Planes for TestPlanes {
    fn status(&self) -> Status {
        Status {
            version: "test".to_owned(),
            ..Status::default()
        }
    }

    fn service_map(&self) -> anyhow::Result<MapView> {
        Ok(MapView {
            at: "2026-01-01T00:00:00.000Z".to_owned(),
            ..MapView::default()
        })
    }

    fn edge(&self, id: u64) -> anyhow::Result<Option<EdgeDetailView>> {
        Ok((id == 7).then(EdgeDetailView::default))
    }

    fn observed(&self, window: Window, _steps: bool) -> anyhow::Result<Observed> {
        match window {
            Window::SinceStart => Ok(Observed::default()),
            Window::Between(..) => Err(FieldError::new("since", "there is no history").into()),
        }
    }

    fn edge_steps(&self, _id: u64, _window: Window) -> anyhow::Result<Vec<Step>> {
        Ok(vec![Step::default()])
    }

    fn recent(&self, _window: Window) -> (Vec<RecentCall>, BTreeMap<u64, Facts>) {
        (Vec::new(), BTreeMap::new())
    }

    fn thresholds(&self) -> Thresholds {
        Thresholds::default()
    }

    fn host(&self) -> String {
        "here".to_owned()
    }

    fn calls(&self) -> futures_util::stream::BoxStream<'static, CallEvent> {
        futures_util::stream::iter([CallEvent::Call(Box::default()), CallEvent::Missed(2)]).boxed()
    }

    fn metrics(&self, format: Format) -> BoxFuture<'_, anyhow::Result<String>> {
        async move { Ok(format!("# {format:?}\n")) }.boxed()
    }

    fn settle(&self) -> BoxFuture<'_, anyhow::Result<()>> {
        let outcome = if self.fails_to_settle {
            Err(anyhow::anyhow!("no room in a map"))
        } else {
            Ok(())
        };
        self.settled.fetch_add(1, Ordering::Relaxed);
        async { outcome }.boxed()
    }

    fn kernel_counts(&self, _fault_id: u64) -> Option<(u64, u64)> {
        Some((5, 3))
    }

    fn prepare(&self, _: &Fault) -> BoxFuture<'_, anyhow::Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn can_close(&self) -> anyhow::Result<()> {
        Ok(())
    }

    fn close_existing(&self, _armed: Arc<ArmedFault>) -> BoxFuture<'_, anyhow::Result<u64>> {
        async { Ok(4) }.boxed()
    }

    fn tally(&self, _selector: &Selector) -> anyhow::Result<Tally> {
        let looks = self.looks.fetch_add(1, Ordering::Relaxed);
        Ok(Tally {
            opened: looks * 100,
            reset: looks * 50,
            ..Tally::default()
        })
    }

    fn capture_start(&self, spec: CaptureSpec) -> BoxFuture<'_, anyhow::Result<CaptureHandle>> {
        let (bytes_tx, bytes) = mpsc::channel(2);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            let _ = bytes_tx.send(Bytes::from_static(b"head")).await;
            stopped.cancelled().await;
            let _ = bytes_tx.send(Bytes::from_static(b"tail")).await;
        });
        let id = format!("c{}", self.ids.fetch_add(1, Ordering::Relaxed));
        let counts = Arc::<CaptureCounts>::default();
        async {
            Ok(CaptureHandle {
                id,
                spec,
                interfaces: vec!["lo".to_owned()],
                counts,
                output: CaptureOutput::Stream(bytes),
                stop,
                trigger: watch::Sender::new(None),
            })
        }
        .boxed()
    }

    fn recording_start(
        &self,
        spec: RecordingSpec,
        redaction: Redaction,
    ) -> BoxFuture<'_, anyhow::Result<Arc<Live>>> {
        async move {
            let options = Options {
                redaction,
                ..Options::default()
            };
            let path = spec.raw.output.unwrap_or_default();
            Ok(Arc::new(Live::start(path.as_ref(), options)?))
        }
        .boxed()
    }

    fn recording_stop(&self, live: Arc<Live>) -> BoxFuture<'_, anyhow::Result<()>> {
        async move {
            live.stop();
            live.ended().await;
            Ok(())
        }
        .boxed()
    }

    fn exec_begin(&self, pid: u32, _client_pid: u32) -> anyhow::Result<ExecView> {
        Ok(ExecView {
            id: format!("e{pid}"),
            cgroup: format!("/spike/e{pid}"),
        })
    }

    fn exec_end(&self, _id: &str) -> anyhow::Result<()> {
        Ok(())
    }

    fn check_cgroup(&self, path: &str) -> Result<(), FieldError> {
        match path {
            "/nowhere" => Err(FieldError::new("cgroup", "there is no cgroup `/nowhere`")),
            _ => Ok(()),
        }
    }
}
