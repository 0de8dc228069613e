//! Which recorded requests are sent, and when.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Options, Pace};
use crate::{
    protocol::ProtocolName,
    replay::exchange::{Exchange, Talk},
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
}

/// The requests of a connection whose order matters.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    /// None for bytes.
    pub(super) protocol: Option<ProtocolName>,
    pub(super) is_udp: bool,
    /// What the client began with.
    pub(super) login: Vec<(String, String)>,
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
        let (mut steps, mut lanes) = (Vec::new(), BTreeMap::<usize, Lane>::new());
        for (number, (index, talk, exchange)) in all.into_iter().enumerate() {
            let step = |protocol| Step {
                number,
                due: due(number, exchange),
                protocol,
                exchange: exchange.clone(),
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
                        steps: Vec::new(),
                    });
                    lane.steps.push(step(protocol.unwrap_or(ProtocolName::Redis)));
                }
            }
        }
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
