//! Who is kept out, and by which answer.

use super::*;

struct TcpDoor {
    door: Router,
    token: String,
    _state_dir: tempfile::TempDir,
}

fn tcp_door() -> TcpDoor {
    let state_dir = tempfile::tempdir().unwrap();
    let token = Token::create(state_dir.path()).unwrap();
    let secret = token.secret().to_owned();
    TcpDoor {
        door: tcp::guarded(routes(), token),
        token: format!("Bearer {secret}"),
        _state_dir: state_dir,
    }
}

impl TcpDoor {
    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
        let body = if method == Method::POST { FAULT } else { "" };
        let mut request = request(method, path, body);
        for (name, value) in headers {
            request.headers_mut().append(
                header::HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
        }
        send(&self.door, request).await
    }
}

#[tokio::test]
async fn only_a_loopback_host_is_answered() {
    let door = tcp_door();
    for host in [
        "127.0.0.1",
        "127.0.0.1:7390",
        "localhost",
        "LocalHost:7390",
        "[::1]",
        "[::1]:7390",
        "127.0.0.2:1",
    ] {
        let response = door.ask(Method::GET, "/v1/status", &[("host", host)]).await;
        assert_eq!(response.status(), StatusCode::OK, "{host}");
    }
    for host in [
        "localhost.evil",
        "localhost.evil:7390",
        "127.0.0.1.evil",
        "evil",
        "10.0.0.1",
        "0.0.0.0",
        "[::]",
        "localhost@evil",
        "evil@localhost",
        "localhost:",
        "localhost:x",
        "localhost:99999",
        "127.0.0.1:7390:1",
        "",
        "2130706433",
        "localhost.",
    ] {
        let response = door.ask(Method::GET, "/v1/status", &[("host", host)]).await;
        assert!(
            response.status().is_client_error(),
            "{host}: {}",
            response.status()
        );
        problem(response).await;
    }
    let none = door.ask(Method::GET, "/v1/status", &[]).await;
    assert_eq!(problem(none).await.status, 421);
    let two = door
        .ask(
            Method::GET,
            "/v1/status",
            &[("host", "localhost"), ("host", "evil")],
        )
        .await;
    assert_eq!(problem(two).await.status, 400);
    let in_target = door
        .ask(Method::GET, "http://evil/v1/status", &[("host", "localhost")])
        .await;
    assert_eq!(problem(in_target).await.status, 421);
    let anywhere = door.ask(Method::GET, "/nothing", &[("host", "evil")]).await;
    assert_eq!(problem(anywhere).await.status, 421);
}

#[tokio::test]
async fn pages_of_other_origins_are_refused() {
    let door = tcp_door();
    let host = ("host", "localhost:7390");
    let same = door
        .ask(
            Method::GET,
            "/v1/status",
            &[host, ("origin", "http://localhost:7390")],
        )
        .await;
    assert_eq!(same.status(), StatusCode::OK);
    for origin in [
        "null",
        "http://evil",
        "http://localhost",
        "http://localhost:7391",
        "https://localhost:7390",
        "http://127.0.0.1:7390",
    ] {
        let response = door
            .ask(Method::GET, "/v1/status", &[host, ("origin", origin)])
            .await;
        assert_eq!(problem(response).await.status, 403, "{origin}");
    }
}

#[tokio::test]
async fn changes_and_packets_need_the_token() {
    let door = tcp_door();
    let host = ("host", "localhost");
    let json = ("content-type", "application/json; charset=utf-8");
    for (method, path) in [
        (Method::POST, "/v1/faults"),
        (Method::POST, "/v1/panic"),
        (Method::DELETE, "/v1/faults"),
        (Method::DELETE, "/v1/captures/x"),
        (Method::OPTIONS, "/v1/faults"),
        (Method::GET, "/v1/captures/x/pcapng"),
        (Method::POST, "/nothing"),
    ] {
        let response = door.ask(method.clone(), path, &[host, json]).await;
        assert!(response.headers().contains_key(header::WWW_AUTHENTICATE));
        assert_eq!(problem(response).await.status, 401, "{method} {path}");
    }
    let wrong = format!("{}0", door.token);
    let short = &door.token[..door.token.len() - 1];
    for value in [
        "",
        "Bearer",
        "Bearer ",
        "Basic x",
        wrong.as_str(),
        short,
        &door.token["Bearer ".len()..],
    ] {
        let response = door
            .ask(
                Method::POST,
                "/v1/faults",
                &[host, json, ("authorization", value)],
            )
            .await;
        assert_eq!(problem(response).await.status, 401, "{value}");
    }
    let right = ("authorization", door.token.as_str());
    let twice = door
        .ask(Method::POST, "/v1/faults", &[host, json, right, right])
        .await;
    assert_eq!(problem(twice).await.status, 400);
    assert_eq!(
        door.ask(Method::POST, "/v1/faults", &[host, json, right])
            .await
            .status(),
        StatusCode::CREATED
    );
    assert_eq!(
        door.ask(Method::DELETE, "/v1/faults", &[host, right])
            .await
            .status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_form_cannot_be_posted() {
    let door = tcp_door();
    let right = ("authorization", door.token.as_str());
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "",
    ] {
        let headers = [("host", "localhost"), right, ("content-type", content_type)];
        let response = door.ask(Method::POST, "/v1/faults", &headers).await;
        assert_eq!(problem(response).await.status, 415, "{content_type}");
    }
}

#[tokio::test]
async fn a_command_can_only_be_run_by_a_client_that_is_known() {
    let door = tcp_door();
    let mut request = request(Method::POST, "/v1/exec", r#"{"pid":1}"#);
    for (name, value) in [
        ("host", "localhost"),
        ("content-type", "application/json"),
        ("authorization", &door.token),
    ] {
        request
            .headers_mut()
            .insert(header::HeaderName::from_static(name), value.parse().unwrap());
    }
    assert_eq!(problem(send(&door.door, request).await).await.status, 403);
    let by_unix = send(
        &unix_door(),
        super::request(Method::POST, "/v1/exec", r#"{"pid":1}"#),
    )
    .await;
    assert_eq!(by_unix.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn a_stranger_on_the_socket_is_refused() {
    let stranger = ConnectInfo(unix::Peer::test(1, false));
    let door = unix::guarded(routes()).layer(axum::Extension(stranger));
    assert_eq!(
        problem(send(&door, request(Method::GET, "/v1/status", "")).await)
            .await
            .status,
        403
    );
}
