//! HTTP archives (HAR 1.2): each entry becomes a connection with one call of HTTP/1.1.

use std::{
    io::{BufReader, Read},
    path::Path,
    time::SystemTime,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::{ImportError, Imported, Importer};
use crate::{
    protocol::Side,
    recording::{NewConnection, Redaction},
};

/// Headers that say how the body went, which is otherwise here: whole and without coding.
const FRAMING: [&str; 4] = [
    "content-length",
    "transfer-encoding",
    "content-encoding",
    "connection",
];

#[derive(Deserialize)]
struct Archive {
    log: Log,
}

#[derive(Deserialize)]
struct Log {
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    started_date_time: String,
    #[serde(default)]
    time: f64,
    request: Request,
    response: Response,
    #[serde(default)]
    timings: Timings,
    #[serde(default, rename = "serverIPAddress")]
    server_ip_address: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    method: String,
    url: String,
    #[serde(default)]
    headers: Vec<Header>,
    post_data: Option<PostData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    status: i32,
    #[serde(default)]
    status_text: String,
    #[serde(default)]
    headers: Vec<Header>,
    #[serde(default)]
    content: Content,
}

#[derive(Deserialize)]
struct Header {
    name: String,
    value: String,
}

#[derive(Default, Deserialize)]
struct PostData {
    #[serde(default)]
    text: String,
    #[serde(rename = "_encoding")]
    encoding: Option<String>,
}

#[derive(Default, Deserialize)]
struct Content {
    text: Option<String>,
    encoding: Option<String>,
}

/// Milliseconds; -1 for what does not apply.
#[derive(Default, Deserialize)]
struct Timings {
    #[serde(default)]
    send: f64,
    #[serde(default)]
    wait: f64,
}

/// Makes a recording at `path` of an archive that is called `from`.
///
/// # Errors
/// When it is none, or the recording cannot be made.
pub fn har(input: impl Read, from: &str, path: &Path, rules: Redaction) -> Result<Imported, ImportError> {
    let mut input = BufReader::new(input);
    let mut text = Vec::new();
    input.read_to_end(&mut text)?;
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    let archive: Archive =
        serde_json::from_slice(text).map_err(|error| ImportError::Har(error.to_string()))?;
    let mut entries = Vec::new();
    for (index, entry) in archive.log.entries.into_iter().enumerate() {
        let started = started_ns(&entry.started_date_time).ok_or_else(|| {
            let text = &entry.started_date_time;
            ImportError::Har(format!(
                "log.entries[{index}].startedDateTime: `{text}` is no time"
            ))
        })?;
        entries.push((started, entry));
    }
    // Archives group by page.
    entries.sort_by_key(|(started, _)| *started);
    let Some(first) = entries.first().map(|(started, _)| *started) else {
        return Err(ImportError::Empty("entry"));
    };
    let mut importer = Importer::new(path, from, first, rules)?;
    let (mut left_out, mut last) = (0, first);
    for (started, entry) in &entries {
        last = last.max(started + nanos(entry.time));
        if add(&mut importer, started - first, entry)?.is_none() {
            left_out += 1;
        }
    }
    let imported = importer.finish(last)?;
    Ok(Imported { left_out, ..imported })
}

/// None where there is nothing to tell: `data:` URLs and the like.
fn add(importer: &mut Importer, started: u64, entry: &Entry) -> Result<Option<()>, ImportError> {
    let Some((scheme, rest)) = entry.request.url.split_once("://") else {
        return Ok(None);
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    let authority = authority
        .rsplit_once('@')
        .map_or(authority, |(_, authority)| authority);
    let target = target.split('#').next().unwrap_or_default();
    let target = if target.starts_with('/') {
        target.to_owned()
    } else {
        format!("/{target}")
    };
    let default = if scheme == "https" { "443" } else { "80" };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !port.is_empty() => {
            (host, port)
        }
        _ => (authority, default),
    };
    let address = entry
        .server_ip_address
        .as_deref()
        .filter(|address| !address.is_empty());
    let address = address
        .unwrap_or("0.0.0.0")
        .trim_start_matches('[')
        .trim_end_matches(']');
    let server = if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    };
    let new = NewConnection {
        opened_ns: started,
        transport: "tcp".to_owned(),
        caller: "har".to_owned(),
        callee: host.to_owned(),
        client: "0.0.0.0:0".to_owned(),
        server,
        host: Some(
            host.trim_start_matches('[')
                .trim_end_matches(']')
                .to_ascii_lowercase(),
        ),
        ..NewConnection::default()
    };
    let body = entry
        .request
        .post_data
        .as_ref()
        .map(|data| decoded(&data.text, data.encoding.as_deref()));
    let body = body.unwrap_or_default();
    let mut request = format!("{} {target} HTTP/1.1\r\n", word(&entry.request.method));
    if !entry
        .request
        .headers
        .iter()
        .any(|header| header.name.eq_ignore_ascii_case("host"))
    {
        request += &format!("Host: {authority}\r\n");
    }
    let request = message(request, &entry.request.headers, &body, !body.is_empty());
    let id = importer.open(&new)?;
    let sent = started + nanos(entry.timings.send);
    importer.bytes(id, Side::Client, started, 0, &request)?;
    let ended = started + nanos(entry.time);
    if (100..1000).contains(&entry.response.status) {
        let content = &entry.response.content;
        let body = decoded(
            content.text.as_deref().unwrap_or_default(),
            content.encoding.as_deref(),
        );
        let reason: String = entry
            .response
            .status_text
            .chars()
            .filter(|c| !c.is_control())
            .collect();
        let status = entry.response.status;
        let bodyless = entry.request.method == "HEAD" || status == 204 || status == 304 || status < 200;
        let head = format!("HTTP/1.1 {status} {reason}\r\n");
        let response = message(
            head,
            &entry.response.headers,
            if bodyless { &[] } else { &body },
            !bodyless,
        );
        let first_byte = (sent + nanos(entry.timings.wait)).min(ended.max(sent));
        // The head at the first byte, the rest at the end.
        let split = response
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .map_or(response.len(), |at| at + 4);
        importer.bytes(id, Side::Server, first_byte, 0, &response[..split])?;
        importer.bytes(id, Side::Server, ended.max(first_byte), 0, &response[split..])?;
        importer.close(id, Some(ended.max(first_byte)), false)?;
    } else {
        importer.close(id, Some(ended), true)?;
    }
    Ok(Some(()))
}

fn message(mut head: String, headers: &[Header], body: &[u8], has_length: bool) -> Vec<u8> {
    for header in headers {
        // `:method` and the like are of HTTP/2, where they stand for the first line.
        let name: &str = &header.name;
        if name.starts_with(':')
            || name.is_empty()
            || FRAMING.iter().any(|own| name.eq_ignore_ascii_case(own))
        {
            continue;
        }
        for value in header.value.split('\n') {
            head += &format!("{}: {}\r\n", word(name), value.trim());
        }
    }
    if has_length {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    head += "\r\n";
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Without what would end it.
fn word(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control() && *c != ' ' && *c != ':')
        .collect()
}

fn decoded(text: &str, encoding: Option<&str>) -> Vec<u8> {
    let bytes = encoding
        .filter(|encoding| *encoding == "base64")
        .and_then(|_| STANDARD.decode(text).ok());
    bytes.unwrap_or_else(|| text.as_bytes().to_vec())
}

fn nanos(millis: f64) -> u64 {
    // -1 is for what does not apply; more than a year is none.
    (millis.clamp(0.0, 3.2e10) * 1e6) as u64
}

/// ISO 8601 with an offset, as RFC 3339 has it.
fn started_ns(text: &str) -> Option<u64> {
    let utc = |text: &str| {
        let time = humantime::parse_rfc3339_weak(text).ok()?;
        let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        u64::try_from(since.as_nanos()).ok()
    };
    if text.ends_with(['Z', 'z']) {
        return utc(&text.to_ascii_uppercase());
    }
    let at = text.rfind(['+', '-']).filter(|at| *at > 10)?;
    let (time, offset) = text.split_at(at);
    let (hours, minutes) = (offset.get(1..3)?, offset.get(offset.len() - 2..)?);
    let seconds = (hours.parse::<u64>().ok()? * 60 + minutes.parse::<u64>().ok()?) * 60;
    let local = utc(&format!("{time}Z"))?;
    let shift = seconds * 1_000_000_000;
    if offset.starts_with('+') {
        local.checked_sub(shift)
    } else {
        local.checked_add(shift)
    }
}

#[cfg(test)]
mod tests {
    use super::started_ns;

    #[test]
    fn times_have_offsets() {
        let noon = started_ns("2026-11-25T12:00:00.250Z").unwrap();
        assert_eq!(started_ns("2026-11-25T13:00:00.250+01:00"), Some(noon));
        assert_eq!(started_ns("2026-11-25T06:30:00.250-05:30"), Some(noon));
        assert_eq!(started_ns("25 November"), None);
    }
}
