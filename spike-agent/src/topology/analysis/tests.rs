//! Topologies with known answers, and a clean one.

use std::time::{Duration, UNIX_EPOCH};

use super::super::graph::tests::{flow, observed};
use super::*;
use crate::model::{
    Fault,
    fault_words::FaultWords,
    view::{FindingKind as Kind, WithoutView},
};
use crate::topology::{Counts, DecodedCounts};

/// What is looked at in a test.
#[derive(Default)]
struct Case {
    flows: Vec<Flow>,
    recent: Vec<RecentCall>,
    facts: BTreeMap<u64, Facts>,
    thresholds: Thresholds,
}

impl Case {
    fn of(flows: Vec<Flow>) -> Self {
        Self {
            flows,
            ..Self::default()
        }
    }

    fn look(&self, without: Option<&str>) -> Result<AnalysisView, String> {
        let observed = observed(self.flows.clone());
        let input = Input {
            observed: &observed,
            recent: &self.recent,
            facts: &self.facts,
            thresholds: &self.thresholds,
            now: UNIX_EPOCH + Duration::from_secs(1_000_000),
        };
        analyze(&input, without)
    }

    fn findings(&self) -> Vec<FindingView> {
        let findings = self.look(None).unwrap().findings;
        for finding in &findings {
            assert!(!finding.title.is_empty() && !finding.why.is_empty() && !finding.advice.is_empty());
            for command in finding.test.split(" && ").filter(|command| !command.is_empty()) {
                let words = command.strip_prefix("spike fault add ").unwrap();
                let raw = FaultWords::parse_str(words).unwrap().to_raw().unwrap();
                Fault::try_from(&raw).unwrap_or_else(|error| panic!("{command}: {error}"));
            }
        }
        findings
    }

    fn kinds(&self) -> Vec<Kind> {
        self.findings().iter().map(|finding| finding.kind).collect()
    }

    /// The one finding of a kind.
    #[track_caller]
    fn one(&self, kind: Kind) -> FindingView {
        let all = self.findings();
        let mut found = all.iter().filter(|finding| finding.kind == kind);
        let one = found.next().unwrap_or_else(|| panic!("no {kind:?} in {all:#?}"));
        assert!(found.next().is_none(), "more than one {kind:?} in {all:#?}");
        one.clone()
    }

    fn without(&self, name: &str) -> WithoutView {
        self.look(Some(name)).unwrap().without.unwrap()
    }

    /// Adds a call of an edge, at so many microseconds for so many.
    fn call(
        &mut self,
        edge: (&str, &str),
        what: &str,
        start: u64,
        took: u64,
        failed: bool,
        trace: Option<u128>,
    ) {
        let edge = self
            .flows
            .iter()
            .find(|flow| {
                let name = |end: Option<&crate::model::view::EndView>| end.map(|end| end.service.clone());
                name(flow.view.caller.as_ref()).as_deref() == Some(edge.0)
                    && name(flow.view.destination.process.as_ref()).as_deref() == Some(edge.1)
            })
            .unwrap()
            .id;
        self.recent.push(RecentCall {
            edge,
            start_ns: start * 1000,
            end_ns: (start + took) * 1000,
            what: what.into(),
            failed,
            trace,
        });
    }
}

/// Two fronts, two of each service in the middle, and stores that two services share at most.
fn clean() -> Vec<Flow> {
    let mut flows = Vec::new();
    for (from, to, calls) in [
        ("load", "front", 1_000),
        ("load", "front#2", 1_000),
        ("front", "users", 500),
        ("front#2", "users#2", 500),
        ("front", "orders", 500),
        ("front#2", "orders#2", 500),
        ("users", "redis", 600),
        ("orders", "redis", 700),
        ("orders", "stock", 500),
        ("users#2", "redis", 600),
    ] {
        flows.push(flow(from, to, "http", calls, 1_000));
    }
    flows
}

#[test]
fn a_clean_topology_is_left_alone() {
    let mut case = Case::of(clean());
    for number in 0..300 {
        let at = number * 10_000;
        case.call(("load", "front"), "GET /", at, 5_000, false, None);
        case.call(
            ("front", "users"),
            "GET /users/{id}",
            at + 100,
            2_000,
            false,
            None,
        );
        case.call(
            ("front", "orders"),
            "GET /orders",
            at + 2_200,
            2_000,
            number % 200 == 0,
            None,
        );
    }
    assert_eq!(case.findings(), []);
}

#[test]
fn a_ring_is_found_with_its_shortest_way() {
    let mut flows = clean();
    flows.push(flow("orders", "billing", "http", 300, 1_000));
    flows.push(flow("billing", "mail", "http", 200, 1_000));
    flows.push(flow("mail", "orders", "http", 100, 1_000));
    let ring = Case::of(flows).one(Kind::Cycle);
    let mut names = ring.services.clone();
    names.sort();
    assert_eq!(names, ["billing", "mail", "orders"]);
    assert_eq!(
        (ring.edges.len(), ring.numbers["least_calls_per_second"]),
        (3, 1.0)
    );
    assert!(ring.title.matches("->").count() == 3, "{}", ring.title);
    // A service that calls itself is no ring of services.
    let mut flows = clean();
    flows.push(flow("orders", "orders#2", "http", 300, 1_000));
    assert!(!Case::of(flows).kinds().contains(&Kind::Cycle));
}

#[test]
fn a_single_instance_that_others_are_reached_through_is_found() {
    let mut flows = clean();
    for (from, to) in [("front", "gate"), ("gate", "pay"), ("pay", "bank")] {
        flows.push(flow(from, to, "http", 300, 1_000));
    }
    let found = Case::of(flows.clone()).one(Kind::SinglePointOfFailure);
    assert_eq!(found.services, ["gate", "bank", "pay"]);
    assert_eq!(found.numbers["reached_through_it_alone"], 2.0);
    assert_eq!(found.numbers["splits_the_map"], 1.0);
    assert!(
        found
            .test
            .starts_with("spike fault add refuse --to cidr=127.0.0.1 --to port="),
        "{}",
        found.test
    );
    // With a second instance it is none.
    flows.push(flow("front#2", "gate#2", "http", 300, 1_000));
    assert!(!Case::of(flows).kinds().contains(&Kind::SinglePointOfFailure));
}

#[test]
fn a_single_instance_that_many_share_is_found() {
    let mut flows = clean();
    flows.push(flow("stock", "redis", "redis", 300, 1_000));
    let found = Case::of(flows).one(Kind::SinglePointOfFailure);
    assert_eq!(
        (found.services[0].as_str(), found.numbers["callers"]),
        ("redis", 3.0)
    );
    // Names are asked of one resolver everywhere.
    let mut flows = clean();
    for from in ["front", "users", "orders", "stock"] {
        flows.push(flow(from, "resolver", "dns", 300, 1_000));
    }
    assert_eq!(Case::of(flows).findings(), []);
}

#[test]
fn the_only_link_between_two_halves_is_found() {
    let mut flows = clean();
    flows.push(flow("orders", "hub", "http", 300, 1_000));
    flows.push(flow("orders#2", "hub#2", "http", 300, 1_000));
    for to in ["x", "y"] {
        flows.push(flow("hub", to, "http", 300, 1_000));
    }
    let found = Case::of(flows).one(Kind::Bridge);
    assert_eq!(found.services, ["orders", "hub"]);
    assert_eq!(found.numbers.values().copied().fold(f64::INFINITY, f64::min), 3.0);
}

#[test]
fn a_long_chain_is_found_and_messages_end_one() {
    let names = ["load", "a", "b", "c", "d", "e", "f"];
    let chain = |protocol: &str| -> Vec<Flow> {
        let steps = names.windows(2).enumerate();
        steps
            .map(|(number, pair)| {
                let protocol = if number == 3 { protocol } else { "http" };
                flow(pair[0], pair[1], protocol, 100, 7_000 - number as u64 * 1_000)
            })
            .collect()
    };
    let found = Case::of(chain("grpc")).one(Kind::LongChain);
    assert_eq!(found.services, names);
    assert_eq!(found.numbers["calls_in_a_row"], 6.0);
    assert!((6_500.0..7_500.0).contains(&found.numbers["p99_us"]), "{found:?}");
    assert!(
        !Case::of(chain("kafka")).kinds().contains(&Kind::LongChain),
        "nobody waits for a message"
    );
    let mut five = chain("http");
    five.pop();
    assert!(!Case::of(five).kinds().contains(&Kind::LongChain));
    // Two clients of one chain are not two chains; a ring has no longest way.
    let mut ring = chain("http");
    ring.push(flow("cron", "a", "http", 100, 7_000));
    ring.push(flow("c", "b", "http", 100, 1_000));
    let kinds = Case::of(ring).kinds();
    assert_eq!(
        kinds.iter().filter(|kind| **kind == Kind::LongChain).count(),
        0,
        "b and c are one step now"
    );
}

#[test]
fn a_slow_chain_names_where_the_time_goes() {
    let flows = vec![
        flow("load", "web", "http", 100, 2_000_000),
        flow("web", "cart", "http", 100, 1_900_000),
        flow("web", "users", "http", 100, 10_000),
        flow("cart", "redis", "redis", 100, 100_000),
    ];
    let found = Case::of(flows).one(Kind::SlowChain);
    assert_eq!(found.services, ["load", "web", "cart", "redis"]);
    assert!(found.title.ends_with("most of it in cart"), "{}", found.title);
    assert!(
        (1_750_000.0..1_850_000.0).contains(&found.numbers["own_time_us"]),
        "{found:?}"
    );
}

#[test]
fn fan_out_is_found() {
    let with = |count: usize| -> Vec<Flow> {
        (0..count)
            .map(|number| {
                flow(
                    "api",
                    &format!("s{}", char::from(b'a' + number as u8)),
                    "http",
                    100,
                    1_000,
                )
            })
            .collect()
    };
    let found = Case::of(with(10)).one(Kind::FanOut);
    assert_eq!((found.services.len(), found.numbers["services"]), (11, 10.0));
    assert!(!Case::of(with(9)).kinds().contains(&Kind::FanOut));
}

/// `web` is called 20 times, and asks `db` so often for each.
fn asking(times: u64, trace: bool, overlap: bool) -> Case {
    let mut case = Case::of(vec![
        flow("load", "web", "http", 20, 50_000),
        flow("web", "db", "postgres", 20 * times, 1_000),
    ]);
    for parent in 0..20 {
        let at = if overlap { parent * 1_000 } else { parent * 100_000 };
        let id = trace.then_some(u128::from(parent) + 1);
        case.call(("load", "web"), "GET /orders", at, 90_000, false, id);
        for child in 0..times {
            case.call(
                ("web", "db"),
                "SELECT items",
                at + 1_000 + child * 2_000,
                1_000,
                false,
                id,
            );
        }
    }
    case
}

#[test]
fn the_same_request_again_and_again_is_found_by_time_and_by_trace() {
    for (trace, overlap) in [(false, false), (true, true)] {
        let found = asking(12, trace, overlap).one(Kind::NPlusOne);
        assert_eq!(found.services, ["web", "db"]);
        assert_eq!(found.numbers["times_for_one_call"], 12.0);
        assert_eq!(found.numbers["calls_looked_at"], 20.0);
        assert_eq!(found.numbers["told_by_traceparent"], f64::from(u8::from(trace)));
        assert!(found.title.contains("`SELECT items`"), "{}", found.title);
    }
    let kinds = asking(12, true, true).kinds();
    assert!(!kinds.contains(&Kind::Chatty), "it is told already: {kinds:?}");
    assert!(!asking(4, false, false).kinds().contains(&Kind::NPlusOne));
    let overlapping = asking(12, false, true).kinds();
    assert!(
        !overlapping.contains(&Kind::NPlusOne),
        "which call caused which is not known"
    );
    assert!(overlapping.contains(&Kind::Chatty), "but how many there are is");
}

#[test]
fn chatty_edges_are_found_by_counts_alone() {
    let flows = |calls: u64| {
        vec![
            flow("load", "web", "http", 100, 9_000),
            flow("web", "db", "postgres", calls, 200),
        ]
    };
    let found = Case::of(flows(1_500)).one(Kind::Chatty);
    assert_eq!(found.numbers["calls_for_one_call"], 15.0);
    assert!(
        (2_800.0..3_200.0).contains(&found.numbers["time_for_one_call_us"]),
        "{found:?}"
    );
    assert!(!Case::of(flows(900)).kinds().contains(&Kind::Chatty));
}

#[test]
fn retries_of_failed_calls_are_a_storm_and_repeated_good_ones_are_not() {
    let retrying = |failing: bool| {
        let mut case = Case::of(vec![
            flow("load", "web", "http", 20, 50_000),
            flow("web", "pay", "http", 80, 1_000),
        ]);
        for parent in 0..20 {
            let at = parent * 100_000;
            case.call(("load", "web"), "POST /buy", at, 90_000, failing, None);
            for attempt in 0..4 {
                case.call(
                    ("web", "pay"),
                    "POST /pay",
                    at + 1_000 + attempt * 10_000,
                    1_000,
                    failing,
                    None,
                );
            }
        }
        case
    };
    let found = retrying(true).one(Kind::RetryStorm);
    assert_eq!(found.services, ["web", "pay"]);
    assert_eq!(
        (found.numbers["retries"], found.numbers["attempts_for_one_call"]),
        (60.0, 4.0)
    );
    assert_eq!(retrying(false).findings(), []);
}

#[test]
fn connecting_in_vain_again_and_again_is_a_storm() {
    let with = |refused: u64| {
        let mut dead = flow("web", "dead", "tcp", 0, 1);
        dead.counts = Counts {
            failed: [refused, 0, 0, 0, 0],
            ..Counts::default()
        };
        Case::of(vec![flow("load", "web", "http", 100, 9_000), dead])
    };
    let found = with(500).one(Kind::RetryStorm);
    assert_eq!(found.numbers["attempts_each"], 5.0);
    assert!(
        !with(90).kinds().contains(&Kind::RetryStorm),
        "once for each call is no storm"
    );
    assert!(with(90).kinds().contains(&Kind::FailingEdge));
}

#[test]
fn failing_edges_are_found() {
    let with = |calls: u64, failed: u64| {
        let mut failing = flow("web", "pay", "http", calls, 1_000);
        failing.counts.decoded = Some(DecodedCounts {
            calls,
            failed,
            ..DecodedCounts::default()
        });
        Case::of(vec![failing])
    };
    let found = with(200, 30).one(Kind::FailingEdge);
    assert_eq!(
        (found.numbers["errors_percent"], found.severity),
        (15.0, Severity::High)
    );
    assert_eq!(with(200, 4).one(Kind::FailingEdge).severity, Severity::Medium);
    assert_eq!(with(200, 1).findings(), []);
    assert_eq!(with(10, 9).findings(), [], "too few to judge");
}

#[test]
fn hot_and_idle_edges_are_found() {
    let mut flows = clean();
    flows.push(flow("users", "cache", "redis", 50_000, 100));
    let found = Case::of(flows).one(Kind::HotEdge);
    assert_eq!(found.services, ["users", "cache"]);

    let mut flows = clean();
    let mut idle = flow("users", "old-db", "tcp", 0, 1);
    idle.counts = Counts {
        open: 8,
        ..Counts::default()
    };
    flows.push(idle);
    let mut case = Case::of(flows);
    assert_eq!(case.findings(), [], "100 s are not long");
    case.thresholds.idle = Duration::from_secs(60);
    let found = case.one(Kind::IdleEdge);
    assert_eq!(
        (found.numbers["open"], found.services[1].as_str()),
        (8.0, "old-db")
    );
}

#[test]
fn a_connection_for_every_call_is_found() {
    let with = |opened: u64| {
        let mut flow = flow("web", "db", "postgres", 100, 1_000);
        flow.counts.opened = opened;
        Case::of(vec![flow])
    };
    assert_eq!(
        with(98).one(Kind::ConnectPerCall).numbers["connections_percent"],
        98.0
    );
    assert_eq!(with(10).findings(), []);
}

#[test]
fn backends_that_get_or_take_unlike_shares_are_found() {
    // One caller in front of both.
    let with = |calls: [u64; 2], micros: [u64; 2]| {
        Case::of(vec![
            flow("web", "api", "http", calls[0], micros[0]),
            flow("web", "api#2", "http", calls[1], micros[1]),
        ])
    };
    let found = with([900, 100], [1_000, 1_000]).one(Kind::UnevenBackends);
    assert_eq!(
        (found.numbers["most_calls"], found.numbers["least_calls"]),
        (900.0, 100.0)
    );
    let slow = with([500, 480], [1_000, 9_000]).one(Kind::UnevenBackends);
    assert!(
        (8_500.0..9_500.0).contains(&slow.numbers["slow_p50_us"]),
        "{slow:?}"
    );
    assert_eq!(with([500, 450], [1_000, 1_100]).findings(), []);
    assert_eq!(with([12, 4], [1_000, 1_000]).findings(), [], "chance");
    // Each caller has its own.
    let own = Case::of(vec![
        flow("web", "api", "http", 900, 1_000),
        flow("web#2", "api#2", "http", 100, 1_000),
    ]);
    assert_eq!(own.findings(), []);
}

#[test]
fn credentials_in_the_clear_and_old_certificates_are_found() {
    let here = flow("web", "api", "http", 100, 1_000);
    let away = flow("web", "10.1.2.3", "http", 100, 1_000);
    let (here_id, away_id) = (here.id, away.id);
    let mut case = Case::of(vec![here, away]);
    let facts = |credentials, certificate_ends| Facts {
        credentials,
        certificate_ends,
    };
    case.facts = BTreeMap::from([(here_id, facts(Some("Redis AUTH"), None))]);
    assert_eq!(
        case.one(Kind::PlaintextCredentials).severity,
        Severity::Low,
        "within the host"
    );
    case.facts = BTreeMap::from([(away_id, facts(Some("HTTP Basic"), None))]);
    let found = case.one(Kind::PlaintextCredentials);
    assert_eq!(
        (found.severity, found.services[1].as_str()),
        (Severity::High, "10.1.2.3")
    );

    let days = |days: i64| facts(None, Some(1_000_000 + days * 86_400));
    case.facts = BTreeMap::from([(here_id, days(10)), (away_id, days(90))]);
    let found = case.one(Kind::CertificateExpiry);
    assert_eq!(
        (found.numbers["days_left"], found.severity),
        (10.0, Severity::Medium)
    );
    assert!(found.title.ends_with("expires in 10days"), "{}", found.title);
    case.facts = BTreeMap::from([(here_id, days(-2))]);
    assert!(
        case.one(Kind::CertificateExpiry)
            .title
            .contains("expired 2days ago")
    );
    case.facts = BTreeMap::from([(here_id, days(30))]);
    assert_eq!(case.findings(), []);
}

#[test]
fn what_would_be_without_a_service_is_told() {
    let mut flows = clean();
    flows.push(flow("stock", "disk", "http", 100, 1_000));
    let case = Case::of(flows);
    let without = case.without("orders");
    assert_eq!(without.cut_off, ["disk", "stock"]);
    let affected: Vec<(&str, u64)> = without
        .affected
        .iter()
        .map(|affected| (affected.service.as_str(), affected.distance))
        .collect();
    assert_eq!(affected, [("front", 1), ("load", 2)]);
    assert!(without.calls_percent > 0.0 && without.calls_percent < 100.0);
    let redis = case.without("redis");
    assert!(redis.cut_off.is_empty() && redis.affected.len() == 4, "{redis:?}");
    assert!(redis.test.starts_with("spike fault add refuse"), "{}", redis.test);
    let error = case.look(Some("rediss")).unwrap_err();
    assert!(
        error.contains("no service `rediss`") && error.contains("redis"),
        "{error}"
    );
}

#[test]
fn an_empty_map_has_no_findings() {
    assert_eq!(Case::default().findings(), []);
}

#[test]
fn a_map_that_is_all_one_ring_is_looked_at_too() {
    let names = ["a", "b", "c"];
    let ring = names.iter().zip(names.iter().cycle().skip(1));
    let case = Case::of(
        ring.map(|(from, to)| flow(from, to, "http", 100, 1_000))
            .collect(),
    );
    assert_eq!(case.one(Kind::Cycle).services.len(), 3);
}
