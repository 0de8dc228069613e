//! What the counts of the edges tell: chatty, hot, idle, uneven and failing ones, and what is sent in the clear.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, UNIX_EPOCH};

use petgraph::graph::NodeIndex;

use super::{Context, finding, suggest, waits};
use crate::model::{
    human::{micros, percent},
    units::format_duration,
    view::{FindingKind, FindingView, Severity},
};
use crate::topology::{Counts, Link};

/// Where so few links are, one of them carries most anyway.
const LEAST_LINKS: usize = 5;
/// An instance with fewer calls has no latency to speak of.
const LEAST_FOR_LATENCY: u64 = 50;

pub(super) fn find(context: &Context<'_>, by_call: &[FindingView]) -> Vec<FindingView> {
    let all: u64 = context.links().map(|(.., link)| link.counts.calls).sum();
    let links = context.links().count();
    let mut findings = Vec::new();
    for (from, to, link) in context.links() {
        let place = Place {
            context,
            from,
            to,
            link,
        };
        findings.extend(place.chatty(by_call));
        findings.extend((links >= LEAST_LINKS).then(|| place.hot(all)).flatten());
        findings.extend(place.idle());
        findings.extend(place.failing());
        findings.extend(place.attempts());
        findings.extend(place.connects());
        findings.extend(place.uneven());
        findings.extend(place.credentials());
        findings.extend(place.certificate());
    }
    findings
}

/// One link.
struct Place<'a> {
    context: &'a Context<'a>,
    from: NodeIndex,
    to: NodeIndex,
    link: &'a Link,
}

impl Place<'_> {
    fn names(&self) -> (String, String) {
        (
            self.context.id(self.from).to_owned(),
            self.context.id(self.to).to_owned(),
        )
    }

    fn found(
        &self,
        kind: FindingKind,
        severity: Severity,
        title: String,
        numbers: &[(&str, f64)],
    ) -> FindingView {
        let (from, to) = self.names();
        let mut found = finding(kind, severity, title, vec![from, to], numbers);
        found.edges = self.context.edge_ids([self.link].into_iter());
        found
    }

    fn chatty(&self, by_call: &[FindingView]) -> Option<FindingView> {
        let thresholds = self.context.input.thresholds;
        let calls_in = self.context.calls_in[self.from.index()];
        let (from, to) = self.names();
        let is_told = by_call
            .iter()
            .any(|found| found.services == [from.clone(), to.clone()]);
        if !waits(self.link) || calls_in < thresholds.least_calls || is_told {
            return None;
        }
        let ratio = self.link.counts.calls as f64 / calls_in as f64;
        if ratio < thresholds.chatty {
            return None;
        }
        let mean_us = self.link.counts.mean_ns().unwrap_or(0) as f64 / 1000.0;
        let mut found = self.found(
            FindingKind::Chatty,
            Severity::Medium,
            format!("{from} calls {to} {ratio:.1} times for each call that it gets"),
            &[
                ("calls_for_one_call", ratio),
                ("time_for_one_call_us", ratio * mean_us),
                ("calls_per_second", self.context.rate(self.link)),
            ],
        );
        format!(
            "At {} each that is {} of every call, if they are made one after the other.",
            micros(mean_us as u64),
            micros((ratio * mean_us) as u64)
        )
        .clone_into(&mut found.why);
        "Ask for more at once, or keep the answers for a while.".clone_into(&mut found.advice);
        found.test = suggest::latency(self.context, self.link, "10ms");
        Some(found)
    }

    fn hot(&self, all: u64) -> Option<FindingView> {
        let thresholds = self.context.input.thresholds;
        let share = self.link.counts.calls as f64 * 100.0 / all.max(1) as f64;
        let rate = self.context.rate(self.link);
        if share < thresholds.hot_percent || rate < thresholds.hot_rate {
            return None;
        }
        let (from, to) = self.names();
        let mut found = self.found(
            FindingKind::HotEdge,
            Severity::Low,
            format!("{from} -> {to} carries {} of all calls", percent(share)),
            &[("calls_percent", share), ("calls_per_second", rate)],
        );
        "What is saved here is saved most often; what is slow here is felt everywhere."
            .clone_into(&mut found.why);
        "Look here first when the whole should be faster or cheaper.".clone_into(&mut found.advice);
        found.test = suggest::latency(self.context, self.link, "20ms");
        Some(found)
    }

    fn idle(&self) -> Option<FindingView> {
        let counts = &self.link.counts;
        let idle = self.context.input.thresholds.idle;
        if counts.open == 0 || !counts.is_idle() || self.context.graph.seconds < idle.as_secs_f64() {
            return None;
        }
        let (from, to) = self.names();
        let mut found = self.found(
            FindingKind::IdleEdge,
            Severity::Low,
            format!(
                "{from} keeps {} open to {to} and says nothing",
                connections(counts.open)
            ),
            &[
                ("open", counts.open as f64),
                ("seconds", self.context.graph.seconds),
            ],
        );
        "It holds a place at the other end, and may have been cut on the way without either of them knowing."
            .clone_into(&mut found.why);
        "Let go of what is not used, or keep it alive by something that would notice."
            .clone_into(&mut found.advice);
        Some(found)
    }

    fn failing(&self) -> Option<FindingView> {
        let counts = &self.link.counts;
        let thresholds = self.context.input.thresholds;
        let share = counts.error_share()? * 100.0;
        let attempts = counts.opened + counts.failures();
        let tried = attempts.max(counts.decoded.unwrap_or_default().calls);
        if share < thresholds.error_percent || tried < thresholds.least_calls {
            return None;
        }
        let decoded = counts.decoded.unwrap_or_default();
        let (from, to) = self.names();
        let mut found = self.found(
            FindingKind::FailingEdge,
            if share >= 10.0 {
                Severity::High
            } else {
                Severity::Medium
            },
            format!("{} of what {from} asks of {to} fails", percent(share)),
            &[
                ("errors_percent", share),
                ("failed_calls", decoded.failed as f64),
                ("decoded_calls", decoded.calls as f64),
                ("failed_connects", counts.failures() as f64),
                ("reset_connections", counts.reset as f64),
            ],
        );
        "Somebody sees these errors, or waits for the retries that hide them.".clone_into(&mut found.why);
        let edge = found.edges.first().map_or("...", String::as_str);
        found.advice = if decoded.failed > 0 {
            format!("See them with: spike calls --follow --find 'failed and edge={edge}'")
        } else {
            format!("See why connections fail with: spike map --json --find edge={edge}")
        };
        found.test = suggest::reset(self.context, self.link);
        Some(found)
    }

    /// Attempts to connect that are repeated although they fail.
    fn attempts(&self) -> Option<FindingView> {
        let counts = &self.link.counts;
        let thresholds = self.context.input.thresholds;
        let failures = counts.failures();
        let share = failures as f64 * 100.0 / (counts.opened + failures).max(1) as f64;
        if failures < thresholds.least_calls || share < 50.0 {
            return None;
        }
        let calls_in = self.context.calls_in[self.from.index()];
        let (each, is_storm) = if calls_in == 0 {
            // Who works by itself may try once a second; more is a storm.
            let rate = failures as f64 / self.context.graph.seconds;
            (rate, rate > 1.0)
        } else {
            let each = failures as f64 / calls_in as f64;
            (each, each >= 2.0)
        };
        if !is_storm {
            return None;
        }
        let (from, to) = self.names();
        let per = if calls_in == 0 {
            "each second"
        } else {
            "for each call that it gets"
        };
        let mut found = self.found(
            FindingKind::RetryStorm,
            Severity::High,
            format!("{from} tries in vain to connect to {to}, {each:.1} times {per}"),
            &[
                ("failed_connects", failures as f64),
                ("failed_connects_percent", share),
                ("attempts_each", each),
            ],
        );
        "The attempts take time of every call, and will meet the other end all at once when it is back."
            .clone_into(&mut found.why);
        "Wait longer after each failure, by chance; answer without it meanwhile."
            .clone_into(&mut found.advice);
        found.test = suggest::refuse(self.context, &[self.link]);
        Some(found)
    }

    fn connects(&self) -> Option<FindingView> {
        let counts = &self.link.counts;
        let thresholds = self.context.input.thresholds;
        let share = counts.opened as f64 * 100.0 / counts.calls.max(1) as f64;
        if !waits(self.link) || counts.calls < thresholds.least_calls || share < thresholds.connect_percent {
            return None;
        }
        let (from, to) = self.names();
        let round_trip = counts.rtt_sum.checked_div(counts.rtt_count);
        let mut found = self.found(
            FindingKind::ConnectPerCall,
            Severity::Low,
            format!(
                "{from} opens {} for {} calls to {to}",
                connections(counts.opened),
                counts.calls
            ),
            &[
                ("opened", counts.opened as f64),
                ("calls", counts.calls as f64),
                ("connections_percent", share),
                ("rtt_us", round_trip.unwrap_or(0) as f64),
            ],
        );
        "Each connection costs a round trip, with TLS two or more, and a port that stays taken for a minute."
            .clone_into(&mut found.why);
        "Keep connections open: a pool, keep-alive.".clone_into(&mut found.advice);
        found.test = suggest::latency(self.context, self.link, "50ms");
        Some(found)
    }

    fn uneven(&self) -> Option<FindingView> {
        let thresholds = self.context.input.thresholds;
        let mut instances: BTreeMap<String, Counts> = BTreeMap::new();
        // One caller that spreads its calls: where each caller has an instance of its own there is nothing to be even.
        let mut by_caller: BTreeMap<String, HashSet<String>> = BTreeMap::new();
        for flow in self.context.flows(self.link) {
            let destination = &flow.view.destination;
            let instance = match &destination.process {
                Some(process) => format!("pid {} port {}", process.pid, destination.port),
                None => format!("{} port {}", destination.address, destination.port),
            };
            let caller = flow.view.caller.as_ref().map_or("", |end| &end.cgroup);
            by_caller
                .entry(caller.to_owned())
                .or_default()
                .insert(instance.clone());
            instances.entry(instance).or_default().add(&flow.counts);
        }
        if instances.len() < 2 || !by_caller.values().any(|spread| spread.len() > 1) {
            return None;
        }
        let (from, to) = self.names();
        let calls = |(_, counts): &(&String, &Counts)| counts.calls;
        let (most, least) = (
            instances.iter().max_by_key(calls)?,
            instances.iter().min_by_key(calls)?,
        );
        let (high, low) = (most.1.calls as f64, least.1.calls as f64);
        let beyond_chance = high - low > 4.0 * high.sqrt();
        if self.link.counts.calls >= thresholds.least_calls * instances.len() as u64
            && high >= thresholds.uneven * low.max(1.0)
            && beyond_chance
        {
            let mut found = self.found(
                FindingKind::UnevenBackends,
                Severity::Low,
                format!(
                    "{from} calls {to} at {} {high:.0} times and at {} {low:.0} times",
                    most.0, least.0
                ),
                &[
                    ("instances", instances.len() as f64),
                    ("most_calls", high),
                    ("least_calls", low),
                ],
            );
            "If they are to share the load, one is worn while another rests.".clone_into(&mut found.why);
            "Spread single calls, not connections; let long connections end now and then."
                .clone_into(&mut found.advice);
            found.test = suggest::latency(self.context, self.link, "100ms");
            return Some(found);
        }
        let judged = || {
            instances
                .iter()
                .filter(|(_, counts)| counts.latency.count() >= LEAST_FOR_LATENCY)
        };
        let median = |(_, counts): &(&String, &Counts)| counts.latency.quantile(500).unwrap_or(0);
        let (slow, fast) = (judged().max_by_key(median)?, judged().min_by_key(median)?);
        let (high, low) = (median(&slow) / 1000, median(&fast) / 1000);
        // Differences of less than a millisecond are nobody's trouble.
        if (high as f64) < thresholds.uneven * low.max(1) as f64 || high < low + 1_000 {
            return None;
        }
        let mut found = self.found(
            FindingKind::UnevenBackends,
            Severity::Medium,
            format!(
                "{to} takes {} at {} and {} at {} (p50)",
                micros(high),
                slow.0,
                micros(low),
                fast.0
            ),
            &[
                ("instances", instances.len() as f64),
                ("slow_p50_us", high as f64),
                ("fast_p50_us", low as f64),
            ],
        );
        "Some of the calls are slow for no reason of their own.".clone_into(&mut found.why);
        "Compare the two: load, version, cache, disk, how far away it is.".clone_into(&mut found.advice);
        found.test = suggest::latency(self.context, self.link, "100ms");
        Some(found)
    }

    fn credentials(&self) -> Option<FindingView> {
        let flows = self.context.flows(self.link);
        let mut kinds: Vec<(&str, bool)> = flows
            .filter_map(|flow| {
                let facts = self.context.input.facts.get(&flow.id)?;
                let address: Option<std::net::IpAddr> = flow.view.destination.address.parse().ok();
                Some((
                    facts.credentials?,
                    address.is_some_and(|address| address.is_loopback()),
                ))
            })
            .collect();
        kinds.sort_unstable();
        let (kind, _) = *kinds.first()?;
        let only_here = kinds.iter().all(|(_, is_loopback)| *is_loopback);
        let (from, to) = self.names();
        let mut found = self.found(
            FindingKind::PlaintextCredentials,
            if only_here { Severity::Low } else { Severity::High },
            format!("{from} sends {to} credentials in the clear ({kind})"),
            &[
                ("edges", kinds.len() as f64),
                ("within_this_host", f64::from(u8::from(only_here))),
            ],
        );
        "Whoever can listen on the way can use them.".clone_into(&mut found.why);
        "Use TLS; within a host, a Unix socket.".clone_into(&mut found.advice);
        Some(found)
    }

    fn certificate(&self) -> Option<FindingView> {
        let flows = self.context.flows(self.link);
        let ends = flows
            .filter_map(|flow| self.context.input.facts.get(&flow.id)?.certificate_ends)
            .min()?;
        let now = self
            .context
            .input
            .now
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let left = ends - i64::try_from(now).unwrap_or(i64::MAX);
        let limit = self.context.input.thresholds.certificate.as_secs();
        if left > i64::try_from(limit).unwrap_or(i64::MAX) {
            return None;
        }
        let (from, to) = self.names();
        let time = format_duration(Duration::from_secs(left.unsigned_abs() / 60 * 60));
        let title = if left <= 0 {
            format!("the certificate of {to}, which {from} calls, expired {time} ago")
        } else {
            format!("the certificate of {to}, which {from} calls, expires in {time}")
        };
        let mut found = self.found(
            FindingKind::CertificateExpiry,
            if left < 3 * 86_400 {
                Severity::High
            } else {
                Severity::Medium
            },
            title,
            &[("days_left", left as f64 / 86_400.0)],
        );
        "From then on callers that check it refuse to connect, all at once.".clone_into(&mut found.why);
        "Renew it, and see that it renews itself; try now what callers do when they cannot connect."
            .clone_into(&mut found.advice);
        found.test = suggest::refuse(self.context, &[self.link]);
        Some(found)
    }
}

fn connections(count: u64) -> String {
    match count {
        1 => "1 connection".to_owned(),
        _ => format!("{count} connections"),
    }
}
