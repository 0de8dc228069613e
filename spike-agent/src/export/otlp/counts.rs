//! How pushing goes: counted, logged when it changes, shown.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tracing::{info, warn};

use crate::{
    export::family::{Family, Metric, Unit, Value},
    model::view::OtlpView,
};

static SENT: Metric = Metric::counter(
    "spike.otlp.sent",
    Unit::Of("{item}"),
    "Metric points and spans that the collector took.",
);
static DROPPED: Metric = Metric::counter(
    "spike.otlp.dropped",
    Unit::Of("{item}"),
    "Metric points and spans that did not arrive: queue full, collector gone, or refused.",
);
static FAILED: Metric = Metric::counter(
    "spike.otlp.failed",
    Unit::Of("{push}"),
    "Pushes that were given up.",
);
static WAITING: Metric = Metric::gauge(
    "spike.otlp.waiting",
    Unit::Of("{span}"),
    "Spans that wait to be pushed.",
);

/// What is pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Metrics,
    Spans,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Spans => "spans",
        }
    }

    /// Below the endpoint.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Metrics => "v1/metrics",
            Self::Spans => "v1/traces",
        }
    }
}

#[derive(Debug, Default)]
struct Of {
    sent: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
    /// So that a collector that stays away is told of once.
    is_down: AtomicBool,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    metrics: Of,
    spans: Of,
    last_error: Mutex<Option<String>>,
}

impl Counts {
    fn of(&self, signal: Signal) -> &Of {
        match signal {
            Signal::Metrics => &self.metrics,
            Signal::Spans => &self.spans,
        }
    }

    pub(super) fn dropped(&self, signal: Signal, items: u64) {
        self.of(signal).dropped.fetch_add(items, Ordering::Relaxed);
    }

    /// A push arrived; `rejected` of its items were not taken, and `told` says why.
    pub(super) fn accepted(&self, signal: Signal, items: u64, rejected: u64, told: String) {
        let of = self.of(signal);
        let rejected = rejected.min(items);
        of.sent.fetch_add(items - rejected, Ordering::Relaxed);
        of.dropped.fetch_add(rejected, Ordering::Relaxed);
        if of.is_down.swap(false, Ordering::Relaxed) {
            info!("the collector takes {} again", signal.name());
        }
        let error = (rejected > 0 || !told.is_empty()).then(|| {
            format!(
                "the collector rejected {rejected} of {items} {}: {told}",
                signal.name()
            )
        });
        if let Some(error) = &error {
            warn!("{error}");
        }
        self.set_error(error);
    }

    pub(super) fn failed(&self, signal: Signal, items: u64, why: String) {
        let of = self.of(signal);
        of.failed.fetch_add(1, Ordering::Relaxed);
        of.dropped.fetch_add(items, Ordering::Relaxed);
        if !of.is_down.swap(true, Ordering::Relaxed) {
            warn!(
                "push {} to the collector: {why}; they are dropped while this lasts",
                signal.name()
            );
        }
        self.set_error(Some(why));
    }

    fn set_error(&self, error: Option<String>) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    pub(super) fn families(&self, waiting: u64) -> Vec<Family> {
        let both_signals = |metric, count: fn(&Of) -> &AtomicU64| {
            let mut family = Family::new(metric);
            for signal in [Signal::Metrics, Signal::Spans] {
                let value = count(self.of(signal)).load(Ordering::Relaxed);
                family.add(vec![("signal", signal.name().into())], Value::Count(value));
            }
            family
        };
        vec![
            both_signals(&SENT, |of| &of.sent),
            both_signals(&DROPPED, |of| &of.dropped),
            both_signals(&FAILED, |of| &of.failed),
            Family::one(&WAITING, Value::Count(waiting)),
        ]
    }

    pub(super) fn view(&self) -> OtlpView {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        OtlpView {
            points_sent: read(&self.metrics.sent),
            points_dropped: read(&self.metrics.dropped),
            spans_sent: read(&self.spans.sent),
            spans_dropped: read(&self.spans.dropped),
            error: self
                .last_error
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            ..OtlpView::default()
        }
    }
}
