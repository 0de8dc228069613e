//! `spike analyze`: what is wrong with the architecture.

use std::fmt::Write as _;

use anyhow::Result;
use clap::Args;

use super::{
    client::Client,
    human::micros,
    map::{Stretch, query},
    output::{print, print_json},
};
use crate::model::{
    human::percent,
    view::{AnalysisView, FindingView, Severity, WithoutView},
};

#[derive(Debug, Args)]
pub(super) struct AnalyzeArgs {
    #[command(flatten)]
    client: Client,
    #[command(flatten)]
    stretch: Stretch,
    /// Think this service away: who would be cut off, whose work might fail?
    #[arg(long, value_name = "SERVICE")]
    without: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: AnalyzeArgs) -> Result<()> {
    let path = format!(
        "/v1/map/analysis{}",
        query(&[
            ("at", args.stretch.at.as_deref()),
            ("since", args.stretch.since.as_deref()),
            ("without", args.without.as_deref()),
        ])
    );
    let analysis: AnalysisView = args.client.get(&path).await?;
    if args.json {
        return print_json(&analysis);
    }
    print(report(&analysis))
}

fn report(analysis: &AnalysisView) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    if let Some(without) = &analysis.without {
        text += &what_if(without);
        return text;
    }
    _ = writeln!(
        text,
        "{} services, {} edges, {} decoded calls, {} to {}: {}",
        analysis.services,
        analysis.edges,
        analysis.calls,
        analysis.from.get(..19).unwrap_or(&analysis.from),
        analysis.to.get(11..19).unwrap_or(&analysis.to),
        match analysis.findings.len() {
            0 => "nothing found".to_owned(),
            1 => "1 finding".to_owned(),
            more => format!("{more} findings"),
        }
    );
    for finding in &analysis.findings {
        text += &one(finding);
    }
    text
}

fn one(finding: &FindingView) -> String {
    let severity = match finding.severity {
        Severity::High => "HIGH",
        Severity::Medium => "medium",
        Severity::Low => "low",
    };
    let numbers: Vec<String> = finding
        .numbers
        .iter()
        .map(|(name, number)| match name.strip_suffix("_us") {
            Some(name) => format!("{} {}", name.replace('_', " "), micros(*number as u64)),
            None => format!("{} {number}", name.replace('_', " ")),
        })
        .collect();
    let mut text = format!("\n{severity}: {}\n", clean(&finding.title));
    for (head, line) in [
        ("numbers", numbers.join(", ")),
        ("why", finding.why.clone()),
        ("try", finding.advice.clone()),
        ("test", finding.test.clone()),
    ] {
        if !line.is_empty() {
            _ = writeln!(text, "  {head:<8} {}", clean(&line));
        }
    }
    text
}

fn what_if(without: &WithoutView) -> String {
    let mut text = format!("without {}:\n", clean(&without.service));
    let list = |names: Vec<String>| {
        if names.is_empty() {
            "nobody".to_owned()
        } else {
            clean(&names.join(", "))
        }
    };
    _ = writeln!(text, "  cut off   {}", list(without.cut_off.clone()));
    let affected = without.affected.iter().map(|affected| match affected.distance {
        1 => affected.service.clone(),
        distance => format!("{} (over {distance} calls)", affected.service),
    });
    _ = writeln!(text, "  may fail  {}", list(affected.collect()));
    _ = writeln!(
        text,
        "  calls     {} of all are to or from these",
        percent(without.calls_percent)
    );
    if !without.test.is_empty() {
        _ = writeln!(text, "  test      {}", clean(&without.test));
    }
    text
}

/// What comes from the network has no control over the terminal.
fn clean(text: &str) -> String {
    text.replace(|letter: char| letter.is_control(), "?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::view::{AffectedView, FindingKind};

    #[test]
    fn a_finding_says_all_that_it_has() {
        let analysis = AnalysisView {
            services: 3,
            findings: vec![FindingView {
                kind: FindingKind::Cycle,
                severity: Severity::High,
                title: "a -> b -> a\u{1b} is a ring".to_owned(),
                numbers: [("p99_us".to_owned(), 1500.0), ("services".to_owned(), 2.0)].into(),
                why: "because".to_owned(),
                advice: "do".to_owned(),
                ..FindingView::default()
            }],
            ..AnalysisView::default()
        };
        let text = report(&analysis);
        assert!(
            text.contains("1 finding\n\nHIGH: a -> b -> a? is a ring\n"),
            "{text}"
        );
        assert!(
            text.contains("  numbers  p99 1.50ms, services 2\n  why      because\n  try      do\n"),
            "{text}"
        );
        assert!(!text.contains("test"), "{text}");
    }

    #[test]
    fn what_if_is_short() {
        let analysis = AnalysisView {
            without: Some(WithoutView {
                service: "redis".to_owned(),
                affected: vec![
                    AffectedView {
                        service: "cart".to_owned(),
                        distance: 1,
                    },
                    AffectedView {
                        service: "web".to_owned(),
                        distance: 2,
                    },
                ],
                calls_percent: 40.0,
                ..WithoutView::default()
            }),
            ..AnalysisView::default()
        };
        let text = report(&analysis);
        assert!(
            text.contains("cut off   nobody") && text.contains("cart, web (over 2 calls)"),
            "{text}"
        );
    }
}
