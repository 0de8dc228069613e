//! HTTP/1.0 and 1.1 (RFC 9112).

use super::{
    Key::Order, Kind, Messages, Next, Protocol, ProtocolName, Request, Side, Step, Trace, Verdict, fold,
};

pub(super) const KIND: Kind = Kind {
    name: ProtocolName::Http1,
    ports: &[80, 8080, 8000, 3000],
    detect,
    start: || Box::new(Http1::default()),
};

/// More fields make a message undecodable.
const FIELDS_LIMIT: usize = 128;
/// Longest line of a chunk's size, and of a trailer.
const LINE_LIMIT: usize = 8 * 1024;
/// By these a request is recognised; others are read, too.
const METHODS: [&str; 9] = [
    "GET", "POST", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE",
];

#[derive(Default)]
struct Http1 {
    /// Of each side.
    next: [Part; 2],
}

/// What comes next from a side.
#[derive(Clone, Copy, Default)]
enum Part {
    #[default]
    Head,
    ChunkSize,
    Trailers,
}

/// How long a message's body is.
enum Body {
    Size(u64),
    Chunked,
    ToTheEnd,
}

impl Protocol for Http1 {
    fn read(&mut self, from: Side, bytes: &[u8], messages: &mut Messages<'_>) -> Step {
        match (self.next[from as usize], from) {
            (Part::Head, Side::Client) => self.request(bytes, messages),
            (Part::Head, Side::Server) => self.response(bytes, messages),
            (Part::ChunkSize, _) => self.chunk_size(from, bytes),
            (Part::Trailers, _) => self.trailer(from, bytes, messages),
        }
    }

    fn resync(&mut self, from: Side, bytes: &[u8]) -> Option<usize> {
        (0..bytes.len()).find(|at| {
            let rest = &bytes[*at..];
            match from {
                Side::Client => METHODS.iter().any(|method| starts_request(rest, method)),
                Side::Server => detect(from, rest) == Verdict::Yes,
            }
        })
    }

    fn lost(&mut self, from: Side) {
        self.next[from as usize] = Part::Head;
    }
}

/// The scheme of an `Authorization` header whose secret can be used by whoever reads it; never the secret.
fn scheme(value: &[u8]) -> Option<&'static str> {
    let named = value.split(u8::is_ascii_whitespace).next()?;
    let known = ["basic", "bearer"];
    known
        .into_iter()
        .find(|scheme| named.eq_ignore_ascii_case(scheme.as_bytes()))
}

impl Http1 {
    fn request(&mut self, bytes: &[u8], messages: &mut Messages<'_>) -> Step {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_LIMIT];
        let mut head = httparse::Request::new(&mut fields);
        let size = match head.parse(bytes) {
            Ok(httparse::Status::Complete(size)) => size,
            Ok(httparse::Status::Partial) => return Step::More,
            Err(_) => return Step::Lost,
        };
        let (Some(method), Some(target)) = (head.method, head.path) else {
            return Step::Lost;
        };
        // A request has a body only if it says so.
        let Some(body) = body(head.headers) else {
            return Step::Lost;
        };
        let mut request = Request::new(method, fold::path(path_of(target)));
        if let Some(host) = field(head.headers, "host") {
            request
                .details
                .push(("host", String::from_utf8_lossy(host).into_owned()));
        }
        let scheme = field(head.headers, "authorization").and_then(scheme);
        let told = scheme.map(|scheme| ("authorization", scheme.to_owned()));
        request.details.extend(told);
        request.trace = field(head.headers, "traceparent").and_then(Trace::parse);
        messages.request(Order, request);
        match body.unwrap_or(Body::Size(0)) {
            Body::Chunked => {
                self.next[Side::Client as usize] = Part::ChunkSize;
                Step::Took { bytes: size, skip: 0 }
            }
            Body::Size(skip) => {
                messages.request_end(Order);
                Step::Took { bytes: size, skip }
            }
            Body::ToTheEnd => Step::Lost,
        }
    }

    fn response(&mut self, bytes: &[u8], messages: &mut Messages<'_>) -> Step {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_LIMIT];
        let mut head = httparse::Response::new(&mut fields);
        let bytes = match head.parse(bytes) {
            Ok(httparse::Status::Complete(size)) => size,
            Ok(httparse::Status::Partial) => return Step::More,
            Err(_) => return Step::Lost,
        };
        let (Some(code), Some(body)) = (head.code, body(head.headers)) else {
            return Step::Lost;
        };
        // Interim: the final one follows.
        if (100..200).contains(&code) && code != 101 {
            return Step::Took { bytes, skip: 0 };
        }
        let asked = messages.asked();
        let (bodyless, tunnel) = (asked == Some("HEAD"), asked == Some("CONNECT") && code / 100 == 2);
        let upgrade = field(head.headers, "upgrade").filter(|_| code == 101);
        if upgrade.is_some_and(|name| name.eq_ignore_ascii_case(b"h2c")) {
            // The response comes in its first stream (RFC 7540 section 3.2).
            let next = Next::Upgraded(ProtocolName::Http2, 1);
            return Step::Switch { bytes, next };
        }
        messages.response(Order);
        messages.status(Order, code.to_string(), code >= 500);
        if code == 101 || tunnel {
            messages.response_end(Order);
            let next = if tunnel { Next::Unknown } else { Next::Opaque };
            return Step::Switch { bytes, next };
        }
        let body = match body {
            _ if bodyless || code == 204 || code == 304 => Body::Size(0),
            Some(body) => body,
            None => Body::ToTheEnd,
        };
        match body {
            Body::Chunked => {
                self.next[Side::Server as usize] = Part::ChunkSize;
                Step::Took { bytes, skip: 0 }
            }
            Body::Size(skip) => {
                messages.response_end(Order);
                Step::Took { bytes, skip }
            }
            Body::ToTheEnd => {
                messages.response_end(Order);
                Step::TookRest { bytes }
            }
        }
    }

    fn chunk_size(&mut self, from: Side, bytes: &[u8]) -> Step {
        let Some(line) = line(bytes) else {
            return if bytes.len() > LINE_LIMIT {
                Step::Lost
            } else {
                Step::More
            };
        };
        let digits = line.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        let size = str::from_utf8(digits)
            .ok()
            .and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let Some(size) = size.filter(|_| digits.iter().all(u8::is_ascii_hexdigit)) else {
            return Step::Lost;
        };
        if size == 0 {
            self.next[from as usize] = Part::Trailers;
        }
        // The chunk's own line end; the last chunk has none.
        let skip = if size == 0 { 0 } else { size.saturating_add(2) };
        Step::Took {
            bytes: line.len(),
            skip,
        }
    }

    fn trailer(&mut self, from: Side, bytes: &[u8], messages: &mut Messages<'_>) -> Step {
        let Some(line) = line(bytes) else {
            return if bytes.len() > LINE_LIMIT {
                Step::Lost
            } else {
                Step::More
            };
        };
        if line.trim_ascii().is_empty() {
            self.next[from as usize] = Part::Head;
            match from {
                Side::Client => messages.request_end(Order),
                Side::Server => messages.response_end(Order),
            }
        }
        Step::Took {
            bytes: line.len(),
            skip: 0,
        }
    }
}

fn detect(from: Side, bytes: &[u8]) -> Verdict {
    match from {
        Side::Server => {
            let version = b"HTTP/1.";
            if bytes.len() < version.len() {
                if version.starts_with(bytes) {
                    Verdict::Maybe
                } else {
                    Verdict::No
                }
            } else if bytes.starts_with(version) {
                Verdict::Yes
            } else {
                Verdict::No
            }
        }
        Side::Client => {
            let bytes = bytes.trim_ascii_start();
            let method = bytes.iter().position(|b| *b == b' ').unwrap_or(bytes.len());
            let named = METHODS.iter().any(|known| known.as_bytes() == &bytes[..method]);
            if method > 20
                || !bytes[..method]
                    .iter()
                    .all(|b| b.is_ascii_uppercase() || *b == b'-')
            {
                Verdict::No
            } else if named && bytes[method..].starts_with(b" /") {
                Verdict::Yes
            } else {
                match line(bytes) {
                    None => Verdict::Maybe,
                    Some(line) if is_request_line(line) => Verdict::Yes,
                    Some(_) => Verdict::No,
                }
            }
        }
    }
}

/// `method`, a target and a version, to the end of the line.
fn starts_request(bytes: &[u8], method: &str) -> bool {
    let target = bytes
        .strip_prefix(method.as_bytes())
        .and_then(|rest| rest.strip_prefix(b" "));
    target.and_then(line).is_some_and(is_request_line)
}

fn is_request_line(line: &[u8]) -> bool {
    let line = line.trim_ascii_end();
    line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0")
}

/// Up to the first line feed, which is included.
fn line(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().take(LINE_LIMIT).position(|b| *b == b'\n')?;
    Some(&bytes[..=end])
}

fn field<'a>(fields: &[httparse::Header<'a>], name: &str) -> Option<&'a [u8]> {
    let field = fields.iter().find(|field| field.name.eq_ignore_ascii_case(name));
    field.map(|field| field.value)
}

/// What the fields say of the body (RFC 9112 section 6.3); `None` within for nothing, without for nonsense.
fn body(fields: &[httparse::Header<'_>]) -> Option<Option<Body>> {
    if let Some(codings) = field(fields, "transfer-encoding") {
        let last = codings
            .rsplit(|b| *b == b',')
            .next()
            .unwrap_or_default()
            .trim_ascii();
        let chunked = last.eq_ignore_ascii_case(b"chunked");
        return Some(Some(if chunked { Body::Chunked } else { Body::ToTheEnd }));
    }
    let mut size = None;
    for field in fields
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case("content-length"))
    {
        let value = str::from_utf8(field.value).ok()?.trim();
        let digits = value.bytes().all(|b| b.is_ascii_digit());
        let value = value.parse().ok().filter(|_| digits)?;
        if size.is_some_and(|size| size != value) {
            return None;
        }
        size = Some(value);
    }
    Some(size.map(Body::Size))
}

/// The path of a target in absolute form; any other as it is.
fn path_of(target: &str) -> &str {
    match target.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|b| b.is_ascii_alphabetic()) => {
            rest.find('/').map_or("/", |at| &rest[at..])
        }
        _ => target,
    }
}

#[cfg(test)]
mod tests;
