//! Recorded requests, sent to a server of the test's own.

use std::sync::atomic::AtomicBool;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::replay::{
    Flow,
    wire::{Recorded, http1, http1::Read},
};

const SPACING: Duration = Duration::from_millis(50);

/// Requests for `/0`, `/1` and so on, 50 ms apart, each answered with its own path.
fn talk(count: usize) -> Talk {
    let (mut asked, mut told) = (Vec::new(), Vec::new());
    let (mut asked_at, mut told_at) = (0_u64, 0_u64);
    for number in 0..count {
        let at = number as u64 * SPACING.as_nanos() as u64;
        let request = format!("GET /{number} HTTP/1.1\r\nHost: old\r\nX-Token: t-old\r\n\r\n").into_bytes();
        let answer = answer(&format!("/{number}"), "t-old");
        for (bytes, chunks, position, at) in [
            (request, &mut asked, &mut asked_at, at),
            (answer, &mut told, &mut told_at, at + 1_000_000),
        ] {
            let start = *position;
            *position += bytes.len() as u64;
            chunks.push((start, at, bytes));
        }
    }
    Recorded {
        protocol: Some("http".to_owned()),
        server: "10.0.0.1:80".to_owned(),
        client: Flow::new(asked, asked_at).unwrap(),
        answers: Flow::new(told, told_at).unwrap(),
        ..Recorded::default()
    }
    .split()
}

fn answer(path: &str, token: &str) -> Vec<u8> {
    let body = format!("{{\"path\":\"{path}\",\"token\":\"{token}\"}}");
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// What a server heard: when, and the whole request.
type Heard = Arc<Mutex<Vec<(Instant, http1::Message)>>>;

/// Answers as recorded, but `/1` otherwise when `changed`, and with a token of its own.
async fn server(changed: bool, token: &'static str) -> (Target, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap().to_string().parse().unwrap();
    let heard = Heard::default();
    let hearing = heard.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let heard = hearing.clone();
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                loop {
                    if let Read::Message(message) = http1::request(&bytes) {
                        bytes.drain(..message.size);
                        let path = if changed && message.target == "/1" {
                            "/x"
                        } else {
                            &message.target
                        };
                        let answer = answer(path, token);
                        heard.lock().unwrap().push((Instant::now(), *message));
                        stream.write_all(&answer).await.unwrap();
                    } else if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
            });
        }
    });
    (target, heard)
}

fn options(target: Target) -> Options {
    Options {
        target,
        server: None,
        pace: Pace::Speed(1.0),
        concurrency: None,
        rounds: 1,
        changes: Changes::default(),
        noise: Noise::default(),
        patience: Duration::from_secs(10),
        login: Login::default(),
    }
}

async fn run(talks: &[Talk], options: Options) -> Report {
    drive(talks, options, |_, _| {}, CancellationToken::new())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_sent_in_their_order_and_time() {
    let (target, heard) = server(false, "t-old").await;
    let report = run(&[talk(20)], options(target.clone())).await;
    assert!(report.is_same() && report.requests == 20, "{report:?}");
    let heard = heard.lock().unwrap();
    let paths: Vec<_> = heard.iter().map(|(_, message)| message.target.clone()).collect();
    assert_eq!(
        paths,
        (0..20).map(|number| format!("/{number}")).collect::<Vec<_>>()
    );
    assert!(
        heard
            .iter()
            .all(|(_, message)| message.header("host") == Some(&target.to_string()))
    );
    let whole = heard[19].0 - heard[0].0;
    assert!(whole >= SPACING * 19 - Duration::from_millis(2), "{whole:?}");
    let gaps = heard.windows(2).map(|pair| pair[1].0 - pair[0].0);
    let mut errors: Vec<Duration> = gaps.map(|gap| gap.abs_diff(SPACING)).collect();
    errors.sort();
    // The median: a busy machine holds single wake-ups back.
    assert!(errors[errors.len() / 2] < Duration::from_millis(1), "{errors:?}");
    // How exact it is on a machine with nothing else to do is no matter for a test.
    assert!(report.late_ms.p50 < 200.0, "{:?}", report.late_ms);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_changed_answer_is_found_and_nothing_else() {
    let (target, _) = server(true, "t-old").await;
    let options = Options {
        pace: Pace::Speed(10.0),
        ..options(target)
    };
    let report = run(&[talk(5)], options).await;
    assert_eq!((report.same, report.different, report.failed), (4, 1, 0));
    let wrong: Vec<_> = report.wrong().collect();
    assert_eq!(wrong[0].call, "GET /1");
    assert_eq!(
        wrong[0].differences,
        ["body.path: recorded \\\"/1\\\", came \\\"/x\\\""]
    );
    let text = report::text(&report);
    assert!(text.contains("4 as recorded, 1 different"), "{text}");
    let junit = report::junit(&report);
    assert_eq!(junit.matches("<testcase ").count(), 5);
    assert_eq!(junit.matches("<failure ").count(), 1, "{junit}");
    let html = report::html(&report);
    assert!(
        html.contains("<svg ") && html.contains("GET /1") && !html.contains("<script"),
        "{html}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_hosts_are_changed_as_asked() {
    let (target, heard) = server(false, "t-new").await;
    let changes = Changes {
        headers: vec![("X-Mine".to_owned(), "1".to_owned())],
        replace: vec![("/4".to_owned(), "/four".to_owned())],
        carry: vec!["body.token".to_owned()],
        keep_host: true,
    };
    let report = run(
        &[talk(5)],
        Options {
            changes,
            // One after the other, so that each answer is there before the next request.
            concurrency: Some(1),
            ..options(target)
        },
    )
    .await;
    assert_eq!(
        (report.different, report.failed),
        (1, 0),
        "{}",
        report::text(&report)
    );
    let heard = heard.lock().unwrap();
    let tokens: Vec<_> = heard
        .iter()
        .map(|(_, message)| message.header("x-token").unwrap())
        .collect();
    assert_eq!(tokens, ["t-old", "t-new", "t-new", "t-new", "t-new"]);
    assert_eq!(heard[4].1.target, "/four");
    assert!(
        heard
            .iter()
            .all(|(_, m)| m.header("host") == Some("old") && m.header("x-mine") == Some("1"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_rounds_and_workers_do_as_they_say() {
    let (target, heard) = server(false, "t-old").await;
    let rated = Options {
        pace: Pace::Rate(200.0),
        rounds: 2,
        ..options(target.clone())
    };
    let report = run(&[talk(10)], rated).await;
    assert_eq!(report.same, 20);
    assert!(report.took_ms >= 2.0 * 45.0, "{report:?}");
    let workers = Options {
        concurrency: Some(3),
        ..options(target)
    };
    assert_eq!(run(&[talk(10)], workers).await.same, 10);
    assert_eq!(heard.lock().unwrap().len(), 30);
}

#[tokio::test]
async fn what_cannot_be_sent_is_an_error_or_a_failure() {
    let here = talk(1);
    let other = Talk {
        server: "10.0.0.2:80".to_owned(),
        ..here.clone()
    };
    let nobody: Target = "127.0.0.1:1".parse().unwrap();
    let never = CancellationToken::new();
    let both = [here.clone(), other];
    let failed = drive(&both, options(nobody.clone()), |_, _| {}, never.clone()).await;
    assert!(matches!(failed, Err(PlanError::Servers(servers)) if servers.len() == 2));
    let failed = drive(&[], options(nobody.clone()), |_, _| {}, never).await;
    assert!(matches!(failed, Err(PlanError::Nothing(_))));
    let seen = AtomicBool::new(false);
    let here = [here];
    let report = drive(
        &here,
        options(nobody),
        |done, total| seen.store(done == 1 && total == 1, Ordering::Relaxed),
        CancellationToken::new(),
    );
    let report = report.await.unwrap();
    assert_eq!(report.failed, 1);
    assert!(
        report.calls[0]
            .error
            .as_ref()
            .unwrap()
            .starts_with("connect to 127.0.0.1:1: ")
    );
    assert!(seen.load(Ordering::Relaxed));
}

#[tokio::test]
async fn what_needs_an_answer_on_another_connection_waits_for_it() {
    let talk = |connection: i64, at: u64, asked: &str, told: &str| {
        let flow = |at: u64, text: &str| {
            let bytes = text.as_bytes().to_vec();
            Flow::new([(0, at, bytes)], text.len() as u64).unwrap()
        };
        Recorded {
            connection,
            protocol: Some("redis".to_owned()),
            server: "10.0.0.1:6379".to_owned(),
            opened_ns: at,
            client: flow(at, asked),
            answers: flow(at + 1_000_000, told),
            ..Recorded::default()
        }
        .split()
    };
    let set = talk(1, 5_000_000, "SET a 1\r\n", "+OK\r\n");
    let get = talk(2, 7_000_000, "GET a\r\n", "$1\r\n1\r\n");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target: Target = listener.local_addr().unwrap().to_string().parse().unwrap();
    let value = Arc::new(Mutex::new(None));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let value = value.clone();
            tokio::spawn(async move {
                let mut asked = [0; 64];
                let length = stream.read(&mut asked).await.unwrap();
                let answer = if asked[..length].starts_with(b"SET") {
                    // Much longer than it took when it was recorded.
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    *value.lock().unwrap() = Some(1);
                    "+OK\r\n"
                } else if value.lock().unwrap().is_some() {
                    "$1\r\n1\r\n"
                } else {
                    "$-1\r\n"
                };
                stream.write_all(answer.as_bytes()).await.unwrap();
            });
        }
    });
    let fast = Options {
        pace: Pace::Speed(100.0),
        ..options(target)
    };
    let report = run(&[set, get], fast).await;
    assert_eq!(report.same, 2, "{}", report::text(&report));
    assert!(report.late_ms.max >= 150.0, "{:?}", report.late_ms);
}
