//! What is said in the clear parts of a handshake.

use std::time::{Duration, UNIX_EPOCH};

use tls_parser::{
    TlsAlertDescription, TlsExtension, TlsMessageHandshake, TlsVersion, parse_tls_client_hello_extensions,
    parse_tls_handshake_client_hello, parse_tls_handshake_msg_certificate,
    parse_tls_handshake_msg_server_hello, parse_tls_server_hello_extensions,
};

use crate::protocol::Request;

/// Type of the server's first message.
pub(super) const SERVER: u8 = 2;

/// A handshake message, with what it tells of the call.
pub(super) enum Message {
    Client(Request),
    /// With the version that the server chose.
    Server(&'static str, Request),
    Certificate(Request),
    /// Any other, or one that can't be read.
    Other,
}

impl Message {
    /// Reads a message of that type.
    pub(super) fn read(kind: u8, body: &[u8]) -> Self {
        let message = match kind {
            1 => Some(Self::Client(client(body))),
            SERVER => server(body),
            11 => certificate(body),
            _ => None,
        };
        message.unwrap_or(Self::Other)
    }
}

fn client(body: &[u8]) -> Request {
    let mut request = Request::new("handshake", "");
    let hello = parse_tls_handshake_client_hello(body).ok();
    let extensions = hello.and_then(|(_, hello)| hello.ext).unwrap_or_default();
    for extension in parse_tls_client_hello_extensions(extensions).map_or_else(|_| Vec::new(), |(_, all)| all)
    {
        match extension {
            TlsExtension::SNI(names) => {
                let name = names
                    .first()
                    .map(|(_, name)| String::from_utf8_lossy(name).into_owned());
                request.details.extend(name.clone().map(|name| ("sni", name)));
                request.target = name.unwrap_or_default();
            }
            TlsExtension::ALPN(names) => request.details.push(("alpn_offered", names_of(&names))),
            _ => {}
        }
    }
    request
}

fn server(body: &[u8]) -> Option<Message> {
    let Ok((_, TlsMessageHandshake::ServerHello(hello))) = parse_tls_handshake_msg_server_hello(body) else {
        return None;
    };
    let mut chosen = hello.version;
    let mut request = Request::default();
    let extensions = parse_tls_server_hello_extensions(hello.ext.unwrap_or_default());
    for extension in extensions.map_or_else(|_| Vec::new(), |(_, all)| all) {
        match extension {
            // TLS 1.3 says its version here, and the older one in its place.
            TlsExtension::SupportedVersions(versions) => chosen = *versions.first().unwrap_or(&chosen),
            TlsExtension::ALPN(names) => request.details.push(("alpn", names_of(&names))),
            _ => {}
        }
    }
    let version = version(chosen);
    request.details.push(("version", version.to_owned()));
    Some(Message::Server(version, request))
}

/// When the server's own certificate, the first one, expires.
fn certificate(body: &[u8]) -> Option<Message> {
    let Ok((_, TlsMessageHandshake::Certificate(chain))) = parse_tls_handshake_msg_certificate(body) else {
        return None;
    };
    let (_, certificate) = x509_parser::parse_x509_certificate(chain.cert_chain.first()?.data).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    let at = UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
    let mut request = Request::default();
    let text = humantime::format_rfc3339_seconds(at).to_string();
    request.details.push(("not_after", text));
    Some(Message::Certificate(request))
}

fn names_of(names: &[&[u8]]) -> String {
    let names: Vec<_> = names.iter().map(|name| String::from_utf8_lossy(name)).collect();
    names.join(",")
}

fn version(version: TlsVersion) -> &'static str {
    match version {
        TlsVersion::Ssl30 => "SSLv3",
        TlsVersion::Tls10 => "TLSv1.0",
        TlsVersion::Tls11 => "TLSv1.1",
        TlsVersion::Tls12 => "TLSv1.2",
        TlsVersion::Tls13 => "TLSv1.3",
        _ => "unknown",
    }
}

/// An alert's name as the RFCs write it: `unknown_ca`.
pub(super) fn alert(description: u8) -> String {
    let written = TlsAlertDescription(description).to_string();
    if !written.bytes().all(|b| b.is_ascii_alphabetic()) {
        return format!("alert {description}");
    }
    let mut name = String::new();
    for letter in written.chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}
