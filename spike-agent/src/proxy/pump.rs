//! Carries bytes between the caller and the server, each direction by itself, and ends and resets as they come.

use std::{
    io,
    pin::Pin,
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
    Pools,
    buffers::{Buffer, LENGTH},
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

/// After so many filled buffers in a row, bytes go through a pipe.
const FLOOD: u32 = 4;
/// They come by buffer again when no more than this comes at a time.
const EBB: usize = LENGTH / 2;

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
    pools: &Pools,
    taps: &Taps,
) -> Result<(), Broken> {
    let mut request = one_way(client, server, request, pools, taps.way(Direction::Request));
    let mut response = one_way(server, client, response, pools, taps.way(Direction::Response));
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
    pools: &'a Pools,
    tap: Tap<'a>,
) -> BoxFuture<'a, Result<(), Broken>> {
    if lanes.is_empty() {
        Box::pin(async move {
            plain(from, to, pools, tap, future::pending(), &mut 0)
                .await
                .map(drop)
        })
    } else {
        Box::pin(changing(from, to, lanes, pools, tap))
    }
}

/// Carries a direction of a connection that faults have: without detours while none of them does anything to it.
async fn changing(
    from: &TcpStream,
    to: &TcpStream,
    mut lanes: Vec<Lane>,
    pools: &Pools,
    tap: Tap<'_>,
) -> Result<(), Broken> {
    let mut position = 0;
    loop {
        if lanes.iter_mut().all(Lane::is_idle) {
            let mut watched = lanes.clone();
            if plain(from, to, pools, tap, any_changed(&mut watched), &mut position).await? {
                return Ok(());
            }
        } else if staged(from, to, &lanes, pools, tap, &mut position).await? {
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
    pools: &Pools,
    tap: Tap<'_>,
    changed: impl Future<Output = ()>,
    position: &mut u64,
) -> Result<bool, Broken> {
    let mut changed = std::pin::pin!(changed);
    let mut filled = 0;
    loop {
        consume_budget().await;
        tokio::select! {
            biased;
            () = &mut changed => return Ok(false),
            ready = from.readable() => ready.map_err(|_| Broken::Reset)?,
        }
        if filled >= FLOOD && tap.is_blind() {
            filled = 0;
            match flood(from, to, pools, changed.as_mut(), position).await? {
                Flood::Ended => return Ok(true),
                Flood::Changed => return Ok(false),
                Flood::Ebbed => continue,
            }
        }
        let mut buffer = pools.buffers.take();
        match read(from, &mut buffer) {
            Ok(0) => return shut_down(to).map(|()| true),
            Ok(length) => {
                filled = if length == buffer.len() { filled + 1 } else { 0 };
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

/// Why bytes do not go through a pipe any more.
enum Flood {
    Ended,
    Changed,
    Ebbed,
}

/// Carries bytes through a pipe, without a copy, while many come at a time.
async fn flood(
    from: &TcpStream,
    to: &TcpStream,
    pools: &Pools,
    mut changed: Pin<&mut impl Future<Output = ()>>,
    position: &mut u64,
) -> Result<Flood, Broken> {
    let Ok(mut pipe) = pools.pipes.take() else {
        return Ok(Flood::Ebbed);
    };
    loop {
        consume_budget().await;
        tokio::select! {
            biased;
            () = &mut changed => return Ok(Flood::Changed),
            ready = from.readable() => ready.map_err(|_| Broken::Reset)?,
        }
        match from.try_io(Interest::READABLE, || pipe.fill(from)) {
            Ok(0) => return shut_down(to).map(|()| Flood::Ended),
            Ok(length) => {
                *position += length as u64;
                while pipe.len() > 0 {
                    match to.try_io(Interest::WRITABLE, || pipe.drain(to)) {
                        Ok(_) => {}
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            to.writable().await.map_err(|_| Broken::Reset)?;
                        }
                        Err(_) => return Err(Broken::Reset),
                    }
                }
                if length <= EBB {
                    return Ok(Flood::Ebbed);
                }
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
    pools: &Pools,
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
    let reading = read_all(from, chunk_tx, all_idle(lanes.to_vec()), pools, tap, position);
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
    pools: &Pools,
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
            let mut buffer = pools.buffers.take();
            match read(from, &mut buffer) {
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

/// Reads what there is; 0 at the end. A buffer that was not filled shows that nothing is left (epoll(7)), which saves
/// asking for it.
fn read(from: &TcpStream, buffer: &mut Buffer<'_>) -> io::Result<usize> {
    let mut length = 0;
    let result = from.try_io(Interest::READABLE, || {
        length = rustix::io::read(from, &mut **buffer)?;
        if 0 < length && length < buffer.len() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(())
    });
    if length > 0 {
        Ok(length)
    } else {
        result.map(|()| 0)
    }
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
