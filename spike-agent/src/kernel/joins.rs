//! Finds which connections that were open before the agent have both ends on this host.

use std::collections::{HashMap, HashSet};

use spike_common::{
    address::Endpoint,
    socket::{FlowKey, ServiceKey},
};

/// One end of an open connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// The network namespace's cookie.
    pub(super) netns: u64,
    pub(super) local: Endpoint,
    pub(super) remote: Endpoint,
    /// Whether it is at a listener's port; else it calls.
    pub(super) serves: bool,
}

/// For each end that serves and whose caller is here, too: the caller's index.
///
/// Most ends know each other by the same two addresses. Where the destination was translated they have the caller's
/// address in common, and are taken for a pair when no other connection comes from there. Where the source was translated
/// as well they have nothing in common, and stay apart.
pub(super) fn callers(ends: &[End]) -> HashMap<usize, usize> {
    let indexed = || ends.iter().enumerate();
    let calling: HashMap<FlowKey, usize> = indexed()
        .filter(|(_, end)| !end.serves)
        .map(|(index, end)| (FlowKey::new(end.netns, end.local, end.remote), index))
        .collect();
    let serving = || indexed().filter(|(_, end)| end.serves);
    let mut pairs: HashMap<usize, usize> = serving()
        .filter_map(|(index, end)| {
            let caller = calling.get(&FlowKey::new(end.netns, end.remote, end.local))?;
            Some((index, *caller))
        })
        .collect();
    let paired: HashSet<usize> = pairs.values().copied().collect();
    let mut by_address: HashMap<ServiceKey, Vec<usize>> = HashMap::new();
    for (index, end) in indexed().filter(|(index, end)| !end.serves && !paired.contains(index)) {
        let own = ServiceKey::new(end.netns, end.local);
        by_address.entry(own).or_default().push(index);
    }
    for (index, end) in serving() {
        if pairs.contains_key(&index) {
            continue;
        }
        let caller = ServiceKey::new(end.netns, end.remote);
        if by_address.get(&caller).is_some_and(|from| from.len() == 1)
            && let Some(from) = by_address.remove(&caller)
        {
            pairs.insert(index, from[0]);
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn end(netns: u64, local: &str, remote: &str, serves: bool) -> End {
        let endpoint = |text: &str| Endpoint::from(text.parse::<SocketAddr>().unwrap());
        End {
            netns,
            local: endpoint(local),
            remote: endpoint(remote),
            serves,
        }
    }

    fn pairs(ends: &[End]) -> Vec<(usize, usize)> {
        let mut pairs: Vec<_> = callers(ends).into_iter().collect();
        pairs.sort_unstable();
        pairs
    }

    #[test]
    fn ends_with_the_same_addresses_are_one_connection() {
        let ends = [
            end(1, "127.0.0.1:40000", "127.0.0.1:80", false),
            end(1, "127.0.0.1:80", "127.0.0.1:40000", true),
            // In another namespace these are others.
            end(2, "127.0.0.1:80", "127.0.0.1:40000", true),
            end(2, "10.0.0.2:41000", "10.0.0.3:80", false),
            end(3, "10.0.0.3:80", "10.0.0.2:41000", true),
            end(3, "10.0.0.3:80", "10.0.9.9:41000", true),
        ];
        assert_eq!(pairs(&ends), [(1, 0), (4, 3)]);
    }

    #[test]
    fn a_translated_destination_leaves_the_callers_address() {
        let translated = [
            end(1, "10.0.0.2:40000", "10.96.0.10:80", false),
            end(3, "10.0.0.3:8080", "10.0.0.2:40000", true),
        ];
        assert_eq!(pairs(&translated), [(1, 0)]);
        // Its own callee is known: the other one has another caller, whose address is the same in another network.
        let known = [
            end(1, "10.0.0.2:40000", "10.0.0.4:80", false),
            end(4, "10.0.0.4:80", "10.0.0.2:40000", true),
            end(3, "10.0.0.3:8080", "10.0.0.2:40000", true),
        ];
        assert_eq!(pairs(&known), [(1, 0)]);
        // Which of the two it is cannot be told.
        let two = [
            end(1, "10.0.0.2:40000", "10.96.0.10:80", false),
            end(1, "10.0.0.2:40000", "10.96.0.11:80", false),
            end(3, "10.0.0.3:8080", "10.0.0.2:40000", true),
        ];
        assert_eq!(pairs(&two), []);
    }
}
