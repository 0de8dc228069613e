//! Logs in to PostgreSQL as the recorded client did, or as is said; what proved who it was cannot be sent again.

use postgres_protocol::authentication::{
    md5_hash,
    sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::Login;
use crate::replay::wire::postgres::{body, error_text, frame, message};

/// Version 3.0 of the protocol.
const VERSION: u32 = 3 << 16;
/// What the server asks for by `Authentication`.
const OK: u32 = 0;
const PASSWORD: u32 = 3;
const MD5: u32 = 5;
const SASL: u32 = 10;
const SASL_GOES_ON: u32 = 11;
const SASL_ENDS: u32 = 12;

/// Logs in; the server is ready then.
pub(super) async fn log_in(
    stream: &mut TcpStream,
    recorded: &[(String, String)],
    login: &Login,
) -> Result<(), String> {
    let mut settings = recorded.to_vec();
    for (name, value) in [("user", &login.user), ("database", &login.database)] {
        if let Some(value) = value {
            settings.retain(|(known, _)| known != name);
            settings.push((name.to_owned(), value.clone()));
        }
    }
    let user = settings.iter().find(|(name, _)| name == "user");
    let user = user.map_or_else(String::new, |(_, user)| user.clone());
    let failed = |why: &str| format!("log in as `{user}`: {why}");
    let password = || {
        let password = login.password.as_deref();
        password.ok_or_else(|| failed("the server asks for a password: set PGPASSWORD"))
    };
    write(stream, &hello(&settings)).await?;
    let mut bytes = Vec::new();
    let mut scram: Option<ScramSha256> = None;
    loop {
        let Some((kind, size)) = frame(&bytes).map_err(failed)? else {
            let read = stream.read_buf(&mut bytes).await;
            if read.map_err(|error| failed(&error.to_string()))? == 0 {
                return Err(failed("the server ended the connection"));
            }
            continue;
        };
        let said: Vec<u8> = bytes.drain(..size).collect();
        let (asked, data) = body(&said).split_first_chunk().unwrap_or((&[0; 4], &[]));
        match (kind, u32::from_be_bytes(*asked)) {
            (b'Z', _) => return Ok(()),
            (b'E', _) => return Err(failed(&error_text(&said))),
            (b'R', PASSWORD) => write(stream, &text(password()?)).await?,
            (b'R', MD5) => {
                let salt = data
                    .first_chunk()
                    .ok_or_else(|| failed("a salt that is too short"))?;
                let hash = md5_hash(user.as_bytes(), password()?.as_bytes(), *salt);
                write(stream, &text(&hash)).await?;
            }
            (b'R', SASL)
                if data
                    .split(|b| *b == 0)
                    .any(|name| name == SCRAM_SHA_256.as_bytes()) =>
            {
                let client = ScramSha256::new(password()?.as_bytes(), ChannelBinding::unsupported());
                let first = client.message();
                let length = u32::try_from(first.len()).unwrap_or(0).to_be_bytes();
                let name = [SCRAM_SHA_256.as_bytes(), b"\0"].concat();
                write(stream, &message(b'p', &[&name, &length[..], first].concat())).await?;
                scram = Some(client);
            }
            (b'R', SASL_GOES_ON) => {
                let client = scram.as_mut().ok_or_else(|| failed("an answer to nothing"))?;
                client.update(data).map_err(|error| failed(&error.to_string()))?;
                write(stream, &message(b'p', client.message())).await?;
            }
            (b'R', SASL_ENDS) => {
                let client = scram.as_mut().ok_or_else(|| failed("an answer to nothing"))?;
                client.finish(data).map_err(|error| failed(&error.to_string()))?;
            }
            (b'R', other) if other != OK => {
                return Err(failed(&format!(
                    "the server asks for authentication {other}; passwords, MD5 and SCRAM-SHA-256 are known here"
                )));
            }
            // Settings, a key for cancelling, notices.
            _ => {}
        }
    }
}

/// A client's first message.
fn hello(settings: &[(String, String)]) -> Vec<u8> {
    let mut content = VERSION.to_be_bytes().to_vec();
    for (name, value) in settings {
        for text in [name, value] {
            content.extend(text.as_bytes());
            content.push(0);
        }
    }
    content.push(0);
    let size = u32::try_from(content.len() + 4).unwrap_or(0);
    [&size.to_be_bytes()[..], &content].concat()
}

fn text(text: &str) -> Vec<u8> {
    message(b'p', &[text.as_bytes(), b"\0"].concat())
}

async fn write(stream: &mut TcpStream, bytes: &[u8]) -> Result<(), String> {
    let written = stream.write_all(bytes).await;
    written.map_err(|error| format!("log in: {error}"))
}

/// What is sent in a round, with what is to be replaced in the text of its statements.
pub(super) fn changed(raw: &[u8], replacements: &[(String, String)]) -> Vec<u8> {
    let mut rest = raw;
    let mut out = Vec::with_capacity(raw.len());
    while let Ok(Some((kind, size))) = frame(rest) {
        let (said, after) = rest.split_at(size);
        rest = after;
        match str::from_utf8(body(said)) {
            // The numbers of types behind the text are no text, as a rule; such a message stays as it is.
            Ok(text) if matches!(kind, b'Q' | b'P') => {
                let text = replacements
                    .iter()
                    .fold(text.to_owned(), |text, (old, new)| text.replace(old, new));
                out.extend(message(kind, text.as_bytes()));
            }
            _ => out.extend_from_slice(said),
        }
    }
    out.extend_from_slice(rest);
    out
}
