//! Joins the kernel side's samples with the decoders, and what they find with the names on the map.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, Result};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use spike_common::sample::{DATAGRAM, ENDS, FIRST, RESETS, SENT, SERVES, WANT_LITTLE, WANT_WHOLE};

use crate::calls::{
    Budget, EdgeCall, EdgeProtocol, Feed, Followed, Sample, Source, Turn, Want, Worker, view,
};
use crate::identity::{Names, Processes, Services};
use crate::kernel::{Kernel, Samples};
use crate::lock::lock;
use crate::model::Window;
use crate::model::edge::{Counted, Decoded, EdgeSample};
use crate::model::view::{CallEvent, CallView, DecodingView, EdgeDetailView, EdgeView, MapView};
use crate::protocol::{Call, ProtocolName, Side};
use crate::topology::{Facts, Flow, Recent, RecentCall, Who, flows, histogram, service_map};

/// How long the names of edges may be out of date.
const NAMES_LIVE: Duration = Duration::from_secs(1);
/// The same, when there is an edge that was not there then.
const NEW_EDGE: Duration = Duration::from_millis(20);

/// Decoding, running.
pub(super) struct Calls {
    kernel: Arc<Kernel>,
    processes: Arc<Processes>,
    services: Arc<Services>,
    resolved: Arc<Names>,
    worker: Worker,
    feed: Feed,
    recent: Arc<Mutex<Recent>>,
    budget_percent: f64,
    ends: Arc<Mutex<Ends>>,
}

/// Who is at the ends of the edges.
#[derive(Default)]
struct Ends {
    read: Option<Instant>,
    by_edge: HashMap<u64, (String, String)>,
}

impl Calls {
    /// Starts to decode within `budget_percent` of one core.
    pub(super) fn start(
        kernel: Arc<Kernel>,
        processes: Arc<Processes>,
        services: Arc<Services>,
        budget_percent: f64,
    ) -> Result<Self> {
        let feed = Feed::default();
        let resolved = Arc::new(Names::default());
        let source = KernelSource {
            samples: kernel.samples()?,
            resolved: Arc::clone(&resolved),
        };
        let recent = Arc::new(Mutex::new(Recent::default()));
        let (kept, given) = (Arc::clone(&recent), feed.clone());
        let give = move |calls: &mut Vec<EdgeCall>| {
            if !calls.is_empty() {
                let mut recent = lock(&kept);
                calls.iter().for_each(|call| note(&mut recent, call));
            }
            given.give(calls);
        };
        let worker = Worker::start(source, Budget::new(budget_percent / 100.0), give);
        Ok(Self {
            kernel,
            processes,
            services,
            resolved,
            worker: worker.context("start the thread that decodes")?,
            feed,
            recent,
            budget_percent,
            ends: Arc::default(),
        })
    }

    /// The names that were resolved on this host.
    pub(super) fn names(&self) -> Arc<Names> {
        Arc::clone(&self.resolved)
    }

    /// Who calls whom, and in what.
    pub(super) fn service_map(&self) -> Result<MapView> {
        let edges = self.kernel.edges()?;
        let ids: HashSet<u64> = edges.iter().map(|edge| edge.id).collect();
        self.worker.book().retain(|id| ids.contains(&id));
        Ok(self.draw(edges))
    }

    /// All edges with what happened on them since they are there.
    pub(super) fn flows(&self) -> Result<Vec<Flow>> {
        self.flows_that(|_, _| true)
    }

    /// Those of which `is_wanted` is true, of what was counted.
    pub(super) fn flows_that(&self, is_wanted: impl Fn(u64, &Counted) -> bool) -> Result<Vec<Flow>> {
        let mut edges = self.kernel.edges()?;
        let book = self.worker.book();
        let decoded = |id| book.edge(id).map(decoded);
        edges.retain(|edge| {
            let counted = Counted {
                stats: edge.stats.clone(),
                decoded: decoded(edge.id),
            };
            is_wanted(edge.id, &counted)
        });
        Ok(flows(edges, &self.kernel.services(), &self.who(), decoded))
    }

    /// One edge of the map.
    pub(super) fn edge(&self, id: u64) -> Result<Option<EdgeDetailView>> {
        let mut edges = self.kernel.edges()?;
        edges.retain(|edge| edge.id == id);
        let histogram = edges.first().map(|edge| histogram(&edge.stats.full()));
        let edge = self.draw(edges).edges.pop();
        let detail = |(edge, histogram)| EdgeDetailView { edge, histogram };
        Ok(edge.zip(histogram).map(detail))
    }

    /// The last calls of a stretch of time, and what all have told of their edges.
    pub(super) fn recent(&self, window: Window) -> (Vec<RecentCall>, BTreeMap<u64, Facts>) {
        let (from, to) = match window {
            Window::SinceStart => (0, u64::MAX),
            Window::Between(from, to) => (self.kernel.monotonic_at(from), self.kernel.monotonic_at(to)),
        };
        let recent = lock(&self.recent);
        (recent.between(from, to), recent.facts())
    }

    /// What decoding has found out about edges.
    pub(super) fn decoded(&self, ids: impl Iterator<Item = u64>) -> HashMap<u64, Decoded> {
        let book = self.worker.book();
        ids.filter_map(|id| Some((id, decoded(book.edge(id)?)))).collect()
    }

    /// The calls from now on, without the names of their ends.
    pub(super) fn feed(&self) -> BoxStream<'static, Followed> {
        self.feed.follow().boxed()
    }

    /// The map of these edges.
    pub(super) fn draw(&self, edges: Vec<EdgeSample>) -> MapView {
        let book = self.worker.book();
        let decoded = |id| book.edge(id).map(decoded);
        service_map(edges, &self.kernel.services(), &self.who(), decoded)
    }

    fn who(&self) -> Who<'_> {
        Who {
            processes: &self.processes,
            services: &self.services,
            names: &self.resolved,
        }
    }

    /// The names that were resolved on this host.
    pub(super) fn resolved_names(&self) -> &Names {
        &self.resolved
    }

    /// How much is decoded.
    pub(super) fn view(&self) -> DecodingView {
        let (used, sampled) = self.worker.use_now();
        let book = self.worker.book();
        let percent = |share: f64| (share * 10_000.0).round() / 100.0;
        DecodingView {
            budget_percent: self.budget_percent,
            used_percent: percent(used),
            sampled_percent: percent(sampled),
            segments: book.samples,
            not_followed: book.not_followed,
        }
    }

    /// The calls from now on.
    pub(super) fn follow(self: &Arc<Self>) -> BoxStream<'static, CallEvent> {
        let this = Arc::clone(self);
        let calls = self.feed.follow().map(move |followed| match followed {
            Followed::Call(call) => CallEvent::Call(Box::new(this.named(&call))),
            Followed::Missed(count) => CallEvent::Missed(count),
        });
        calls.boxed()
    }

    fn named(&self, EdgeCall { edge, call }: &EdgeCall) -> CallView {
        let (caller, callee) = self.ends(*edge);
        let at = self.kernel.wall_clock(call.started_ns);
        view(call, *edge, at, caller, callee)
    }

    /// The caller's and the callee's name; the map is read again when it may say more.
    fn ends(&self, edge: u64) -> (String, String) {
        let mut ends = lock(&self.ends);
        let limit = if ends.by_edge.contains_key(&edge) {
            NAMES_LIVE
        } else {
            NEW_EDGE
        };
        let is_old = ends.read.is_none_or(|read| read.elapsed() >= limit);
        if is_old && let Ok(map) = self.service_map() {
            ends.by_edge = map.edges.iter().filter_map(ends_of).collect();
            ends.read = Some(Instant::now());
        }
        let unknown = || ("?".to_owned(), "?".to_owned());
        ends.by_edge.get(&edge).cloned().unwrap_or_else(unknown)
    }
}

fn ends_of(edge: &EdgeView) -> Option<(u64, (String, String))> {
    let id = u64::from_str_radix(&edge.id, 16).ok()?;
    let caller = match (&edge.caller, &edge.peer) {
        (Some(caller), _) => caller.service.clone(),
        (None, Some(peer)) => peer.clone(),
        (None, None) => "?".to_owned(),
    };
    let destination = &edge.destination;
    let process = destination.process.as_ref().map(|process| &process.service);
    let name = process
        .or(destination.name.as_ref())
        .unwrap_or(&destination.address);
    let name = if name.contains(':') {
        format!("[{name}]")
    } else {
        name.clone()
    };
    Some((id, (caller, format!("{name}:{}", destination.port))))
}

fn decoded(edge: &EdgeProtocol) -> Decoded {
    Decoded {
        protocol: edge.protocol().map(|name| name.as_str()),
        calls: edge.calls,
        failed: edge.failed,
        lost_calls: edge.losses.calls,
        undecodable: edge.losses.undecodable,
        resyncs: edge.losses.resyncs,
    }
}

/// `hooks/traffic --samples--> calls`, and what is said of names on the way to `identity`.
struct KernelSource {
    samples: Samples,
    resolved: Arc<Names>,
}

impl Source for KernelSource {
    fn read(&mut self, most: u32, each: &mut dyn FnMut(&Sample<'_>)) -> u32 {
        self.samples.read(most, |header, bytes| {
            let has = |flag| header.flags & flag != 0;
            let from = if has(SENT) == has(SERVES) {
                Side::Server
            } else {
                Side::Client
            };
            if has(DATAGRAM) && from == Side::Server {
                self.resolved.learn(bytes);
            }
            each(&Sample {
                is_datagram: has(DATAGRAM),
                cookie: header.cookie,
                edge: header.edge,
                at_ns: header.at_ns,
                from,
                port: u16::try_from(header.port).unwrap_or(0),
                sequence: header.sequence,
                length: header.length,
                bytes,
                first: has(FIRST),
                fin: has(ENDS),
                reset: has(RESETS),
            });
        })
    }

    fn choose(&mut self, turn: Turn) {
        self.samples.choose(turn.below, turn.seed);
    }

    fn want(&mut self, cookie: u64, want: Want) {
        let want = match want {
            Want::Whole => WANT_WHOLE,
            Want::Little => WANT_LITTLE,
        };
        self.samples.want(cookie, want);
    }
}
/// Keeps a decoded call, and what it tells of its edge.
fn note(recent: &mut Recent, EdgeCall { edge, call }: &EdgeCall) {
    let facts = Facts {
        credentials: credentials(call),
        certificate_ends: call
            .details
            .get("not_after")
            .and_then(|text| humantime::parse_rfc3339(text).ok())
            .and_then(|ends| ends.duration_since(UNIX_EPOCH).ok())
            .and_then(|ends| i64::try_from(ends.as_secs()).ok()),
    };
    if facts != Facts::default() {
        recent.learn(*edge, &facts);
    }
    let what = recent.name(&call.operation, &call.target);
    recent.add(RecentCall {
        edge: *edge,
        start_ns: call.started_ns,
        end_ns: call.ended_ns,
        what,
        failed: call.failed,
        trace: call.trace.map(|trace| trace.trace_id),
    });
}

/// What sort of credentials a call sent for anyone to read.
fn credentials(call: &Call) -> Option<&'static str> {
    let is = |names: &[&str]| names.contains(&&*call.operation);
    match call.protocol {
        ProtocolName::Redis if is(&["AUTH"]) => Some("Redis AUTH"),
        ProtocolName::Http1 => match call.details.get("authorization") {
            Some("basic") => Some("HTTP Basic"),
            Some("bearer") => Some("HTTP Bearer"),
            _ => None,
        },
        _ => None,
    }
}
