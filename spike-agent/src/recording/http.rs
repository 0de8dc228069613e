//! HTTP calls of a recording as requests and responses, with their content.

use super::{ConnectionRow, NewCall, Reader, RecordingError, body::Framing, http2};

/// More fields are not read.
const FIELDS_LIMIT: usize = 128;

/// A request and its response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// What was asked.
    pub request: Request,
    /// What was answered, if anything was.
    pub response: Option<Response>,
}

/// What was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Such as `GET`.
    pub method: String,
    /// Path and query, or what else stood there.
    pub target: String,
    /// Such as `HTTP/1.1`.
    pub version: String,
    /// Names and values, in order.
    pub headers: Vec<(String, String)>,
    /// The content without transfer coding.
    pub body: Vec<u8>,
    /// Bytes of the head.
    pub head_bytes: usize,
}

/// What was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// Such as 200.
    pub status: u16,
    /// Such as `OK`; may be empty.
    pub reason: String,
    /// Such as `HTTP/1.1`.
    pub version: String,
    /// Names and values, in order.
    pub headers: Vec<(String, String)>,
    /// The content without transfer coding; as much as is there.
    pub body: Vec<u8>,
    /// Bytes of the head.
    pub head_bytes: usize,
}

impl Exchange {
    /// Reads a call; none when it is not HTTP or its request is not whole.
    ///
    /// # Errors
    /// When the recording cannot be read.
    pub fn read(reader: &Reader, call: &NewCall) -> Result<Option<Self>, RecordingError> {
        if let ("http2" | "grpc", Some(stream)) = (&*call.protocol, call.stream) {
            let stream = u32::try_from(stream).unwrap_or(0);
            let request = http2::message(&reader.request_bytes(call)?, stream);
            let response = http2::message(&reader.response_bytes(call)?, stream);
            return Ok(Request::of(request).map(|request| Self {
                request,
                response: Response::of(response),
            }));
        }
        if call.protocol != "http" {
            return Ok(None);
        }
        let Some(request) = Request::parse(&reader.request_bytes(call)?) else {
            return Ok(None);
        };
        let response = Response::parse(&reader.response_bytes(call)?, &request.method);
        Ok(Some(Self { request, response }))
    }

    /// The URL that was asked for.
    pub fn url(&self, connection: &ConnectionRow) -> String {
        let target = &self.request.target;
        if target.contains("://") {
            return target.clone();
        }
        let opened = &connection.opened;
        let host = header(&self.request.headers, "host").or(header(&self.request.headers, ":authority"));
        let host = host.unwrap_or(&opened.server);
        let slash = if target.starts_with('/') { "" } else { "/" };
        format!("http://{host}{slash}{target}")
    }
}

/// The value of the first field of this name.
pub fn header<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let field = fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    field.map(|(_, value)| value.as_str())
}

impl Request {
    /// From the frames of a stream.
    fn of(message: http2::Message) -> Option<Self> {
        let headers = texts(message.blocks.first()?);
        Some(Self {
            method: header(&headers, ":method")?.to_owned(),
            target: header(&headers, ":path").unwrap_or_default().to_owned(),
            version: "HTTP/2".to_owned(),
            body: message.body,
            head_bytes: headers.iter().map(|(name, value)| name.len() + value.len()).sum(),
            headers,
        })
    }

    /// From the bytes as they passed; none if they are not all there.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_LIMIT];
        let mut head = httparse::Request::new(&mut fields);
        let Ok(httparse::Status::Complete(head_bytes)) = head.parse(bytes) else {
            return None;
        };
        let framing = Framing::of(pairs(head.headers), false);
        Some(Self {
            method: head.method?.to_owned(),
            target: head.path?.to_owned(),
            version: version(head.version),
            headers: owned(head.headers),
            body: framing.content(&bytes[head_bytes..])?,
            head_bytes,
        })
    }
}

impl Response {
    /// From the frames of a stream.
    fn of(message: http2::Message) -> Option<Self> {
        let headers = texts(message.blocks.first()?);
        Some(Self {
            status: header(&headers, ":status")?.parse().ok()?,
            reason: String::new(),
            version: "HTTP/2".to_owned(),
            body: message.body,
            head_bytes: headers.iter().map(|(name, value)| name.len() + value.len()).sum(),
            headers,
        })
    }

    /// From the bytes as they passed, interim responses left out.
    pub fn parse(mut bytes: &[u8], method: &str) -> Option<Self> {
        loop {
            let mut fields = [httparse::EMPTY_HEADER; FIELDS_LIMIT];
            let mut head = httparse::Response::new(&mut fields);
            let Ok(httparse::Status::Complete(head_bytes)) = head.parse(bytes) else {
                return None;
            };
            let status = head.code?;
            let rest = &bytes[head_bytes..];
            if (100..200).contains(&status) && status != 101 && !rest.is_empty() {
                bytes = rest;
                continue;
            }
            let has_body = method != "HEAD" && status >= 200 && status != 204 && status != 304;
            let framing = Framing::of(pairs(head.headers), true);
            let body = has_body.then(|| framing.content(rest).unwrap_or_else(|| rest.to_vec()));
            return Some(Self {
                status,
                reason: head.reason.unwrap_or_default().to_owned(),
                version: version(head.version),
                headers: owned(head.headers),
                body: body.unwrap_or_default(),
                head_bytes,
            });
        }
    }
}

fn texts(fields: &http2::Fields) -> Vec<(String, String)> {
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    fields
        .iter()
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

fn pairs<'a>(fields: &'a [httparse::Header<'a>]) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    fields.iter().map(|field| (field.name, field.value))
}

fn owned(fields: &[httparse::Header<'_>]) -> Vec<(String, String)> {
    let owned = |(name, value): (&str, &[u8])| (name.to_owned(), String::from_utf8_lossy(value).into_owned());
    pairs(fields).map(owned).collect()
}

fn version(minor: Option<u8>) -> String {
    format!("HTTP/1.{}", minor.unwrap_or(1))
}
