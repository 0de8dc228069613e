//! Carries bytes between the caller and the server, each direction by itself, and ends and resets as they come.

use std::io;

use bytes::Bytes;
use futures_util::future::{self, BoxFuture};
use rustix::net::Shutdown;
use tokio::{
    io::Interest,
    net::TcpStream,
    sync::mpsc::{self, Receiver, Sender},
    task::coop::consume_budget,
};

use super::buffers::Buffers;
use crate::fault::stage::{Chunk, Content, Stage};

/// One side broke the connection; the other is to see that.
#[derive(Debug)]
pub(super) struct Broken;

/// Carries both directions until both have ended, or one side breaks.
pub(super) async fn both_ways(
    client: &TcpStream,
    server: &TcpStream,
    [request, response]: [Vec<Stage>; 2],
    buffers: &Buffers,
) -> Result<(), Broken> {
    let mut request = one_way(client, server, request, buffers);
    let mut response = one_way(server, client, response, buffers);
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
        () = breaks(ended) => Err(Broken),
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
    stages: Vec<Stage>,
    buffers: &'a Buffers,
) -> BoxFuture<'a, Result<(), Broken>> {
    if stages.is_empty() {
        Box::pin(plain(from, to, buffers))
    } else {
        Box::pin(staged(from, to, stages, buffers))
    }
}

async fn plain(from: &TcpStream, to: &TcpStream, buffers: &Buffers) -> Result<(), Broken> {
    loop {
        consume_budget().await;
        from.readable().await.map_err(|_| Broken)?;
        let mut buffer = buffers.take();
        match from.try_read(&mut buffer) {
            Ok(0) => return shut_down(to),
            Ok(length) => write_all(to, &buffer[..length]).await?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(Broken),
        }
    }
}

/// `socket --Chunk--> stage --Chunk--> … --Chunk--> socket`; each channel holds one chunk.
async fn staged(
    from: &TcpStream,
    to: &TcpStream,
    stages: Vec<Stage>,
    buffers: &Buffers,
) -> Result<(), Broken> {
    let (chunk_tx, mut chunk_rx) = mpsc::channel(1);
    let mut running = Vec::with_capacity(stages.len());
    for stage in stages {
        let (next_tx, next_rx) = mpsc::channel(1);
        running.push(Box::pin(stage.run(chunk_rx, next_tx)));
        chunk_rx = next_rx;
    }
    let fed = future::join(read_all(from, chunk_tx, buffers), future::join_all(running));
    tokio::select! {
        result = deliver(chunk_rx, to) => result,
        never = async { fed.await; future::pending().await } => never,
    }
}

/// Reads only when the next stage has room, so that a sender is held back by its own kernel.
async fn read_all(from: &TcpStream, chunk_tx: Sender<Chunk>, buffers: &Buffers) {
    loop {
        let Ok(permit) = chunk_tx.reserve().await else {
            return;
        };
        let ready = from.readable().await;
        let content = if ready.is_err() {
            Content::Reset
        } else {
            let mut buffer = buffers.take();
            match from.try_read(&mut buffer) {
                Ok(0) => Content::End,
                // Copied to its size: it may be held for long.
                Ok(length) => Content::Bytes(Bytes::copy_from_slice(&buffer[..length])),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(_) => Content::Reset,
            }
        };
        let is_last = !matches!(content, Content::Bytes(_));
        permit.send(Chunk::now(content));
        if is_last {
            return;
        }
    }
}

async fn deliver(mut chunk_rx: Receiver<Chunk>, to: &TcpStream) -> Result<(), Broken> {
    while let Some(chunk) = chunk_rx.recv().await {
        match chunk.content {
            Content::Bytes(bytes) => write_all(to, &bytes).await?,
            Content::End => return shut_down(to),
            Content::Reset => break,
        }
    }
    Err(Broken)
}

async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> Result<(), Broken> {
    while !bytes.is_empty() {
        match to.try_write(bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                to.writable().await.map_err(|_| Broken)?;
            }
            Err(_) => return Err(Broken),
        }
    }
    Ok(())
}

fn shut_down(to: &TcpStream) -> Result<(), Broken> {
    rustix::net::shutdown(to, Shutdown::Write).map_err(|_| Broken)
}
