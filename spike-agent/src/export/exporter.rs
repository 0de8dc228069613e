//! Joins what is counted with who asks for it.

use std::{
    sync::{Arc, Mutex, Once},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result};
use futures_util::{StreamExt, stream::BoxStream};
use tokio_util::sync::CancellationToken;

use super::{
    callers::Callers,
    calls::CallMeter,
    edges::EdgeLedger,
    family::Family,
    otlp::{Otlp, SpanSink},
    own,
    source::{Ends, Host, Source},
    text::{self, Format},
};
use crate::lock::lock;
use crate::{
    calls::{EdgeCall, Followed},
    config,
    model::view::OtlpView,
};

/// Sets of attributes for each edge that has series: a service has a few dozen operations at most.
const CALL_SERIES: usize = 2;
/// What is exported, and how much of it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Edges with series of their own.
    pub edges: usize,
    /// Where to push to.
    pub otlp: Option<config::Otlp>,
}

/// Tells what the agent has seen to whoever asks, and to a collector if there is one.
pub struct Exporter {
    source: Arc<dyn Source>,
    host: Host,
    started: SystemTime,
    ledger: Mutex<EdgeLedger>,
    meter: Mutex<CallMeter>,
    following: Once,
    otlp: Option<Otlp>,
    stop: CancellationToken,
}

impl Exporter {
    /// Begins to push, if there is a collector; all of it ends with `stop`.
    ///
    /// # Errors
    /// When there can be no TLS to the collector.
    pub fn start(source: Arc<dyn Source>, settings: Settings, stop: CancellationToken) -> Result<Arc<Self>> {
        let otlp = settings.otlp.map(Otlp::new).transpose()?;
        let exporter = Arc::new(Self {
            source,
            host: Host::this(),
            started: SystemTime::now(),
            ledger: Mutex::new(EdgeLedger::new(settings.edges)),
            meter: Mutex::new(CallMeter::new(settings.edges.saturating_mul(CALL_SERIES))),
            following: Once::new(),
            otlp,
            stop,
        });
        if let Some(otlp) = &exporter.otlp {
            exporter.follow_calls();
            otlp.start(&exporter);
        }
        Ok(exporter)
    }

    /// All metrics as text. Decoded calls are counted from the first time on.
    ///
    /// # Errors
    /// When the kernel's maps cannot be read.
    pub async fn scrape(self: &Arc<Self>, format: Format) -> Result<String> {
        self.follow_calls();
        let this = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || {
            let families = this.families()?;
            text::write(families, &this.host, format).context("write the metrics")
        });
        written.await.context("write the metrics")?
    }

    /// How pushing goes, if there is a collector.
    pub fn otlp(&self) -> Option<OtlpView> {
        self.otlp.as_ref().map(Otlp::view)
    }

    /// Pushes what is left, as long as that takes no longer than `limit`; call it after `stop`.
    pub async fn finish(&self, limit: Duration) {
        if let Some(otlp) = &self.otlp {
            otlp.finish(limit).await;
        }
    }

    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    pub(super) fn started(&self) -> SystemTime {
        self.started
    }

    pub(super) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// All metrics as of now; it takes as long as reading the kernel's maps does.
    pub(super) fn families(&self) -> Result<Vec<Family>> {
        let up = self.started.elapsed().unwrap_or_default();
        let mut families = own::families(&*self.source, &self.host, up);
        let edges = self.source.edges()?;
        {
            let mut ledger = lock(&self.ledger);
            ledger.update(edges, Instant::now());
            families.extend(ledger.families());
        }
        families.extend(lock(&self.meter).families());
        families.extend(self.otlp.iter().flat_map(Otlp::families));
        Ok(families)
    }

    fn follow_calls(self: &Arc<Self>) {
        self.following.call_once(|| {
            // Before anything is answered, so that what is called after that is counted.
            let calls = self.source.calls();
            let (this, stop) = (Arc::clone(self), self.stop.clone());
            tokio::spawn(async move { stop.run_until_cancelled(this.take_calls(calls)).await });
        });
    }

    /// `calls::feed --EdgeCall--> meter, otlp`.
    async fn take_calls(self: Arc<Self>, mut calls: BoxStream<'static, Followed>) {
        let mut callers = Callers::default();
        let spans = self.otlp.as_ref().map(Otlp::sink);
        loop {
            let followed = tokio::select! {
                followed = calls.next() => followed,
                () = callers.due() => {
                    for call in callers.read(&self.source).await {
                        self.take(&call, callers.ends(call.edge), spans.as_ref());
                    }
                    continue;
                }
            };
            match followed {
                None => return,
                Some(Followed::Missed(count)) => lock(&self.meter).missed += count,
                Some(Followed::Call(call)) => {
                    if callers.ends(call.edge).is_some() || !callers.wait(&call) {
                        self.take(&call, callers.ends(call.edge), spans.as_ref());
                    }
                }
            }
        }
    }

    fn take(&self, EdgeCall { call, .. }: &EdgeCall, ends: Option<&Ends>, spans: Option<&SpanSink>) {
        let mut meter = lock(&self.meter);
        let Some(ends) = ends else {
            meter.missed += 1;
            return;
        };
        meter.count(call, ends);
        drop(meter);
        if let Some(spans) = spans {
            spans.give(call, ends, |ns| self.source.wall_clock(ns));
        }
    }
}
