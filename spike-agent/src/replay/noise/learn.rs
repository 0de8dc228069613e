//! Learns noise from two recordings of the same run: what differs between them says nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{ALWAYS, Noise, Rule, RuleSide};
use crate::replay::{exchange::Exchange, exchange::Talk, parts::Parts};

/// What two recordings told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// The rules.
    pub noise: Noise,
    /// Calls that were compared.
    pub compared: usize,
    /// Kinds of calls that one of them has more often, with both numbers.
    pub uneven: Vec<(String, usize, usize)>,
}

/// Compares the n-th call of each kind in one recording with the n-th in the other.
pub fn learn(a: &[Talk], b: &[Talk]) -> Learned {
    let (a, b) = (by_kind(a), by_kind(b));
    let mut learned = Learned::default();
    let mut rules = BTreeSet::new();
    let kinds: BTreeSet<&str> = a.keys().chain(b.keys()).copied().collect();
    for kind in kinds {
        let (first, second) = (all(&a, kind), all(&b, kind));
        if first.len() != second.len() {
            let uneven = (kind.to_owned(), first.len(), second.len());
            learned.uneven.push(uneven);
        }
        for (one, other) in first.iter().zip(second) {
            learned.compared += 1;
            note(&mut rules, RuleSide::Request, kind, &one.request, &other.request);
            note(
                &mut rules,
                RuleSide::Response,
                kind,
                &one.response,
                &other.response,
            );
        }
    }
    let rules = rules
        .into_iter()
        .map(|(call, side, part)| Rule { side, call, part });
    learned.noise.rules = rules.collect();
    learned
}

fn by_kind(talks: &[Talk]) -> BTreeMap<&str, Vec<&Arc<Exchange>>> {
    let mut all: Vec<_> = talks.iter().flat_map(|talk| &talk.exchanges).collect();
    all.sort_by_key(|exchange| exchange.started_ns);
    let mut kinds = BTreeMap::<&str, Vec<_>>::new();
    for exchange in all {
        kinds.entry(&exchange.kind).or_default().push(exchange);
    }
    kinds
}

fn all<'a, 'b>(kinds: &'b BTreeMap<&str, Vec<&'a Arc<Exchange>>>, kind: &str) -> &'b [&'a Arc<Exchange>] {
    kinds.get(kind).map(Vec::as_slice).unwrap_or_default()
}

fn note(
    rules: &mut BTreeSet<(String, RuleSide, String)>,
    side: RuleSide,
    kind: &str,
    one: &Parts,
    other: &Parts,
) {
    for difference in one.differences(other) {
        let is_known = side == RuleSide::Response && ALWAYS.contains(&difference.part.as_str());
        // A part that only one of them has is a change, not noise.
        if !is_known && difference.recorded.is_some() && difference.came.is_some() {
            rules.insert((kind.to_owned(), side, any_index(&difference.part)));
        }
    }
}

/// A body's part with `*` for the places in arrays: what differs in one element does in all.
fn any_index(part: &str) -> String {
    let Some(rest) = part.strip_prefix("body.") else {
        return part.to_owned();
    };
    let is_index = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
    let names = rest
        .split('.')
        .map(|name| if is_index(name) { "*" } else { name });
    ["body"].into_iter().chain(names).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::wire::testing::recorded;

    fn talk(id: &str, at: &str) -> Talk {
        let asked = format!("GET /orders?n={id} HTTP/1.1\r\nHost: a\r\n\r\nGET /same HTTP/1.1\r\n\r\n");
        let body = format!("{{\"items\":[{{\"id\":{id},\"at\":\"{at}\",\"name\":\"x\"}}]}}");
        let told = format!(
            "HTTP/1.1 200 OK\r\nDate: {at}\r\nContent-Length: {}\r\n\r\n{body}HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            body.len()
        );
        recorded("http", asked.as_bytes(), told.as_bytes()).split()
    }

    #[test]
    fn what_differs_between_two_runs_is_noise() {
        let learned = learn(&[talk("1", "mon")], &[talk("2", "tue")]);
        assert_eq!((learned.compared, learned.uneven.len()), (2, 0));
        let rules: Vec<_> = learned
            .noise
            .rules
            .iter()
            .map(|rule| (rule.side, rule.call.as_str(), rule.part.as_str()))
            .collect();
        assert_eq!(
            rules,
            [
                (RuleSide::Request, "GET /orders", "query.n"),
                (RuleSide::Response, "GET /orders", "body.items.*.at"),
                (RuleSide::Response, "GET /orders", "body.items.*.id"),
            ]
        );
        assert!(
            learn(&[talk("1", "mon")], &[talk("1", "mon")])
                .noise
                .rules
                .is_empty()
        );
    }

    #[test]
    fn what_one_run_has_more_often_is_told() {
        let learned = learn(&[talk("1", "a")], &[]);
        assert_eq!(
            learned.uneven,
            [("GET /orders".to_owned(), 1, 0), ("GET /same".to_owned(), 1, 0)]
        );
    }
}
