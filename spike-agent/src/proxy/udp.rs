//! Carries redirected UDP datagrams: each caller's socket and destination have a socket of ours towards the destination,
//! and answers go back from the port that the caller was sent to.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    io,
    net::{SocketAddr, UdpSocket as StdUdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{net::UdpSocket, sync::mpsc};
use tokio_util::sync::CancellationToken;

use super::{DatagramAnswers, Opened, Original, Proxy, Reply, UpstreamSockets, tap::Taps, upstream};
use crate::lock::lock;
use crate::{
    fault::{datagrams::Fate, timer},
    model::Direction,
};

/// How long a session is kept without a datagram; the kernel's connection tracking has the same for UDP.
const IDLE: Duration = Duration::from_secs(60);
/// How long a port is served after interception ended: sockets that are connected to it know no other way.
const LINGER: Duration = Duration::from_secs(60);
/// Most datagrams that wait in one direction of a session; more are lost, as in a full socket.
const MAX_WAITING: usize = 1024;
/// The largest datagram.
const MAX_DATAGRAM: usize = 65_535;
/// Most sessions at one port.
const MAX_SESSIONS: usize = 4096;

/// A caller's socket and what it talks to.
type SessionKey = (SocketAddr, u64, SocketAddr);

/// One of the agent's ports in a network namespace.
struct Port {
    proxy: Arc<Proxy>,
    socket: UdpSocket,
    local: SocketAddr,
    netns_cookie: u64,
    upstream: Arc<dyn UpstreamSockets>,
    sessions: Mutex<HashMap<SessionKey, Arc<Session>>>,
}

/// Datagrams between one caller's socket and one destination.
struct Session {
    original: Original,
    taps: Taps,
    /// Who stands in for the destination.
    answers: Option<Arc<dyn DatagramAnswers>>,
    requests_tx: mpsc::Sender<Waiting>,
    start: Instant,
    /// Milliseconds from `start` to the last datagram.
    used: AtomicU64,
    ended: CancellationToken,
}

/// A datagram on its way.
struct Waiting {
    bytes: Bytes,
    fate: Fate,
}

impl Proxy {
    /// Serves one port for datagrams until `stop`, and a while longer for sockets that are connected to it.
    pub async fn serve_datagrams(
        self: Arc<Self>,
        socket: StdUdpSocket,
        netns_cookie: u64,
        upstream: Arc<dyn UpstreamSockets>,
        stop: CancellationToken,
    ) {
        let opened = socket
            .local_addr()
            .and_then(|local| Ok((local, UdpSocket::from_std(socket)?)));
        let (local, socket) = match opened {
            Ok(opened) => opened,
            Err(error) => return tracing::warn!(%error, "poll a port for datagrams"),
        };
        let port = Arc::new(Port {
            proxy: self,
            socket,
            local,
            netns_cookie,
            upstream,
            sessions: Mutex::default(),
        });
        let end = async {
            stop.cancelled().await;
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if !port.is_used_within(LINGER) {
                    return;
                }
            }
        };
        tokio::select! {
            () = end => {}
            () = port.receive_all() => {}
            never = port.expire() => never,
        }
        for session in lock(&port.sessions).values() {
            session.ended.cancel();
        }
    }
}

impl Port {
    async fn receive_all(self: &Arc<Self>) {
        let mut buffer = vec![0; MAX_DATAGRAM];
        loop {
            match self.socket.recv_from(&mut buffer).await {
                Ok((length, client)) => self.request(client, &buffer[..length]).await,
                // An error of a datagram that was sent before: the caller is gone.
                Err(error) => tracing::debug!(%error, "receive a datagram"),
            }
        }
    }

    async fn request(self: &Arc<Self>, client: SocketAddr, bytes: &[u8]) {
        let originals = &self.proxy.originals;
        let Some((cookie, destination)) = originals.datagrams(self.netns_cookie, client, self.local) else {
            return tracing::debug!(%client, "no original destination is known; datagram dropped");
        };
        let key = (client, cookie, destination);
        let known = lock(&self.sessions).get(&key).cloned();
        let session = match known.map_or_else(|| self.open(key), Ok) {
            Ok(session) => session,
            Err(error) => return tracing::debug!(%error, %destination, "open a way for datagrams; dropped"),
        };
        session.touch();
        session.taps.way(Direction::Request).sent(bytes).await;
        let fate = self.fate(&session, Direction::Request);
        send(&session.requests_tx, bytes, fate);
    }

    fn fate(&self, session: &Session, direction: Direction) -> Fate {
        let faults = self.proxy.faults_rx.borrow().clone();
        Fate::of(
            &faults,
            &session.original.caller,
            &session.original.destination,
            direction,
        )
    }

    fn open(self: &Arc<Self>, key: SessionKey) -> io::Result<Arc<Session>> {
        let (client, _, destination) = key;
        let proxy = &self.proxy;
        let mut original = proxy
            .originals
            .datagram_original(self.netns_cookie, client, self.local)
            .ok_or_else(|| io::Error::other("the caller is not known"))?;
        let faults = proxy.faults_rx.borrow().clone();
        proxy.find_source(&faults, &mut original, &*self.upstream, client);
        let answers = proxy.datagram_answers(&original.caller, &original.destination);
        let server = match self.connect(client, upstream::unmapped(destination)) {
            Ok(server) => Some(Arc::new(server)),
            // What is stood in for need not be reached.
            Err(error) if answers.is_some() => {
                tracing::debug!(%error, %destination, "the real server of datagrams cannot be reached");
                None
            }
            Err(error) => return Err(error),
        };
        let recorders = proxy.recorders.get().map_or_else(Vec::new, |recorders| {
            recorders.open(&Opened {
                is_datagrams: true,
                caller: &Arc::new(original.caller.clone()),
                destination: &original.destination,
                netns_cookie: self.netns_cookie,
                client: (client, self.local),
                at: Instant::now(),
            })
        });
        let (requests_tx, requests_rx) = mpsc::channel(MAX_WAITING);
        let (responses_tx, responses_rx) = mpsc::channel(MAX_WAITING);
        let session = Arc::new(Session {
            original,
            taps: Taps::of_datagrams(recorders),
            answers,
            requests_tx,
            start: Instant::now(),
            used: AtomicU64::new(0),
            ended: CancellationToken::new(),
        });
        let mut sessions = lock(&self.sessions);
        if sessions.len() >= MAX_SESSIONS {
            return Err(io::Error::other("there are too many sessions at this port"));
        }
        sessions.insert(key, Arc::clone(&session));
        drop(sessions);
        let port = Arc::clone(self);
        let running = Arc::clone(&session);
        tokio::spawn(async move {
            let line = |is_request| Way {
                port: &port,
                session: &running,
                server: server.as_deref(),
                client,
                responses_tx: &responses_tx,
                is_request,
            };
            let hears = async {
                match &server {
                    Some(server) => port.answers(server, &running, &responses_tx).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = running.ended.cancelled() => {}
                () = deliver(requests_rx, line(true)) => {}
                () = deliver(responses_rx, line(false)) => {}
                () = hears => {}
            }
        });
        Ok(session)
    }

    /// A socket towards the destination, from where the caller would have sent.
    fn connect(&self, client: SocketAddr, destination: SocketAddr) -> io::Result<UdpSocket> {
        let socket = self.upstream.udp(destination.is_ipv6())?;
        if let Some(source) = upstream::source(client, destination) {
            rustix::net::bind(&socket, &source)?;
        }
        rustix::net::connect(&socket, &destination)?;
        UdpSocket::from_std(StdUdpSocket::from(socket))
    }

    async fn answers(&self, server: &UdpSocket, session: &Session, responses_tx: &mpsc::Sender<Waiting>) {
        let mut buffer = vec![0; MAX_DATAGRAM];
        loop {
            match server.recv(&mut buffer).await {
                Ok(length) => {
                    session.touch();
                    if let Some(answers) = &session.answers {
                        answers.heard(&buffer[..length]);
                    }
                    let fate = self.fate(session, Direction::Response);
                    send(responses_tx, &buffer[..length], fate);
                }
                // Nobody listens there: the caller would have been told by ICMP, which it may not rely on.
                Err(error) => tracing::debug!(%error, "receive an answer"),
            }
        }
    }

    fn is_used_within(&self, time: Duration) -> bool {
        lock(&self.sessions).values().any(|session| session.idle() < time)
    }

    async fn expire(&self) -> ! {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            lock(&self.sessions).retain(|_, session| {
                let is_used = session.idle() < IDLE || session.requests_tx.capacity() < MAX_WAITING;
                if !is_used {
                    session.ended.cancel();
                }
                is_used
            });
        }
    }
}

impl Session {
    fn touch(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.used.store(now, Ordering::Relaxed);
    }

    fn idle(&self) -> Duration {
        let used = Duration::from_millis(self.used.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(used)
    }
}

fn send(waiting_tx: &mpsc::Sender<Waiting>, bytes: &[u8], fate: Fate) {
    if fate.copies > 0 {
        let bytes = Bytes::copy_from_slice(bytes);
        // A full line loses what comes, as a full socket does.
        _ = waiting_tx.try_send(Waiting { bytes, fate });
    }
}

/// Where a line of datagrams leads: to the server or who stands in for it, or back to the caller.
struct Way<'a> {
    port: &'a Port,
    session: &'a Session,
    /// None where only the stand-in can be reached.
    server: Option<&'a UdpSocket>,
    client: SocketAddr,
    responses_tx: &'a mpsc::Sender<Waiting>,
    is_request: bool,
}

impl Way<'_> {
    async fn send(&self, bytes: &[u8]) {
        let sent = if self.is_request {
            self.request(bytes).await
        } else {
            let sent = self.port.socket.send_to(bytes, self.client).await;
            self.session.taps.way(Direction::Response).arrived(bytes).await;
            sent.map(drop)
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "send a datagram on");
        }
    }

    async fn request(&self, bytes: &[u8]) -> io::Result<()> {
        let answers = self.session.answers.as_ref();
        match (
            answers.map_or(Reply::Pass, |answers| answers.reply(bytes)),
            self.server,
        ) {
            (Reply::Pass, Some(server)) => server.send(bytes).await.map(drop),
            (Reply::Answer(answer, after), _) => {
                let mut fate = self.port.fate(self.session, Direction::Response);
                if !after.is_zero() {
                    fate.at = Some(fate.at.unwrap_or_else(Instant::now) + after);
                }
                send(self.responses_tx, &answer, fate);
                Ok(())
            }
            (Reply::Pass, None) | (Reply::Silence, _) => Ok(()),
        }
    }
}

/// Lets each datagram go at its time; those of the same time in the order in which they came.
async fn deliver(mut waiting_rx: mpsc::Receiver<Waiting>, way: Way<'_>) {
    let mut line = BinaryHeap::<Reverse<InLine>>::new();
    let mut number = 0_u64;
    loop {
        let first = line
            .peek()
            .map(|Reverse(first)| (first.at, first.waiting.fate.removed.clone()));
        tokio::select! {
            biased;
            () = comes(first) => if let Some(Reverse(InLine { waiting, .. })) = line.pop() {
                for _ in 0..waiting.fate.copies {
                    way.send(&waiting.bytes).await;
                }
            },
            waiting = waiting_rx.recv(), if line.len() < MAX_WAITING => {
                let Some(waiting) = waiting else { return };
                number += 1;
                let at = waiting.fate.at.unwrap_or_else(Instant::now);
                line.push(Reverse(InLine { at, number, waiting }));
            }
        }
    }
}

/// Waits until the first in the line may go; for ever when there is none.
async fn comes(first: Option<(Instant, CancellationToken)>) {
    match first {
        Some((at, removed)) => tokio::select! {
            () = removed.cancelled() => {}
            () = timer::until(at) => {}
        },
        None => std::future::pending().await,
    }
}

struct InLine {
    at: Instant,
    number: u64,
    waiting: Waiting,
}

impl PartialEq for InLine {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for InLine {}

impl PartialOrd for InLine {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for InLine {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}
