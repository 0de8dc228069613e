//! Each convention's attributes, with the statuses that the decoders tell.

use super::{connection_type, describe, of};
use crate::{
    export::{
        family::Attribute,
        testing::{call, ends},
    },
    protocol::{Call, ProtocolName, Side},
};

/// What a side of a call is told as: the span's name, then `name=value`, and whether it failed.
fn told(protocol: &str, call: &Call, side: Side) -> (String, bool) {
    let description = describe(of(protocol).unwrap(), call, &ends("shop", "web"), side);
    let mut text = description.name;
    for (name, value) in &description.attributes {
        let value = match value {
            Attribute::Text(text) => text.clone(),
            Attribute::Number(number) => number.to_string(),
            Attribute::Flag(flag) => flag.to_string(),
        };
        text += &format!(" | {name}={value}");
    }
    (text, description.failed)
}

fn of_call(operation: &str, target: &str, status: Option<&str>) -> Call {
    call(ProtocolName::Http1, operation, target, status)
}

#[test]
fn http_has_another_view_of_failure_at_each_side() {
    let missing = of_call("GET", "/users/{id}", Some("404"));
    assert_eq!(
        told("http", &missing, Side::Client),
        (
            "GET /users/{id} | http.request.method=GET | url.scheme=http | url.template=/users/{id} \
             | http.response.status_code=404 | error.type=404 | server.address=10.0.0.1 | server.port=80"
                .to_owned(),
            true
        )
    );
    assert_eq!(
        told("http2", &missing, Side::Server),
        (
            "GET /users/{id} | http.request.method=GET | url.scheme=http | url.template=/users/{id} \
             | network.protocol.version=2 | http.response.status_code=404"
                .to_owned(),
            false
        )
    );
    assert!(told("http", &of_call("GET", "/", Some("503")), Side::Server).1);
}

#[test]
fn what_a_client_can_make_up_is_not_told() {
    let (text, failed) = told("http", &of_call("BREW", "/", Some("200")), Side::Server);
    assert!(
        text.starts_with("HTTP / | http.request.method=_OTHER |"),
        "{text}"
    );
    assert!(!failed);
    let mut reset = of_call("GET", "/", None);
    reset.failed = true;
    let (text, failed) = told("http", &reset, Side::Client);
    assert!(text.contains("error.type=_OTHER") && failed, "{text}");
}

#[test]
fn rpc_names_the_method_in_full() {
    let mut refused = of_call("GetCart", "shop.v1.Cart", Some("NOT_FOUND"));
    assert_eq!(
        told("grpc", &refused, Side::Client),
        (
            "shop.v1.Cart/GetCart | rpc.system.name=grpc | rpc.method=shop.v1.Cart/GetCart \
             | rpc.response.status_code=NOT_FOUND | server.address=10.0.0.1 | server.port=80 | error.type=NOT_FOUND"
                .to_owned(),
            true
        )
    );
    assert!(!told("grpc", &refused, Side::Server).1);
    refused.failed = true;
    assert!(told("grpc", &refused, Side::Server).1);
}

#[test]
fn a_database_has_collections_or_keys() {
    let mut failed = of_call("SELECT", "nosuch", Some("1146 (42S02)"));
    failed.failed = true;
    assert_eq!(
        told("mysql", &failed, Side::Client).0,
        "SELECT nosuch | db.system.name=mysql | db.operation.name=SELECT | db.collection.name=nosuch \
         | db.response.status_code=1146 (42S02) | server.address=10.0.0.1 | server.port=80 \
         | error.type=1146 (42S02)"
    );
    let (text, _) = told("redis", &of_call("GET", "user:{id}", Some("OK")), Side::Client);
    assert!(
        text.contains("db.operation.name=GET") && !text.contains("collection"),
        "{text}"
    );
    let (text, _) = told(
        "postgresql",
        &of_call("connect", "shop", Some("OK")),
        Side::Client,
    );
    assert!(
        text.contains("db.namespace=shop") && !text.contains("collection"),
        "{text}"
    );
}

#[test]
fn messages_are_sent_received_and_settled() {
    for (protocol, operation, wanted) in [
        ("kafka", "Produce", Some("send")),
        ("kafka", "Fetch", Some("receive")),
        ("kafka", "Metadata", None),
        ("amqp", "basic.publish", Some("send")),
        ("amqp", "basic.get", Some("receive")),
        ("nats", "PUB", Some("send")),
        ("mqtt", "PUBLISH", Some("send")),
        ("mqtt", "SUBSCRIBE", None),
    ] {
        let (text, _) = told(protocol, &of_call(operation, "orders", Some("OK")), Side::Client);
        let kind = text.split("messaging.operation.type=").nth(1);
        let kind = kind.and_then(|rest| rest.split(' ').next());
        assert_eq!(kind, wanted, "{text}");
        assert!(text.contains("messaging.destination.name=orders"), "{text}");
        assert!(
            text.contains(&format!("messaging.operation.name={operation}")),
            "{text}"
        );
    }
    let mut pushed = of_call("basic.deliver", "orders", Some("ack"));
    pushed.from = Side::Server;
    let (text, _) = told("amqp", &pushed, Side::Client);
    assert!(
        text.contains("messaging.system=rabbitmq") && text.contains("=receive"),
        "{text}"
    );
}

#[test]
fn a_name_that_does_not_exist_is_an_error() {
    assert_eq!(
        told("dns", &of_call("A", "no.example", Some("NXDOMAIN")), Side::Client),
        (
            "A no.example | dns.question.name=no.example | error.type=NXDOMAIN".to_owned(),
            true
        )
    );
    assert!(!told("dns", &of_call("A", "a.example", Some("NOERROR")), Side::Client).1);
}

#[test]
fn connections_have_the_types_of_the_service_graph() {
    for (protocol, both_known, wanted) in [
        ("http", true, ""),
        ("http", false, "virtual_node"),
        ("tcp", true, ""),
        ("tls", false, "virtual_node"),
        ("redis", true, "database"),
        ("mysql", false, "database"),
        ("kafka", false, "messaging_system"),
    ] {
        assert_eq!(connection_type(protocol, both_known), wanted, "{protocol}");
    }
}
