//! Carries bytes between the caller and the server, each direction by itself, and ends and resets as they come.

use std::{
    io,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::{self, BoxFuture};
use rustix::net::Shutdown;
use tokio::{
    io::Interest,
    net::TcpStream,
    sync::mpsc::{self, Receiver, Sender},
    task::coop::consume_budget,
};

use super::{
    buffers::Buffers,
    tap::{Tap, Taps},
};
use crate::{
    fault::{
        lane::Lane,
        stage::{Chunk, Content},
        timer,
    },
    model::Direction,
};

/// How long a connection that a fault cuts waits for its reader to take the last bytes and to close its end too.
const LINGER: Duration = Duration::from_secs(1);

/// How a connection ended before both its directions had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// One side broke it; the other is to see that.
    Reset,
    /// A fault closes it.
    Cut,
}

/// Carries both directions until both have ended, one side breaks or a fault cuts it.
pub(super) async fn both_ways(
    client: &TcpStream,
    server: &TcpStream,
    [request, response]: [Vec<Lane>; 2],
    buffers: &Buffers,
    taps: &Taps,
) -> Result<(), Broken> {
    let mut request = one_way(client, server, request, buffers, taps.way(Direction::Request));
    let mut response = one_way(server, client, response, buffers, taps.way(Direction::Response));
    // A side that has ended is not read any more, and could break unseen.
    tokio::select! {
        result = &mut request => {
            result?;
            unless_broken(response, client).await
        }
        result = &mut response => {
            result?;
            unless_broken(request, server).await
        }
    }
}

async fn unless_broken(
    direction: impl Future<Output = Result<(), Broken>>,
    ended: &TcpStream,
) -> Result<(), Broken> {
    tokio::select! {
        biased;
        result = direction => result,
        () = breaks(ended) => Err(Broken::Reset),
    }
}

/// Waits until the connection is broken by its other side.
pub(super) async fn breaks(stream: &TcpStream) {
    let _ = stream.ready(Interest::ERROR).await;
}

/// Waits until the other side has said that it sends no more, whether or not all before was read.
pub(super) async fn closes(stream: &TcpStream) {
    // Closed for reading is part of this readiness; readable, which unread bytes hold on, is not.
    let _ = stream.ready(Interest::PRIORITY).await;
}

/// Boxed by kind, so that a connection without effects does not take up the room of one with them.
fn one_way<'a>(
    from: &'a TcpStream,
    to: &'a TcpStream,
    lanes: Vec<Lane>,
    buffers: &'a Buffers,
    tap: Tap<'a>,
) -> BoxFuture<'a, Result<(), Broken>> {
    if lanes.is_empty() {
        Box::pin(async move {
            plain(from, to, buffers, tap, future::pending(), &mut 0)
                .await
                .map(drop)
        })
    } else {
        Box::pin(changing(from, to, lanes, buffers, tap))
    }
}

/// Carries a direction of a connection that faults have: without detours while none of them does anything to it.
async fn changing(
    from: &TcpStream,
    to: &TcpStream,
    mut lanes: Vec<Lane>,
    buffers: &Buffers,
    tap: Tap<'_>,
) -> Result<(), Broken> {
    let mut position = 0;
    loop {
        if lanes.iter_mut().all(Lane::is_idle) {
            let mut watched = lanes.clone();
            if plain(from, to, buffers, tap, any_changed(&mut watched), &mut position).await? {
                return Ok(());
            }
        } else if staged(from, to, &lanes, buffers, tap, &mut position).await? {
            return Ok(());
        }
    }
}

async fn any_changed(lanes: &mut [Lane]) {
    future::select_all(lanes.iter_mut().map(|lane| Box::pin(lane.changed()))).await;
}

async fn all_idle(mut lanes: Vec<Lane>) {
    while !lanes.iter_mut().all(Lane::is_idle) {
        any_changed(&mut lanes).await;
    }
}

/// True when the direction has ended, false on `changed`, which is heard between two writes only.
async fn plain(
    from: &TcpStream,
    to: &TcpStream,
    buffers: &Buffers,
    tap: Tap<'_>,
    changed: impl Future<Output = ()>,
    position: &mut u64,
) -> Result<bool, Broken> {
    let mut changed = std::pin::pin!(changed);
    loop {
        consume_budget().await;
        tokio::select! {
            biased;
            () = &mut changed => return Ok(false),
            ready = from.readable() => ready.map_err(|_| Broken::Reset)?,
        }
        let mut buffer = buffers.take();
        match from.try_read(&mut buffer) {
            Ok(0) => return shut_down(to).map(|()| true),
            Ok(length) => {
                *position += length as u64;
                tap.sent(&buffer[..length]).await;
                write_all(to, &buffer[..length]).await?;
                tap.arrived(&buffer[..length]).await;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(Broken::Reset),
        }
    }
}

/// `socket --Chunk--> lane --Chunk--> … --Chunk--> socket`; each channel holds one chunk. True when the direction has
/// ended, false when no lane does anything any more.
async fn staged(
    from: &TcpStream,
    to: &TcpStream,
    lanes: &[Lane],
    buffers: &Buffers,
    tap: Tap<'_>,
    position: &mut u64,
) -> Result<bool, Broken> {
    let (chunk_tx, mut chunk_rx) = mpsc::channel(1);
    let mut running = Vec::with_capacity(lanes.len());
    for lane in lanes {
        let (next_tx, next_rx) = mpsc::channel(1);
        running.push(Box::pin(lane.clone().run(chunk_rx, next_tx)));
        chunk_rx = next_rx;
    }
    let reading = read_all(from, chunk_tx, all_idle(lanes.to_vec()), buffers, tap, position);
    let fed = future::join(reading, future::join_all(running));
    tokio::select! {
        result = deliver(chunk_rx, to, tap) => result,
        never = async { fed.await; future::pending().await } => never,
    }
}

/// Reads only when the next lane has room, so that a sender is held back by its own kernel; until the direction ends
/// or all lanes are idle.
async fn read_all(
    from: &TcpStream,
    chunk_tx: Sender<Chunk>,
    idle: impl Future<Output = ()>,
    buffers: &Buffers,
    tap: Tap<'_>,
    position: &mut u64,
) {
    let mut idle = std::pin::pin!(idle);
    loop {
        let permit = tokio::select! {
            biased;
            () = &mut idle => return,
            permit = chunk_tx.reserve() => permit,
        };
        let Ok(permit) = permit else { return };
        let ready = tokio::select! {
            biased;
            () = &mut idle => return,
            ready = from.readable() => ready,
        };
        let content = if ready.is_err() {
            Content::Reset
        } else {
            let mut buffer = buffers.take();
            match from.try_read(&mut buffer) {
                Ok(0) => Content::End,
                // Copied to its size: it may be held for long.
                Ok(length) => {
                    tap.sent(&buffer[..length]).await;
                    Content::Bytes(Bytes::copy_from_slice(&buffer[..length]))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(_) => Content::Reset,
            }
        };
        let chunk = Chunk::now(*position, content);
        *position += chunk.len() as u64;
        let is_last = !chunk.has_more();
        permit.send(chunk);
        if is_last {
            return;
        }
    }
}

async fn deliver(mut chunk_rx: Receiver<Chunk>, to: &TcpStream, tap: Tap<'_>) -> Result<bool, Broken> {
    while let Some(chunk) = chunk_rx.recv().await {
        match chunk.content {
            Content::Bytes(bytes) => {
                write_all(to, &bytes).await?;
                tap.arrived(&bytes).await;
            }
            Content::End => return shut_down(to).map(|()| true),
            Content::Reset => return Err(Broken::Reset),
            Content::Cut => {
                shut_down(to)?;
                tokio::select! {
                    () = closes(to) => {}
                    () = timer::until(Instant::now() + LINGER) => {}
                }
                return Err(Broken::Cut);
            }
        }
    }
    Ok(false)
}

async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> Result<(), Broken> {
    while !bytes.is_empty() {
        match to.try_write(bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                to.writable().await.map_err(|_| Broken::Reset)?;
            }
            Err(_) => return Err(Broken::Reset),
        }
    }
    Ok(())
}

fn shut_down(to: &TcpStream) -> Result<(), Broken> {
    rustix::net::shutdown(to, Shutdown::Write).map_err(|_| Broken::Reset)
}
