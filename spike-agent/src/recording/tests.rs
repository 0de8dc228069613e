//! Recordings that are written and read again.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use super::{
    live::{Live, Options},
    *,
};
use crate::protocol::Side;

fn connection() -> NewConnection {
    NewConnection {
        transport: "tcp".to_owned(),
        caller: "web".to_owned(),
        callee: "shop".to_owned(),
        client: "127.0.0.1:40000".to_owned(),
        server: "127.0.0.1:8080".to_owned(),
        host: Some("shop.test".to_owned()),
        ..NewConnection::default()
    }
}

async fn stop(live: &Live) {
    live.stop();
    live.ended().await;
    assert_eq!(live.counts().failure.get(), None);
}

#[tokio::test]
async fn what_is_recorded_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.spike");
    let live = Live::start(&path, Options::default()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let web = live.open(Instant::now(), connection());
    let exchange = |bytes: &str, from| assert!(web.bytes(from, Instant::now(), bytes.as_bytes()).is_none());
    exchange("GET /a?token=abc HT", Side::Client);
    exchange("TP/1.1\r\nHost: shop\r\n\r\n", Side::Client);
    exchange("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", Side::Server);
    exchange("lo", Side::Server);
    exchange("GET /b HTTP/1.1\r\nHost: shop\r\n\r\n", Side::Client);
    web.ended(Instant::now(), true);
    let raw = live.open(
        Instant::now(),
        NewConnection {
            server: "10.0.0.1:9".to_owned(),
            ..connection()
        },
    );
    assert!(
        raw.bytes(Side::Client, Instant::now(), b"\x00\x01password=x\xff")
            .is_none()
    );
    live.name(Instant::now(), "shop.test", "A", "127.0.0.1");
    stop(&live).await;

    let reader = Reader::open(&path).unwrap();
    reader.verify().unwrap();
    assert_eq!(reader.about().redaction, ["default"]);
    assert!(reader.about().ended_unix_ns.unwrap() >= reader.about().started_unix_ns);
    let [first, second] = &reader.connections().unwrap()[..] else {
        panic!()
    };
    assert_eq!(
        (first.protocol.as_deref(), first.ended),
        (Some("http"), HowEnded::Reset)
    );
    assert_eq!((second.protocol.as_deref(), second.ended), (None, HowEnded::Open));
    assert_eq!(first.opened.host.as_deref(), Some("shop.test"));
    let chunks = reader.chunks(first.id, Side::Client).unwrap();
    let cut: Vec<(u64, &[u8])> = chunks
        .iter()
        .map(|chunk| (chunk.position, &*chunk.bytes))
        .collect();
    assert_eq!(
        cut,
        [
            (0, &b"GET /a?token=*** HT"[..]),
            (19, b"TP/1.1\r\nHost: shop\r\n\r\n"),
            (41, b"GET /b HTTP/1.1\r\nHost: shop\r\n\r\n")
        ]
    );
    let calls = reader.calls(&CallFilter::default()).unwrap();
    let [a, b] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!(
        reader.request_bytes(&a.call).unwrap(),
        b"GET /a?token=*** HTTP/1.1\r\nHost: shop\r\n\r\n"
    );
    assert!(
        reader
            .response_bytes(&a.call)
            .unwrap()
            .ends_with(b"\r\n\r\nhello")
    );
    assert_eq!(a.call.redactions, ["query token"]);
    assert_eq!(a.call.request["target"], "/a?token=***");
    assert_eq!(
        (&a.call.response["status"], &a.call.response["body"]),
        (&200.into(), &"hello".into())
    );
    assert_eq!(
        (a.sequence, b.sequence, b.call.complete, b.call.failed),
        (0, 1, false, true)
    );
    assert_eq!(
        reader.chunks(second.id, Side::Client).unwrap()[0].bytes,
        b"\x00\x01password=x\xff"
    );
    assert_eq!(reader.names().unwrap()[0].answer, "127.0.0.1");
    assert!(reader.losses().unwrap().is_empty());
    assert!(!directory.path().join("a.spike-wal").exists(), "it is one file");
}

#[tokio::test]
async fn what_was_taken_is_committed_within_a_second() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.spike");
    let live = Live::start(&path, Options::default()).unwrap();
    let web = live.open(Instant::now(), connection());
    assert!(
        web.bytes(Side::Client, Instant::now(), b"GET / HTTP/1.1\r\n")
            .is_none()
    );
    let slow = live.open(Instant::now(), connection());
    assert!(slow.bytes(Side::Client, Instant::now(), b"GE").is_none());
    tokio::time::sleep(Duration::from_millis(1500)).await;
    // As another program sees it while it goes on, and after a kill.
    let copy = directory.path().join("b.spike");
    for ending in ["", "-wal"] {
        let of = |path: &std::path::Path| format!("{}{ending}", path.display());
        fs::copy(of(&path), of(&copy)).unwrap();
    }
    for path in [&path, &copy] {
        let reader = Reader::open(path).unwrap();
        reader.verify().unwrap();
        assert_eq!(reader.about().ended_unix_ns, None);
        assert_eq!(
            reader.chunks(1, Side::Client).unwrap()[0].bytes,
            b"GET / HTTP/1.1\r\n"
        );
        assert_eq!(reader.chunks(2, Side::Client).unwrap()[0].bytes, b"GE");
    }
    stop(&live).await;
}

#[tokio::test]
async fn what_does_not_fit_is_counted_or_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let piece = vec![7; 64 << 10];
    for backpressure in [false, true] {
        let path = directory.path().join(format!("{backpressure}.spike"));
        let options = Options {
            backpressure,
            ..Options::default()
        };
        let live = Live::start(&path, options).unwrap();
        let raw = live.open(Instant::now(), connection());
        let mut waited = 0;
        // Far faster than any thread that writes.
        for _ in 0..4096 {
            if let Some(room) = raw.bytes(Side::Server, Instant::now(), &piece) {
                waited += 1;
                room.await;
            }
        }
        raw.ended(Instant::now(), false);
        stop(&live).await;
        let counts = live.counts();
        let get = |count: &std::sync::atomic::AtomicU64| count.load(std::sync::atomic::Ordering::Relaxed);
        let (bytes, lost) = (get(&counts.bytes), get(&counts.lost_bytes));
        assert_eq!(bytes + lost, 4096 * piece.len() as u64);
        let reader = Reader::open(&path).unwrap();
        assert_eq!(
            reader.connections().unwrap()[0].sent,
            [0, 4096 * piece.len() as u64]
        );
        if backpressure {
            assert!(waited > 0 && lost == 0);
        } else {
            assert_eq!(waited, 0);
            let told: u64 = reader
                .losses()
                .unwrap()
                .iter()
                .filter(|loss| loss.connection.is_none())
                .map(|loss| loss.bytes)
                .sum();
            assert_eq!(told, lost);
        }
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_cut_and_its_call_still_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.spike");
    let options = Options {
        body_limit: Some(100),
        ..Options::default()
    };
    let live = Live::start(&path, options).unwrap();
    let web = live.open(Instant::now(), connection());
    for _ in 0..2 {
        web.bytes(Side::Client, Instant::now(), b"GET / HTTP/1.1\r\n\r\n");
        web.bytes(
            Side::Server,
            Instant::now(),
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
        );
        web.bytes(Side::Server, Instant::now(), &[b'x'; 1000]);
    }
    web.ended(Instant::now(), false);
    stop(&live).await;
    let reader = Reader::open(&path).unwrap();
    let calls = reader.calls(&CallFilter::default()).unwrap();
    assert_eq!(calls.len(), 2);
    for call in &calls {
        assert!(call.call.complete);
        assert_eq!(reader.response_bytes(&call.call).unwrap().len(), 100);
        assert_eq!(call.call.response_at.as_ref().unwrap().clone().count(), 1041);
    }
    assert_eq!(reader.losses().unwrap()[0].bytes, 2 * 941);
}

#[test]
fn what_is_no_recording_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let error = |name: &str| Reader::open(&at(name)).unwrap_err().to_string();
    assert!(error("none").contains("No such file"));
    fs::write(at("empty"), "").unwrap();
    assert!(error("empty").ends_with("it is empty"));
    fs::write(at("text"), "a".repeat(5000)).unwrap();
    assert!(error("text").ends_with("it is no SQLite file"));
    rusqlite::Connection::open(at("other"))
        .unwrap()
        .execute_batch("CREATE TABLE a (b)")
        .unwrap();
    assert!(error("other").contains("another program"));
    assert!(matches!(
        Reader::open(directory.path()).unwrap_err(),
        RecordingError::Foreign { .. }
    ));

    let mut writer = Writer::create(&at("good"), &About::default()).unwrap();
    assert!(
        Writer::create(&at("good"), &About::default())
            .unwrap_err()
            .to_string()
            .contains("exists")
    );
    let id = writer.add_connection(&connection()).unwrap();
    for position in 0..100 {
        let chunk = Chunk {
            position: position * 10_000,
            at_ns: 1,
            bytes: vec![1; 10_000],
        };
        writer.add_chunk(id, Side::Client, &chunk).unwrap();
    }
    writer.finish(7).unwrap();
    assert_eq!(Reader::open(&at("good")).unwrap().about().ended_unix_ns, Some(7));
    let whole = fs::read(at("good")).unwrap();
    for length in [whole.len() / 2, whole.len() - 1, 20_000, 90] {
        fs::write(at("cut"), &whole[..length]).unwrap();
        let error = error("cut");
        assert!(
            error.contains("shorter than it says") || error.ends_with("it is too short"),
            "{error}"
        );
    }
    let mut writer = Writer::append(&at("good")).unwrap();
    let id = writer.add_connection(&connection()).unwrap();
    assert_eq!(id, 2);
    writer.finish(8).unwrap();
    let database = rusqlite::Connection::open(at("good")).unwrap();
    database.pragma_update(None, "user_version", FORMAT + 1).unwrap();
    drop(database);
    assert!(matches!(
        Reader::open(&at("good")).unwrap_err(),
        RecordingError::Newer { format: 2, .. }
    ));
}

#[test]
fn a_part_of_what_was_sent_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    let mut writer = Writer::create(&path, &About::default()).unwrap();
    let id = writer.add_connection(&connection()).unwrap();
    for (position, bytes) in [(0, "abc"), (3, "def"), (10, "klm")] {
        let chunk = Chunk {
            position,
            at_ns: position,
            bytes: bytes.into(),
        };
        writer.add_chunk(id, Side::Server, &chunk).unwrap();
    }
    writer.finish(1).unwrap();
    let reader = Reader::open(&path).unwrap();
    for (range, expected) in [
        (0..100, "abcdefklm"),
        (1..5, "bcde"),
        (4..11, "efk"),
        (6..10, ""),
        (3..3, ""),
        (12..13, "m"),
    ] {
        let chunks = reader.chunks_in(id, Side::Server, range.clone()).unwrap();
        assert!(chunks.iter().all(|chunk| chunk.position >= range.start));
        let bytes: Vec<u8> = chunks.into_iter().flat_map(|chunk| chunk.bytes).collect();
        assert_eq!(String::from_utf8(bytes).unwrap(), expected, "{range:?}");
    }
    assert!(reader.chunks(id, Side::Client).unwrap().is_empty());
}
