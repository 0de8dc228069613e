//! Drives the whole router behind each of its doors, as a client does.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request},
    http::{Method, StatusCode, header},
    response::Response,
};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::{body::MAX_BODY, problem::PROBLEM_JSON, routes, tcp, token::Token, unix};
use crate::{
    control::{Control, testing::TestPlanes},
    model::view::{CaptureView, FaultView, Problem, Status},
};

mod guards;

const FAULT: &str = r#"{"name":"r","to":{"port":80},"effect":{"type":"refuse"}}"#;

fn routes() -> Router {
    routes::router(Control::new(Arc::default(), Arc::new(TestPlanes::default())))
}

/// The Unix door with a client that is let in.
fn unix_door() -> Router {
    unix::guarded(routes()).layer(axum::Extension(ConnectInfo(unix::Peer::test(
        std::process::id(),
        true,
    ))))
}

fn request(method: Method, path: &str, body: &str) -> Request {
    Request::builder()
        .method(method)
        .uri(path)
        .body(Body::from(body.to_owned()))
        .unwrap()
}

async fn send(door: &Router, request: Request) -> Response {
    door.clone().oneshot(request).await.unwrap()
}

async fn read<T: serde::de::DeserializeOwned>(response: Response) -> T {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&bytes).unwrap()
}

/// The response must be a problem document that says what its status says.
async fn problem(response: Response) -> Problem {
    let status = response.status().as_u16();
    assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
    let problem: Problem = read(response).await;
    assert_eq!(problem.status, status);
    problem
}

#[tokio::test]
async fn a_fault_is_armed_shown_and_removed() {
    let door = unix_door();
    let created = send(&door, request(Method::POST, "/v1/faults", FAULT)).await;
    assert_eq!(created.status(), StatusCode::CREATED);
    assert_eq!(created.headers()[header::LOCATION], "/v1/faults/r");
    let shown: FaultView = read(send(&door, request(Method::GET, "/v1/faults/r", "")).await).await;
    assert_eq!(shown.fault.ttl.as_deref(), Some("10m"));
    let again = send(&door, request(Method::POST, "/v1/faults", FAULT)).await;
    assert_eq!(problem(again).await.status, 409);
    let removed = send(&door, request(Method::DELETE, "/v1/faults/r", "")).await;
    assert_eq!(removed.status(), StatusCode::OK);
    let gone = send(&door, request(Method::DELETE, "/v1/faults/r", "")).await;
    assert_eq!(problem(gone).await.status, 404);
}

#[tokio::test]
async fn a_capture_streams_to_one_reader() {
    let door = unix_door();
    let started = send(&door, request(Method::POST, "/v1/captures", "{}")).await;
    assert_eq!(started.status(), StatusCode::CREATED);
    let id = read::<CaptureView>(started).await.id;
    let path = format!("/v1/captures/{id}/pcapng");
    let head = send(&door, request(Method::HEAD, &path, "")).await;
    assert_eq!(head.status(), StatusCode::OK);
    let stream = send(&door, request(Method::GET, &path, "")).await;
    assert_eq!(stream.headers()[header::CONTENT_TYPE], "application/x-pcapng");
    assert_eq!(
        problem(send(&door, request(Method::GET, &path, "")).await)
            .await
            .status,
        409
    );
    let stopped = send(&door, request(Method::DELETE, &format!("/v1/captures/{id}"), "")).await;
    assert_eq!(stopped.status(), StatusCode::OK);
    assert_eq!(stream.into_body().collect().await.unwrap().to_bytes(), "headtail");
}

#[tokio::test]
async fn every_error_is_a_problem_document() {
    let door = unix_door();
    let long = format!("\"{}\"", "x".repeat(MAX_BODY));
    for (method, path, body, status, field) in [
        (Method::GET, "/", "", 404, None),
        (Method::GET, "/v1/nothing", "", 404, None),
        (Method::GET, "/v1/faults/none", "", 404, None),
        (Method::GET, "/v1/faults/%ff", "", 400, None),
        (Method::GET, "/v1/captures/none/pcapng", "", 404, None),
        (Method::DELETE, "/v1/exec/none", "", 404, None),
        (Method::PUT, "/v1/faults", "", 405, None),
        (Method::POST, "/v1/status", "", 405, None),
        (Method::POST, "/openapi.json", "", 405, None),
        (Method::POST, "/v1/faults", "", 400, None),
        (Method::POST, "/v1/faults", "{", 400, None),
        (Method::POST, "/v1/faults", "[]", 422, Some("effect")),
        (Method::POST, "/v1/faults", &long, 413, None),
        (
            Method::POST,
            "/v1/faults",
            r#"{"effect":{"type":"refuse"}}"#,
            422,
            Some("from"),
        ),
        (Method::POST, "/v1/faults", r#"{"efect":{}}"#, 422, Some("efect")),
        (
            Method::POST,
            "/v1/captures",
            r#"{"snaplen":1}"#,
            422,
            Some("snaplen"),
        ),
        (
            Method::POST,
            "/v1/captures",
            r#"{"from":{"cgroup":"/nowhere"}}"#,
            422,
            Some("from.cgroup"),
        ),
        (Method::POST, "/v1/exec", r#"{"pid":0,"x":1}"#, 422, Some("x")),
    ] {
        let problem = problem(send(&door, request(method.clone(), path, body)).await).await;
        assert_eq!(
            (problem.status, problem.field.as_deref()),
            (status, field),
            "{method} {path} {}",
            problem.detail
        );
    }
    let refused = send(&door, request(Method::PUT, "/v1/faults", "")).await;
    let allowed = refused.headers()[header::ALLOW].to_str().unwrap();
    assert!(
        allowed.contains("GET") && allowed.contains("POST") && allowed.contains("DELETE"),
        "{allowed}"
    );
}

#[tokio::test]
async fn the_openapi_document_describes_every_route() {
    let served: serde_json::Value =
        read(send(&unix_door(), request(Method::GET, "/openapi.json", "")).await).await;
    let operations: Vec<String> = served["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            item.as_object()
                .unwrap()
                .keys()
                .map(move |method| format!("{method} {path}"))
        })
        .collect();
    assert_eq!(operations.len(), 38, "{operations:?}");
    let all = || {
        served["paths"]
            .as_object()
            .unwrap()
            .values()
            .flat_map(|item| item.as_object().unwrap().values())
    };
    let ids: std::collections::BTreeSet<_> = all()
        .map(|operation| operation["operationId"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), operations.len(), "{ids:?}");
    for answer in all().flat_map(|operation| operation["responses"].as_object().unwrap().values()) {
        assert!(!answer["description"].as_str().unwrap().is_empty(), "{answer}");
    }
    assert_eq!(
        served["components"]["schemas"]["RawFault"]["additionalProperties"],
        false
    );
    assert!(served["components"]["securitySchemes"]["token"].is_object());
}

#[tokio::test]
async fn the_doors_answer_on_real_sockets_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = crate::config::AgentConfig {
        toxiproxy: crate::config::Listen::Off,
        listen: "127.0.0.1:0".parse().unwrap(),
        socket: dir.path().join("s.sock"),
        state_dir: dir.path().join("state"),
        cgroup: None,
        log_level: crate::config::LogLevel::Error,
        decode_budget: 0.0,
        metrics_edges: 10,
        otlp: None,
        capture_dir: None,
        capture_quota: 0,
        services: Vec::new(),
        history_step: std::time::Duration::from_secs(10),
        history_size: 0,
        analysis: crate::model::Thresholds::default(),
    };
    let doors = super::Doors::bind(&config).await.unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let control = Control::new(Arc::default(), Arc::new(TestPlanes::default()));
    let serving = tokio::spawn(doors.serve(control, stop.clone()));
    let stream = tokio::net::UnixStream::connect(&config.socket).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut client, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let ask = request(Method::GET, "/v1/status", "");
    let status: Status = read(client.send_request(ask).await.unwrap().map(Body::new)).await;
    assert_eq!(status.version, "test");
    drop(client);
    stop.cancel();
    serving.await.unwrap().unwrap();
    assert!(!config.socket.exists() && !config.state_dir.join("token").exists());
}

#[tokio::test]
async fn metrics_come_in_the_format_that_is_asked_for() {
    let door = unix_door();
    for (accept, content_type, text) in [
        (
            "*/*",
            "text/plain; version=0.0.4; charset=utf-8",
            "# Prometheus\n",
        ),
        (
            "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "# OpenMetrics\n",
        ),
    ] {
        let mut asked = request(Method::GET, "/metrics", "");
        asked
            .headers_mut()
            .insert(header::ACCEPT, accept.parse().unwrap());
        let answer = send(&door, asked).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()[header::CONTENT_TYPE], content_type);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, text);
    }
}
