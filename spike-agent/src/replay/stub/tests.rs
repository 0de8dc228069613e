//! Callers of stubs, over the sockets that the proxy gets.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::replay::{Noise, wire::testing::recorded};

const SERVER: &str = "127.0.0.1:80";

fn settings(on_miss: OnMiss) -> Settings {
    Settings {
        pace: 0.0,
        on_miss,
        lifetime: Lifetime::Session,
        matcher: Matcher {
            noise: Noise::default(),
            headers: Vec::new(),
        },
        kept: None,
    }
}

fn nowhere() -> Dial {
    Arc::new(|| Box::pin(async { Err(std::io::Error::other("there is no such server")) }))
}

fn stub(protocol: &str, asked: &str, told: &str, settings: Settings) -> Arc<Stub> {
    let talk = recorded(protocol, asked.as_bytes(), told.as_bytes()).split();
    assert!(talk.left_out.is_empty(), "{:?}", talk.left_out);
    Stub::new(&[talk], [], settings)
}

/// What a caller gets for what it sends, up to the end or to silence.
async fn call(stub: &Arc<Stub>, asked: &[u8], dial: Dial) -> String {
    let mut stream = stub.answer(SERVER.parse().unwrap(), dial).unwrap().unwrap();
    stream.write_all(asked).await.unwrap();
    rustix::net::shutdown(&stream, rustix::net::Shutdown::Write).unwrap();
    let mut told = String::new();
    let read = stream.read_to_string(&mut told);
    tokio::time::timeout(Duration::from_secs(10), read)
        .await
        .unwrap()
        .unwrap();
    told
}

const ASKED: &str =
    "GET /a HTTP/1.1\r\nHost: x\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 7\r\n\r\n{\"n\":1}";
const TOLD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n\
                    HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\nmade";

#[tokio::test]
async fn pipelined_requests_get_the_recorded_answers_in_order() {
    let stub = stub("http", ASKED, TOLD, settings(OnMiss::Fail));
    let told = call(&stub, ASKED.as_bytes(), nowhere()).await;
    assert_eq!(told, TOLD);
    // The body is compared as JSON, in other words and in chunks.
    let other = "POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{ \"n\" :1}\r\n0\r\n\r\n";
    let told = call(&stub, other.as_bytes(), nowhere()).await;
    assert!(told.ends_with("made"), "{told}");
    assert_eq!(stub.counts().answered.load(Ordering::Relaxed), 3);
    assert!(stub.misses().is_empty());
}

#[tokio::test]
async fn a_miss_is_an_error_that_explains_itself_and_the_connection_goes_on() {
    let stub = stub("http", ASKED, TOLD, settings(OnMiss::Fail));
    let asked = "GET /c HTTP/1.1\r\n\r\nGET /a HTTP/1.1\r\n\r\n";
    let told = call(&stub, asked.as_bytes(), nowhere()).await;
    assert!(told.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{told}");
    assert!(
        told.contains("no recorded answer to GET /c; nearest: GET /a; path.1: recorded a, came c"),
        "{told}"
    );
    assert!(told.ends_with("2\r\nok\r\n0\r\n\r\n"), "{told}");
    let misses = stub.misses();
    assert_eq!(
        (misses.len(), misses[0].count, misses[0].label.as_str()),
        (1, 1, "GET /c")
    );
}

#[tokio::test]
async fn who_expects_to_be_told_to_go_on_is_told() {
    let stub = stub("http", ASKED, TOLD, settings(OnMiss::Fail));
    let mut stream = stub.answer(SERVER.parse().unwrap(), nowhere()).unwrap().unwrap();
    stream
        .write_all(b"POST /b HTTP/1.1\r\nContent-Length: 7\r\nExpect: 100-continue\r\n\r\n")
        .await
        .unwrap();
    let mut told = [0; 25];
    stream.read_exact(&mut told).await.unwrap();
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"{\"n\":1}").await.unwrap();
    let mut told = vec![0; 20];
    stream.read_exact(&mut told).await.unwrap();
    assert_eq!(told, b"HTTP/1.1 201 Created");
}

#[tokio::test]
async fn a_miss_may_pass_and_be_kept() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = vec![0; 64];
        let read = stream.read(&mut asked).await.unwrap();
        assert!(asked[..read].starts_with(b"GET /new "));
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nreal";
        stream.write_all(answer).await.unwrap();
    });
    let dial: Dial = Arc::new(move || Box::pin(TcpStream::connect(address)));
    let stub = stub("http", ASKED, TOLD, settings(OnMiss::Record));
    let asked = b"GET /new HTTP/1.1\r\n\r\n";
    assert!(call(&stub, asked, dial).await.ends_with("real"));
    server.await.unwrap();
    // The second time the server is gone.
    assert!(call(&stub, asked, nowhere()).await.ends_with("real"));
    let counts = stub.counts();
    let all = [&counts.answered, &counts.missed, &counts.passed].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(all, [1, 1, 1]);
}

#[tokio::test]
async fn recorded_waits_are_kept_as_asked() {
    let timed = |pace| {
        let stub = stub(
            "http",
            ASKED,
            TOLD,
            Settings {
                pace,
                ..settings(OnMiss::Fail)
            },
        );
        async move {
            let begun = std::time::Instant::now();
            call(&stub, b"GET /a HTTP/1.1\r\nConnection: close\r\n\r\n", nowhere()).await;
            begun.elapsed()
        }
    };
    // Recorded are 2 ms.
    assert!(timed(50.0).await >= Duration::from_millis(100));
    assert!(timed(0.0).await < Duration::from_millis(90));
}

#[tokio::test]
async fn redis_is_answered_and_a_miss_is_its_error() {
    let asked = "*2\r\n$3\r\nGET\r\n$1\r\na\r\n";
    let stub = stub("redis", asked, "$2\r\nhi\r\n", settings(OnMiss::Fail));
    let told = call(
        &stub,
        b"GET a\r\nGET b\r\nCLIENT SETINFO lib-name x\r\n",
        nowhere(),
    )
    .await;
    let lines: Vec<_> = told.split("\r\n").collect();
    assert_eq!(&lines[..2], ["$2", "hi"]);
    assert!(
        lines[2].starts_with("-ERR spike stub: no recorded answer to GET b; nearest: GET a"),
        "{told}"
    );
    assert_eq!(lines[3], "+OK");
}

#[tokio::test]
async fn each_connection_may_begin_with_the_first_answers() {
    let (asked, told) = ("GET a\r\nGET a\r\n", "+1\r\n+2\r\n");
    for (lifetime, expected) in [(Lifetime::Session, "+2\r\n"), (Lifetime::Connection, "+1\r\n")] {
        let stub = stub(
            "redis",
            asked,
            told,
            Settings {
                lifetime,
                ..settings(OnMiss::Fail)
            },
        );
        assert_eq!(call(&stub, b"GET a\r\n", nowhere()).await, "+1\r\n");
        assert_eq!(call(&stub, b"GET a\r\n", nowhere()).await, expected);
        stub.restart();
        assert_eq!(call(&stub, b"GET a\r\n", nowhere()).await, "+1\r\n");
    }
}

#[tokio::test]
async fn a_server_is_known_by_its_address_else_by_its_port() {
    let at = |server: &str| {
        let mut recorded = recorded("redis", b"PING\r\n", format!("+{server}\r\n").as_bytes());
        recorded.server = server.to_owned();
        recorded.split()
    };
    let talks = [at("10.0.0.1:80"), at("10.0.0.2:80"), at("10.0.0.2:81")];
    let stub = Stub::new(&talks, [], settings(OnMiss::Fail));
    for (address, expected) in [
        ("10.0.0.2:80", Some(1)),
        ("[::ffff:10.0.0.2]:81", Some(2)),
        ("10.9.9.9:81", Some(2)),
        ("10.0.0.1:82", None),
    ] {
        assert_eq!(stub.place(address.parse().unwrap()), expected, "{address}");
    }
    assert_eq!(
        Stub::new(&talks[..1], [], settings(OnMiss::Fail)).place("10.9.9.9:1".parse().unwrap()),
        Some(0)
    );
}

#[tokio::test]
async fn mysql_is_answered_whatever_its_statements_numbers_are() {
    use crate::replay::wire::mysql::{frame, tests as recordings};
    let stub = Stub::new(&[recordings::connection().split()], [], settings(OnMiss::Fail));
    let mut stream = stub
        .answer("127.0.0.1:3306".parse().unwrap(), nowhere())
        .unwrap()
        .unwrap();
    let asked = [
        recordings::hello(true),
        frame(0, b"\x16SELECT ?"),
        frame(0, b"\x17\x01\0\0\0\0\x01\0\0\0\x2a"),
        frame(0, b"\x0e"),
        frame(0, b"\x03\0\x01SELECT 'b'"),
        frame(0, b"\x01"),
    ];
    stream.write_all(&asked.concat()).await.unwrap();
    let mut told = Vec::new();
    stream.read_to_end(&mut told).await.unwrap();
    let greeting = recordings::greeting().len();
    let good = |number: u8| frame(number, &[0, 0, 0, 2, 0, 0, 0]);
    let expected = [
        frame(2, &[1, 3]),
        good(3),
        frame(1, &[0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0]),
        frame(1, b"forty-two"),
        good(1),
    ]
    .concat();
    assert!(told[greeting..].starts_with(&expected), "{told:?}");
    let error = String::from_utf8_lossy(&told[greeting + expected.len()..]).into_owned();
    assert!(
        error.contains("#HY000spike stub: no recorded answer to SELECT 'b'; nearest: SELECT 'a'"),
        "{error}"
    );
}

#[tokio::test]
async fn names_are_answered_under_the_askers_number() {
    use crate::replay::wire::dns;
    let question = |id: u8| {
        let mut bytes = vec![0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3];
        bytes.extend(b"api\x07example\0\0\x01\0\x01");
        bytes
    };
    let mut answer = question(1);
    (answer[2], answer[3]) = (0x81, 0x80);
    let mut recorded = recorded("dns", &dns::framed(&question(1)), &dns::framed(&answer));
    recorded.server = SERVER.to_owned();
    let stub = Stub::new(&[recorded.split()], [], settings(OnMiss::Fail));
    let mut stream = stub.answer(SERVER.parse().unwrap(), nowhere()).unwrap().unwrap();
    stream.write_all(&dns::framed(&question(9))).await.unwrap();
    let mut told = vec![0; answer.len() + 2];
    stream.read_exact(&mut told).await.unwrap();
    answer[1] = 9;
    assert_eq!(told, dns::framed(&answer));
}

#[tokio::test]
async fn bytes_of_an_unknown_protocol_follow_a_recorded_conversation() {
    let stub = stub("telepathy", "hi", "hello", settings(OnMiss::Fail));
    assert_eq!(call(&stub, b"hi", nowhere()).await, "hello");
    assert_eq!(call(&stub, b"ho", nowhere()).await, "");
    let misses = stub.misses();
    assert_eq!(
        misses[0].note.as_deref(),
        Some("no recorded conversation goes on so")
    );
}
