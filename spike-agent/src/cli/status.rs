//! `spike status`: how the agent is doing.

use std::fmt::Write as _;

use anyhow::Result;
use clap::Args;

use super::{
    client::Client,
    human::millis_left,
    output::{print, print_json},
    table::{Column, Table},
};
use crate::model::view::{NamespaceState, Status};

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    client: Client,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: StatusArgs) -> Result<()> {
    let status: Status = args.client.get("/v1/status").await?;
    if args.json {
        print_json(&status)
    } else {
        print(describe(&status))
    }
}

fn describe(status: &Status) -> String {
    let up = millis_left(status.uptime_ms);
    let armed = if status.intercept.armed { "armed" } else { "idle" };
    let mut text = format!(
        "agent      version {}, pid {}, up {up}\n\
         kernel     {}\n\
         cgroup     {}\n\
         hooks      {}\n\
         edges      {}\n\
         faults     {}\n\
         captures   {}\n\
         recordings {}\n\
         stubs      {}\n\
         decoding   {} % of connections, {} segments; {} % of a core used, {} % allowed\n\
         intercept  {armed}\n",
        status.version,
        status.pid,
        status.kernel_release,
        status.cgroup,
        status.hooks.join(" "),
        status.edges,
        status.faults,
        status.captures,
        status.recordings,
        status.stubs,
        status.decoding.sampled_percent,
        status.decoding.segments,
        status.decoding.used_percent,
        status.decoding.budget_percent,
    );
    if let Some(reason) = &status.intercept.not_held {
        let _ = writeln!(
            text,
            "           callers are connected before the server has answered: {reason}"
        );
    }
    if status.decoding.not_followed > 0 {
        let _ = writeln!(
            text,
            "           {} segments passed over: too many connections at once",
            status.decoding.not_followed
        );
    }
    if let Some(otlp) = &status.otlp {
        let _ = writeln!(
            text,
            "otlp       {}: {} points and {} spans sent, {} and {} dropped, {} spans waiting",
            otlp.url,
            otlp.points_sent,
            otlp.spans_sent,
            otlp.points_dropped,
            otlp.spans_dropped,
            otlp.waiting,
        );
        if let Some(error) = &otlp.error {
            let _ = writeln!(text, "           {error}");
        }
    }
    if !status.intercept.namespaces.is_empty() {
        let mut table = Table::new([
            Column::Text("NAMESPACE"),
            Column::Text("NAME"),
            Column::Text("STATE"),
            Column::Text("DETAIL"),
        ]);
        for namespace in &status.intercept.namespaces {
            let state = match namespace.state {
                NamespaceState::Ready => "ready",
                NamespaceState::LoDown => "lo is down, left alone",
                NamespaceState::Unreachable => "unreachable, left alone",
            };
            table.row([
                namespace.inode.to_string(),
                namespace.name.clone().unwrap_or_else(|| "-".to_owned()),
                state.to_owned(),
                namespace.detail.clone().unwrap_or_default(),
            ]);
        }
        let _ = write!(text, "\n{table}");
    }
    if !status.losses.is_empty() {
        let mut table = Table::new([
            Column::Text("LOST OR LET THROUGH"),
            Column::Number("COUNT"),
            Column::Text("WHAT"),
        ]);
        for loss in &status.losses {
            table.row([
                loss.name.clone(),
                loss.count.to_string(),
                loss.description.clone(),
            ]);
        }
        let _ = write!(text, "\n{table}");
    }
    text
}
