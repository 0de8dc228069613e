//! Answers one connection in the protocol that its recorded server speaks, or in that of the caller's first words.

use std::io;

use tokio::net::UnixStream;

use super::{
    dns, http1, http2, mysql, postgres, raw, redis,
    session::{Input, Session},
};
use crate::{protocol::ProtocolName, replay::wire::http2::PREFACE};

/// Answers until either side ends the connection.
pub(super) async fn run(session: Session, mut io: UnixStream) {
    let place = session.place().server.clone();
    if let Err(error) = answer(session, &mut io).await {
        tracing::debug!(server = place, %error, "a stubbed connection ended");
    }
}

async fn answer(mut session: Session, io: &mut UnixStream) -> io::Result<()> {
    let mut input = Input::default();
    match choose(&session, io, &mut input).await? {
        Some(ProtocolName::Http1) => http1::serve(&mut session, io, input).await,
        Some(ProtocolName::Http2 | ProtocolName::Grpc) => http2::serve(session, io, input).await,
        Some(ProtocolName::Redis) => redis::serve(&mut session, io, input).await,
        Some(ProtocolName::Postgres) => postgres::serve(&mut session, io, input).await,
        Some(ProtocolName::MySql) => mysql::serve(&mut session, io, input).await,
        Some(ProtocolName::Dns) => dns::serve(&mut session, io, input).await,
        _ => raw::serve(&session, io, input).await,
    }
}

/// A server that speaks several protocols is told by the caller which one is meant.
async fn choose(
    session: &Session,
    io: &mut UnixStream,
    input: &mut Input,
) -> io::Result<Option<ProtocolName>> {
    let all = &session.place().protocols;
    let first = all.first().copied().flatten();
    let has = |name: ProtocolName| all.contains(&Some(name));
    if !has(ProtocolName::Http1) || !(has(ProtocolName::Http2) || has(ProtocolName::Grpc)) {
        return Ok(first);
    }
    while input.bytes.len() < PREFACE.len() && PREFACE.starts_with(&input.bytes) {
        if !input.more(io).await? {
            break;
        }
    }
    Ok(Some(if input.bytes.starts_with(PREFACE) {
        ProtocolName::Http2
    } else {
        ProtocolName::Http1
    }))
}
