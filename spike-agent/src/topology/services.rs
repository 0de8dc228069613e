//! Sums the map up by service.

use std::collections::BTreeMap;

use crate::model::{
    ServiceKind,
    view::{EdgeView, EndView, MapView, ServiceList, ServiceView, TrafficView},
};

/// The services of a map, by name.
pub fn services(map: &MapView) -> ServiceList {
    let mut services: BTreeMap<(&str, ServiceKind), (TrafficView, TrafficView)> = BTreeMap::new();
    for edge in &map.edges {
        add(&mut services.entry(caller(edge)).or_default().0, edge);
        add(&mut services.entry(callee(edge)).or_default().1, edge);
    }
    let view = |((name, kind), (calls, called)): ((&str, ServiceKind), _)| ServiceView {
        name: name.to_owned(),
        kind,
        calls,
        called,
    };
    ServiceList {
        services: services.into_iter().map(view).collect(),
    }
}

/// Who calls.
pub(super) fn caller(edge: &EdgeView) -> (&str, ServiceKind) {
    match (&edge.caller, &edge.peer) {
        (Some(end), _) => of(end),
        (None, peer) => (peer.as_deref().unwrap_or("?"), ServiceKind::External),
    }
}

/// Who is called.
pub(super) fn callee(edge: &EdgeView) -> (&str, ServiceKind) {
    let destination = &edge.destination;
    let name = || destination.name.as_deref().unwrap_or(&destination.address);
    destination
        .process
        .as_ref()
        .map_or_else(|| (name(), ServiceKind::External), of)
}

fn of(end: &EndView) -> (&str, ServiceKind) {
    (&end.service, end.kind)
}

fn add(sum: &mut TrafficView, edge: &EdgeView) {
    sum.edges += 1;
    sum.opened += edge.opened;
    sum.failed += edge.failed;
    sum.reset += edge.reset;
    sum.requests += edge.calls;
    sum.bytes_out += edge.bytes_out;
    sum.bytes_in += edge.bytes_in;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::view::DestinationView;

    fn end(service: &str) -> Option<EndView> {
        Some(EndView {
            service: service.to_owned(),
            kind: ServiceKind::Unit,
            ..EndView::default()
        })
    }

    fn edge(from: Option<EndView>, to: Option<EndView>, name: Option<&str>) -> EdgeView {
        EdgeView {
            caller: from,
            peer: Some("10.0.0.9".to_owned()),
            destination: DestinationView {
                address: "10.0.0.1".to_owned(),
                name: name.map(str::to_owned),
                process: to,
                ..DestinationView::default()
            },
            opened: 1,
            calls: 10,
            bytes_out: 100,
            ..EdgeView::default()
        }
    }

    #[test]
    fn a_service_is_the_sum_of_its_edges() {
        let map = MapView {
            edges: vec![
                edge(end("web"), end("db"), Some("db.test")),
                edge(end("web"), None, Some("api.test")),
                edge(end("web"), None, None),
                edge(None, end("web"), None),
            ],
            ..MapView::default()
        };
        let services = services(&map).services;
        let shown: Vec<_> = services
            .iter()
            .map(|service| {
                let (calls, called) = (service.calls, service.called);
                (
                    service.name.as_str(),
                    calls.edges,
                    calls.requests,
                    called.edges,
                    called.bytes_out,
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("10.0.0.1", 0, 0, 1, 100),
                ("10.0.0.9", 1, 10, 0, 0),
                ("api.test", 0, 0, 1, 100),
                ("db", 0, 0, 1, 100),
                ("web", 3, 30, 1, 100),
            ]
        );
        assert_eq!(services[0].kind, ServiceKind::External);
        assert_eq!(services[4].kind, ServiceKind::Unit);
    }
}
