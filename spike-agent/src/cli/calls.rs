//! `spike calls`: a line for each call, like an access log of every service.

use std::{io::Write as _, time::Duration};

use anyhow::{Context, Result};
use clap::Args;
use http_body_util::BodyExt;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};

use super::{
    client::Client,
    human::{bytes, micros},
    output::note,
};
use crate::model::{units::parse_duration, view::CallView};

#[derive(Debug, Args)]
pub(super) struct CallsArgs {
    #[command(flatten)]
    client: Client,
    /// Go on until Ctrl-C; without it for a second
    #[arg(long, short, conflicts_with = "for_")]
    follow: bool,
    /// How long to look, such as 10s
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration, default_value = "1s")]
    for_: Duration,
    /// Only calls of which this is true, such as `protocol=redis and (failed or total>100ms)`
    ///
    /// Text: caller, callee, service (either), protocol, operation, target, status, edge, trace; compared by = and != with
    /// a pattern. Times: total, first_byte. Sizes: request, response. True or false: failed, complete. Joined by `and`,
    /// `or`, `not` and parentheses.
    #[arg(long, value_name = "CONDITION")]
    find: Option<String>,
    /// Print a JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: CallsArgs) -> Result<()> {
    let reading = read(&args);
    if args.follow {
        tokio::select! {
            done = reading => done,
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    } else {
        tokio::time::timeout(args.for_, reading).await.unwrap_or(Ok(()))
    }
}

async fn read(args: &CallsArgs) -> Result<()> {
    let path = match &args.find {
        Some(find) => format!(
            "/v1/calls?find={}",
            percent_encode(find.as_bytes(), NON_ALPHANUMERIC)
        ),
        None => "/v1/calls".to_owned(),
    };
    let mut body = args.client.stream(&path).await?;
    let mut events = Events::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| args.client.went_away(error))?;
        let Ok(data) = frame.into_data() else { continue };
        let mut out = std::io::stdout().lock();
        for (name, data) in events.read(&data) {
            match name.as_str() {
                "call" if args.json => writeln!(out, "{data}")?,
                "call" => {
                    let call = serde_json::from_str(&data).context("read a call")?;
                    writeln!(out, "{}", line(&call))?;
                }
                "missed" => note(format_args!(
                    "{data} calls were not shown: this reader is too slow"
                )),
                _ => {}
            }
        }
        out.flush()?;
    }
    Err(args.client.went_away("it ended").into())
}

/// A call in one line.
pub(super) fn line(call: &CallView) -> String {
    let time = call.at.get(11..23).unwrap_or(&call.at);
    let what = format!("{} {}", call.operation, call.target);
    let status = call.status.as_deref().unwrap_or("-");
    let mark = match (call.failed, call.complete) {
        (true, _) => " FAILED",
        (false, false) => " cut",
        (false, true) => "",
    };
    let first = call.first_byte_us.map_or_else(|| "-".to_owned(), micros);
    format!(
        "{time} {} -> {} {} {} {status}{mark} {first} {} {}/{}",
        call.caller,
        call.callee,
        call.protocol,
        what.trim_end(),
        micros(call.total_us),
        bytes(call.request_bytes),
        bytes(call.response_bytes),
    )
}

/// Server-sent events (WHATWG HTML, section 9.2), as far as the agent sends them: `event:` and one line of `data:`.
#[derive(Default)]
pub(super) struct Events {
    rest: Vec<u8>,
    name: String,
    data: String,
}

impl Events {
    /// The events that `bytes` complete.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Vec<(String, String)> {
        self.rest.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\r', '\n']);
            if line.is_empty() {
                let event = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
                if !event.1.is_empty() {
                    events.push(event);
                }
            } else if let Some(name) = line.strip_prefix("event:") {
                self.name = name.trim_start().to_owned();
            } else if let Some(data) = line.strip_prefix("data:") {
                self.data = data.trim_start().to_owned();
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_they_are_cut() {
        let text = b": keep-alive\n\nevent: call\ndata: {\"a\":1}\n\nevent: missed\ndata: 7\n\n";
        for size in 1..text.len() {
            let mut events = Events::default();
            let all: Vec<_> = text.chunks(size).flat_map(|piece| events.read(piece)).collect();
            let expected = [("call", "{\"a\":1}"), ("missed", "7")];
            let expected = expected.map(|(name, data)| (name.to_owned(), data.to_owned()));
            assert_eq!(all, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_call_is_a_line() {
        let call = CallView {
            at: "2026-01-02T03:04:05.678901Z".to_owned(),
            caller: "curl".to_owned(),
            callee: "nginx:80".to_owned(),
            protocol: "http".to_owned(),
            operation: "GET".to_owned(),
            target: "/users/{id}".to_owned(),
            status: Some("503".to_owned()),
            failed: true,
            complete: true,
            first_byte_us: Some(1500),
            total_us: 2000,
            request_bytes: 80,
            response_bytes: 2048,
            ..CallView::default()
        };
        let line = line(&call);
        assert!(
            line.starts_with("03:04:05.678 curl -> nginx:80 http GET /users/{id} 503 FAILED "),
            "{line}"
        );
    }
}
