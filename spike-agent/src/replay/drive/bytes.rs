//! Sends what was said on one recorded connection on one new connection, in order, each after the answer to the one before:
//! Redis, PostgreSQL, DNS, and bytes of any protocol.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket, lookup_host},
    time::timeout,
};

use super::{
    LEAD, Shared,
    answered::Answered,
    plan::{Lane, Step},
    postgres,
};
use crate::{
    fault::timer,
    protocol::ProtocolName,
    replay::{
        exchange::Sent,
        parts::Parts,
        wire::{self, dns, raw, redis},
    },
};

/// The largest datagram.
const MAX_DATAGRAM: usize = 65_535;

/// Sends a lane; what cannot be sent any more fails.
pub(super) async fn send_all(lane: Lane, shared: Arc<Shared>, answered: Arc<Answered>, start: Instant) {
    if let Some(opens) = (start + lane.opens).checked_sub(LEAD) {
        timer::until(opens).await;
    }
    answered.up_to(lane.after).await;
    let patience = shared.options.patience;
    let late = || format!("no answer within {patience:?}");
    let opened = timeout(patience, Line::open(&lane, &shared)).await;
    let mut line = opened.unwrap_or_else(|_| Err(late()));
    for step in &lane.steps {
        let due = start + step.due;
        timer::until(due).await;
        answered.up_to(step.after).await;
        let open = match &mut line {
            Ok(open) => open,
            Err(why) => {
                shared.add(shared.judge(step, due, None, Err(why.clone())));
                answered.note(step.answer);
                continue;
            }
        };
        let sent = Instant::now();
        let answer = timeout(patience, open.exchange(step, &shared)).await;
        let answer = answer.unwrap_or_else(|_| Err(late()));
        // A datagram that was lost says nothing of the next one.
        let failed = answer.as_ref().err().filter(|_| !lane.is_udp).cloned();
        shared.add(shared.judge(step, due, Some(sent), answer));
        answered.note(step.answer);
        if let Some(why) = failed {
            line = Err(why);
        }
    }
}

/// A connection to the target.
struct Line {
    protocol: Option<ProtocolName>,
    io: Io,
    /// What has come and is of no answer so far.
    bytes: Vec<u8>,
}

enum Io {
    Stream(TcpStream),
    Datagrams(UdpSocket),
}

impl Io {
    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stream(stream) => stream.write_all(bytes).await,
            Self::Datagrams(socket) => socket.send(bytes).await.map(drop),
        }
    }

    /// Reads more; false at the end.
    async fn receive(&mut self, bytes: &mut Vec<u8>) -> io::Result<bool> {
        match self {
            Self::Stream(stream) => Ok(stream.read_buf(bytes).await? > 0),
            Self::Datagrams(socket) => {
                // Each is a message of its own.
                bytes.resize(MAX_DATAGRAM, 0);
                let length = socket.recv(bytes).await?;
                bytes.truncate(length);
                Ok(true)
            }
        }
    }
}

impl Line {
    async fn open(lane: &Lane, shared: &Shared) -> Result<Self, String> {
        let options = &shared.options;
        let io = if lane.is_udp {
            let target = options.target.to_string();
            let opened = datagrams(&target).await;
            Io::Datagrams(opened.map_err(|error| format!("send datagrams to {target}: {error}"))?)
        } else {
            let mut stream = options.target.connect().await?;
            if lane.protocol == Some(ProtocolName::Postgres) {
                postgres::log_in(&mut stream, &lane.login, &options.login).await?;
            }
            Io::Stream(stream)
        };
        Ok(Self {
            protocol: lane.protocol,
            io,
            bytes: Vec::new(),
        })
    }

    async fn exchange(&mut self, step: &Step, shared: &Shared) -> Result<(Parts, Duration), String> {
        let Sent::Raw(asked) = &step.exchange.sent else {
            return Err("not bytes".to_owned());
        };
        let said = self.changed(asked, shared);
        self.io.send(&said).await.map_err(|error| error.to_string())?;
        let sent = Instant::now();
        let mut latency = None;
        loop {
            if let Some(size) = self.answer(step)? {
                let answer: Vec<u8> = self.bytes.drain(..size).collect();
                if let Some(parts) = self.parts(&answer, asked) {
                    return Ok((parts, latency.unwrap_or_default()));
                }
                continue;
            }
            let goes_on = self.io.receive(&mut self.bytes).await;
            if !goes_on.map_err(|error| error.to_string())? {
                return Err("the connection ended before the answer".to_owned());
            }
            latency.get_or_insert_with(|| sent.elapsed());
        }
    }

    fn is_udp(&self) -> bool {
        matches!(self.io, Io::Datagrams(_))
    }

    /// A request as it is sent now.
    fn changed(&self, asked: &[u8], shared: &Shared) -> Vec<u8> {
        let replacements = shared.replacements();
        match self.protocol {
            Some(ProtocolName::Redis) => changed(asked, &replacements),
            Some(ProtocolName::Postgres) if !replacements.is_empty() => {
                postgres::changed(asked, &replacements)
            }
            Some(ProtocolName::Dns) if !self.is_udp() => dns::framed(asked),
            _ => asked.to_vec(),
        }
    }

    /// The size of the answer, once all of it is there.
    fn answer(&self, step: &Step) -> Result<Option<usize>, String> {
        let bytes = &self.bytes;
        match self.protocol {
            Some(ProtocolName::Redis) => redis::reply(bytes).map_err(str::to_owned),
            Some(ProtocolName::Postgres) => Ok(wire::postgres::ready_at(bytes)),
            Some(ProtocolName::Dns) if self.is_udp() => Ok((!bytes.is_empty()).then_some(bytes.len())),
            Some(ProtocolName::Dns) => {
                let size = dns::framed_size(bytes).map(|size| 2 + size);
                Ok(size.filter(|size| bytes.len() >= *size))
            }
            _ => {
                let expected = step.exchange.answer.bytes().len();
                Ok((bytes.len() >= expected).then_some(expected))
            }
        }
    }

    /// What an answer says; none when it is that to another question.
    fn parts(&self, answer: &[u8], asked: &[u8]) -> Option<Parts> {
        match self.protocol {
            Some(ProtocolName::Redis) => Some(redis::reply_parts(answer)),
            Some(ProtocolName::Postgres) => Some(wire::postgres::row_parts(answer)),
            Some(ProtocolName::Dns) => {
                let answer = if self.is_udp() { answer } else { answer.get(2..)? };
                (answer.get(..2) == asked.get(..2)).then(|| dns::answer_parts(answer))
            }
            _ => Some(raw::parts(answer)),
        }
    }
}

async fn datagrams(target: &str) -> io::Result<UdpSocket> {
    let mut found = lookup_host(target).await?;
    let address = found
        .next()
        .ok_or_else(|| io::Error::other("it has no address"))?;
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(address).await?;
    Ok(socket)
}

/// A command of Redis with what is to be replaced in its arguments.
fn changed(raw: &[u8], replacements: &[(String, String)]) -> Vec<u8> {
    let Some(command) = redis::command(raw)
        .ok()
        .flatten()
        .filter(|_| !replacements.is_empty())
    else {
        return raw.to_vec();
    };
    let mut out = format!("*{}\r\n", command.arguments.len()).into_bytes();
    for argument in command.arguments {
        let argument = match String::from_utf8(argument) {
            Ok(text) => replacements
                .iter()
                .fold(text, |text, (old, new)| text.replace(old, new))
                .into_bytes(),
            Err(error) => error.into_bytes(),
        };
        out.extend(format!("${}\r\n", argument.len()).into_bytes());
        out.extend(argument);
        out.extend(b"\r\n");
    }
    out
}
