//! The proxy between real loopback sockets.

use std::hash::{DefaultHasher, Hasher};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::*;
use crate::{
    fault::book::Book,
    model::{Fault, RawFault},
};

mod hot;
mod stream;

/// More than enough for anything that does not hang.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a busy machine may add.
const SLACK: Duration = Duration::from_millis(250);

struct Everywhere(Option<SocketAddr>);

impl Originals for Everywhere {
    fn take(&self, _: u64, _: SocketAddr, _: SocketAddr) -> Option<Original> {
        Some(Original {
            destination: self.0?.into(),
            caller: Caller::default(),
        })
    }
}

struct HostSockets;

impl UpstreamSockets for HostSockets {
    fn tcp(&self, ipv6: bool) -> io::Result<OwnedFd> {
        let family = if ipv6 {
            AddressFamily::INET6
        } else {
            AddressFamily::INET
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        Ok(rustix::net::socket_with(family, SocketType::STREAM, flags, None)?)
    }
}

/// A fault on everything with one effect, or a list of them.
fn fault_of(effect: &str) -> Fault {
    let key = if effect.starts_with('[') {
        "effects"
    } else {
        "effect"
    };
    let body = format!(r#"{{"everything":true,"seed":7,"{key}":{effect}}}"#);
    let raw = serde_json::from_str::<RawFault>(&body).unwrap();
    Fault::try_from(&raw).unwrap()
}

/// A server, and a proxy before it with faults armed.
struct World {
    book: Book,
    server: TcpListener,
    proxy: Arc<Proxy>,
    address: SocketAddr,
}

impl World {
    async fn new(effects: &[&str]) -> Self {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let destination = server.local_addr().unwrap();
        Self::towards(Some(destination), server, effects).await
    }

    async fn towards(destination: Option<SocketAddr>, server: TcpListener, effects: &[&str]) -> Self {
        let book = Book::default();
        for effect in effects {
            book.add(fault_of(effect)).unwrap();
        }
        let proxy = Proxy::new(Arc::new(Everywhere(destination)), book.subscribe());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(proxy.clone().serve(listener, 1, Arc::new(HostSockets), stop));
        Self {
            book,
            server,
            proxy,
            address,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// The caller's end and the server's.
    async fn connection(&self) -> (TcpStream, TcpStream) {
        let client = self.connect().await;
        (
            client,
            timeout(PATIENCE, self.server.accept()).await.unwrap().unwrap().0,
        )
    }

    async fn server_is_not_asked(&self) -> bool {
        timeout(Duration::from_millis(50), self.server.accept())
            .await
            .is_err()
    }
}

async fn byte(stream: &mut TcpStream) -> io::Result<u8> {
    timeout(PATIENCE, stream.read_u8()).await.unwrap()
}

async fn is_reset(stream: &mut TcpStream) -> bool {
    byte(stream)
        .await
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

async fn is_silent(stream: &mut TcpStream) -> bool {
    let mut buffer = [0];
    timeout(Duration::from_millis(100), stream.peek(&mut buffer))
        .await
        .is_err()
}

/// Bytes that repeat with no power of two, a different run for each `way`.
fn body(length: usize, way: usize) -> Vec<u8> {
    (0..length).map(|index| (index * (way + 3) % 251) as u8).collect()
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// Sends in chunks of lengths from 1 on, and then ends its direction.
async fn send(mut writer: impl tokio::io::AsyncWrite + Unpin, body: Vec<u8>) {
    let mut rest = &body[..];
    for n in 0.. {
        let length = (spike_common::chance::roll(1, n) as usize % 100_000 + 1).min(rest.len());
        if length == 0 {
            break;
        }
        writer.write_all(&rest[..length]).await.unwrap();
        rest = &rest[length..];
    }
    writer.shutdown().await.unwrap();
}

async fn receive(mut reader: impl tokio::io::AsyncRead + Unpin) -> Vec<u8> {
    let mut received = Vec::new();
    timeout(PATIENCE, reader.read_to_end(&mut received))
        .await
        .unwrap()
        .unwrap();
    received
}

/// Sends both ways at the same time and checks what arrives.
async fn exchange(world: &World, length: usize) -> Duration {
    let start = Instant::now();
    let (client, server) = world.connection().await;
    let (client_reader, client_writer) = client.into_split();
    let (server_reader, server_writer) = server.into_split();
    let sending = [
        tokio::spawn(send(client_writer, body(length, 0))),
        tokio::spawn(send(server_writer, body(length, 1))),
    ];
    let receiving = [
        tokio::spawn(receive(server_reader)),
        tokio::spawn(receive(client_reader)),
    ];
    for (way, receiving) in receiving.into_iter().enumerate() {
        let received = receiving.await.unwrap();
        assert_eq!(received.len(), length);
        assert_eq!(checksum(&received), checksum(&body(length, way)));
    }
    for sending in sending {
        sending.await.unwrap();
    }
    start.elapsed()
}

const LATENCY: &str = r#"{"type":"latency","delay":"60ms","jitter":"20ms","direction":"both"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn bytes_pass_unchanged_both_ways() {
    exchange(&World::new(&[]).await, 20 << 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_effects_keeps_the_order_of_bytes() {
    let bandwidth = r#"{"type":"bandwidth","rate":"100MiB/s"}"#;
    let world = World::new(&[LATENCY, bandwidth, r#"{"type":"latency","delay":"5ms"}"#]).await;
    let time = exchange(&world, 20 << 20).await;
    assert!(time >= Duration::from_millis(240), "{time:?}");
}

#[tokio::test]
async fn latency_is_added_to_each_answer() {
    let delay = Duration::from_millis(80);
    let world = World::new(&[r#"{"type":"latency","delay":"80ms"}"#]).await;
    let (mut client, mut server) = world.connection().await;
    let opened = Instant::now();
    for _ in 0..3 {
        let start = Instant::now();
        client.write_u8(1).await.unwrap();
        assert_eq!(byte(&mut server).await.unwrap(), 1);
        assert!(start.elapsed() < SLACK);
        let start = Instant::now();
        server.write_u8(2).await.unwrap();
        assert_eq!(byte(&mut client).await.unwrap(), 2);
        assert!(
            start.elapsed() >= delay && start.elapsed() < delay + SLACK,
            "{:?}",
            start.elapsed()
        );
    }
    let start = Instant::now();
    drop(server);
    assert_eq!(
        byte(&mut client).await.unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );
    assert!(start.elapsed() >= delay && opened.elapsed() >= 4 * delay);
}

#[tokio::test]
async fn removing_latency_lets_all_bytes_go() {
    let world = World::new(&[r#"{"type":"latency","delay":"1h"}"#]).await;
    let (mut client, mut server) = world.connection().await;
    server.write_u8(1).await.unwrap();
    assert!(is_silent(&mut client).await);
    world.book.clear();
    assert_eq!(byte(&mut client).await.unwrap(), 1);
    server.write_u8(2).await.unwrap();
    assert_eq!(byte(&mut client).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn bandwidth_bounds_the_rate_of_a_direction() {
    let world = World::new(&[r#"{"type":"bandwidth","rate":"1MB/s","direction":"request"}"#]).await;
    let (client, server) = world.connection().await;
    let start = Instant::now();
    let sending = tokio::spawn(send(client, body(400_000, 0)));
    assert_eq!(receive(server).await.len(), 400_000);
    let time = start.elapsed();
    assert!(
        time >= Duration::from_millis(400) && time < Duration::from_millis(400) + SLACK,
        "{time:?}"
    );
    sending.await.unwrap();
}

#[tokio::test]
async fn one_direction_goes_on_after_the_other_ended() {
    for effects in [
        &[][..],
        &[r#"{"type":"latency","delay":"1ms","direction":"both"}"#],
    ] {
        let world = World::new(effects).await;
        for client_ends_first in [true, false] {
            let (client, server) = world.connection().await;
            let (mut first, mut second) = if client_ends_first {
                (client, server)
            } else {
                (server, client)
            };
            first.write_u8(1).await.unwrap();
            first.shutdown().await.unwrap();
            assert_eq!(byte(&mut second).await.unwrap(), 1);
            assert_eq!(
                byte(&mut second).await.unwrap_err().kind(),
                io::ErrorKind::UnexpectedEof
            );
            assert!(is_silent(&mut first).await);
            second.write_u8(2).await.unwrap();
            assert_eq!(byte(&mut first).await.unwrap(), 2);
            second.shutdown().await.unwrap();
            assert_eq!(
                byte(&mut first).await.unwrap_err().kind(),
                io::ErrorKind::UnexpectedEof
            );
        }
    }
}

#[tokio::test]
async fn a_reset_of_one_side_reaches_the_other() {
    for effects in [&[][..], &[LATENCY]] {
        let world = World::new(effects).await;
        for client_breaks in [true, false] {
            for after_its_end in [false, true] {
                let (client, server) = world.connection().await;
                let (mut first, mut second) = if client_breaks {
                    (client, server)
                } else {
                    (server, client)
                };
                first.write_u8(1).await.unwrap();
                assert_eq!(byte(&mut second).await.unwrap(), 1);
                if after_its_end {
                    first.shutdown().await.unwrap();
                    assert_eq!(
                        byte(&mut second).await.unwrap_err().kind(),
                        io::ErrorKind::UnexpectedEof
                    );
                }
                first.set_zero_linger().unwrap();
                drop(first);
                if after_its_end {
                    timeout(PATIENCE, second.ready(tokio::io::Interest::ERROR))
                        .await
                        .unwrap()
                        .unwrap();
                } else {
                    assert!(is_reset(&mut second).await);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_stalled_connection_holds_its_bytes_until_the_fault_is_removed() {
    let world = World::new(&[r#"{"type":"timeout"}"#]).await;
    let (mut client, mut server) = world.connection().await;
    client.write_u8(1).await.unwrap();
    server.write_u8(2).await.unwrap();
    client.shutdown().await.unwrap();
    assert!(is_silent(&mut client).await && is_silent(&mut server).await);
    world.book.clear();
    assert_eq!(byte(&mut server).await.unwrap(), 1);
    assert_eq!(byte(&mut client).await.unwrap(), 2);
    assert_eq!(
        byte(&mut server).await.unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );
}

#[tokio::test]
async fn a_stalled_connection_ends_when_its_caller_breaks_it() {
    let world = World::new(&[r#"{"type":"timeout"}"#]).await;
    let (mut client, mut server) = world.connection().await;
    client.write_u8(1).await.unwrap();
    assert!(is_silent(&mut server).await);
    client.set_zero_linger().unwrap();
    drop(client);
    assert!(is_reset(&mut server).await);
    timeout(PATIENCE, async {
        while world.book.list()[0].active() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_timeout_or_reset_comes_when_its_time_is_over() {
    for effect in [
        r#"{"type":"timeout","after":"100ms"}"#,
        r#"{"type":"reset","after":"100ms"}"#,
    ] {
        let world = World::new(&[effect]).await;
        let start = Instant::now();
        let (mut client, mut server) = world.connection().await;
        assert!(is_reset(&mut client).await && is_reset(&mut server).await);
        let time = start.elapsed();
        assert!(
            time >= Duration::from_millis(100) && time < Duration::from_millis(100) + SLACK,
            "{time:?}"
        );
        let (mut client, mut server) = world.connection().await;
        world.book.clear();
        tokio::time::sleep(Duration::from_millis(150)).await;
        client.write_u8(1).await.unwrap();
        assert_eq!(byte(&mut server).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_reset_at_once_does_not_ask_the_server() {
    for effect in [
        r#"{"type":"reset"}"#,
        r#"{"type":"refuse"}"#,
        r#"{"type":"timeout","after":"0s"}"#,
    ] {
        let world = World::new(&[effect]).await;
        assert!(is_reset(&mut world.connect().await).await);
        assert!(world.server_is_not_asked().await);
    }
}

#[tokio::test]
async fn a_connection_that_nothing_is_known_of_is_reset_and_counted() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::towards(None, server, &[]).await;
    assert!(is_reset(&mut world.connect().await).await);
    assert_eq!(world.proxy.counts().unknown.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_unreached_server_is_a_reset() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let world = World::towards(Some(closed), server, &[]).await;
    assert!(is_reset(&mut world.connect().await).await);
    assert_eq!(world.proxy.counts().unreached.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_mapped_destination_and_a_bound_source_are_kept() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    let mapped = format!("[::ffff:127.0.0.1]:{port}").parse().unwrap();
    let world = World::towards(Some(mapped), server, &[]).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
    let _client = socket.connect(world.address).await.unwrap();
    let (_, peer) = timeout(PATIENCE, world.server.accept()).await.unwrap().unwrap();
    assert_eq!(peer.ip().to_string(), "127.0.0.9");
}

#[tokio::test]
async fn idle_connections_hold_no_buffer() {
    let world = World::new(&[]).await;
    let mut connections = Vec::new();
    for _ in 0..50 {
        let (mut client, mut server) = world.connection().await;
        client.write_u8(1).await.unwrap();
        assert_eq!(byte(&mut server).await.unwrap(), 1);
        connections.push((client, server));
    }
    // The last of them gives its buffer back just after its byte came out.
    let kept = async {
        while world.proxy.pools.buffers.kept() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, kept).await.unwrap();
    // One a thread, that all have used in turn; a buffer that a connection kept would be missing here.
    let threads = std::thread::available_parallelism().unwrap().get();
    assert!(world.proxy.pools.buffers.kept() <= threads);
}
