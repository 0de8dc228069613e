//! Calls are counted at the sides that are here, in a bounded number of series.

use super::CallMeter;
use crate::{
    export::{
        family::{Family, Value},
        testing::{call, ends},
    },
    protocol::{ProtocolName, Side},
};

/// Calls of each metric of calls: its name, the service, how many.
fn told(families: &[Family]) -> Vec<(&'static str, String, u64)> {
    let mut all = Vec::new();
    for family in families {
        for point in &family.points {
            if let Value::Histogram(histogram) = &point.value {
                let service = point.service.as_deref().unwrap_or("-").to_owned();
                all.push((family.metric.name, service, histogram.count()));
            }
        }
    }
    all.sort();
    all
}

#[test]
fn a_call_is_counted_at_each_side_that_is_here() {
    let mut meter = CallMeter::new(100);
    let get = call(ProtocolName::Http1, "GET", "/", Some("200"));
    let mut ends = ends("shop", "web");
    meter.count(&get, &ends);
    ends.server_is_here = false;
    meter.count(&get, &ends);
    (ends.seen_at, ends.server_is_here) = (Side::Server, true);
    meter.count(&get, &ends);
    assert_eq!(
        told(&meter.families()),
        [
            ("http.client.request.duration", "shop".to_owned(), 2),
            ("http.server.request.duration", "web".to_owned(), 2),
        ]
    );
}

#[test]
fn a_database_is_told_of_at_its_clients_alone() {
    let mut meter = CallMeter::new(100);
    let get = call(ProtocolName::Redis, "GET", "user:{id}", Some("OK"));
    meter.count(&get, &ends("shop", "cache"));
    let mut remote = ends("10.0.0.9", "cache");
    remote.seen_at = Side::Server;
    meter.count(&get, &remote);
    assert_eq!(
        told(&meter.families()),
        [("db.client.operation.duration", "shop".to_owned(), 1)]
    );
}

#[test]
fn a_duration_falls_into_the_bucket_that_ends_at_it() {
    let mut meter = CallMeter::new(100);
    let mut get = call(ProtocolName::Http1, "GET", "/", Some("200"));
    for took_ns in [1, 5_000_000, 5_000_001, 20_000_000_000] {
        get.ended_ns = get.started_ns + took_ns;
        meter.count(&get, &ends("shop", "web"));
    }
    let families = meter.families();
    let Value::Histogram(histogram) = &families[0].points[0].value else {
        panic!("no histogram");
    };
    assert_eq!(histogram.counts[..3], [2, 1, 0]);
    assert_eq!(histogram.counts.last(), Some(&1));
    assert!((histogram.sum - 20.010_000_002).abs() < 1e-9);
}

#[test]
fn made_up_paths_share_one_series_once_there_is_no_room() {
    let mut meter = CallMeter::new(10);
    for number in 0..1000 {
        let get = call(ProtocolName::Http1, "GET", &format!("/{number}"), Some("200"));
        meter.count(&get, &ends("shop", "web"));
    }
    let families = meter.families();
    let told = told(&families);
    assert_eq!(told.len(), 12, "ten, and one for each metric: {told:?}");
    assert_eq!(told.iter().map(|(_, _, count)| count).sum::<u64>(), 2000);
    let folded = families
        .iter()
        .find(|family| family.metric.name == "spike.calls.folded");
    assert_eq!(folded.unwrap().points[0].value, Value::Count(1990));
}

#[test]
fn what_was_no_longer_looked_at_has_no_duration() {
    let mut meter = CallMeter::new(10);
    let mut get = call(ProtocolName::Http1, "GET", "/", None);
    get.complete = false;
    meter.count(&get, &ends("shop", "web"));
    assert_eq!(told(&meter.families()), []);
    get.failed = true;
    meter.count(&get, &ends("shop", "web"));
    assert_eq!(told(&meter.families()).len(), 2);
}
