//! Engines that answer, answer wrongly, slowly, or not at all, on real sockets.

use std::{fs, path::Path, sync::atomic::AtomicUsize};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use super::*;

const ID: &str = "4f797c539e6c745de61a93ca3ff892358ecbcaccd8414d5db545c38428142970";
const OTHER: &str = "9ec39b91f3d70e1beff50a308f77067065ea6be0d91a3378375056cd4422cf3d";

/// A directory with nothing in it yet, and the engine places there.
fn nowhere() -> (tempfile::TempDir, EnginePlaces) {
    let dir = tempfile::tempdir().unwrap();
    let places = EnginePlaces {
        sockets: vec![dir.path().join("docker.sock")],
        users: dir.path().join("user"),
        containerd: vec![dir.path().join("containerd")],
        crio: dir.path().join("crio"),
    };
    (dir, places)
}

/// What a fake engine does with one connection.
#[derive(Clone, Copy)]
enum Does {
    /// Answers as Docker does, knowing `ID` alone.
    Answers,
    Says(&'static str),
    Hangs,
    /// Sends a body for ever.
    Floods,
}

/// Starts a fake engine; it counts its connections.
fn engine(socket: &Path, does: Does) -> Arc<AtomicUsize> {
    fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let listener = UnixListener::bind(socket).unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(serve(stream, does));
        }
    });
    count
}

async fn serve(mut stream: UnixStream, does: Does) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
    let request = String::from_utf8(request).unwrap();
    let json = |status: &str, body: &str| {
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    let answer = match does {
        Does::Answers if request.starts_with(&format!("GET /containers/{ID}/json HTTP/1.1\r\n")) => json(
            "200 OK",
            &format!(
                r#"{{"Id":"{ID}","Name":"/shop-db-1","State":{{"Status":"of the future"}},"Config":{{"Env":["A=b"],
                "Labels":{{"com.docker.compose.service":"db"}}}}}}"#
            ),
        ),
        Does::Answers => json("404 Not Found", r#"{"message":"No such container"}"#),
        Does::Says(text) => text.to_owned(),
        Does::Hangs => return std::future::pending().await,
        Does::Floods => {
            _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
                .await;
            while stream.write_all(&[b' '; 65536]).await.is_ok() {}
            return;
        }
    };
    _ = stream.write_all(answer.as_bytes()).await;
}

/// Asks until the answer is there.
async fn settled(engine: &Engine, id: &str, user: Option<u32>) -> Option<Arc<ContainerInfo>> {
    loop {
        if let Some(info) = engine.container(id, user) {
            return Some(info);
        }
        match engine.lock().peek(id) {
            Some(Known::Soon) => {}
            _ => return None,
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_container_is_known_by_name_and_labels_and_asked_for_once() {
    let (_dir, places) = nowhere();
    let asked = engine(&places.sockets[0], Does::Answers);
    let engine = Engine::start(places);
    assert_eq!(engine.container(ID, None), None, "nobody waits");
    let info = settled(&engine, ID, None).await.unwrap();
    assert_eq!(info.name, "shop-db-1");
    assert_eq!(info.labels["com.docker.compose.service"], "db");
    assert_eq!(engine.answers(), 1);
    for _ in 0..3 {
        assert_eq!(settled(&engine, OTHER, None).await, None);
        assert_eq!(settled(&engine, ID, None).await.as_ref(), Some(&info));
    }
    assert_eq!(
        asked.load(Ordering::SeqCst),
        2,
        "one question for each container, known or not"
    );
    assert_eq!(engine.answers(), 1, "nothing new");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_container_is_asked_for_again_later() {
    let (_dir, places) = nowhere();
    let socket = places.sockets[0].clone();
    let names = Engine::start(places);
    assert_eq!(settled(&names, ID, None).await, None, "no engine at all");
    engine(&socket, Does::Answers);
    assert_eq!(settled(&names, ID, None).await, None, "not asked again so soon");
    tokio::time::advance(UNKNOWN_FOR).await;
    assert_eq!(settled(&names, ID, None).await.unwrap().name, "shop-db-1");
}

#[tokio::test(start_paused = true)]
async fn a_slow_engine_is_waited_for_once_and_then_left_alone() {
    let (dir, mut places) = nowhere();
    places.sockets.push(dir.path().join("podman.sock"));
    let slow = engine(&places.sockets[0], Does::Hangs);
    engine(&places.sockets[1], Does::Answers);
    let engine = Engine::start(places);
    let start = Instant::now();
    assert_eq!(
        settled(&engine, ID, None).await.unwrap().name,
        "shop-db-1",
        "the other one knows it"
    );
    assert!(start.elapsed() >= LIMIT && start.elapsed() < LIMIT * 2);
    let start = Instant::now();
    assert_eq!(settled(&engine, OTHER, None).await, None);
    assert!(start.elapsed() < LIMIT);
    assert_eq!(slow.load(Ordering::SeqCst), 1);
    tokio::time::advance(REST.max(UNKNOWN_FOR)).await;
    assert_eq!(settled(&engine, OTHER, None).await, None);
    assert_eq!(slow.load(Ordering::SeqCst), 2, "it gets another chance");
}

#[tokio::test]
async fn a_broken_engine_costs_the_name_alone() {
    for does in [
        Does::Says(""),
        Does::Says("no HTTP at all\r\n\r\n"),
        Does::Says("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"),
        Does::Says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
        Does::Says("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"Na"),
        Does::Says("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{\"Name\":7}"),
        Does::Floods,
    ] {
        let (_dir, places) = nowhere();
        engine(&places.sockets[0], does);
        let engine = Engine::start(places);
        assert_eq!(settled(&engine, ID, None).await, None);
    }
    let (_dir, places) = nowhere();
    engine(
        &places.sockets[0],
        Does::Says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
    );
    let engine = Engine::start(places);
    let nameless = settled(&engine, ID, None).await.unwrap();
    assert_eq!(*nameless, ContainerInfo::default(), "what is missing is left out");
}

#[tokio::test]
async fn a_users_container_is_named_by_the_users_engine_alone() {
    let (dir, places) = nowhere();
    let of_root = engine(&places.sockets[0], Does::Answers);
    engine(&dir.path().join("user/1000/podman/podman.sock"), Does::Answers);
    let engine = Engine::start(places.clone());
    assert_eq!(settled(&engine, ID, Some(1001)).await, None);
    assert_eq!(of_root.load(Ordering::SeqCst), 0);
    let engine = Engine::start(places);
    assert_eq!(settled(&engine, ID, Some(1000)).await.unwrap().name, "shop-db-1");
}

#[tokio::test]
async fn a_bundle_answers_without_any_socket() {
    let (_dir, places) = nowhere();
    let tasks = places.containerd[0].join("io.containerd.runtime.v2.task");
    fs::create_dir_all(tasks.join("moby")).unwrap();
    let bundle = tasks.join("k8s.io").join(ID);
    fs::create_dir_all(&bundle).unwrap();
    let config = r#"{"annotations":{"io.kubernetes.cri.container-name":"server"}}"#;
    fs::write(bundle.join("config.json"), config).unwrap();
    let crio = places
        .crio
        .join("overlay-containers")
        .join(OTHER)
        .join("userdata");
    fs::create_dir_all(&crio).unwrap();
    fs::write(crio.join("config.json"), config.replace("server", "proxy")).unwrap();
    let engine = Engine::start(places);
    assert_eq!(settled(&engine, ID, None).await.unwrap().name, "server");
    assert_eq!(settled(&engine, OTHER, None).await.unwrap().name, "proxy");
}

#[tokio::test]
async fn memory_is_bounded_and_what_does_not_fit_is_asked_for_later() {
    let (_dir, places) = nowhere();
    let engine = Engine::start(places);
    // The asker has had no chance to run yet.
    for n in 0..QUEUE + 10 {
        assert_eq!(engine.container(&format!("{n:064x}"), None), None);
    }
    assert_eq!(engine.lock().len(), QUEUE);
    let last = format!("{:064x}", QUEUE + 9);
    while engine.lock().peek(&last).is_none() {
        _ = engine.container(&last, None);
        tokio::task::yield_now().await;
    }
    assert!(Engine::absent().container(ID, None).is_none());
    let many = (0..MAX_LABELS * 2).map(|n| (n.to_string(), "x".repeat(n * 16)));
    let info = ContainerInfo::new(&"é".repeat(MAX_LABEL * 2), many);
    assert!(info.labels.values().all(|value| value.len() <= MAX_LABEL));
    assert_eq!(
        (info.name.chars().count(), info.labels.len()),
        (MAX_LABEL, MAX_LABEL / 16 + 1)
    );
}
