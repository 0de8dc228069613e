//! Pushes metrics and spans to a collector: OTLP over HTTP, in protobuf (<https://opentelemetry.io/docs/specs/otlp/>).
//!
//! Nothing here is waited for by the rest of the agent. Spans wait in a queue of bounded length; metrics are cumulative,
//! so that a push that failed is made up for by the next. What did not arrive is counted.

mod client;
mod counts;
mod messages;
mod spans;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use anyhow::Result;
use bytes::Bytes;
use prost::Message;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::{
    client::{Client, Outcome},
    counts::{Counts, Signal},
    spans::ServiceSpan,
};
use super::{
    exporter::Exporter,
    family::Family,
    source::{Ends, Host},
};
use crate::{config, model::view::OtlpView, protocol::Call};

/// Spans that wait while the collector is slow; some 16 MiB at most.
const QUEUE: usize = 8192;
/// Spans in one push.
const BATCH: usize = 512;
/// How long the first span of a push waits for others.
const LINGER: Duration = Duration::from_secs(1);
/// How long spans are tried to be pushed before they are dropped.
const SPANS_LIMIT: Duration = Duration::from_secs(60);

/// A collector that is pushed to.
#[derive(Debug)]
pub(super) struct Otlp {
    config: config::Otlp,
    client: Arc<Client>,
    counts: Arc<Counts>,
    spans_tx: mpsc::Sender<ServiceSpan>,
    /// Until `start`.
    spans_rx: Mutex<Option<mpsc::Receiver<ServiceSpan>>>,
    tasks: Mutex<JoinSet<()>>,
}

/// Where decoded calls go to become spans: `exporter --spans--> otlp`.
#[derive(Debug)]
pub(super) struct SpanSink {
    spans_tx: mpsc::Sender<ServiceSpan>,
    counts: Arc<Counts>,
}

impl SpanSink {
    /// Queues the spans of a call; drops them when the collector is too slow.
    pub(super) fn give(&self, call: &Call, ends: &Ends, wall_clock: impl Fn(u64) -> SystemTime) {
        for span in spans::of(call, ends, wall_clock) {
            if self.spans_tx.try_send(span).is_err() {
                self.counts.dropped(Signal::Spans, 1);
            }
        }
    }
}

impl Otlp {
    /// # Errors
    /// When there can be no TLS to the collector.
    pub(super) fn new(config: config::Otlp) -> Result<Self> {
        let (spans_tx, spans_rx) = mpsc::channel(QUEUE);
        Ok(Self {
            client: Arc::new(Client::new(&config)?),
            config,
            counts: Arc::default(),
            spans_tx,
            spans_rx: Mutex::new(Some(spans_rx)),
            tasks: Mutex::default(),
        })
    }

    pub(super) fn sink(&self) -> SpanSink {
        SpanSink {
            spans_tx: self.spans_tx.clone(),
            counts: Arc::clone(&self.counts),
        }
    }

    /// Pushes until the exporter stops.
    pub(super) fn start(&self, exporter: &Arc<Exporter>) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let push = Push {
            client: Arc::clone(&self.client),
            counts: Arc::clone(&self.counts),
            stop: exporter.stop().clone(),
        };
        let every = self.config.interval;
        tasks.spawn(push.clone().metrics(Arc::downgrade(exporter), every));
        let spans_rx = self
            .spans_rx
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(spans_rx) = spans_rx {
            tasks.spawn(push.spans(exporter.host().clone(), spans_rx));
        }
    }

    /// Waits for the last push.
    pub(super) async fn finish(&self, limit: Duration) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async { while tasks.join_next().await.is_some() {} };
        if timeout(limit, all).await.is_err() {
            warn!("the last push to {} took too long", self.config.endpoint);
        }
    }

    pub(super) fn families(&self) -> Vec<Family> {
        let waiting = QUEUE - self.spans_tx.capacity();
        self.counts.families(waiting as u64)
    }

    pub(super) fn view(&self) -> OtlpView {
        OtlpView {
            url: self.config.endpoint.to_string(),
            waiting: (QUEUE - self.spans_tx.capacity()) as u64,
            ..self.counts.view()
        }
    }
}

/// What both signals push with.
#[derive(Clone)]
struct Push {
    client: Arc<Client>,
    counts: Arc<Counts>,
    stop: CancellationToken,
}

impl Push {
    /// Pushes all metrics at each interval, and a last time at the end.
    async fn metrics(self, exporter: Weak<Exporter>, every: Duration) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let stopped = tokio::select! {
                () = self.stop.cancelled() => true,
                _ = ticks.tick() => false,
            };
            let Some(exporter) = exporter.upgrade() else {
                return;
            };
            let made = tokio::task::spawn_blocking(move || {
                let families = exporter.families()?;
                let (request, points) =
                    messages::metrics(families, exporter.host(), exporter.started(), SystemTime::now());
                anyhow::Ok((Bytes::from(request.encode_to_vec()), points))
            });
            match made.await {
                Ok(Ok((body, points))) => self.deliver(Signal::Metrics, body, points, every).await,
                Ok(Err(error)) => warn!("read the metrics to push: {error:#}"),
                Err(error) => warn!("read the metrics to push: {error}"),
            }
            if stopped {
                return;
            }
        }
    }

    /// Pushes spans as they come, some at a time, until the end and what then still waits.
    async fn spans(self, host: Host, mut spans_rx: mpsc::Receiver<ServiceSpan>) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let stopped = tokio::select! {
                () = self.stop.cancelled() => true,
                count = spans_rx.recv_many(&mut batch, BATCH) => count == 0,
            };
            if stopped {
                spans_rx.close();
            }
            let full = async {
                while batch.len() < BATCH {
                    let room = BATCH - batch.len();
                    if spans_rx.recv_many(&mut batch, room).await == 0 {
                        return;
                    }
                }
            };
            // Ends at once when stopped, as the channel is closed then.
            let linger = Instant::now() + LINGER;
            let _ = self.stop.run_until_cancelled(timeout_at(linger, full)).await;
            if batch.is_empty() {
                if stopped {
                    return;
                }
                continue;
            }
            let count = batch.len() as u64;
            let request = messages::spans(batch.drain(..), &host);
            let body = Bytes::from(request.encode_to_vec());
            self.deliver(Signal::Spans, body, count, SPANS_LIMIT).await;
        }
    }

    async fn deliver(&self, signal: Signal, body: Bytes, items: u64, limit: Duration) {
        let tried = self
            .client
            .deliver(signal, body, Instant::now() + limit, &self.stop);
        match tried.await {
            Outcome::Accepted { rejected, told } => self.counts.accepted(signal, items, rejected, told),
            Outcome::Failed(why) => self.counts.failed(signal, items, why),
        }
    }
}
