//! One request to the collector, and the next when it asks for another try.

use std::{
    error::Error as _,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    HeaderMap, Request, Response, StatusCode, Uri,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry_proto::tonic::collector::{
    metrics::v1::ExportMetricsServiceResponse, trace::v1::ExportTraceServiceResponse,
};
use prost::Message;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::counts::Signal;
use crate::{config, export::own::random};

/// How long one request may take, as OpenTelemetry's exporters have it.
const REQUEST: Duration = Duration::from_secs(10);
/// Between the first two tries; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Bytes of an answer that are read.
const ANSWER: usize = 64 * 1024;

/// What became of a push.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It arrived; so many of its items were not taken, or there is a warning.
    Accepted { rejected: u64, told: String },
    /// It did not, for this reason.
    Failed(String),
}

/// Why a try failed.
enum Failure {
    /// Another may not; not before this time, when the collector says so.
    ForNow(String, Option<Duration>),
    ForGood(String),
}

#[derive(Debug)]
enum Http {
    Plain(legacy::Client<HttpConnector, Full<Bytes>>),
    Tls(legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
}

#[derive(Debug)]
pub(super) struct Client {
    http: Http,
    metrics: Uri,
    traces: Uri,
    headers: HeaderMap,
}

impl Client {
    pub(super) fn new(config: &config::Otlp) -> Result<Self> {
        let builder = legacy::Client::builder(TokioExecutor::new());
        let http = if config.endpoint.is_secure() {
            let connector = HttpsConnectorBuilder::new()
                .with_native_roots()
                .context("find this host's certificate authorities, for TLS to the collector")?
                .https_only()
                .enable_http1()
                .build();
            Http::Tls(builder.build(connector))
        } else {
            Http::Plain(builder.build(HttpConnector::new()))
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let agent = concat!("OTel-OTLP-Exporter-Spike/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        for header in &config.headers {
            headers.append(header.name.clone(), header.value.clone());
        }
        let uri = |signal: Signal| {
            let uri = config.endpoint.signal(signal.path());
            uri.with_context(|| format!("put {} behind {}", signal.path(), config.endpoint))
        };
        Ok(Self {
            http,
            metrics: uri(Signal::Metrics)?,
            traces: uri(Signal::Spans)?,
            headers,
        })
    }

    /// Tries until it arrives, may not be tried again, or `until` is there; once stopped only once.
    pub(super) async fn deliver(
        &self,
        signal: Signal,
        body: Bytes,
        until: Instant,
        stop: &CancellationToken,
    ) -> Outcome {
        let mut pause = FIRST_PAUSE;
        loop {
            let limit = until.min(Instant::now() + REQUEST);
            let tried = timeout_at(limit, self.request(signal, body.clone())).await;
            let late = || Failure::ForNow(format!("no answer within {REQUEST:?}"), None);
            let (why, wanted) = match tried.unwrap_or_else(|_| Err(late())) {
                Ok(outcome) => return outcome,
                Err(Failure::ForGood(why)) => return Outcome::Failed(why),
                Err(Failure::ForNow(why, wanted)) => (why, wanted),
            };
            let next = Instant::now() + wanted.unwrap_or_else(|| jitter(pause));
            if next >= until || stop.is_cancelled() {
                return Outcome::Failed(why);
            }
            // A last try when the agent ends.
            let _ = stop.run_until_cancelled(sleep_until(next)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn request(&self, signal: Signal, body: Bytes) -> Result<Outcome, Failure> {
        let uri = match signal {
            Signal::Metrics => &self.metrics,
            Signal::Spans => &self.traces,
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = self.headers.clone();
        let answered = match &self.http {
            Http::Plain(client) => client.request(request).await,
            Http::Tls(client) => client.request(request).await,
        };
        let response = answered.map_err(|error| {
            let causes = std::iter::successors(error.source(), |&cause| cause.source());
            let why = causes.fold(format!("{uri}: {error}"), |told, cause| {
                format!("{told}: {cause}")
            });
            Failure::ForNow(why, None)
        })?;
        read(signal, response, uri).await
    }
}

async fn read(signal: Signal, response: Response<Incoming>, uri: &Uri) -> Result<Outcome, Failure> {
    let (head, body) = response.into_parts();
    if head.status.is_success() {
        // What cannot be read of a success does not make it a failure.
        let bytes = Limited::new(body, ANSWER).collect().await;
        let bytes = bytes.map(|body| body.to_bytes()).unwrap_or_default();
        let (rejected, told) = partial(signal, &bytes);
        return Ok(Outcome::Accepted { rejected, told });
    }
    let why = format!("{uri} answered {}", head.status);
    if is_retryable(head.status) {
        return Err(Failure::ForNow(
            why,
            retry_after(&head.headers, SystemTime::now()),
        ));
    }
    Err(Failure::ForGood(why))
}

/// Those that the specification lists (<https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes>).
fn is_retryable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// Seconds or a date (RFC 9110, section 10.2.3); what is neither is not there.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        // Longer than anything is tried; more would not fit into a time.
        return Some(Duration::from_secs(u64::min(seconds, 24 * 3600)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(
        date.duration_since(now)
            .unwrap_or_default()
            .min(Duration::from_secs(24 * 3600)),
    )
}

/// How many items of a push that arrived were rejected, and what is said about it.
fn partial(signal: Signal, bytes: &[u8]) -> (u64, String) {
    let said = match signal {
        Signal::Metrics => ExportMetricsServiceResponse::decode(bytes)
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|partial| (partial.rejected_data_points, partial.error_message)),
        Signal::Spans => ExportTraceServiceResponse::decode(bytes)
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|partial| (partial.rejected_spans, partial.error_message)),
    };
    said.map_or((0, String::new()), |(rejected, told)| {
        (u64::try_from(rejected).unwrap_or(0), told)
    })
}

/// Half of it to all of it, so that agents that lost their collector at once don't come back at once.
fn jitter(pause: Duration) -> Duration {
    let share = random() as f64 / u64::MAX as f64;
    pause.mul_f64(0.5 + share / 2.0)
}
