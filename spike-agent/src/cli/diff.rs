//! `spike diff`: what is different on the map between two times.

use std::fmt::Write as _;

use anyhow::Result;
use clap::Args;

use super::{
    client::Client,
    human::{micros, percent, rate},
    map::{group_name, query},
    output::{print, print_json},
};
use crate::model::view::{ChangeView, Changed, DiffView, Group, LinkView, NodeView};

#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    #[command(flatten)]
    client: Client,
    /// When the first stretch of time ends: `1h-ago`, or RFC 3339
    #[arg(value_name = "BEFORE")]
    before: String,
    /// When the second one ends
    #[arg(value_name = "AFTER", default_value = "now")]
    after: String,
    /// How long both are
    #[arg(long, value_name = "TIME", default_value = "5m")]
    length: String,
    /// What the nodes are
    #[arg(long, value_enum, default_value_t)]
    group: Group,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(group_name(*self))
    }
}

pub(super) async fn run(args: DiffArgs) -> Result<()> {
    let path = format!(
        "/v1/map/diff{}",
        query(&[
            ("before", Some(&args.before)),
            ("after", Some(&args.after)),
            ("length", Some(&args.length)),
            ("group", Some(group_name(args.group))),
        ])
    );
    let diff: DiffView = args.client.get(&path).await?;
    if args.json {
        return print_json(&diff);
    }
    print(report(&diff))
}

fn report(diff: &DiffView) -> String {
    let mut text = String::new();
    for (name, stretch) in [("before", &diff.before), ("after", &diff.after)] {
        // Writing to a string cannot fail.
        _ = writeln!(
            text,
            "{name:<6}  {} to {}, {} calls",
            stretch.from.get(..19).unwrap_or(&stretch.from),
            stretch.to.get(..19).unwrap_or(&stretch.to),
            stretch.calls
        );
    }
    let nodes = |nodes: &[NodeView]| nodes.iter().map(|node| node.id.clone()).collect::<Vec<_>>();
    let links = |links: &[LinkView]| {
        let line = |link: &LinkView| {
            format!(
                "{} -> {} ({}, {})",
                link.from,
                link.to,
                link.protocol,
                rate(link.rate)
            )
        };
        links.iter().map(line).collect::<Vec<_>>()
    };
    let lines: Vec<(&str, Vec<String>)> = vec![
        ("+ service", nodes(&diff.new_services)),
        ("- service", nodes(&diff.gone_services)),
        ("+ edge", links(&diff.new_edges)),
        ("- edge", links(&diff.gone_edges)),
        ("~", diff.changes.iter().map(change).collect()),
    ];
    let mut is_same = true;
    for (mark, lines) in lines {
        for line in lines {
            is_same = false;
            let line = line.replace(|letter: char| letter.is_control(), "?");
            _ = writeln!(text, "{mark} {line}");
        }
    }
    let besides = if is_same {
        "nothing is different beyond noise; "
    } else {
        ""
    };
    _ = writeln!(text, "{besides}{} edges as before", diff.same);
    text
}

fn change(change: &ChangeView) -> String {
    let (name, before, after) = match change.what {
        Changed::Rate => ("rate", rate(change.before), rate(change.after)),
        Changed::Errors => ("errors", percent(change.before), percent(change.after)),
        Changed::P50 => ("p50", micros(change.before as u64), micros(change.after as u64)),
        Changed::P99 => ("p99", micros(change.before as u64), micros(change.after as u64)),
    };
    format!(
        "{} -> {} ({}) {name} {before} -> {after}",
        change.from, change.to, change.protocol
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_is_a_line() {
        let diff = DiffView {
            new_services: vec![NodeView {
                id: "mail".to_owned(),
                ..NodeView::default()
            }],
            changes: vec![ChangeView {
                from: "web".to_owned(),
                to: "cart".to_owned(),
                protocol: "http".to_owned(),
                what: Changed::P99,
                before: 1_000.0,
                after: 20_000.0,
                beyond_noise: 3.0,
            }],
            same: 4,
            ..DiffView::default()
        };
        let text = report(&diff);
        assert!(
            text.ends_with("+ service mail\n~ web -> cart (http) p99 1.00ms -> 20.0ms\n4 edges as before\n"),
            "{text}"
        );
        assert!(report(&DiffView::default()).contains("nothing is different"));
    }
}
