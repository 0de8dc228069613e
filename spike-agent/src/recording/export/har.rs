//! HTTP calls as an HTTP archive (HAR 1.2, <http://www.softwareishard.com/blog/har-12-spec/>).

use std::{
    io::Write,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::{CallFilter, ExportError, Reader, Written, by_id};
use crate::recording::{
    ConnectionRow, NewCall,
    http::{Exchange, Request, Response, header},
};

/// HTTP calls, one after the other.
///
/// # Errors
/// When the recording cannot be read or the archive not written.
pub fn har(reader: &Reader, out: &mut dyn Write) -> Result<Written, ExportError> {
    let connections = by_id(reader)?;
    let creator = json!({"name": "Spike", "version": env!("CARGO_PKG_VERSION")});
    // An entry at a time, since a body may be large.
    write!(
        out,
        "{{\"log\":{{\"version\":\"1.2\",\"creator\":{creator},\"pages\":[],\"entries\":["
    )?;
    let mut written = Written::default();
    reader.each_call(&CallFilter::default(), |row| {
        let connection = connections.get(&row.call.connection);
        let exchange = Exchange::read(reader, &row.call)?;
        let Some((exchange, connection)) = exchange.zip(connection) else {
            written.left_out += 1;
            return Ok::<_, ExportError>(());
        };
        let comma = if written.calls == 0 { "" } else { "," };
        let entry = entry(reader.about().started_unix_ns, &row.call, connection, &exchange);
        write!(out, "{comma}\n{entry}")?;
        written.calls += 1;
        Ok(())
    })?;
    writeln!(out, "\n]}}}}")?;
    Ok(written)
}

fn entry(started_unix_ns: u64, call: &NewCall, connection: &ConnectionRow, exchange: &Exchange) -> Value {
    let millis = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e6;
    let started = SystemTime::UNIX_EPOCH + Duration::from_nanos(started_unix_ns + call.started_ns);
    let sent = call.sent_ns.unwrap_or(call.started_ns);
    let first = call.first_byte_ns.unwrap_or(call.ended_ns);
    let (send, wait, receive) = (
        millis(call.started_ns, sent),
        millis(sent, first),
        millis(first.max(sent), call.ended_ns),
    );
    let opened = &connection.opened;
    let address = opened
        .server
        .rsplit_once(':')
        .map_or(&*opened.server, |(address, _)| address);
    json!({
        "startedDateTime": humantime::format_rfc3339_millis(started).to_string(),
        "time": send + wait + receive,
        "request": request(&exchange.request, &exchange.url(connection)),
        "response": response(exchange.response.as_ref()),
        "cache": {},
        "timings": {"blocked": -1, "dns": -1, "connect": -1, "ssl": -1, "send": send, "wait": wait, "receive": receive},
        "serverIPAddress": address.trim_start_matches('[').trim_end_matches(']'),
        "connection": call.connection.to_string(),
        "comment": format!("{} -> {}", opened.caller, opened.callee),
    })
}

fn request(request: &Request, url: &str) -> Value {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let decoded = |text: &str| {
        percent_encoding::percent_decode_str(text)
            .decode_utf8_lossy()
            .into_owned()
    };
    let pairs = pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        json!({"name": decoded(name), "value": decoded(value)})
    });
    let mut map = Map::new();
    map.insert("method".to_owned(), json!(request.method));
    map.insert("url".to_owned(), json!(url));
    map.insert("httpVersion".to_owned(), json!(request.version));
    map.insert("cookies".to_owned(), cookies(header(&request.headers, "cookie")));
    map.insert("headers".to_owned(), headers(&request.headers));
    map.insert("queryString".to_owned(), pairs.collect());
    map.insert("headersSize".to_owned(), json!(request.head_bytes));
    map.insert("bodySize".to_owned(), json!(request.body.len()));
    if !request.body.is_empty() {
        let media_type = header(&request.headers, "content-type").unwrap_or("");
        let text = match str::from_utf8(&request.body) {
            Ok(text) => json!({"mimeType": media_type, "text": text, "params": []}),
            // The format has no coding here; the custom field is as other tools write it.
            Err(_) => {
                json!({"mimeType": media_type, "text": STANDARD.encode(&request.body), "params": [], "_encoding": "base64"})
            }
        };
        map.insert("postData".to_owned(), text);
    }
    Value::Object(map)
}

fn response(response: Option<&Response>) -> Value {
    let Some(response) = response else {
        // As browsers write a request that failed.
        return json!({
            "status": 0, "statusText": "", "httpVersion": "", "cookies": [], "headers": [],
            "content": {"size": 0, "mimeType": "x-unknown"}, "redirectURL": "", "headersSize": -1, "bodySize": -1,
        });
    };
    let media_type = header(&response.headers, "content-type").unwrap_or("x-unknown");
    let mut content = json!({"size": response.body.len(), "mimeType": media_type});
    match str::from_utf8(&response.body) {
        Ok("") => {}
        Ok(text) => content["text"] = json!(text),
        Err(_) => {
            content["text"] = json!(STANDARD.encode(&response.body));
            content["encoding"] = json!("base64");
        }
    }
    json!({
        "status": response.status,
        "statusText": response.reason,
        "httpVersion": response.version,
        "cookies": cookies(header(&response.headers, "set-cookie")),
        "headers": headers(&response.headers),
        "content": content,
        "redirectURL": header(&response.headers, "location").unwrap_or(""),
        "headersSize": response.head_bytes,
        "bodySize": response.body.len(),
    })
}

fn headers(fields: &[(String, String)]) -> Value {
    let field = |(name, value): &(String, String)| json!({"name": name, "value": value});
    // `:path` and the like stand elsewhere.
    let named = fields.iter().filter(|(name, _)| !name.starts_with(':'));
    named.map(field).collect()
}

/// The first of a `Set-Cookie`, or all of a `Cookie`.
fn cookies(value: Option<&str>) -> Value {
    const ATTRIBUTES: [&str; 7] = [
        "path", "domain", "expires", "max-age", "samesite", "secure", "httponly",
    ];
    let pairs = value
        .unwrap_or_default()
        .split(';')
        .filter_map(|pair| pair.split_once('='));
    let pairs = pairs.map(|(name, value)| (name.trim(), value.trim()));
    pairs
        .filter(|(name, _)| {
            !ATTRIBUTES
                .iter()
                .any(|attribute| name.eq_ignore_ascii_case(attribute))
        })
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect()
}
