//! The API as clients use it: paths, statuses, texts, and what the proxies do.

use std::time::{Duration, Instant};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::Request,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tower::ServiceExt;

use super::*;
use crate::{
    control::testing::TestPlanes,
    fault::book::Book,
    proxy::{Original, Originals},
};

struct Nothing;

impl Originals for Nothing {
    fn take(&self, _: u64, _: SocketAddr, _: SocketAddr) -> Option<Original> {
        None
    }
}

struct World {
    control: Control,
    router: Router,
    /// Echoes; counted by what its tasks still hold.
    upstream: String,
}

impl World {
    async fn new() -> Self {
        let book = Arc::<Book>::default();
        let proxy = Proxy::new(Arc::new(Nothing), book.subscribe());
        let control = Control::new(book, Arc::new(TestPlanes::default()));
        let proxies = Proxies::new(control.clone(), proxy, CancellationToken::new());
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = server.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = server.accept().await {
                tokio::spawn(async move {
                    let (mut reader, mut writer) = stream.split();
                    let _ = tokio::io::copy(&mut reader, &mut writer).await;
                    let _ = writer.shutdown().await;
                });
            }
        });
        Self {
            control,
            router: routes::router(proxies),
            upstream,
        }
    }

    /// Status and body; text that is no JSON as a string.
    async fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Body::from(body)).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Makes the proxy `p` and gives its address.
    async fn proxy(&self) -> String {
        let body = json!({"name": "p", "listen": "localhost:0", "upstream": self.upstream});
        let (status, proxy) = self.ask("POST", "/proxies", body).await;
        assert_eq!(status, 201, "{proxy}");
        proxy["listen"].as_str().unwrap().to_owned()
    }

    async fn toxic(&self, body: Value) -> Value {
        let (status, toxic) = self.ask("POST", "/proxies/p/toxics", body).await;
        assert_eq!(status, 200, "{toxic}");
        toxic
    }
}

/// How long the echo of a byte takes.
async fn echo(stream: &mut TcpStream) -> std::io::Result<Duration> {
    let start = Instant::now();
    stream.write_u8(7).await?;
    stream.read_u8().await?;
    Ok(start.elapsed())
}

#[tokio::test]
async fn proxies_are_made_shown_changed_and_removed() {
    let world = World::new().await;
    assert_eq!(world.ask("GET", "/proxies", Value::Null).await, (200, json!({})));
    let address = world.proxy().await;
    assert!(
        address.starts_with("127.0.0.1:") && !address.ends_with(":0"),
        "{address}"
    );
    let shown =
        json!({"name": "p", "listen": address, "upstream": world.upstream, "enabled": true, "toxics": []});
    assert_eq!(
        world.ask("GET", "/proxies", Value::Null).await,
        (200, json!({"p": shown}))
    );
    assert_eq!(
        world.ask("GET", "/proxies/p", Value::Null).await,
        (200, shown.clone())
    );
    let listed = serde_json::to_value(world.control.faults().faults).unwrap();
    assert_eq!(listed[0]["name"], "p");
    assert_eq!(
        listed[0]["fault"]["relay"],
        json!({"listen": address, "upstream": world.upstream})
    );
    let mut stream = TcpStream::connect(&address).await.unwrap();
    echo(&mut stream).await.unwrap();

    let (status, changed) = world.ask("PATCH", "/proxies/p", json!({"enabled": false})).await;
    assert_eq!((status, &changed["enabled"]), (200, &json!(false)));
    assert!(echo(&mut stream).await.is_err());
    assert!(TcpStream::connect(&address).await.is_err());
    let (status, _) = world.ask("POST", "/proxies/p", shown.clone()).await;
    assert_eq!(status, 200);
    echo(&mut TcpStream::connect(&address).await.unwrap())
        .await
        .unwrap();

    assert_eq!(world.ask("DELETE", "/proxies/p", Value::Null).await.0, 204);
    assert!(TcpStream::connect(&address).await.is_err());
    assert!(world.control.faults().faults.is_empty());
}

#[tokio::test]
async fn errors_are_those_of_toxiproxy() {
    let world = World::new().await;
    world.proxy().await;
    world.toxic(json!({"type": "latency"})).await;
    let toxics = "/proxies/p/toxics";
    for (method, path, body, status, error) in [
        ("GET", "/proxies/q", Value::Null, 404, "proxy not found"),
        ("POST", "/proxies/q", json!({}), 404, "proxy not found"),
        ("DELETE", "/proxies/q", Value::Null, 404, "proxy not found"),
        ("GET", "/proxies/p/toxics/q", Value::Null, 404, "toxic not found"),
        (
            "DELETE",
            "/proxies/p/toxics/q",
            Value::Null,
            404,
            "toxic not found",
        ),
        ("POST", "/proxies", json!({}), 400, "missing required field: name"),
        (
            "POST",
            "/proxies",
            json!({"name": "q"}),
            400,
            "missing required field: upstream",
        ),
        (
            "POST",
            "/proxies",
            json!({"name": "p", "upstream": "x:1"}),
            409,
            "proxy already exists",
        ),
        (
            "POST",
            toxics,
            json!({"type": "latncy"}),
            400,
            "invalid toxic type",
        ),
        (
            "POST",
            toxics,
            json!({"type": "latency"}),
            409,
            "toxic already exists",
        ),
        (
            "POST",
            toxics,
            json!({"type": "latency", "stream": "sideways"}),
            400,
            "stream was invalid, can be either upstream or downstream",
        ),
    ] {
        let answer = world.ask(method, path, body).await;
        assert_eq!(
            answer,
            (status, json!({"error": error, "status": status})),
            "{method} {path}"
        );
    }
    let (status, answer) = world.ask("POST", "/proxies", Value::String("x".to_owned())).await;
    assert_eq!(status, 400);
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .starts_with("bad request body: ")
    );
    let request = Request::builder()
        .uri("/proxies")
        .header("user-agent", "Mozilla/5.0");
    let request = request.body(Body::empty()).unwrap();
    assert_eq!(world.router.clone().oneshot(request).await.unwrap().status(), 403);
}

#[tokio::test]
async fn toxics_work_on_open_connections_and_go_again() {
    let world = World::new().await;
    let address = world.proxy().await;
    let mut stream = TcpStream::connect(&address).await.unwrap();
    assert!(echo(&mut stream).await.unwrap() < Duration::from_millis(150));
    let toxic = world
        .toxic(json!({"type": "latency", "attributes": {"latency": 200}}))
        .await;
    let shown = json!({"name": "latency_downstream", "type": "latency", "stream": "downstream", "toxicity": 1.0,
        "attributes": {"latency": 200, "jitter": 0}});
    assert_eq!(toxic, shown);
    assert!(echo(&mut stream).await.unwrap() >= Duration::from_millis(200));
    let path = "/proxies/p/toxics/latency_downstream";
    let (status, changed) = world
        .ask(
            "PATCH",
            path,
            json!({"attributes": {"jitter": 1}, "toxicity": 0.0}),
        )
        .await;
    assert_eq!(
        (status, &changed["attributes"]),
        (200, &json!({"latency": 200, "jitter": 1}))
    );
    assert!(echo(&mut stream).await.unwrap() < Duration::from_millis(150));
    assert_eq!(world.ask("DELETE", path, Value::Null).await.0, 204);
    assert_eq!(
        world.ask("GET", "/proxies/p/toxics", Value::Null).await,
        (200, json!([]))
    );
    // Removing the fault takes the toxics and leaves the proxy.
    world
        .toxic(json!({"type": "bandwidth", "attributes": {"rate": 0}}))
        .await;
    world.control.panic().await.unwrap();
    assert!(echo(&mut stream).await.unwrap() < Duration::from_millis(150));
    assert_eq!(
        world.ask("GET", "/proxies/p/toxics", Value::Null).await,
        (200, json!([]))
    );
    world.toxic(json!({"type": "reset_peer"})).await;
    assert!(
        echo(&mut TcpStream::connect(&address).await.unwrap())
            .await
            .is_err()
    );
    assert_eq!(world.ask("POST", "/reset", Value::Null).await.0, 204);
    echo(&mut TcpStream::connect(&address).await.unwrap())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_timeout_closes_and_does_not_reset() {
    let world = World::new().await;
    let address = world.proxy().await;
    world
        .toxic(json!({"type": "timeout", "attributes": {"timeout": 100}}))
        .await;
    let mut stream = TcpStream::connect(&address).await.unwrap();
    stream.write_u8(7).await.unwrap();
    assert_eq!(stream.read(&mut [0; 9]).await.unwrap(), 0);
    // 0: until it is removed, then close.
    let path = "/proxies/p/toxics/timeout_downstream";
    world
        .ask("POST", path, json!({"attributes": {"timeout": 0}}))
        .await;
    let mut stream = TcpStream::connect(&address).await.unwrap();
    stream.write_u8(7).await.unwrap();
    let silent = tokio::time::timeout(Duration::from_millis(100), stream.read_u8()).await;
    assert!(silent.is_err());
    assert_eq!(world.ask("DELETE", path, Value::Null).await.0, 204);
    assert_ne!(stream.read(&mut [0; 9]).await.ok(), Some(1));
}

#[tokio::test]
async fn populate_makes_what_is_not_there_already() {
    let world = World::new().await;
    let one = json!({"name": "p", "listen": "127.0.0.1:0", "upstream": world.upstream});
    assert_eq!(
        world.ask("POST", "/populate", json!([])).await,
        (201, json!({"proxies": null}))
    );
    let (status, made) = world.ask("POST", "/populate", json!([one])).await;
    assert_eq!(status, 201);
    let listen = &made["proxies"][0]["listen"];
    world
        .toxic(json!({"type": "latency", "attributes": {"latency": 1}}))
        .await;
    let same = json!({"name": "p", "listen": listen, "upstream": world.upstream});
    let (_, again) = world.ask("POST", "/populate", json!([same])).await;
    assert_eq!(again["proxies"][0]["toxics"].as_array().map(Vec::len), Some(1));
    let other = json!({"name": "p", "listen": listen, "upstream": "127.0.0.1:9"});
    let (_, replaced) = world.ask("POST", "/populate", json!([other])).await;
    assert_eq!(replaced["proxies"][0]["toxics"], json!([]));
    let bad = json!([{"name": "q", "upstream": "x:1", "listen": "127.0.0.1:0"}, {"name": "r"}]);
    let (status, answer) = world.ask("POST", "/populate", bad).await;
    let error =
        json!({"proxies": null, "error": "missing required field: upstream at proxy 2", "status": 400});
    assert_eq!((status, answer), (400, error));
    assert_eq!(world.control.faults().faults.len(), 1);
}
