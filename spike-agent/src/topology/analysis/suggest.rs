//! The `spike fault` commands that show what a finding means, for a minute.

use std::collections::BTreeSet;

use super::Context;
use crate::model::fault_words::{edge_words, to_words};
use crate::topology::Link;

/// How long such a fault lives.
const TTL: &str = "1m";
/// Addresses that are refused by one line at most.
const MOST: usize = 4;

/// Delays the answers on the busiest edge of a link.
pub(super) fn latency(context: &Context<'_>, link: &Link, delay: &str) -> String {
    let busiest = context.flows(link).max_by_key(|flow| flow.counts.calls);
    busiest.map_or_else(String::new, |flow| {
        let ends = edge_words(&flow.view);
        format!("spike fault add latency --delay {delay}{ends} --ttl {TTL}")
    })
}

/// Resets some connections on the busiest edge of a link.
pub(super) fn reset(context: &Context<'_>, link: &Link) -> String {
    let busiest = context
        .flows(link)
        .max_by_key(|flow| flow.counts.calls + flow.counts.opened);
    busiest.map_or_else(String::new, |flow| {
        let ends = edge_words(&flow.view);
        format!("spike fault add reset --percent 20{ends} --ttl {TTL}")
    })
}

/// Refuses every new connection to what some links lead to: one fault for each address and port.
pub(super) fn refuse(context: &Context<'_>, links: &[&Link]) -> String {
    let flows = links.iter().flat_map(|link| context.flows(link));
    let places: BTreeSet<String> = flows.map(|flow| to_words(&flow.view)).collect();
    let commands: Vec<String> = places
        .iter()
        .take(MOST)
        .map(|to| format!("spike fault add refuse{to} --ttl {TTL}"))
        .collect();
    commands.join(" && ")
}
