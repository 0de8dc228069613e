//! What single calls tell: the same request again and again for one call, and retries.
//!
//! Which call caused which is told by their trace where they have one, else by their times: a call of a process lies
//! within the one call that it was busy with. Where it was busy with several, nothing is concluded.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use petgraph::graph::NodeIndex;

use super::{Context, finding, suggest};
use crate::model::view::{FindingKind, FindingView, Severity};
use crate::topology::{Link, RecentCall};

/// A call that lasts longer causes others by the way: a stream, a long poll.
const LONGEST_NS: u64 = 60_000_000_000;
/// So many calls have to show it.
const LEAST_PARENTS: usize = 5;

/// Calls of one process out, and the calls in that may have caused them.
#[derive(Default)]
struct Process<'a> {
    calls_in: Vec<&'a RecentCall>,
    /// With the service that was called.
    calls_out: Vec<(NodeIndex, &'a RecentCall)>,
}

/// Calls that one call caused: by the order in which they began.
type Caused<'a> = Vec<&'a RecentCall>;

/// What a service asks of another: the request.
type Asked = (NodeIndex, NodeIndex, Arc<str>);

pub(super) fn find(context: &Context<'_>) -> Vec<FindingView> {
    let links = context.link_of_edge();
    let mut processes: BTreeMap<(NodeIndex, String), Process<'_>> = BTreeMap::new();
    for call in context.input.recent {
        let Some((from, to, link, flow)) = links.get(&call.edge) else {
            continue;
        };
        if !super::waits(link) {
            continue;
        }
        if let Some(end) = &flow.view.caller {
            let process = processes.entry((*from, end.cgroup.clone())).or_default();
            process.calls_out.push((*to, call));
        }
        if let Some(end) = &flow.view.destination.process {
            let process = processes.entry((*to, end.cgroup.clone())).or_default();
            process.calls_in.push(call);
        }
    }
    let mut by_trace: HashMap<Asked, Vec<Caused<'_>>> = HashMap::new();
    let mut by_time: HashMap<Asked, Vec<Caused<'_>>> = HashMap::new();
    for ((node, _), process) in processes {
        let known = causes(process);
        for (families, all) in [(known.0, &mut by_trace), (known.1, &mut by_time)] {
            for ((to, what), families) in families {
                all.entry((node, to, what)).or_default().extend(families);
            }
        }
    }
    let link_between: HashMap<(NodeIndex, NodeIndex), &Link> = links
        .values()
        .map(|(from, to, link, _)| ((*from, *to), *link))
        .collect();
    let mut asked: Vec<Asked> = by_trace.keys().chain(by_time.keys()).cloned().collect();
    asked.sort();
    asked.dedup();
    let mut findings = Vec::new();
    for key in asked {
        let (from, to, _) = &key;
        let Some(link) = link_between.get(&(*from, *to)) else {
            continue;
        };
        let (families, is_traced) = match (by_trace.get(&key), by_time.get(&key)) {
            (Some(traced), _) if traced.len() >= LEAST_PARENTS => (traced, true),
            (_, Some(timed)) => (timed, false),
            (Some(traced), None) => (traced, true),
            (None, None) => continue,
        };
        let storm = retry_storm(context, &key, link, families);
        // What is repeated since it failed is no N+1.
        let found = storm.or_else(|| repeated(context, &key, link, families, is_traced));
        findings.extend(found);
    }
    findings
}

type Families<'a> = HashMap<(NodeIndex, Arc<str>), Vec<Caused<'a>>>;

/// Which calls were caused by the same call: as traces tell, and as times tell.
fn causes(mut process: Process<'_>) -> (Families<'_>, Families<'_>) {
    process
        .calls_in
        .retain(|call| call.end_ns - call.start_ns.min(call.end_ns) <= LONGEST_NS);
    process.calls_in.sort_by_key(|call| call.start_ns);
    process.calls_out.sort_by_key(|(_, call)| call.start_ns);
    let longest = process
        .calls_in
        .iter()
        .map(|call| call.end_ns.saturating_sub(call.start_ns))
        .max()
        .unwrap_or(0);
    let traces: std::collections::HashSet<u128> =
        process.calls_in.iter().filter_map(|call| call.trace).collect();
    let mut traced: HashMap<(u128, NodeIndex, Arc<str>), Caused<'_>> = HashMap::new();
    let mut timed: HashMap<(usize, NodeIndex, Arc<str>), Caused<'_>> = HashMap::new();
    for (to, call) in process.calls_out {
        if let Some(trace) = call.trace.filter(|trace| traces.contains(trace)) {
            let key = (trace, to, Arc::clone(&call.what));
            traced.entry(key).or_default().push(call);
            continue;
        }
        // Only calls that began at most the longest one before can still have been going on.
        let first = process
            .calls_in
            .partition_point(|parent| parent.start_ns.saturating_add(longest) < call.end_ns);
        let mut around = process.calls_in[first..]
            .iter()
            .enumerate()
            .take_while(|(_, parent)| parent.start_ns <= call.start_ns)
            .filter(|(_, parent)| parent.end_ns >= call.end_ns);
        if let (Some((number, _)), None) = (around.next(), around.next()) {
            let key = (first + number, to, Arc::clone(&call.what));
            timed.entry(key).or_default().push(call);
        }
    }
    let mut families = (Families::new(), Families::new());
    for ((_, to, what), caused) in traced {
        families.0.entry((to, what)).or_default().push(caused);
    }
    for ((_, to, what), caused) in timed {
        families.1.entry((to, what)).or_default().push(caused);
    }
    families
}

fn repeated(
    context: &Context<'_>,
    (from, to, what): &Asked,
    link: &Link,
    families: &[Caused<'_>],
    is_traced: bool,
) -> Option<FindingView> {
    let calls: usize = families.iter().map(Vec::len).sum();
    let mean = calls as f64 / families.len().max(1) as f64;
    if families.len() < LEAST_PARENTS || mean < context.input.thresholds.repeated {
        return None;
    }
    let most = families.iter().map(Vec::len).max().unwrap_or(0);
    let spent_ns: u64 = families
        .iter()
        .flatten()
        .map(|call| call.end_ns.saturating_sub(call.start_ns))
        .sum();
    let (from, to) = (context.id(*from).to_owned(), context.id(*to).to_owned());
    let mut found = finding(
        FindingKind::NPlusOne,
        Severity::Medium,
        format!("{from} asks {to} `{what}` {mean:.1} times for one call"),
        vec![from, to.clone()],
        &[
            ("times_for_one_call", mean),
            ("most_for_one_call", most as f64),
            ("calls_looked_at", families.len() as f64),
            (
                "time_for_one_call_us",
                spent_ns as f64 / 1000.0 / families.len() as f64,
            ),
            ("told_by_traceparent", f64::from(u8::from(is_traced))),
        ],
    );
    found.edges = context.edge_ids([link].into_iter());
    format!("Each adds a round trip: 1 ms more to {to} is {mean:.0} ms more to the caller.")
        .clone_into(&mut found.why);
    "Ask for all at once: a join, IN (...), MGET, a pipeline, a batch request; or keep the answers."
        .clone_into(&mut found.advice);
    found.test = suggest::latency(context, link, "10ms");
    Some(found)
}

fn retry_storm(
    context: &Context<'_>,
    (from, to, what): &Asked,
    link: &Link,
    families: &[Caused<'_>],
) -> Option<FindingView> {
    let thresholds = context.input.thresholds;
    let calls: usize = families.iter().map(Vec::len).sum();
    // A retry is a call that repeats one which had failed before it began.
    let retries: usize = families
        .iter()
        .map(|caused| {
            let again = caused
                .windows(2)
                .filter(|pair| pair[0].failed && pair[0].end_ns <= pair[1].start_ns);
            again.count()
        })
        .sum();
    let percent = retries as f64 * 100.0 / calls.max(1) as f64;
    if (retries as u64) < thresholds.least_calls / 2 || percent < thresholds.retry_percent {
        return None;
    }
    let attempts = calls as f64 / families.len().max(1) as f64;
    let (from, to) = (context.id(*from).to_owned(), context.id(*to).to_owned());
    let mut found = finding(
        FindingKind::RetryStorm,
        Severity::High,
        format!("{from} repeats failed calls to {to}: {percent:.0}% of `{what}` are retries"),
        vec![from, to.clone()],
        &[
            ("retries", retries as f64),
            ("retries_percent", percent),
            ("attempts_for_one_call", attempts),
        ],
    );
    found.edges = context.edge_ids([link].into_iter());
    format!("{to} gets {attempts:.1} times the load just when it is in trouble; with retries on each level they multiply.").clone_into(&mut found.why);
    "Retry on one level only, with a back-off that grows and has chance in it, and a budget such as one retry in ten \
     calls; stop asking for a while when most fail."
        .clone_into(&mut found.advice);
    found.test = suggest::reset(context, link);
    Some(found)
}
