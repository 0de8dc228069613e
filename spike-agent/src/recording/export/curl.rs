//! HTTP calls as commands of curl.

use std::io::Write;

use super::{CallFilter, ExportError, Reader, Written, by_id};
use crate::recording::http::Exchange;

/// Headers that curl makes by itself.
const OWN: [&str; 4] = ["host", "content-length", "connection", "transfer-encoding"];

/// HTTP calls, a command a line.
///
/// # Errors
/// When the recording cannot be read or the commands not written.
pub fn curl(reader: &Reader, out: &mut dyn Write) -> Result<Written, ExportError> {
    let connections = by_id(reader)?;
    let mut written = Written::default();
    reader.each_call(&CallFilter::default(), |row| {
        let connection = connections.get(&row.call.connection);
        let Some((exchange, connection)) = Exchange::read(reader, &row.call)?.zip(connection) else {
            written.left_out += 1;
            return Ok::<_, ExportError>(());
        };
        written.calls += 1;
        let request = &exchange.request;
        let mut words = vec!["curl".to_owned(), "--globoff".to_owned()];
        match &*request.method {
            "GET" if request.body.is_empty() => {}
            "HEAD" => words.push("--head".to_owned()),
            method => words.extend(["--request".to_owned(), method.to_owned()]),
        }
        for (name, value) in &request.headers {
            // `:path` and the like are in the URL.
            if !name.starts_with(':') && !OWN.iter().any(|own| name.eq_ignore_ascii_case(own)) {
                words.extend(["--header".to_owned(), format!("{name}: {value}")]);
            }
        }
        if !request.body.is_empty() {
            let body = match str::from_utf8(&request.body) {
                Ok(text) if !text.contains('\0') => quoted(text),
                // As bash reads it.
                _ => format!(
                    "$'{}'",
                    request
                        .body
                        .iter()
                        .map(|byte| format!("\\x{byte:02x}"))
                        .collect::<String>()
                ),
            };
            let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
            let url = quoted(&exchange.url(connection));
            writeln!(out, "{} --data-binary {body} {url}", words.join(" "))?;
            return Ok(());
        }
        words.push(exchange.url(connection));
        let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        writeln!(out, "{}", words.join(" "))?;
        Ok(())
    })?;
    Ok(written)
}

/// As a shell reads it.
fn quoted(word: &str) -> String {
    shlex::try_quote(word).map_or_else(|_| String::from("''"), std::borrow::Cow::into_owned)
}
