//! What is in a recording: its calls, one call with its bytes, the calls that have a pattern.

use std::{
    collections::HashMap,
    io::{Write as _, stdout},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use regex::bytes::{Regex, RegexBuilder};

use crate::cli::{
    human,
    output::{note, print, print_json},
    table::{Column, Table},
};
use crate::recording::{CallFilter, CallRow, ConnectionRow, Reader, export};

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// A recording, also one that still grows
    file: PathBuf,
    /// Show the connections
    #[arg(long, conflicts_with = "call")]
    connections: bool,
    /// Show what is missing and why
    #[arg(long, conflicts_with_all = ["call", "connections"])]
    losses: bool,
    /// Show the request and the response of this call, as they passed
    #[arg(long, value_name = "ID")]
    call: Option<i64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct GrepArgs {
    /// A regular expression
    pattern: String,
    /// A recording
    file: PathBuf,
    /// Do not tell capitals from small letters
    #[arg(long, short)]
    ignore_case: bool,
    /// Print a JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn show(args: &ShowArgs) -> Result<()> {
    let reader = Reader::open(&args.file)?;
    if let Some(id) = args.call {
        return one(&reader, id, args.json);
    }
    if args.losses {
        let losses = reader.losses()?;
        if args.json {
            return print_json(&losses);
        }
        let mut table = Table::new([
            Column::Number("CONNECTION"),
            Column::Number("TIMES"),
            Column::Number("SIZE"),
            Column::Text("WHY"),
        ]);
        for loss in losses {
            let connection = loss.connection.map(|id| id.to_string()).unwrap_or_default();
            table.row([
                connection,
                loss.count.to_string(),
                human::bytes(loss.bytes),
                loss.why,
            ]);
        }
        return print(table);
    }
    let connections = reader.connections()?;
    if args.connections {
        return show_connections(&reader, &connections, args.json);
    }
    if args.json {
        export::jsonl(&reader, &mut stdout().lock())?;
        return Ok(());
    }
    let by_id: HashMap<i64, &ConnectionRow> = connections.iter().map(|row| (row.id, row)).collect();
    let mut table = Table::new([
        Column::Number("CALL"),
        Column::Number("AT"),
        Column::Text("CALLER"),
        Column::Text("CALLEE"),
        Column::Text("PROTOCOL"),
        Column::Text("OPERATION"),
        Column::Text("TARGET"),
        Column::Text("STATUS"),
        Column::Number("TOTAL"),
        Column::Number("REQUEST"),
        Column::Number("RESPONSE"),
    ]);
    let mut calls = 0_u64;
    reader.each_call(&CallFilter::default(), |row| {
        calls += 1;
        table.row(cells(&row, by_id.get(&row.call.connection).copied()));
        Ok::<_, anyhow::Error>(())
    })?;
    print(table)?;
    note(summary(&reader, calls, &connections)?);
    Ok(())
}

fn summary(reader: &Reader, calls: u64, connections: &[ConnectionRow]) -> Result<String> {
    let about = reader.about();
    let began = SystemTime::UNIX_EPOCH + Duration::from_nanos(about.started_unix_ns);
    let mut text = format!(
        "{calls} calls in {} connections, from {} on {}",
        connections.len(),
        humantime::format_rfc3339_seconds(began),
        about.host
    );
    if about.ended_unix_ns.is_none() {
        text += "; it runs, or the agent was killed";
    }
    if about.redaction.is_empty() {
        text += "; secrets are readable";
    }
    let lost: u64 = reader.losses()?.iter().map(|loss| loss.bytes).sum();
    if lost > 0 {
        text += &format!("; {} are missing, see --losses", human::bytes(lost));
    }
    Ok(text)
}

fn cells(row: &CallRow, connection: Option<&ConnectionRow>) -> [String; 11] {
    let call = &row.call;
    let ends = connection.map(|row| (&row.opened.caller, &row.opened.callee));
    let (caller, callee) = ends.map(|(a, b)| (a.clone(), b.clone())).unwrap_or_default();
    let length = |range: &std::ops::Range<u64>| human::bytes(range.end - range.start);
    [
        row.id.to_string(),
        human::micros(call.started_ns / 1000),
        caller,
        callee,
        call.protocol.clone(),
        call.operation.clone(),
        call.target.clone(),
        call.status.clone().unwrap_or_default(),
        human::micros(call.ended_ns.saturating_sub(call.started_ns) / 1000),
        length(&call.request_at),
        call.response_at.as_ref().map(length).unwrap_or_default(),
    ]
}

fn show_connections(reader: &Reader, connections: &[ConnectionRow], json: bool) -> Result<()> {
    if json {
        let rows = connections.iter().map(|row| {
            serde_json::json!({
                "id": row.id, "protocol": row.protocol, "opened": row.opened, "closed_ns": row.closed_ns,
                "ended": row.ended, "client_bytes": row.sent[0], "server_bytes": row.sent[1],
            })
        });
        return print_json(&rows.collect::<Vec<_>>());
    }
    let mut table = Table::new([
        Column::Number("ID"),
        Column::Number("AT"),
        Column::Text("CALLER"),
        Column::Text("CALLEE"),
        Column::Text("SERVER"),
        Column::Text("PROTOCOL"),
        Column::Text("ENDED"),
        Column::Number("SENT"),
        Column::Number("RECEIVED"),
    ]);
    for row in connections {
        let ended = serde_json::to_value(row.ended)?;
        table.row([
            row.id.to_string(),
            human::micros(row.opened.opened_ns / 1000),
            row.opened.caller.clone(),
            row.opened.callee.clone(),
            row.opened.server.clone(),
            row.protocol.clone().unwrap_or_default(),
            ended.as_str().unwrap_or_default().to_owned(),
            human::bytes(row.sent[0]),
            human::bytes(row.sent[1]),
        ]);
    }
    print(table)?;
    let names = reader.names()?;
    if !names.is_empty() {
        let names: Vec<String> = names
            .iter()
            .map(|row| format!("{} {}", row.name, row.answer))
            .collect();
        note(format_args!("names: {}", names.join(", ")));
    }
    Ok(())
}

fn one(reader: &Reader, id: i64, json: bool) -> Result<()> {
    let row = reader
        .call(id)?
        .with_context(|| format!("there is no call {id}"))?;
    if json {
        let connections = reader.connections()?;
        let connection = connections.iter().find(|other| other.id == row.call.connection);
        return print_json(&export::value(&row, connection));
    }
    let mut out = stdout().lock();
    for bytes in [
        reader.request_bytes(&row.call)?,
        reader.response_bytes(&row.call)?,
    ] {
        out.write_all(&bytes)?;
        if !bytes.ends_with(b"\n") {
            out.write_all(b"\n")?;
        }
    }
    Ok(out.flush()?)
}

/// Status 1 when nothing is found, as grep has it.
pub(super) fn grep(args: &GrepArgs) -> Result<ExitCode> {
    let pattern = RegexBuilder::new(&args.pattern)
        .case_insensitive(args.ignore_case)
        .build();
    let pattern = match pattern {
        Ok(pattern) => pattern,
        Err(error) => bail!("{}: {error}", args.pattern),
    };
    let reader = Reader::open(&args.file)?;
    let connections = reader.connections()?;
    let by_id: HashMap<i64, &ConnectionRow> = connections.iter().map(|row| (row.id, row)).collect();
    let mut found = 0_u64;
    let mut out = stdout().lock();
    reader.each_call(&CallFilter::default(), |row| {
        let Some(shown) = matching(&reader, &row, &pattern)? else {
            return Ok(());
        };
        found += 1;
        let connection = by_id.get(&row.call.connection).copied();
        if args.json {
            writeln!(out, "{}", export::value(&row, connection))?;
        } else {
            let call = &row.call;
            let [id, at, caller, callee, ..] = cells(&row, connection);
            writeln!(
                out,
                "{id}: {at} {caller} -> {callee} {} {} {} {}: {shown}",
                call.protocol,
                call.operation,
                call.target,
                call.status.as_deref().unwrap_or("-"),
            )?;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    out.flush()?;
    Ok(ExitCode::from(u8::from(found == 0)))
}

/// The line in which the pattern is, shortened and without control characters.
fn matching(reader: &Reader, row: &CallRow, pattern: &Regex) -> Result<Option<String>> {
    let fields = [row.call.request.to_string(), row.call.response.to_string()];
    let sources = [
        reader.request_bytes(&row.call)?,
        reader.response_bytes(&row.call)?,
        // Of bodies that are coded, or in protocols that are not text.
        fields[0].clone().into_bytes(),
        fields[1].clone().into_bytes(),
    ];
    for bytes in &sources {
        if let Some(hit) = pattern.find(bytes) {
            let from = bytes[..hit.start()].iter().rposition(|byte| *byte == b'\n');
            let from = from.map_or(0, |at| at + 1).max(hit.start().saturating_sub(60));
            let end = bytes[hit.end()..].iter().position(|byte| *byte == b'\n');
            let end = end.map_or(bytes.len(), |at| hit.end() + at).min(hit.end() + 60);
            let text = String::from_utf8_lossy(&bytes[from..end]);
            let is_shown = |c: &char| !c.is_control();
            return Ok(Some(text.chars().filter(is_shown).collect()));
        }
    }
    Ok(None)
}
