//! Which recorded requests are sent, and when.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{LEAD, Options, Pace};
use crate::{
    protocol::ProtocolName,
    replay::exchange::{Answer, Exchange, Talk},
};

/// Why nothing can be sent.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// One target cannot be several servers.
    #[error("the recording has requests to several servers: choose one with --server: {}", .0.join(", "))]
    Servers(Vec<String>),
    /// It has no request to that server.
    #[error("the recording has no requests to {}; it has some to: {}", .0, .1.join(", "))]
    NoServer(String, Vec<String>),
    /// It has none at all.
    #[error("the recording has no request that could be sent again{}", .0.first().map(|why| format!(": {why}")).unwrap_or_default())]
    Nothing(Vec<String>),
}

/// One request that is sent.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// From 0, in recorded order.
    pub(super) number: usize,
    /// After the start.
    pub(super) due: Duration,
    pub(super) protocol: ProtocolName,
    pub(super) exchange: Arc<Exchange>,
    /// Of a lane: the place of its answer among the recorded answers of all lanes, in the order in which they came.
    pub(super) answer: usize,
    /// Of a lane: so many of them had come when it was sent.
    pub(super) after: usize,
}

/// When the last of the recorded answer came, in nanoseconds of the recording.
fn answered_ns(exchange: &Exchange) -> u64 {
    let (Answer::Raw { pieces, .. } | Answer::Stream { pieces, .. }) = &exchange.answer;
    let last = pieces.last().map(|piece| piece.after);
    let after = last.or(exchange.waited).unwrap_or_default();
    let after = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
    exchange.started_ns.saturating_add(after)
}

/// Says which answers each lane, and each request of one, is to wait for.
fn order(lanes: &mut BTreeMap<usize, Lane>) {
    let steps = lanes.values().flat_map(|lane| &lane.steps);
    let mut times: Vec<u64> = steps.map(|step| answered_ns(&step.exchange)).collect();
    times.sort_unstable();
    let before = |moment: u64| times.partition_point(|at| *at < moment);
    for lane in lanes.values_mut() {
        lane.after = before(lane.opened_ns);
    }
    let mut steps: Vec<&mut Step> = lanes.values_mut().flat_map(|lane| &mut lane.steps).collect();
    steps.sort_by_key(|step| answered_ns(&step.exchange));
    for (place, step) in steps.into_iter().enumerate() {
        step.answer = place;
        step.after = before(step.exchange.started_ns);
    }
}

/// The requests of a connection whose order matters.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    /// None for bytes.
    pub(super) protocol: Option<ProtocolName>,
    pub(super) is_udp: bool,
    /// What the client began with.
    pub(super) login: Vec<(String, String)>,
    opened_ns: u64,
    /// When it is opened, counted from [`LEAD`] before the start.
    pub(super) opens: Duration,
    /// So many of the lanes' answers had come when it was opened.
    pub(super) after: usize,
    pub(super) steps: Vec<Step>,
}

/// All that is sent.
#[derive(Debug)]
pub(super) struct Plan {
    /// Requests of HTTP: any connection will do.
    pub(super) steps: Arc<[Step]>,
    /// All others, by their connections.
    pub(super) lanes: Vec<Lane>,
    /// What is not sent, and why.
    pub(super) left_out: Vec<String>,
}

/// The servers in a recording.
pub fn servers(talks: &[Talk]) -> Vec<String> {
    let mut counts = BTreeMap::<&str, usize>::new();
    for talk in talks.iter().filter(|talk| !talk.exchanges.is_empty()) {
        *counts.entry(&talk.server).or_default() += talk.exchanges.len();
    }
    counts.into_keys().map(str::to_owned).collect()
}

fn is_sent(talk: &Talk) -> bool {
    talk.protocol != Some(ProtocolName::MySql)
}

/// What is sent of a connection, in one go each.
fn sent(talk: &Talk) -> &[Arc<Exchange>] {
    if talk.rounds.is_empty() {
        &talk.exchanges
    } else {
        &talk.rounds
    }
}

/// The only server, beside those that tell names.
fn only(talks: &[Talk], servers: &[String]) -> Option<String> {
    let is_dns = |server: &str| {
        let mut of_it = talks.iter().filter(|talk| talk.server == server);
        of_it.all(|talk| talk.protocol == Some(ProtocolName::Dns))
    };
    let mut others = servers.iter().filter(|server| !is_dns(server));
    match (servers, others.next(), others.next()) {
        ([server], ..) | (_, Some(server), None) => Some(server.clone()),
        _ => None,
    }
}

impl Plan {
    pub(super) fn new(talks: &[Talk], options: &Options) -> Result<Self, PlanError> {
        let servers = servers(talks);
        let server = match &options.server {
            Some(server) if !servers.contains(server) => {
                return Err(PlanError::NoServer(server.clone(), servers));
            }
            Some(server) => server.clone(),
            None if servers.is_empty() => String::new(),
            None => only(talks, &servers).ok_or(PlanError::Servers(servers))?,
        };
        let chosen: Vec<&Talk> = talks.iter().filter(|talk| talk.server == server).collect();
        let mut left_out: Vec<String> = chosen.iter().flat_map(|talk| talk.left_out.clone()).collect();
        for talk in chosen.iter().filter(|talk| !is_sent(talk)) {
            let name = talk.protocol.map_or("", ProtocolName::as_str);
            left_out.push(format!(
                "{} requests of {name}: it is not sent again",
                talk.exchanges.len()
            ));
        }
        let mut all: Vec<(usize, &Talk, &Arc<Exchange>)> = Vec::new();
        for (index, talk) in chosen.into_iter().filter(|talk| is_sent(talk)).enumerate() {
            all.extend(sent(talk).iter().map(|exchange| (index, talk, exchange)));
        }
        // Stable: requests of one moment keep their order.
        all.sort_by_key(|(_, _, exchange)| exchange.started_ns);
        let Some(first) = all.first().map(|(_, _, exchange)| exchange.started_ns) else {
            return Err(PlanError::Nothing(left_out));
        };
        let due = |number: usize, exchange: &Exchange| match options.pace {
            Pace::Speed(speed) => Duration::from_nanos(exchange.started_ns - first).div_f64(speed),
            Pace::Rate(rate) => Duration::from_secs_f64(number as f64 / rate),
        };
        // As recorded, so that what it takes is no part of the first request's time; at a rate, a while before that.
        let opens = |talk: &Talk, first_due: Duration| match options.pace {
            Pace::Speed(speed) if talk.opened_ns < first => {
                let before = Duration::from_nanos(first - talk.opened_ns);
                LEAD.saturating_sub(before.div_f64(speed))
            }
            Pace::Speed(speed) => {
                let behind = Duration::from_nanos(talk.opened_ns - first);
                LEAD + behind.div_f64(speed).min(first_due)
            }
            Pace::Rate(_) => first_due,
        };
        let (mut steps, mut lanes) = (Vec::new(), BTreeMap::<usize, Lane>::new());
        for (number, (index, talk, exchange)) in all.into_iter().enumerate() {
            let step = |protocol| Step {
                number,
                due: due(number, exchange),
                protocol,
                exchange: exchange.clone(),
                answer: 0,
                after: 0,
            };
            match talk.protocol {
                Some(protocol @ (ProtocolName::Http1 | ProtocolName::Http2 | ProtocolName::Grpc)) => {
                    steps.push(step(protocol));
                }
                protocol => {
                    let lane = lanes.entry(index).or_insert_with(|| Lane {
                        protocol,
                        is_udp: talk.is_udp,
                        login: talk.login.clone(),
                        opened_ns: talk.opened_ns,
                        opens: opens(talk, due(number, exchange)),
                        after: 0,
                        steps: Vec::new(),
                    });
                    lane.steps.push(step(protocol.unwrap_or(ProtocolName::Redis)));
                }
            }
        }
        order(&mut lanes);
        Ok(Self {
            steps: steps.into(),
            lanes: lanes.into_values().collect(),
            left_out,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.steps.len() + self.lanes.iter().map(|lane| lane.steps.len()).sum::<usize>()
    }
}
