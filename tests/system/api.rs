//! The HTTP API over its Unix socket, driven by curl.

use serde_json::Value;
use spike_tests::{agent::Agent, world::World};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("a_wrong_request_names_the_field", a_wrong_request_names_the_field),
    (
        "the_openapi_document_lists_the_routes",
        the_openapi_document_lists_the_routes,
    ),
    (
        "a_fault_lives_from_post_to_delete",
        a_fault_lives_from_post_to_delete,
    ),
];

/// Status and body of a request with curl.
fn request(world: &World, agent: &Agent, method: &str, path: &str, body: Option<&str>) -> (u16, Value) {
    let url = format!("http://localhost{path}");
    let mut args = vec![
        "-sS",
        "--unix-socket",
        agent.socket(),
        "-X",
        method,
        "-w",
        "\n%{http_code}",
    ];
    if let Some(body) = body {
        args.extend(["-H", "content-type: application/json", "--data-binary", body]);
    }
    args.push(&url);
    let text = world.place("operator").run("curl", &args).ok();
    let (body, status) = text.rsplit_once('\n').expect("a status");
    (
        status.parse().expect("a number"),
        serde_json::from_str(body).unwrap_or(Value::Null),
    )
}

fn a_wrong_request_names_the_field() {
    let world = World::new();
    let agent = Agent::start(&world);
    for (body, status, field) in [
        (
            r#"{"to":{"port":80},"effect":{"type":"latency","delay":"fast"}}"#,
            422,
            "effect.delay",
        ),
        (
            r#"{"to":{"port":80},"effect":{"type":"latency","delai":"1s"}}"#,
            422,
            "effect",
        ),
        (r#"{"to":{"port":80},"effect":{"type":"explode"}}"#, 422, "effect"),
        (r#"{"to":{"port":0},"effect":{"type":"refuse"}}"#, 422, "to.port"),
        (
            r#"{"to":{"port":80},"effect":{"type":"refuse"},"percent":101}"#,
            422,
            "percent",
        ),
        (
            r#"{"to":{"port":80},"effect":{"type":"refuse"},"ttl":"25h"}"#,
            422,
            "ttl",
        ),
        (
            r#"{"to":{"cidr":"10.0.0.1/8"},"effect":{"type":"refuse"}}"#,
            422,
            "to.cidr",
        ),
        (
            r#"{"from":{"port":0},"effect":{"type":"refuse"}}"#,
            422,
            "from.port",
        ),
        (
            r#"{"from":{"procces":"curl"},"effect":{"type":"refuse"}}"#,
            422,
            "from",
        ),
        (r#"{"from":{},"effect":{"type":"refuse"}}"#, 422, "from"),
        (r#"{"effect":{"type":"refuse"}}"#, 422, "from"),
        (r#"{"to":{"port":80}"#, 400, ""),
        ("", 400, ""),
    ] {
        let (code, problem) = request(&world, &agent, "POST", "/v1/faults", Some(body));
        assert_eq!(code, status, "{body}: {problem:#}");
        assert_eq!(problem["status"], status, "{body}: {problem:#}");
        let named = problem["field"].as_str().unwrap_or_default();
        assert!(named.starts_with(field), "{body}: {problem:#}");
        assert_eq!(problem["type"], "about:blank");
    }
    let (code, _) = request(&world, &agent, "GET", "/v1/faults/none", None);
    assert_eq!(code, 404);
    // After all that, the agent works.
    assert_eq!(request(&world, &agent, "GET", "/v1/status", None).0, 200);
}

fn the_openapi_document_lists_the_routes() {
    let world = World::new();
    let agent = Agent::start(&world);
    let (code, document) = request(&world, &agent, "GET", "/openapi.json", None);
    assert_eq!(code, 200);
    for path in [
        "/v1/status",
        "/v1/map",
        "/v1/faults",
        "/v1/faults/{name}",
        "/v1/captures",
        "/v1/panic",
        "/v1/exec",
    ] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
}

fn a_fault_lives_from_post_to_delete() {
    let world = World::new();
    let agent = Agent::start(&world);
    let body = r#"{"name":"slow","to":{"port":9},"effect":{"type":"latency","delay":"200ms"},"seed":1}"#;
    let (code, fault) = request(&world, &agent, "POST", "/v1/faults", Some(body));
    assert_eq!((code, &fault["name"]), (201, &"slow".into()), "{fault:#}");
    assert_eq!(fault["fault"]["ttl"], "10m", "defaults are filled in: {fault:#}");
    let (code, again) = request(&world, &agent, "POST", "/v1/faults", Some(body));
    assert_eq!(code, 409, "{again:#}");
    assert_eq!(request(&world, &agent, "GET", "/v1/faults/slow", None).0, 200);
    assert_eq!(request(&world, &agent, "DELETE", "/v1/faults/slow", None).0, 200);
    assert_eq!(request(&world, &agent, "GET", "/v1/faults/slow", None).0, 404);
}
