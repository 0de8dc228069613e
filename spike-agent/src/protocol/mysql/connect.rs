//! The start of a connection: the server greets, the client says who it is and what it can.

use super::{HEAD, Packet, Step, number};

/// First byte of a greeting.
pub(super) const VERSION: u8 = 10;
/// Longest answer; certificates and passwords are far shorter.
const ANSWER_LIMIT: usize = 16 * 1024;
/// Capabilities, longest packet, character set, and what is reserved.
const FIXED: usize = 32;

const WITH_DATABASE: u32 = 1 << 3;
const COMPRESS: u32 = 1 << 5;
const PROTOCOL_41: u32 = 1 << 9;
const TLS: u32 = 1 << 11;
const SECURE: u32 = 1 << 15;
const PROOF_WITH_SIZE: u32 = 1 << 21;
const NO_EOF: u32 = 1 << 24;
const COMPRESS_ZSTD: u32 = 1 << 26;

#[derive(Default)]
pub(super) struct Connect {
    /// The client answers next.
    pub(super) greeted: bool,
    /// Once the server agrees, nothing can be read.
    pub(super) compressed: bool,
}

pub(super) struct Answer {
    pub(super) database: String,
    pub(super) tls: bool,
    pub(super) compressed: bool,
    /// Whether lists of columns end in a packet of their own.
    pub(super) eofs: bool,
}

pub(super) fn read(packet: &Packet, payload: &[u8]) -> Result<Answer, Step> {
    if packet.size < FIXED || packet.size > ANSWER_LIMIT {
        return Err(Step::Lost);
    }
    let payload = payload.get(..packet.size).ok_or(Step::Need(HEAD + packet.size))?;
    let flags = payload.first_chunk().map(|flags| u32::from_le_bytes(*flags));
    let flags = flags.filter(|flags| flags & PROTOCOL_41 != 0).ok_or(Step::Lost)?;
    let database = (flags & WITH_DATABASE != 0)
        .then(|| database(flags, &payload[FIXED..]))
        .flatten();
    Ok(Answer {
        database: database.unwrap_or_default(),
        tls: flags & TLS != 0 && packet.size == FIXED,
        compressed: flags & (COMPRESS | COMPRESS_ZSTD) != 0,
        eofs: flags & NO_EOF == 0,
    })
}

/// The name behind those of the user and the proof.
fn database(flags: u32, rest: &[u8]) -> Option<String> {
    let user = rest.iter().position(|b| *b == 0)?;
    let rest = &rest[user + 1..];
    let (proof, rest) = if flags & PROOF_WITH_SIZE != 0 {
        number(rest)?
    } else if flags & SECURE != 0 {
        rest.split_first().map(|(size, rest)| (u64::from(*size), rest))?
    } else {
        (rest.iter().position(|b| *b == 0)? as u64 + 1, rest)
    };
    let rest = rest.get(usize::try_from(proof).ok()?..)?;
    let name = rest.split(|b| *b == 0).next()?;
    Some(String::from_utf8_lossy(name).into_owned())
}
